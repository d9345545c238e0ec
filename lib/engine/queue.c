/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, closing and waiting; the hot calls are in submit.c. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>

#include <rte_pause.h>

#include "base/barrier.h"
#include "base/fork.h"
#include "base/log.h"
#include "base/sized.h"
#include "engine/engine_internal.h"
#include "transport/repair.h"

/* Before it sleeps, a waiting owner looks again for so long: less than a sleep costs. */
#define SPIN_NS (5 * NS_PER_US)

/* The owner of an inline queue looks for so long before it sleeps until something comes. */
#define INLINE_SPIN_NS (50 * NS_PER_US)

static const struct slu_queue_options default_options = {
	.depth = 1024, .poller = SLU_POLLER_ANY, .timeout_us = 30000000};

static const struct sized sized_options = {SIZED(slu_queue_options, reserved),
					   SIZED_RESERVED(slu_queue_options),
					   .defaults = &default_options};
static const struct sized sized_info = {SIZED(slu_queue_info, outstanding)};

void slu_queue_options_init(struct slu_queue_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

static int check_options(const struct slu_engine *engine, const struct slu_queue_options *options)
{
	if (options->depth == 0 || options->depth > SLU_QUEUE_DEPTH_MAX)
		return fail(-EINVAL, "queue depth %u: 1 to %u are possible", options->depth,
			    SLU_QUEUE_DEPTH_MAX);
	if (options->timeout_us > SLU_TIMEOUT_MAX_US)
		return fail(-EINVAL, "timeout of %u us: at most %u are possible",
			    options->timeout_us, SLU_TIMEOUT_MAX_US);
	if (options->poller < SLU_POLLER_INLINE ||
	    options->poller >= (int32_t)engine->poller_threads)
		return fail(-EINVAL, "no poller %d: the engine has %u", options->poller,
			    engine->poller_threads);
	return 0;
}

/* Under opening. */
static struct poller *least_loaded(struct slu_engine *engine)
{
	uint32_t queues[SLU_POLLERS_MAX] = {0};
	const struct slu_queue *queue;
	struct poller *best = NULL;

	LIST_FOREACH (queue, &engine->queues, link)
		queues[queue->poller->index]++;
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		if (!best || queues[i] < queues[best->index])
			best = engine->pollers[i];
	return best;
}

/* Under opening. */
static void disconnect_all(struct slu_engine *engine, struct poller *poller)
{
	struct slu_remote *remote;

	LIST_FOREACH (remote, &engine->remotes, link)
		remote_disconnect(remote, poller);
}

/* Under opening. The links are made meanwhile; the dead need none. */
static int connect_all(struct slu_engine *engine, struct poller *poller)
{
	struct slu_remote *remote;
	int rc = 0;

	LIST_FOREACH (remote, &engine->remotes, link) {
		struct repair_item *making;

		if (remote_is_dead(remote))
			continue;
		rc = remote_connect(remote, poller);
		if (rc < 0)
			break;
		making = remote->paths[poller->index]->making;
		if (making)
			repair_ask(engine->env.repair, making);
	}
	if (rc < 0)
		disconnect_all(engine, poller);
	return rc;
}

/* Under opening: an inline queue's own poller, with a path to each remote. */
static int open_inline_poller(struct slu_engine *engine, struct poller **out)
{
	struct poller *poller;
	uint32_t index = engine->poller_threads;
	int rc;

	while (index < SLU_POLLERS_MAX && engine->pollers[index])
		index++;
	if (index == SLU_POLLERS_MAX)
		return fail(-ENOSPC, "%d pollers and inline queues are open: share queues' pollers",
			    SLU_POLLERS_MAX);
	rc = poller_create(index, &engine->env, engine->llc_bytes,
			   topology_llc(engine->topology, sched_getcpu()), &poller);
	if (rc < 0)
		return rc;
	rc = connect_all(engine, poller);
	if (rc < 0) {
		poller_destroy(poller);
		return rc;
	}
	pthread_mutex_lock(&engine->lock);
	engine->pollers[index] = poller;
	pthread_mutex_unlock(&engine->lock);
	*out = poller;
	return 0;
}

/* Under opening. */
static void close_inline_poller(struct slu_engine *engine, struct poller *poller)
{
	disconnect_all(engine, poller);
	pthread_mutex_lock(&engine->lock);
	engine->pollers[poller->index] = NULL;
	pthread_mutex_unlock(&engine->lock);
	poller_destroy(poller);
}

struct attach_call {
	struct slu_queue *queue;
	int result;
};

static void attach(struct poller *poller, void *arg)
{
	struct attach_call *call = arg;

	call->result = poller_attach(poller, call->queue);
}

/* Under opening. */
static int open_queue(struct slu_engine *engine, struct slu_queue_options chosen,
		      struct slu_queue **out)
{
	struct slu_queue *queue;
	struct poller *poller = NULL;
	int rc = 0;

	if (chosen.poller == SLU_POLLER_ANY)
		poller = least_loaded(engine);
	else if (chosen.poller >= 0)
		poller = engine->pollers[chosen.poller];
	chosen.poller = poller ? (int32_t)poller->index : SLU_POLLER_INLINE;
	if (!poller)
		rc = open_inline_poller(engine, &poller);
	if (rc < 0)
		return rc;
	rc = queue_create(&chosen, poller, poller->node, &queue);
	if (rc < 0) {
		if (chosen.poller == SLU_POLLER_INLINE)
			close_inline_poller(engine, poller);
		return rc;
	}
	queue->engine = engine;
	queue->clock = &engine->clock;
	LIST_INSERT_HEAD(&engine->queues, queue, link);
	*out = queue;
	return 0;
}

int slu_queue_open(struct slu_engine *engine, const struct slu_queue_options *given,
		   struct slu_queue **out)
{
	struct slu_queue_options options;
	struct attach_call call = {0};
	int rc = fork_check();

	if (rc == 0)
		rc = sized_take(&sized_options, given, &options);
	if (rc == 0)
		rc = check_options(engine, &options);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&engine->opening);
	rc = open_queue(engine, options, &call.queue);
	pthread_mutex_unlock(&engine->opening);
	if (rc < 0)
		return rc;
	poller_call(call.queue->poller, attach, &call);
	if (call.result < 0) {
		rc = fail(call.result, "poller %u serves %u queues: start more pollers",
			  call.queue->poller->index, POLLER_QUEUES_MAX);
		slu_queue_close(call.queue);
		return rc;
	}
	*out = call.queue;
	return 0;
}

