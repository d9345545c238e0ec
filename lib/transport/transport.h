/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a transport is: three small const tables, filled once.
 *
 *   client  what it costs, what a client makes of a grant (import), paths (connect): may allocate
 *   target  what a client is granted of a segment, and what our pollers do for clients
 *   fast    copy, or post and cancel: the polling core only
 *
 * A path is what connect makes for one (poller, remote), and a link is what carries some of them;
 * see request.h. Order of calls: import, then connect once per poller, and the making of its link
 * (repair.h); copy, post and cancel by that poller, and its link's poll; disconnect per path, then
 * release.
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <jansson.h>

#include <sluice/engine.h>
#include <sluice/queue.h>

#include "base/clock.h"
#include "base/random.h"
#include "memory/copy.h"
#include "memory/region.h"
#include "transport/repair.h"
#include "transport/request.h"

#define TRANSPORT_FDS_MAX 4 /* passed with one published segment */

/** What a polling core may copy before it looks around again: about 20 us from memory to memory. */
#define TRANSPORT_SLICE_MAX_BYTES (UINT64_C(512) << 10)

/** A path that is only tried has a poller of its own, of which no other may take over the link. */
#define TRANSPORT_NO_POLLER SLU_POLLERS_MAX
#define TRANSPORT_POLLERS   (SLU_POLLERS_MAX + 1)

struct budget;
struct buffers;
struct fence_ticket;
struct path;
struct repair;
struct transport;
struct client_inbox;
struct grant;
struct inbox;
struct session;
struct stream;

#define TRANSPORTS (SLU_TRANSPORT_FAKE + 1) /* by number */

static_assert(TRANSPORTS <= REGION_PRIVATES, "each has a slot of a region");

/** What a transport may use of its surroundings; belongs to the engine. */
struct transport_env {
	const struct clock *clock;
	uint64_t seed;
	void *hosts[TRANSPORTS];   /* what transport_host.open made; NULL: nothing */
	void *servers[TRANSPORTS]; /* what transport_target.create made; NULL: nothing */
	struct repair *repair;     /* for links that were lost */
};

/** What one polling core lends to its paths. */
struct path_env {
	const struct transport_env *transport;
	struct copy_tracker *tracker;
	struct schedule *schedule;
	struct buffers *buffers;
	uint32_t poller; /* index */
	int node;        /* of its core; -1 unknown */
	int epoll_fd;    /* descriptors whose readiness ends the poller's sleep */
};

/**
 * What a client and all its pollers know of one target: is there a lost link of ours of which
 * something may still arrive there? Then nothing is posted to that target, over whichever
 * transport, until it has confirmed the link's end: else what was given up could land on what was
 * written, and acknowledged, later. One for the target, at whichever addresses it is reached
 * (control/fences.c).
 */
struct fence {
	_Atomic uint32_t pending; /* links; any thread */
};

/**
 * The far end of a client's control connection, as a transport sees it. All remotes that were
 * opened through one connection share it, and so share the transport's data connections.
 */
struct transport_peer {
	/**
	 * Open @p count data connections of the link that we call @p link, authenticated; blocks.
	 *
	 * @param streams   out: the caller's, non-blocking
	 * @return          0; as slu_remote_open(), and none is open
	 */
	int (*dial)(struct transport_peer *peer, uint64_t link, uint32_t count, uint64_t until_ns,
		    struct stream *streams);
	/**
	 * For a link on which something is to be written, when it is made.
	 *
	 * @return NULL: out of memory; given back by raise or forgo
	 */
	struct fence_ticket *(*ticket)(struct transport_peer *peer, uint64_t link);
	/**
	 * That link has ended, and something that was posted on it may still land: nothing is
	 * posted to the target until it says that it can't. Before that something is reported. Any
	 * thread, never waits.
	 */
	void (*raise)(struct fence_ticket *ticket);
	/** The link has ended with nothing under way. Accepts NULL. */
	void (*forgo)(struct fence_ticket *ticket);
	struct fence *fence; /* lives as long as the peer */
	_Atomic bool lost;   /* the control connection has ended, and all that was opened by it */
	struct repair_lane lanes[TRANSPORTS]; /* by number: where links are made */
	/**
	 * Ask the target for a path on an open session, which its join() answers: as session_ask()
	 * and session_ask_async() (control/client.h).
	 */
	int (*ask)(struct session *session, const json_t *offer, uint64_t until_ns,
		   json_t **answer);
	int (*ask_async)(struct session *session, json_t *offer,
			 void (*answered)(void *arg, int error, const json_t *answer), void *arg);
	const json_t *transports;  /* what the target's say of themselves; NULL: nothing */
	bool encrypted;            /* data connections are */
	void *private[TRANSPORTS]; /* what transport_client.meet made */
};

