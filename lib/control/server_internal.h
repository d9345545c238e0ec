/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the files of the server share: server.c (life, listeners, what the engine asks for),
 * strangers.c (who may connect), descriptors.c (when there are too few), in_flight.c (those that
 * clients have not received), connection.c (a connection from accept to end), greeting.c (hello and
 * attach), sessions.c, links.c (what is asked about data connections).
 *
 * Everything here belongs to the control thread.
 */
#ifndef CONTROL_SERVER_INTERNAL_H
#define CONTROL_SERVER_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "control/boot_id.h"
#include "control/invitation.h"
#include "control/limits.h"
#include "control/loop.h"
#include "control/origins.h"
#include "control/server.h"
#include "control/thread.h"
#include "net/address.h"
#include "net/stream.h"

#define CONNECTION_SLOTS 65536u /* of the table by number; untouched ones cost nothing */

enum connection_state {
	CONNECTION_PEEKED,  /* TCP: does it begin with TLS? */
	CONNECTION_SHAKING, /* TLS handshake */
	CONNECTION_NEW,     /* hello or attach must come */
	CONNECTION_PROVING, /* attach has come, its proof must */
	CONNECTION_OPEN,
	CONNECTION_CLOSING, /* its last words are on their way */
};

struct server_session {
	struct server_session *next; /* of the same hash */
	uint32_t id;
	void *client;
};

/** All of one connection; they may outlive it, for the time that it takes to end them. */
struct sessions {
	uint32_t count;
	uint32_t slot_count;
	uint32_t slot_room;
	struct server_session **slots;
	uint32_t next_slot; /* where a walk goes on */
	bool lost;          /* parted from its connection: how that ended */
	TAILQ_ENTRY(sessions) link;
};

TAILQ_HEAD(sessions_list, sessions);

TAILQ_HEAD(connection_list, connection);

struct connection {
	struct server *server;
	struct watch reading;
	struct watch writing;
	bool held; /* until it has received its descriptors */
	bool said_bye;
	enum connection_state state;
	int version;       /* of the protocol, once open */
	uint32_t messages; /* in the second that is counted */
	uint64_t counted;
	struct stream stream;
	struct message_reader reader;
	struct message_writer writer;
	struct peer_info info;
	union address address;       /* TCP */
	struct in_flight *in_flight; /* descriptors that it has not received; NULL: none */
	struct origin *origin;       /* as a stranger; then NULL */
	bool known;                  /* the origin was, when it came */
	struct data_invitations invitations;
	struct data_claim claim; /* while it proves itself */
	uint64_t since;          /* it is a stranger, or closing; or once open was last heard */

	struct sessions *sessions; /* NULL: it has had none */
	uint64_t walked;           /* the last walk over all connections that has passed it */

	TAILQ_ENTRY(connection) link;
	struct connection_list *timed; /* NULL: nothing is due for it */
	TAILQ_ENTRY(connection) timed_link;
	LIST_ENTRY(connection) by_number; /* once open */
};

TAILQ_HEAD(in_flight_list, in_flight);

struct identity {
	uid_t uid;
	char name[SLU_IDENTITY_MAX + 1];
};

struct server {
	struct server_options options;
	char boot_id[BOOT_ID_BYTES + 1];
	struct identity identities[SLU_ALLOWED_UIDS_MAX + 2];
	uint32_t identity_count;

