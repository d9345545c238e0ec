/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The target's side of the control plane: listeners; connections, each authenticated once; and the
 * sessions on them, one per segment that a client has opened. What goes over them: message.h.
 *
 * Calls marked "loop" belong on the control thread; the callbacks come from there.
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <jansson.h>

#include <sluice/security.h>

#include "control/credentials.h"
#include "control/message.h"
#include "control/thread.h"

/* Each step of a client has its time. */
#define SERVER_HANDSHAKE_SECONDS 5  /* from connecting to hello or attach, TLS included */
#define SERVER_PING_SECONDS      10 /* of silence on a TCP connection, then it is asked */
#define SERVER_SILENCE_SECONDS   20 /* and then it is closed */

#define SERVER_CONNECTIONS_MAX     65536u
#define SERVER_SESSIONS_MAX        65536u /* on one connection */
#define SERVER_UNAUTHENTICATED_MAX 256u   /* at once; the least deserving makes room */

/* Connections that are accepted; more are closed at once. In a second, and in a burst: */
#define SERVER_ACCEPTS_PER_SECOND         1000u /* of all addresses that are not known */
#define SERVER_ACCEPTS_BURST              4000u
#define SERVER_ADDRESS_ACCEPTS_PER_SECOND 100u /* of each of them */
#define SERVER_ADDRESS_ACCEPTS_BURST      1000u
#define SERVER_KNOWN_ACCEPTS_PER_SECOND   5000u /* of each that is */
#define SERVER_KNOWN_ACCEPTS_BURST        20000u
#define SERVER_LOCAL_ACCEPTS_PER_SECOND   50000u /* of loopback, which all share, and of a user */
#define SERVER_LOCAL_ACCEPTS_BURST        50000u
#define SERVER_USER_ACCEPTS_PER_SECOND    10u /* of a user who is not, over Unix sockets */
#define SERVER_USER_ACCEPTS_BURST         20u

#define SERVER_RIGHTLESS_CONNECTIONS_MAX 16u /* of an identity that has no right on anything */

#define SERVER_MESSAGES_PER_SECOND 10000u /* of one connection; more wait */
#define SERVER_OUTPUT_MAX_BYTES    65536u /* not read by a client in time; then it is given up */
#define SERVER_FAILURES_MAX        10u    /* of one address, within SERVER_FAILURES_SECONDS */
#define SERVER_FAILURES_SECONDS    10     /* and for so long the address is refused */

struct budget;
struct budgets;
struct server;
struct listener;
struct stream;
struct tls;

/** The client behind a connection, as the target knows it. */
struct peer_info {
	char identity[SLU_IDENTITY_MAX + 1];
	bool is_unix; /* on this host, descriptors can be passed */
	bool tls;
	bool owner;          /* over a Unix socket, our own user or root */
	uid_t uid;           /* over a Unix socket */
	uint64_t connection; /* never used twice by one server */
	/* Of the identity, from the welcome on; what outlives the connection gets a reference. May
	 * be NULL: without limits. */
	struct budget *budget;
};

/** A client's request for a path, for server_answer_path(). */
struct path_ask {
	uint64_t connection;
	uint32_t session;
	uint64_t request; /* the client's number for it */
};

/** A client's request for the end of a link or connection, for server_answer_fence(). */
struct fence_ask {
	uint64_t connection;
	uint64_t request;
	struct connection_name over; /* the other connection; number 0: it is a link */
};

/** What the callback path returns to answer later. */
#define SERVER_LATER 1

struct server_callbacks {
	/**
	 * What a client is told of our transports with the welcome: an object with one object for
	 * each that has something to say, together at most MESSAGE_TRANSPORTS_MAX_BYTES as text.
	 * May be NULL.
	 *
	 * @return a new reference, the caller's; NULL: nothing
	 */
	json_t *(*describe)(void *arg, const struct peer_info *peer);
	/**
	 * Grant a segment. The answer (length, grant, ...) is put into @p opened.
	 *
	 * @param fds         out: only for a peer that is_unix
	 * @param close_mask  out: those that the caller closes
	 * @param client      out: handed to the calls below
	 * @return            number of fds, or a negative errno with slu_last_error()
	 */
	int (*open)(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		    const json_t *transports, json_t *opened, int fds[MESSAGE_FDS_MAX],
		    uint32_t *close_mask, void **client);
	/**
	 * The client asks for a path to what it was granted; the session stays whatever comes of
	 * it. An answer that cannot be sent is not taken back: what was made for it belongs to the
	 * session and ends with it. NULL: there are none.
	 *
	 * @param ask     to be copied if it is answered later
	 * @param offer   an object, not checked further
	 * @param answer  an object to be filled
	 * @return        0; SERVER_LATER: by server_answer_path(); or a negative errno with
	 *                slu_last_error(), which the client is told
	 */
	int (*path)(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer);
	/** Totals that the client reports. */
	void (*moved)(void *client, uint64_t operations, uint64_t bytes_read,
		      uint64_t bytes_written);
	/** The session is over. @p lost: it ended without a goodbye. */
	void (*close)(void *client, bool lost);
	/**
	 * A data connection of @p peer, for its link @p link, has come, authenticated; the stream
	 * is the callee's now, non-blocking, and so is what was taken for it of the peer's budget:
	 * one SLU_LIMIT_DATA_CONNECTIONS. NULL: data connections are refused.
	 */
	void (*attach)(void *arg, struct stream *stream, const struct peer_info *peer,
		       uint64_t link);
	/** May @p peer do anything at all? If not, it gets few connections. NULL: everybody may. */
	bool (*entitled)(void *arg, const struct peer_info *peer);
	/**
	 * That link is to end: when settle says so, nothing that came over it is carried out any
	 * more. A link that there is not is over. May be NULL.
	 */
	void (*fence)(void *arg, uint64_t connection, uint64_t link);
	/**
	 * The connection has ended: nothing more is served to its client, and what was is over when
	 * settle says so. The sessions are closed after it; if they are many, in runs of which each
	 * is a turn of the loop's. May be NULL.
	 */
	void (*gone)(void *arg, uint64_t connection);
	/**
	 * A client has asked for the end of a link, or of another connection, which has begun. May
	 * be NULL: it is over by now.
	 *
	 * @return 0 it is over; SERVER_LATER: then by server_answer_fence(), unless its connection
	 *         is gone; -ENOMEM with slu_last_error()
	 */
	int (*settle)(void *arg, const struct fence_ask *ask);
};

