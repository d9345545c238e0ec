/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The engine and what hangs on it.
 *
 * Who may touch what: whoever opens or closes a remote or a queue holds opening while it changes
 * the lists, the poller table and the paths of remotes, and for what devices take, but never while
 * somebody else is waited for: links are made afterwards (transport/repair.h). What others read of
 * it changes under lock as well, which is never held across a control_call(). Segments and their
 * clients on the control thread only, except for the sets of places, which slu_segment_poll()
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
#include "base/fork.h"
#include "control/access.h"
#include "control/client.h"
#include "control/credentials.h"
#include "control/loop.h"
#include "control/server.h"
#include "control/thread.h"
#include "engine/requests.h"
#include "memory/region.h"
#include "message/client_area.h"
#include "message/inbox.h"
#include "message/sender.h"
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
	uint32_t cores_taken; /* by pollers */
	int cores[SLU_POLLERS_MAX];

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
	LIST_HEAD(, slu_cache) caches;

	/* Control thread. */
	struct access *access;
	struct budgets *budgets; /* what each identity has of us, and may have */
	uint32_t segment_count;
	uint32_t next_client;
	void *identities; /* tree of their texts */
	LIST_HEAD(, slu_segment) segments;
};

/**
 * What clients leave their messages in, where they share memory with us: one for all of a
 * connection that have the same rights. Control thread, but for the inbox and what is said.
 */
struct segment_area {
	struct client_inbox inbox;
	uint64_t connection; /* with rights: by what it is found; 0: it is of one client alone */
	uint32_t rights;
	uint32_t place;   /* in its segment's set */
	uint32_t members; /* its clients in the segment's set; 0: nor is it itself */
	uint32_t users;   /* its clients that were not destroyed */
	bool lost;        /* so is its connection */
	bool hot;         /* the polling thread: it is among the hot */
	bool active;      /* something came since that was looked at */
	struct budget *budget;
	uint32_t present; /* sessions that have not begun to leave */
	bool lingers;     /* there is none */
};

/** One client of a segment. */
struct segment_client {
	struct segment_area *area; /* NULL: it comes through the export's inbox */
	struct grant *granted;     /* of a transport that our pollers serve */
	struct peer_info peer;
	uint32_t rights;
	int reason; /* why it was ended; 0: it was not */
	uint32_t number;
	struct sender *sender;
	struct slu_segment *segment;
	const struct transport *transport;
	uint64_t operations;
	uint64_t bytes_read;
	uint64_t bytes_written;
	uint32_t place;     /* in its segment's set; with an area */
	uint64_t leaves_ns; /* its session is over, notifications may be left until then */
	TAILQ_ENTRY(segment_client) link;
};

TAILQ_HEAD(segment_client_list, segment_client);

#define PLACE_SET_CHUNK  1024u
#define PLACE_SET_CHUNKS 1024u
#define PLACE_SET_MAX    (PLACE_SET_CHUNK * PLACE_SET_CHUNKS)

/**
 * Where the polling thread finds by its place, without a lock, what the control thread adds and
 * removes. What has a place keeps it; then it is another's.
 */
struct place_set {
	_Atomic uint32_t count; /* of places that were ever used */
	_Atomic uint32_t used;
	uint32_t free; /* the place, plus 1, that was given back last; 0: none */
	struct place_chunk {
		_Atomic(void *) items[PLACE_SET_CHUNK]; /* odd: free */
	} * chunks[PLACE_SET_CHUNKS];
};

/** A client's number in its area: its place, and what tells it from those that had it before. */
#define SESSION_AGE_BITS 11u
static_assert(PLACE_SET_MAX <= 1u << (31 - SESSION_AGE_BITS), "a session is 31 bits of a word");

/** So many areas are polled always, though nothing comes. */
#define HOT_FEW 32u

/* And so many lanes of theirs that carry nothing. */
#define HOT_LANES 64u

/**
 * The areas that are polled; of others their clients ring (message/wake.h), and then they are,
 * until nothing came for a while. The polling thread's.
 */
struct hot_areas {
	struct hot_area {
		struct segment_area *area; /* there, while changes is up to date */
		uint32_t id;
		uint32_t place;
	} * areas; /* PLACE_SET_MAX, touched as they come */
	uint32_t count;
	uint32_t changes;     /* of the set, as last seen */
	uint32_t seen;        /* of slu_segment.added */
	bool looking;         /* some are not hot, or too many are, or have too many lanes */
	bool armed;           /* a wake-up is asked for, and owed: only who rings is disarmed */
	bool keeps;           /* none becomes cold by a poll: there is no barrier for it */
	uint32_t next_polled; /* round robin */
	uint32_t next_received;
	uint32_t polls_left; /* before the clock is read */
	uint32_t looks;
	uint64_t clock;  /* when it was, */
	uint64_t looked; /* and when it was asked who has rung */
};

/** Do others poll than the first thread that did? */
enum other_pollers {
	OTHERS_NONE,
	OTHERS_COME, /* the first may not have seen it yet */
	OTHERS_KNOWN,
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
	uint64_t left_during;               /* polls, when they left it, */
	struct claimed_requests left_while; /* and what was being answered */
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
	bool lost;                       /* its memory is, and that was said */
	bool written_in_memory;          /* by other processes */
	bool partial;                    /* who has the descriptor reaches more */
	char not_shared[SLU_REASON_MAX]; /* why it is served to nobody in shared memory; "": it is
					  */
	void *shared_areas;              /* tree, by connection and rights */