struct transport_capabilities {
	uint64_t slice_bytes; /* longer operations are cut; at most TRANSPORT_SLICE_MAX_BYTES */
	bool immediate;       /* copies at once; nothing is posted */
	bool atomics;         /* by a CPU (atomic_op.h) */
	uint32_t call_bytes;  /* of a request or an answer */
	uint64_t latency_ns;  /* of a small operation, an order of magnitude */
	uint64_t bytes_per_second; /* of one poller, likewise */
	uint32_t memories;         /* that it moves, a bit for each enum slu_memory */
};

/** A segment as it is exported, a part of a region; constant while a client uses it. */
struct export
{
	struct slu_region *region;
	char *addr; /* of its first byte */
	uint64_t length;
	uint32_t rights;
	struct inbox *inbox; /* where pollers of this engine leave what came in for its owner */
	void *private[TRANSPORTS];
};

/** What both halves need of this host. */
struct transport_host {
	/** @return 0; -EINVAL, -ENODEV what the options ask for; -ENOMEM */
	int (*open)(const struct slu_engine_options *options, void **host);
	/** Accepts NULL. */
	void (*close)(void *host);
	/** What is used of this machine, or why nothing is. May be NULL: nobody asks. */
	const char *(*devices)(const void *host, uint32_t *count);
	/** A region of ours was made, or goes; may have a private slot. May be NULL. @return 0;
	 * -errno
	 */
	int (*add)(void *host, struct slu_region *region);
	void (*remove)(void *host, struct slu_region *region);
};

/** What is known of a target before a transport is chosen. */
struct transport_prospect {
	const json_t *offer; /* what it says of this transport; NULL: nothing */
	bool encrypted;      /* the session is, */
	bool data_encrypted; /* and data connections are */
	bool same_host;
	const char *socket; /* path of a Unix socket of it, as it says; "": none */
	const char *local;  /* address of one that was reached; NULL: none was */
	const char *host;   /* where data connections go, */
	uint16_t port;      /* 0: nowhere, */
	bool tls;           /* and whether by TLS */
};

/** Whoever opens a segment: the client's half. */
struct transport_client {
	struct transport_capabilities capabilities;
	bool local;  /* descriptors are passed: its sessions go over a Unix socket */
	bool dials;  /* its bytes go over data connections, encrypted where those are */
	bool trying; /* only when a link is made is it seen whether the target is reached */
	/**
	 * Can it be used with that target? NULL: it connects no processes.
	 *
	 * @param reason  out: why, or why not and what would change that; SLU_REASON_MAX bytes
	 */
	bool (*consider)(const struct transport_env *env, const struct transport_prospect *with,
			 char *reason);
	/** A target was found, of which paths may be made; it is left. May be NULL. @return 0;
	 * -ENOMEM */
	int (*meet)(void **private);
	void (*leave)(void *private);
	/**
	 * Map what the target published, or take note of what it granted. The fds stay the
	 * caller's. NULL on a transport that connects no processes.
	 *
	 * @param peer  the target: outlives the view
	 * @param view  out: the transport's own; released by release
	 * @return      0; -EPROTO the grant is not what it must be; -ENOMEM, -EACCES
	 */
	int (*import)(struct transport_peer *peer, const json_t *grant, uint64_t length,
		      uint32_t rights, const int *fds, uint32_t fd_count, void **view);
	/** Client and target in one process; NULL on transports that connect processes. */
	int (*import_local)(const struct export *export, uint32_t rights,
			    const struct client_inbox *inbox, uint32_t session, void **view);
	/** Have pages of it been taken away (guard.h)? May be NULL: they cannot be. */
	bool (*is_lost)(const void *view);
	/** Accepts NULL. */
	void (*release)(void *view);
	/**
	 * Never waits: the path may be without a link (path.making), and what is posted is held
	 * until it has one.
	 *
	 * @return 0; -ENOMEM
	 */
	int (*connect)(struct slu_remote *remote, const struct path_env *env, struct path **path);
	/**
	 * The poller does not touch it any more. Never waits for the target; what is under way
	 * there for its link is over after repair_settle(). Accepts NULL.
	 */
	void (*disconnect)(struct path *path);
	/** The path in words, at most @p size bytes. Any thread. May be NULL. */
	void (*describe)(struct path *path, char *text, size_t size);
};

