/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A poller: the run-to-completion loop over its queues. Either a pinned thread (thread.c) or part
 * of an inline queue, run by the queue's owner; poller_run_once() is the same for both.
 */
#ifndef POLLER_POLLER_H
#define POLLER_POLLER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/engine.h>

#include "poller/queue.h"
#include "poller/requests.h"
#include "transport/transport.h"

#define POLLER_BURST      64u
#define POLLER_QUEUES_MAX 1024u

/** Turns with requests between two looks at the clock; the end of a sleep is one. */
#define POLLER_CLOCK_TURNS 8u

/** Something for the poller's thread to do between two turns. */
typedef void (*poller_fn)(struct poller *poller, void *arg);

/** Completions of one queue that are handed over together. */
struct completion_burst {
	struct slu_queue *queue;
	uint32_t count;
	struct slu_completion done[POLLER_BURST];
};

struct poller {
	/* The poller's own. */
	uint32_t index;
	uint32_t queue_count;
	struct slu_queue **queues;
	struct schedule schedule;
	LIST_HEAD(, transport_service) services;
	uint64_t expire_at_us;  /* the next deadline, or before it */
	uint64_t expired_at_us; /* when deadlines were last looked at */
	uint64_t retry_at_us;   /* what is paused goes again */
	uint64_t changes;       /* transport_changes() that were looked at */
	uint32_t clock_turns;   /* since the last look at the clock */
	uint64_t pause_ns;      /* of the thread, while somebody holds up what it serves */
	struct path_env env;
	const struct clock *clock;
	counter loops;
	counter idle_loops;
	counter sleeps;
	counter operations;
	uint64_t bytes; /* of paths that were disconnected; under the engine's lock */
	struct completion_burst burst;

	/* Read by submitting threads on every submit, written when it goes to sleep. */
	_Alignas(64) _Atomic bool sleeping;
	int eventfd;

	/* Of the thread; not used inline. */
	_Alignas(64) _Atomic(poller_fn) call;
	_Atomic bool stopping;
	void *call_arg;
	pthread_mutex_t call_turn; /* one caller at a time */
	pthread_mutex_t call_lock; /* of called */
	pthread_cond_t called;
	pthread_t thread;
	bool is_thread;
	enum slu_poll_mode mode;
	int core; /* -1 inline */
	int node;
};

/** Microseconds of the engine's clock. */
static inline uint64_t poller_now_us(const struct poller *poller)
{
	return clock_now_ns(poller->clock) / NS_PER_US;
}

/** Its path for @p op. */
static inline struct path *poller_path(const struct poller *poller, const struct slu_op *op)
{
	struct path *path = op->remote->paths[poller->index];

	return __builtin_expect(op->opcode == OP_CALL, 0) ? path->calls : path;
}

/** @return 0; -ENOMEM */
int poller_create(uint32_t index, const struct transport_env *env, uint64_t llc_bytes, uint32_t llc,
		  struct poller **poller);

/** No queue is attached any more and no thread runs it. Accepts NULL. */
void poller_destroy(struct poller *poller);

/** One turn over everything. @return how much was done; 0: idle */
uint32_t poller_run_once(struct poller *poller);

static inline bool poller_has_requests(const struct poller *poller)
{
	return !LIST_EMPTY(&poller->schedule.active);
}

/** The same, of an inline queue's poller, which has no other queue and serves nobody. */
static inline void poller_run_inline(struct poller *poller)
{
	if (poller_has_requests(poller))
		requests_run(poller);
}

/**
 * The owner of an inline queue: start @p n (1 or more) checked operations. Short ones on an
 * immediate path are finished here, the others become requests.
 *
 * @return n
 */
uint32_t poller_start(struct poller *poller, struct slu_queue *queue, const struct slu_op *ops,
		      uint32_t n);

/** Poller's thread (or, inline, the owner): take the queue on. @return 0; -ENOSPC */
int poller_attach(struct poller *poller, struct slu_queue *queue);

/**
 * Any other thread (or, inline, the owner): wait until the poller has finished the queue's work,
 * and have it let go of the queue. What is not done in time is given up. The poller waits for
 * nothing.
 */
void poller_detach(struct poller *poller, struct slu_queue *queue);

/**
 * As slu_cancel(): any other thread (or, inline, the owner). Waits for turns of the poller.
 *
 * @return how many were under way
 */
uint32_t poller_cancel(struct poller *poller, struct slu_queue *queue, uint64_t user_data);

/** Poller's thread: serve from now on, or no longer. */
void poller_serve(struct poller *poller, struct transport_service *service);
void poller_unserve(struct transport_service *service);

/**
 * The poller's thread, or the owner of an inline queue: sleep until a descriptor in epoll_fd or
 * @p eventfd (-1: none) is ready, or for as long as the requests allow.
 *
 * @return was something ready?
 */
bool poller_sleep(struct poller *poller, int eventfd, uint64_t timeout_ns);

/** The same with what it has of @p remote. */
void poller_drain(struct poller *poller, struct slu_remote *remote);

/** thread.c: start the pinned thread. @return 0; -EINVAL cannot be pinned there; -EAGAIN */
int poller_thread_start(struct poller *poller, int core, int node, enum slu_poll_mode mode);

/** Stop and join it. */
void poller_thread_stop(struct poller *poller);

/** Run @p fn on the poller's thread and wait for it; inline: here and now. Any other thread. */
void poller_call(struct poller *poller, poller_fn fn, void *arg);

/** Wake it if it sleeps: a submitting thread, after its enqueue. */
void poller_wake(struct poller *poller);

#endif