void slu_queue_close(struct slu_queue *queue)
{
	struct slu_engine *engine;

	if (!queue || fork_is_child())
		return;
	engine = queue->engine;
	poller_detach(queue->poller, queue);
	pthread_mutex_lock(&engine->opening);
	LIST_REMOVE(queue, link);
	if (queue->is_inline)
		close_inline_poller(engine, queue->poller);
	pthread_mutex_unlock(&engine->opening);
	queue_destroy(queue);
}

static uint64_t deadline_ns(uint64_t timeout_us)
{
	uint64_t now = clock_monotonic_ns(NULL);

	return timeout_us > (UINT64_MAX - now) / NS_PER_US ? UINT64_MAX
							   : now + timeout_us * NS_PER_US;
}

/* Time stands still in a simulation while nobody waits for it. */
static void relax(uint64_t until)
{
	if (environment_is_stepped())
		environment->step(until);
	else
		rte_pause();
}

/* Are there @p min completions, or all that can come? */
static bool has_enough(struct slu_queue *queue, uint32_t min)
{
	uint32_t ready;

	queue_take_silent(queue);
	ready = queue_ready(queue);
	return ready >= min || ready >= queue->outstanding;
}

static int wait_inline(struct slu_queue *queue, uint32_t min, uint64_t until)
{
	uint64_t idle_since = 0;

	while (!has_enough(queue, min)) {
		uint64_t now;

		if (poller_run_once(queue->poller) > 0) {
			idle_since = 0;
			continue;
		}
		now = clock_monotonic_ns(NULL);
		if (now >= until)
			break;
		if (idle_since == 0)
			idle_since = now;
		if (now - idle_since >= INLINE_SPIN_NS && !environment_is_stepped())
			poller_sleep(queue->poller, -1, until - now);
		else
			relax(until);
	}
	return (int)queue_ready(queue);
}