/** 0: the value above. */
struct server_limits {
	uint32_t connections;
	uint32_t unauthenticated;
	uint32_t accepts_per_second;
	uint32_t accepts_burst;
	uint32_t address_accepts_per_second;
	uint32_t address_accepts_burst;
	uint32_t known_accepts_per_second;
	uint32_t known_accepts_burst;
	uint32_t local_accepts_per_second;
	uint32_t local_accepts_burst;
	uint32_t messages_per_second;
	uint32_t ping_seconds;
	uint32_t silence_seconds;
};

struct server_options {
	struct control_thread *control;
	const struct trust *trust;
	const char *name;
	uint64_t incarnation;
	struct tls *tls; /* a TLS_SERVER, ours to use until the server is destroyed; NULL: none */
	bool tcp_plain;  /* data connections may come without TLS */
	struct server_limits limits;
	struct budgets *budgets; /* limits of each identity; NULL: none. They outlive the server */
	const struct server_callbacks *callbacks;
	void *arg;
};

/** @return 0; -ENOMEM */
int server_create(const struct server_options *options, struct server **server);

/** Ends all sessions (they are lost to their clients) and listeners. Accepts NULL. */
void server_destroy(struct server *server);

/**
 * Listen on an abstract name or on a path; a path that nobody serves any more is taken over.
 *
 * @return 0; -EADDRINUSE another process listens there; -EPERM one of a user whom we don't deal
 *         with; -errno
 */
int server_listen(struct server *server, const struct sockaddr_un *address, socklen_t length,
		  struct listener **listener);

/**
 * Listen on ADDRESS:PORT, with TLS if the server has it; port 0 is a free one.
 *
 * @param insecure  without TLS the address may be one that other hosts reach
 * @return          0; -EINVAL bad address; -EPERM it needs TLS, or insecure; -EADDRINUSE;
 *                  -EADDRNOTAVAIL not an address of this host, or a name that is not known;
 *                  -EACCES a port below 1024; -errno
 */
int server_listen_tcp(struct server *server, const char *address, bool insecure,
		      struct listener **listener);

/** "ADDRESS:PORT" with the port that was chosen, or the path, or "@NAME". Lives with it. */
const char *listener_address(const struct listener *listener);

/** Accepts NULL. Removes a path. */
void server_unlisten(struct server *server, struct listener *listener);

/*
 * The next four go through all sessions, in runs between which the loop serves others. Not on the
 * control thread, where @p which is asked. One at a time: each waits for those before it.
 */

/** Ask the sessions for whose clients @p which is true to leave (-ESHUTDOWN). */
void server_dismiss(struct server *server, bool (*which)(void *client, void *arg), void *arg);

/** Take no new sessions, and ask all to leave. Connections stay for their goodbyes. */
void server_drain(struct server *server);

/** End, without a word, the sessions for whose clients @p which is true. */
void server_drop(struct server *server, bool (*which)(void *client, void *arg), void *arg);

/**
 * End the sessions for whose clients @p which is true; their clients are told @p error.
 *
 * When it returns they are over here, whether or not a client obeys.
 */
void server_revoke(struct server *server, bool (*which)(void *client, void *arg), void *arg,
		   int error);

/**
 * The same, begun by the control thread, which cannot wait for it: it goes on in later turns of the
 * loop, and ends with the server at the latest. Loop.
 *
 * @param which  and @p arg, @p error: the same in each call, since what is asked for while one goes
 *               on is done by another one after it
 */
void server_revoke_soon(struct server *server, bool (*which)(void *client, void *arg), void *arg,
			int error);

/**
 * Answer a request that was to be answered later; a client that has gone meanwhile is not told.
 * Loop.
 *
 * @param error   0; or a negative errno with slu_last_error(), which the client is told
 * @param answer  an object; consumed. NULL with an error
 */
void server_answer_path(struct server *server, const struct path_ask *ask, int error,
			json_t *answer);

/** Control thread: what that request was to end is over; as settle() was told. */
void server_answer_fence(struct server *server, const struct fence_ask *ask);

/**
 * Read the keys and certificates again and end the connections of those who have lost theirs
 * (-EKEYREVOKED). Any thread.
 *
 * @return 0; as tls_reload(), nothing has changed
 */
int server_reload_tls(struct server *server);

/** Sessions present, those included that are ending. Any thread. */
uint32_t server_session_count(const struct server *server);

/** Connections that are authenticated, without data connections. Any thread. */
uint32_t server_connection_count(const struct server *server);

#endif