/** What join() returns when its answer comes later. */
#define TRANSPORT_LATER 1

/** A client's request that was not answered at once: whoever keeps it ends it, once. */
struct transport_later {
	/** Any thread, the next one when @p fn runs: have it run on the control thread. Never
	 * fails.
	 */
	void (*post)(struct transport_later *later, void (*fn)(void *arg), void *arg);
	/**
	 * Control thread: the request is over.
	 *
	 * @param error   0; -ECANCELED what was granted has ended, and nobody is told; or -errno
	 *                with slu_last_error(), which the client is told
	 * @param answer  as join() fills it; consumed. NULL with an error
	 */
	void (*end)(struct transport_later *later, int error, json_t *answer);
	struct budget *budget; /* of the client's identity, while it is kept; may be NULL */
};

/** Run @p fn on a poller's thread, between two of its turns, and wait for it. */
typedef void (*transport_on_poller)(void *arg, uint32_t poller, void (*fn)(void *fn_arg),
				    void *fn_arg);

/** What an engine lends to what serves its clients over one transport. */
struct serving_env {
	const struct transport_env *transport;
	uint64_t incarnation;
	uint32_t pollers;
	uint32_t first_lane; /* of inboxes: as many as there are pollers, from that one on */
	struct buffers *const *buffers; /* of the pollers */
	transport_on_poller on_poller;
	void *arg; /* for on_poller */
};

/**
 * Whoever exports a segment: the target's half. Either it publishes what the client maps itself, or
 * our pollers do something for clients, and grant: then all but create is called only where that
 * made a server. The control thread's, but for those that say otherwise.
 */
struct transport_target {
	/**
	 * Describe @p export to one client that was granted @p rights.
	 *
	 * @param inbox    where it leaves what is for the owner (client_area.h)
	 * @param session  its number there
	 * @param grant    JSON object that the client's import gets
	 * @param fds      out: descriptors to pass along; the caller closes those in @p close_mask
	 * @return         number of fds; -ENOMEM, -EMFILE
	 */
	int (*publish)(const struct export *export, uint32_t rights,
		       const struct client_inbox *inbox, uint32_t session, json_t *grant,
		       int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask);