static bool spin(struct slu_queue *queue, uint32_t min)
{
	uint64_t until = clock_monotonic_ns(NULL) + SPIN_NS;

	do {
		if (has_enough(queue, min))
			return true;
		rte_pause();
	} while (clock_monotonic_ns(NULL) < until);
	return false;
}

/*
 * Announce that the poller must wake us. The heavy barrier pairs with the light one in
 * queue_complete() and queue_silence(): either we see what has ended or the poller sees us waiting.
 *
 * @param min  1 or more
 * @return     true: there is no need to sleep
 */
static bool announce(struct slu_queue *queue, uint32_t min)
{
	uint32_t wanted;

	do {
		wanted = min < queue->outstanding ? min : queue->outstanding;
		atomic_store_explicit(&queue->wanted, wanted, memory_order_relaxed);
		barrier_heavy();
		if (has_enough(queue, min)) {
			atomic_store_explicit(&queue->wanted, 0, memory_order_relaxed);
			return true;
		}
	} while (wanted > queue->outstanding); /* so many do not come any more */
	return false;
}

/* @return 0 look again, 1 the time is over, -EINTR */
static int sleep_on_eventfd(struct slu_queue *queue, uint64_t until)
{
	struct pollfd wake = {.fd = queue->eventfd, .events = POLLIN};
	uint64_t now = clock_monotonic_ns(NULL);
	uint64_t left = until > now ? until - now : 0;
	struct timespec timeout = {.tv_sec = (time_t)(left / NS_PER_SECOND),
				   .tv_nsec = (long)(left % NS_PER_SECOND)};
	eventfd_t count;
	int rc = ppoll(&wake, 1, until == UINT64_MAX ? NULL : &timeout, NULL);

	if (rc < 0)
		return -errno;
	if (rc > 0)
		eventfd_read(queue->eventfd, &count);
	return rc == 0;
}

int slu_wait(struct slu_queue *queue, uint32_t min, uint64_t timeout_us)
{
	uint64_t until = deadline_ns(timeout_us);
	int rc = fork_check();

	if (rc < 0)
		return rc;
	if (queue->is_inline || environment_is_stepped())
		return wait_inline(queue, min, until);
	if (has_enough(queue, min) || timeout_us == 0 || spin(queue, min))
		return (int)queue_ready(queue);
	while (rc == 0 && !announce(queue, min))
		rc = sleep_on_eventfd(queue, until);
	atomic_store_explicit(&queue->wanted, 0, memory_order_relaxed);
	return rc < 0 ? rc : (int)queue_ready(queue);
}

int slu_cancel(struct slu_queue *queue, uint64_t user_data)
{
	uint32_t cancelled;

	if (fork_is_child())
		return fork_refuse();
	cancelled = poller_cancel(queue->poller, queue, user_data);
	return cancelled > 0 ? (int)cancelled
			     : fail(-ENOENT, "no operation with user_data %" PRIu64 " is under way",
				    user_data);
}

int slu_queue_eventfd(struct slu_queue *queue)
{
	if (fork_is_child())
		return fork_refuse();
	if (queue->is_inline)
		return fail(-EOPNOTSUPP,
			    "an inline queue has no eventfd: nobody would write to it");
	return queue->eventfd;
}

int slu_queue_arm(struct slu_queue *queue)
{
	if (fork_is_child())
		return fork_refuse();
	if (queue->is_inline)
		return fail(-EOPNOTSUPP, "an inline queue cannot be armed: its owner runs it");
	atomic_store_explicit(&queue->wanted, 1, memory_order_relaxed);
	barrier_heavy(); /* as in announce() */
	if (queue_ready(queue) > 0)
		atomic_store_explicit(&queue->wanted, 0, memory_order_relaxed);
	return (int)queue_ready(queue);
}

int slu_queue_get_info(struct slu_queue *queue, struct slu_queue_info *info)
{
	struct slu_queue_info own;

	if (fork_is_child())
		return fork_refuse();
	queue_take_silent(queue);
	own = (struct slu_queue_info){
		.depth = queue->depth,
		.poller = (int32_t)queue->poller->index,
		.accepted = queue->accepted,
		.completed = queue->accepted - queue->outstanding,
		.full = queue->full,
		.outstanding = queue->outstanding,
	};
	return sized_give(&sized_info, &own, info);
}