	/* Control thread, for the polling thread. */
	_Alignas(64) _Atomic uint32_t changes; /* of the areas: they come or go */
	_Atomic uint32_t added;                /* ever */
	_Atomic uint32_t fresh[HOT_FEW];       /* places of the last ones */
	struct place_set areas;
	struct place_set sessions; /* clients with an area */

	/* The polling thread: one at a time, see begin_polling(). */
	_Alignas(64) _Atomic uint64_t polls; /* odd while it uses the sets; 0: never has */
	_Atomic(void *) first;               /* that ever polled */
	_Atomic bool first_polls;
	_Atomic uint32_t others; /* enum other_pollers */
	_Atomic bool taken;      /* the lock, where there are others */
	bool polls_as_first;     /* of whoever polls */
	struct hot_areas hot;
	struct inbox *inbox; /* the export's; NULL without poller threads */
	uint32_t next_lane;  /* round robin */
	uint32_t next_called_lane;
	bool polls_lanes_first; /* this time, before the clients in shared memory */
	bool receives_lanes_first;
	_Atomic uint64_t notifications;
	struct requests *requests;
	struct departures departures;
	_Atomic bool starved; /* when it was armed no further request could be open */

	struct segment_service *service; /* opening guards; NULL: it has none */
	struct fork_hook forked;
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

/** receive.c: the child's copy; it is nobody's turn to poll it. */
void segment_shut_in_child(struct fork_hook *hook);

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

/** Control thread: may another area be mapped for @p budget, which may be NULL? @return 0; -ENOSPC
 */
int admission_check(const struct slu_engine *engine, const struct budget *budget);

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

/** Its number in its area, as it says it with what it leaves there. */
static inline uint32_t segment_session(const struct segment_client *client)
{
	return client->place << SESSION_AGE_BITS |
	       (client->number & ((1u << SESSION_AGE_BITS) - 1));
}

/** identities.c: the one text of it. Control thread. @return NULL: out of memory */
const char *identity_get(struct slu_engine *engine, const char *text);

/** No segment is left. */
void identities_free(struct slu_engine *engine);

/** Control thread: the client's session is over. */
void segment_leave(struct segment_client *client, bool lost);

/** Control thread: @return the place that the next one gets; -ENOMEM, -ENOSPC */
int place_set_reserve(struct place_set *set);

/** Control thread: the polling thread may see it from now on, at the place that was reserved. */
void place_set_add(struct place_set *set, uint32_t place, void *item);

/** Control thread: who begins to poll after a heavy barrier does not see it any more. */
void place_set_remove(struct place_set *set, uint32_t place);

/** Accepts one that is all zero. */
void place_set_free(struct place_set *set);

/** The polling thread: what is at @p place, any number? NULL: nothing now. */
static inline void *place_set_at(const struct place_set *set, uint32_t place)
{
	void *item;

	/* Both pair with the releases in place_set_add(). */
	if (place >= atomic_load_explicit(&set->count, memory_order_acquire))
		return NULL;
	item = atomic_load_explicit(
		&set->chunks[place / PLACE_SET_CHUNK]->items[place % PLACE_SET_CHUNK],
		memory_order_acquire);
	return (uintptr_t)item & 1 ? NULL : item;
}

/** hot.c: memory for them. @return 0; -ENOMEM */
int hot_init(struct hot_areas *hot);

/** Accepts one that is all zero. */
void hot_fini(struct hot_areas *hot);

/** The polling thread, all of them: areas have come or gone. */
void hot_catch_up(struct slu_segment *segment, uint32_t changes);

/** Poll those who have rung as well, and now and then no longer those of whom nothing came. */
void hot_look(struct slu_segment *segment);

/** When it begins to poll: what is hot is there until it ends. */
static inline void hot_begin(struct slu_segment *segment)
{
	/* Pairs with the releases in area_add() and leave_one(). */
	uint32_t changes = atomic_load_explicit(&segment->changes, memory_order_acquire);

	if (__builtin_expect(changes != segment->hot.changes, 0))
		hot_catch_up(segment, changes);
}

/** The next to be polled, in turn. There is one. */
static inline struct segment_area *hot_next(struct hot_areas *hot, uint32_t *next)
{
	if (*next >= hot->count)
		*next = 0;
	return hot->areas[(*next)++].area;
}

/** So many lanes were looked at in a poll: whoever has many and uses none rings as well. */
static inline void hot_note_lanes(struct hot_areas *hot, uint32_t lanes)
{
	if (__builtin_expect(lanes > HOT_LANES, 0))
		hot->looking = true;
}

/** Have all that is polled ring as well, or not any more. */
void hot_arm(struct slu_segment *segment, bool armed);

/**
 * All that are polled ring as well by now: has something come of them? @p calls: requests count.
 * If nothing has, only few go on being polled.
 */
bool hot_pending(struct slu_segment *segment, bool calls);

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