	struct watch sweep;
	uint64_t seconds; /* sweeps, not the clock: a host that slept has not waited for anybody */
	bool draining;    /* nothing new */
	LIST_HEAD(, listener) listeners;
	struct connection_list strangers; /* not open yet, or refused: the oldest first */
	struct connection_list connections;
	struct connection_list closing; /* were open; their last words are on their way */
	struct connection_list heard;   /* over TCP: those silent for longest first */
	struct connection_list pinged;  /* likewise; they have to answer */
	struct connection_list throttled;
	struct control_task silence; /* looks for those that have been silent for too long */
	bool looks;                  /* it is posted */
	LIST_HEAD(, connection) by_number[CONNECTION_SLOTS];
	uint64_t session_hash;       /* secret: clients choose their sessions' numbers */
	struct sessions_list parted; /* of connections that have ended */
	struct control_task ending;  /* ends them, in runs */
	bool ends;                   /* it is posted */
	uint64_t last_walk;
	struct walk_call *walk; /* over all sessions, that goes on; NULL: none */
	struct revoking *revoking;
	uint32_t stranger_count;
	uint32_t known_strangers; /* of them */
	uint64_t last_connection;
	uint8_t *master; /* of the secrets of all connections; SECRET_BYTES, as secret_alloc() */
	struct rate accepts;
	struct origins origins;
	uint32_t turned_away; /* closed at once, and not told of yet */
	uint32_t turned_away_seconds;
	union address turned_away_last;

	struct in_flight_list in_flight;
	uint32_t held_count; /* connections that wait for their clients to receive */
	uint32_t look_again_us;
	struct watch look_again;

	int descriptor_limit;
	int descriptor_reserve; /* of these, the highest */
	int spare_fd;           /* to accept with and close at once; -1: none */
	bool descriptors_warned;

	_Atomic uint32_t session_count;
	_Atomic uint32_t connection_count;
};

struct listener {
	struct server *server;
	struct watch accepting;
	struct watch resume;
	int fd;
	bool is_tcp;
	bool bound;                  /* a path is ours to remove */
	union address address;       /* with is_tcp */
	char text[ADDRESS_TEXT_MAX]; /* "@NAME", a path, ADDRESS:PORT */
	LIST_ENTRY(listener) link;
};

/* server.c */

/** @return 0; -errno of accept() */
int listener_accept(const struct listener *listener, struct stream *stream, union address *from);

/* connection.c */

/** Take over what was accepted. */
void connection_accept(struct listener *listener, const struct stream *accepted,
		       const union address *address);

/** Nothing is served to it any more, its sessions end (sessions_part()), it is freed. */
void connection_close(struct connection *connection);

/** It is not held any more. */
void connection_resume(struct connection *connection);

/** The same, but what was written last still goes out before the socket is closed. */
void connection_close_politely(struct connection *connection);

/** What is due once a second. */
void connection_sweep(struct server *server);

/** A run of those that have been silent for too long; others follow. Of server.silence. */
void connection_silence(struct control_task *task);

/** Consumes @p message. @return 0; or the connection has to be closed */
int connection_send(struct connection *connection, json_t *message, const int *fds,
		    uint32_t fd_count);

/** Say why, from slu_last_error(). @return @p error */
int connection_refuse(struct connection *connection, int error);

/** "IDENTITY at ADDRESS" for logs. @p text has CONNECTION_TEXT_MAX bytes. */
#define CONNECTION_TEXT_MAX (SLU_IDENTITY_MAX + 8 + ADDRESS_TEXT_MAX)
const char *connection_describe(const struct connection *connection, char *text);

/** Log slu_last_error() as a security event of this connection; a flood of them is cut. */
void connection_suspect(struct connection *connection);

/** It failed to show who it is: also counts against its address. */
void connection_failed(struct connection *connection);

/** Would it be let in now? @return 0; -EKEYREVOKED its key or certificate does not count any more
 */
int connection_still_valid(const struct connection *connection);

/** It is open and not valid any more: log and say so. To be closed. @return @p error */
int connection_disown(struct connection *connection, int error);

/** It said hello: it stays. */
void connection_opened(struct connection *connection);

/** Give its stream away: it is gone afterwards. */
struct stream connection_detach(struct connection *connection);

/** @return NULL: none of that number is open */
struct connection *connection_find(struct server *server, uint64_t number);

/**
 * The secret of the connection that is named so: it can be told after the connection has ended. To
 * be wiped. @return false: out of memory
 */
bool connection_secret(const struct server *server, const struct connection_name *name,
		       uint8_t secret[static SECRET_BYTES]);

/* strangers.c */