	bool in_the_clear; /* bytes are not encrypted even where the session is */
	/**
	 * Not on the control thread. NULL: our pollers do nothing for clients.
	 *
	 * @return 0; -errno. @p server is left alone: nothing to do
	 */
	int (*create)(const struct serving_env *env, void **server);
	/**
	 * Nothing is granted or exported any more; wait until all that was is over. Pollers still
	 * run the services. Not on the control thread. May be NULL.
	 */
	void (*stop)(void *server);
	/** No poller runs its services any more. Accepts NULL. */
	void (*destroy)(void *server);
	/** What poller @p poller is to run. */
	struct transport_service *(*service)(void *server, uint32_t poller);
	/** What a client is told of it with its welcome. May be NULL: nothing. */
	json_t *(*describe)(void *server);
	/** A segment is exported. Any thread. May be NULL. @return 0; -errno */
	int (*export)(void *server, struct export *export);
	/**
	 * Nothing of it is granted any more, and its inbox is left alone from then on. The first on
	 * the control thread, the second, which may wait, on no thread of ours. May be NULL.
	 */
	void (*close)(void *server, const struct export *export);
	void (*unexport)(void *server, const struct export *export);
	/**
	 * In place of publish: what the client is to do it leaves to our pollers.
	 *
	 * @param grant    to be kept; its handle is found
	 * @param granted  out: for join and revoke
	 * @return         as grants_add()
	 */
	int (*grant)(void *server, const struct grant *grant, json_t *description,
		     struct grant **granted);
	/**
	 * A client asks for a path to what it was granted, whenever it wants and as often: how many
	 * it gets has to be bounded. What was made ends with what was granted, in revoke. Others
	 * wait meanwhile, so what may block is done elsewhere and answered later. NULL on a
	 * transport that needs none.
	 *
	 * @param offer    JSON object of the client; input
	 * @param answer   JSON object that the client gets
	 * @param later    kept only if TRANSPORT_LATER is returned
	 * @return         0; TRANSPORT_LATER; -EPROTO a bad offer; or another errno. The client is
	 *                 told it, and slu_last_error().
	 */
	int (*join)(void *server, struct grant *granted, const json_t *offer, json_t *answer,
		    struct transport_later *later);
	/**
	 * Requests fail with @p reason from now on, or as soon as the transport says that what
	 * begins to end here is over. Accepts NULL.
	 */
	void (*revoke)(void *server, struct grant *granted, int reason);
	/**
	 * Serve a data connection of control connection @p connection, which calls it part of its
	 * @p link. Takes @p stream. May be NULL: the transport has none.
	 *
	 * @param budget  of its owner, of which one data connection was taken: given back when it
	 *                ends; what it does not read is charged to it. NULL: none
	 */
	void (*attach)(void *server, const struct stream *stream, uint64_t connection,
		       uint64_t link, struct budget *budget);
	/**
	 * Nothing that came over that link, or of that connection, is carried out any more; where
	 * there is after, when that tells.
	 */
	void (*fence)(void *server, uint64_t connection, uint64_t link);
	void (*gone)(void *server, uint64_t connection);
	/**
	 * Call @p fn when all that has begun to end is over, on a thread that must not wait. May be
	 * NULL: it is over at once. @return 0; -ENOMEM
	 */
	int (*after)(void *server, void (*fn)(void *arg), void *arg);
	/** Wait for that. Not on the control thread. May be NULL. */
	void (*settle)(void *server);
};

struct transport_fast {
	/**
	 * An immediate path: carry out up to @p n operations, none longer than slice_bytes and no
	 * calls, all on the path's remote, and write a completion for each to @p done. Streamed
	 * stores may be left unfenced, the poller settles them before it tells anyone.
	 *
	 * @param stats  where they are counted
	 * @return       done, in order; fewer than n is back-pressure: again later
	 */
	uint32_t (*copy)(struct path *path, const struct slu_op *ops, uint32_t n,
			 struct slu_completion *done, struct path_stats *stats);
	/**
	 * Likewise the next pieces of a vector, which are checked; only its opcode, region and
	 * remote are looked at in @p op, and nothing is notified.
	 *
	 * @return 0; -EAGAIN back-pressure, again later; or another negative errno
	 */
	int (*copy_vector)(struct path *path, const struct slu_op *op,
			   const struct vector_piece *pieces, uint32_t n);
	/** Likewise an operation that is atomic. @return 0; -EAGAIN; or another negative errno */
	int (*atomic)(struct path *path, const struct slu_op *op, uint64_t operand);
	/**
	 * An asynchronous path: start a part of one of its requests. The link is flushed before it
	 * is polled. The remote is alive and not fenced. Nothing is given back meanwhile.
	 */
	enum post_result (*post)(struct path *path, struct request *request, struct op_part part);
	/**
	 * The same with a part that has 1 to VECTOR_PIECES pieces: READ or WRITE. They are found
	 * again from request->at on, where they began.
	 */
	enum post_result (*post_vector)(struct path *path, struct request *request,
					struct op_part part, const struct vector_piece *pieces,
					uint32_t n);
	/**
	 * All that is out of @p request, which has failed, is to come back by request_back(): now
	 * or by poll, in bounded time. Its neighbours may have to be posted again; calls cannot be.
	 */
	void (*cancel)(struct path *path, struct request *request);
	/**
	 * The remote is dead, by @p state, with requests of the path out: those that nobody will
	 * answer are to come back. May be NULL: the link's poll looks.
	 */
	void (*dead)(struct path *path, int state);
};

