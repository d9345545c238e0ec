/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The engine and what hangs on it.
 *
 * Who may touch what: whoever opens or closes a remote or a queue holds opening while it changes
 * the lists, the poller table and the paths of remotes, and for what devices take, but never while
 * somebody else is waited for: links are made afterwards (transport/repair.h). What others read of
 * it changes under lock as well, which is never held across a control_call(). Segments and their
 * clients on the control thread only, except for the published client set, which slu_segment_poll()
 * reads without a lock.
 */
#ifndef ENGINE_ENGINE_INTERNAL_H
#define ENGINE_ENGINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sluice/sluice.h>

#include "base/budget.h"
#include "base/clock.h"
#include "control/access.h"
#include "control/client.h"
#include "control/credentials.h"
#include "control/loop.h"
#include "control/server.h"
#include "control/thread.h"
#include "memory/region.h"
#include "message/client_area.h"
#include "message/inbox.h"
#include "net/tls.h"
#include "numa/topology.h"
#include "poller/poller.h"
#include "poller/queue.h"
#include "transport/transport.h"

struct slu_engine {
	char name[SLU_NAME_MAX + 1];
	uint64_t incarnation;
	struct trust trust;
	struct trust shm_writers;
	bool no_shm_writers;
	struct clock clock;
	LIST_HEAD(, late_fence) late_fences; /* not answered yet; the control thread's */
	struct transport_env env;
	struct topology *topology;
	uint64_t llc_bytes;

	struct control_thread *control;
	struct server *server;
	struct client_pool *clients;
	struct watch losses; /* of pages of shared memory */
	struct listener *socket;
	struct listener *tcp_listener; /* NULL: we serve nothing over TCP */
	struct tls *server_tls;        /* NULL: TCP without TLS */
	struct tls *client_tls;
	bool plain;                  /* data of encrypted sessions may go in the clear */
	_Atomic uint64_t drained_ns; /* when all clients were told to leave; 0: they were not */

	pthread_mutex_t opening; /* taken before lock */
	pthread_mutex_t lock;
	uint32_t poller_threads;                 /* the first of the table */
	struct poller *pollers[SLU_POLLERS_MAX]; /* by index; inline queues leave gaps */
	uint32_t remote_count;
	LIST_HEAD(, slu_region) regions;
	LIST_HEAD(, slu_remote) remotes;
	LIST_HEAD(, slu_queue) queues;

	/* Control thread. */
	struct access *access;
	struct budgets *budgets;  /* what each identity has of us, and may have */
	uint32_t mapped_sessions; /* over transports that share memory with the client */
	uint32_t segment_count;
	uint32_t next_client;
	LIST_HEAD(, slu_segment) segments;
};

/** One client of a segment. */
struct segment_client {
	struct client_inbox *inbox; /* NULL: it comes through the export's inbox */
	struct grant *granted;      /* of a transport that our pollers serve */
	struct peer_info peer;
	uint32_t rights;
	int reason; /* why it was ended; 0: it was not */
	uint32_t number;
	struct slu_segment *segment;
	const struct transport *transport;
	uint64_t operations;
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint32_t place;     /* in its segment's set; with an inbox */
	uint64_t leaves_ns; /* its session is over, notifications may be left until then */
	TAILQ_ENTRY(segment_client) link;
};

TAILQ_HEAD(segment_client_list, segment_client);

#define CLIENT_SET_CHUNK  1024u
#define CLIENT_SET_CHUNKS 1024u
#define CLIENT_SET_MAX    (CLIENT_SET_CHUNK * CLIENT_SET_CHUNKS)

/**
 * What slu_segment_poll() goes through, without a lock, while the control thread changes it:
 * clients with an inbox of their own. To add or to remove one takes a step, however many there are:
 * the last takes the place of one that leaves. So a client can be missed, or seen twice, by who
 * goes through at that moment; he finds moves changed then, or odd.
 */
struct client_set {
	_Atomic uint32_t count;
	_Atomic uint32_t moves;
	struct client_chunk {
		_Atomic(struct segment_client *) clients[CLIENT_SET_CHUNK]; /* or NULL */
	} * chunks[CLIENT_SET_CHUNKS];
};

/** A request that was handed out, by its index; its private copy, if it has one, by the same. */
struct open_request {
	uint32_t generation; /* high half of slu_message.id, odd while it is open */
	uint32_t client;
	uint32_t lane;
	uint32_t slot;
	uint32_t place; /* of the client in the set, if it has not moved */
	bool shared;    /* the client has an inbox of its own; else it came through the export's */
};

/** Requests of one segment that were received and are not answered. */
struct requests {
	uint8_t (*copies)[SLU_MESSAGE_MAX];
	uint32_t free_count;
	uint32_t touched; /* copies that were ever used */
	uint16_t free[SLU_MESSAGES_MAX];
	struct open_request open[SLU_MESSAGES_MAX];
};

struct slu_segment {
	struct export export;
	char name[SLU_NAME_MAX + 1];
	struct slu_engine *engine;
	struct listener *listener;
	LIST_ENTRY(slu_segment) link;

	struct wake_set *wake; /* what the owner sleeps on; control thread and owner */

	/* Control thread; the numbers are read by anyone. */
	struct segment_client_list clients;
	struct segment_client_list leaving; /* out of them; in the set, in order of leaves_ns */
	struct segment_client_list left;    /* out of the set; who polls may hold them */
	uint64_t left_during;               /* polls, when they left it */
	struct control_task leave;          /* does the next step for those two */
	bool leave_posted;
	bool closing; /* none lingers */
	struct watch linger;
	_Atomic uint32_t present;
	_Atomic uint64_t clients_total;
	_Atomic uint64_t clients_lost;
	_Atomic uint64_t operations; /* of clients that have left */
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_written;
	bool lost;              /* its memory is, and that was said */
	bool written_in_memory; /* by other processes; else it is sealed against that */