/**
 * May a connection that was accepted come in?
 *
 * @param address  with a listener of TCP
 * @return         where it comes from; NULL: it is to be turned away
 */
struct origin *strangers_admit(const struct listener *listener, const struct stream *stream,
			       const union address *address);

/** Close it at once. */
void strangers_turn_away(struct stream *stream);

/** One more; another makes room where there are too many. */
void strangers_add(struct connection *connection, struct origin *origin);

void strangers_remove(struct connection *connection);

/** Close the one who deserves it least, but not @p spared. @return false: there is none */
bool strangers_make_room(struct server *server, const struct connection *spared);

/** What is due once a second. */
void strangers_sweep(struct server *server);

/* in_flight.c */

/**
 * An answer may pass up to MESSAGE_FDS_MAX descriptors: charge them. in_flight_passed() follows.
 *
 * @return 0; -EDQUOT the client receives too slowly; -ENOMEM
 */
int in_flight_expect(struct connection *connection);

/** So many it were, perhaps none. */
void in_flight_passed(struct connection *connection, uint32_t count);

/** Are so many unread that no more is to be read from the client? connection_resume() follows. */
bool in_flight_holds(struct connection *connection);

/** The timer look_again. */
void in_flight_look(struct server *server);

/** The connection ends; what its client has not received stays charged. */
void in_flight_part(struct connection *connection);

/** What is due once a second. */
void in_flight_sweep(struct server *server);

/** The server ends, after all connections. */
void in_flight_forget_all(struct server *server);

/* descriptors.c */

/** How many may there be? At the start, and once a second. */
void descriptors_look(struct server *server);

/** It was accepted: another stranger makes room where descriptors run short. */
void descriptors_spare(struct server *server, struct stream *stream);

/** There is none for a new client. @return false: and there will be none for a while */
bool descriptors_free_one(struct listener *listener);

/**
 * May a stranger's connection stay, now that its identity is known? Another stranger makes room, or
 * another identity.
 *
 * @param budget  where it is charged; may be NULL
 * @return        0; -EMFILE
 */
int descriptors_stay(const struct connection *connection, struct budget *budget);

/** May it be passed descriptors, or are they too few? As above. */
int descriptors_pass(const struct connection *connection);

/* greeting.c */

int greeting_hello(struct connection *connection, const json_t *message);

int greeting_attach(struct connection *connection, const json_t *message);

/** @return 1 the connection has been given away; negative, to be closed */
int greeting_proof(struct connection *connection, const json_t *message);

/* links.c: a message each; a negative result ends the connection */

int links_invite(struct connection *connection, const json_t *message);
int links_fence(struct connection *connection, const json_t *message);
int links_same(struct connection *connection, const json_t *message);

/* sessions.c */

/** Of a server that is being made. */
void sessions_init(struct server *server);

/* A message each; a negative result ends the connection */

int sessions_open(struct connection *connection, const json_t *message);
int sessions_close(struct connection *connection, const json_t *message);
int sessions_path(struct connection *connection, const json_t *message);
int sessions_moved(struct connection *connection, const json_t *message);

/**
 * The connection has ended, and nothing is served to it any more: its sessions end, some at once,
 * and if they are many the rest in runs, between which others have their turns.
 */
void sessions_part(struct connection *connection, bool lost);

/** A run of those that have lost their connections. @return more are left */
bool sessions_end_parted(struct server *server);

/** The client is told that all of them are closing with @p error. */
int sessions_tell_all(struct connection *connection, int error);

typedef bool (*session_which)(void *client, void *arg);

/** What becomes of those for which @p which is true. */
struct sessions_walk {
	session_which which;
	void *arg;
	bool tells; /* the client: closing with error */
	int error;
	bool ends; /* them */
	int left;  /* in: what may be done in this run; out: what of it was not */
};

#define SESSIONS_WALK_RUN 1024

/**
 * Some sessions further through those of a connection, from where the last call ended.
 *
 * @return 1 there are more; 0 these were all; negative, the connection has to be closed
 */
int sessions_walk(struct connection *connection, struct sessions_walk *walk);

#endif