struct transport {
	enum slu_transport id;
	const struct transport_host *host; /* NULL: it needs nothing */
	const struct transport_client *client;
	const struct transport_target *target;
	const struct transport_fast *fast;
};

/**
 * A segment opened by an initiator. The engine makes it; the first line is what every submitted
 * operation is checked against.
 */
struct slu_remote {
	uint64_t length;
	_Atomic uint32_t permitted; /* bit per opcode; 0 once state is not 0 */
	_Atomic int state; /* 0 connected; -ECONNRESET, -ESHUTDOWN, -EFAULT, ...; set once */
	const struct transport *transport;
	void *view;                /* what import made */
	const struct fence *fence; /* of the target; NULL: in process, there is none */

	uint32_t rights;
	struct slu_engine *engine;
	struct session *session;     /* NULL in process */
	struct client *client;       /* the connection that carries it */
	struct transport_peer *peer; /* of that connection */
	bool linked;                 /* in the engine's list */
	uint32_t candidate_count;
	struct slu_candidate candidates[SLU_CANDIDATES_MAX];
	struct segment_client *local; /* its place at a segment of its own engine; else NULL */
	struct path_stats retired;    /* of paths that were disconnected */
	char name[SLU_REMOTE_NAME_MAX + 1];
	char target[SLU_NAME_MAX + 1];
	uint64_t incarnation;
	uint64_t page_bytes;
	int node;
	pid_t pid;
	LIST_ENTRY(slu_remote) link;
	struct path *paths[SLU_POLLERS_MAX]; /* by poller index */
};

/** Must what is new wait, since something that was given up may still land? */
static inline bool remote_is_fenced(const struct slu_remote *remote)
{
	return remote->fence &&
	       atomic_load_explicit(&remote->fence->pending, memory_order_relaxed) > 0;
}

/** What a poller thread does for a transport beside its queues: the target's side of it. */
struct transport_service {
	/** One turn. @return how much was done; 0: idle */
	uint32_t (*run)(struct transport_service *service);
	/** Is there work that no descriptor tells of? Asked before the poller sleeps. */
	bool (*pending)(struct transport_service *service);
	/** Is there some that somebody else holds up? It is looked at now and then. May be NULL. */
	bool (*held_up)(struct transport_service *service);
	int fd; /* is readable when something has come for one that slept */
	LIST_ENTRY(transport_service) link;
};

/** Mark it unusable, once: operations on it fail with @p error from now on. Any thread. */
void remote_fail(struct slu_remote *remote, int error);

/** For all transports, what their tables say. transports_close() takes what a failed open has left.
 */
int transports_open(struct transport_env *env, const struct slu_engine_options *options);
void transports_close(struct transport_env *env);
int transports_add(const struct transport_env *env, struct slu_region *region);
void transports_remove(const struct transport_env *env, struct slu_region *region);
int transports_meet(struct transport_peer *peer);
void transports_leave(struct transport_peer *peer);

/** A transport by number, or NULL when this build or machine has none such. */
const struct transport *transport_find(enum slu_transport id);

/** By name ("auto", "shm", ...), -1 when unknown. */
int transport_parse(const char *name);

/** Opcodes that @p rights permit, a bit each. */
uint32_t transport_permitted(uint32_t rights);

extern const struct transport shm_transport;
extern const struct transport verbs_transport;
extern const struct transport tcp_transport;
extern const struct transport fake_transport;

#endif