	/* The polling thread. */
	_Alignas(64) _Atomic uint64_t polls; /* odd while it goes through the set; 0: never has */
	_Atomic bool armed;                  /* as last asked for: new clients begin so */
	struct inbox *inbox;                 /* the export's; NULL without poller threads */
	uint32_t next_client;                /* round robin */
	uint32_t next_caller;
	uint32_t next_lane;
	uint32_t next_called_lane;
	bool polls_lanes_first; /* this time, before the clients in shared memory */
	bool receives_lanes_first;
	_Atomic uint64_t notifications;
	struct requests *requests;
	struct client_set set;
};

/** Control plane callbacks of the engine's segments. */
extern const struct server_callbacks segment_callbacks;

/** Take the grants of the options. @return 0; as slu_engine_set_grants() */
int rights_start(struct slu_engine *engine, const struct slu_engine_options *options);

/** Control thread, from the server: may @p peer do anything at all? */
bool rights_any(void *arg, const struct peer_info *peer);

/** losses.c: end what hangs on memory whose pages are taken away. @return 0; -ENOMEM, -errno */
int losses_watch(struct slu_engine *engine);

/** Accepts an engine that does not watch. */
void losses_unwatch(struct slu_engine *engine);

/** Control thread: is the segment's memory there? @return 0; -EFAULT with the reason */
int losses_check(const struct slu_segment *segment);

/** serve.c: let the poller threads serve, over what they can. @return 0; -ENOMEM, -errno */
int serve_start(struct slu_engine *engine);

/** Lanes that the inbox of a segment needs. */
uint32_t serve_lanes(const struct slu_engine *engine);

/** A segment is exported. Any thread. @return 0; -errno */
int serve_export(struct slu_engine *engine, struct export *export);

/** The pollers leave it alone from now on. Not the control thread, nor a poller. */
void serve_unexport(struct slu_engine *engine, const struct export *export);

/** No client is left. Accepts an engine that does not serve. */
void serve_stop(struct slu_engine *engine);

/** Control thread, from the server: a data connection has come, or its client has gone. */
void serve_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link);
void serve_fence(void *arg, uint64_t connection, uint64_t link);
void serve_gone(void *arg, uint64_t connection);
int serve_settle(void *arg, const struct fence_ask *ask);

/** Wait until what has begun to end is over. Not the control thread. */
void serve_wait(struct slu_engine *engine);

/** Control thread, from the server: what the welcome of @p peer says of our transports. */
json_t *serve_describe(void *arg, const struct peer_info *peer);

/** Do our pollers carry what @p peer opens, over that transport? */
bool serve_has(const struct slu_engine *engine, const struct peer_info *peer,
	       const struct transport *transport);

/** Mappings that shared memory leaves, each, to the process itself and to identities with few
 * sessions; an eighth of vm.max_map_count where that is less. */
#define ENGINE_MAPPINGS_RESERVE 2048u

/**
 * Control thread: charge a session; @p budget may be NULL.
 *
 * @return 0, with a reference to @p budget; -EDQUOT; -ENOSPC too many mappings
 */
int admission_take(struct slu_engine *engine, const struct transport *transport,
		   struct budget *budget);

/** Control thread: it is over, and what it had of us is free. */
void admission_give(struct slu_engine *engine, const struct transport *transport,
		    struct budget *budget);

/** Control thread: find an exported segment. @return NULL: -ENOENT */
struct slu_segment *segment_find(struct slu_engine *engine, const char *name);

/**
 * Control thread: make a client of @p segment.
 *
 * @return as transport_target.publish
 */
int segment_admit(struct slu_segment *segment, const struct peer_info *peer,
		  const struct transport *transport, uint32_t rights, json_t *grant,
		  int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask, struct segment_client **client);

/** Control thread: the client's session is over. */
void segment_leave(struct segment_client *client, bool lost);

/** Control thread: make room for one more. @return 0; -ENOMEM, -ENOSPC */
int client_set_reserve(struct client_set *set);

/** Control thread: the polling thread may see it from now on. Room was made. */
void client_set_add(struct client_set *set, struct segment_client *client);

/** Control thread: who begins to poll after a heavy barrier does not see it any more. */
void client_set_remove(struct client_set *set, struct segment_client *client);

/** Accepts one that is all zero. */
void client_set_free(struct client_set *set);

/** The polling thread: who is at @p place, below the count that it has read? NULL: nobody now. */
static inline struct segment_client *client_set_at(const struct client_set *set, uint32_t place)
{
	const struct client_chunk *chunk = set->chunks[place / CLIENT_SET_CHUNK];

	/* Pairs with the release in put(). */
	return atomic_load_explicit(&chunk->clients[place % CLIENT_SET_CHUNK],
				    memory_order_acquire);
}

/** Memory for the requests of a segment; touched as they come. @return NULL: out of memory */
struct requests *requests_create(void);

/** Accepts NULL. */
void requests_destroy(struct requests *requests);

/** Connect @p remote for @p poller. Under opening. @return 0; as transport_client.connect */
int remote_connect(struct slu_remote *remote, struct poller *poller);

/** Is it dead for good? Then nothing is submitted on it any more. Any thread. */
static inline bool remote_is_dead(const struct slu_remote *remote)
{
	return atomic_load_explicit(&remote->permitted, memory_order_acquire) == 0;
}

/** Drop the path of @p poller, which has nothing left of @p remote. Under opening. */
void remote_disconnect(struct slu_remote *remote, struct poller *poller);

#endif
