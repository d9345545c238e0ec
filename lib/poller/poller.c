/* SPDX-License-Identifier: Apache-2.0 */
#include "poller/poller.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <rte_prefetch.h>
#include <rte_ring_elem.h>

#include "base/log.h"
#include "transport/buffers.h"

/* Between two looks at work that nothing wakes us for. */
#define NAP_NS (50 * NS_PER_US)

/* Between two looks at deadlines, and at what others have changed. */
#define LONG_NAP_NS (1000 * NS_PER_US)

/* At close, work that is not done is given up after so long. */
#define DRAIN_US      1000000u
#define DRAIN_LOOK_US 100u

int poller_create(uint32_t index, const struct transport_env *env, uint64_t llc_bytes, uint32_t llc,
		  struct poller **out)
{
	struct poller *poller = aligned_alloc(64, sizeof(*poller));

	if (!poller)
		return fail(-ENOMEM, "out of memory");
	memset(poller, 0, sizeof(*poller));
	poller->env.buffers = buffers_create(env);
	poller->queues = calloc(POLLER_QUEUES_MAX, sizeof(poller->queues[0]));
	poller->env.tracker = copy_tracker_create(llc_bytes, llc);
	poller->env.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (!poller->queues || !poller->env.buffers || !poller->env.tracker ||
	    poller->env.epoll_fd < 0) {
		int rc = poller->env.epoll_fd < 0 ? -errno : -ENOMEM;

		poller_destroy(poller);
		return fail(rc, "cannot make a poller: %s", strerror(-rc));
	}
	poller->index = index;
	poller->env.transport = env;
	poller->env.poller = index;
	poller->env.node = -1;
	poller->clock = env->clock;
	poller->core = -1;
	poller->node = -1;
	poller->eventfd = -1;
	TAILQ_INIT(&poller->schedule.ready);
	TAILQ_INIT(&poller->schedule.held);
	TAILQ_INIT(&poller->schedule.paused);
	LIST_INIT(&poller->schedule.active);
	LIST_INIT(&poller->schedule.busy);
	poller->env.schedule = &poller->schedule;
	poller->expire_at_us = UINT64_MAX;
	LIST_INIT(&poller->services);
	*out = poller;
	return 0;
}

void poller_destroy(struct poller *poller)
{
	if (!poller)
		return;
	if (poller->env.epoll_fd >= 0)
		close(poller->env.epoll_fd);
	buffers_put(poller->env.buffers);
	copy_tracker_destroy(poller->env.tracker);
	free(poller->queues);
	free(poller);
}

/*
 * Leading operations that go to the path of the first at once: copies with just these flags, none
 * of them long or late, and all together within @p left, which shrinks by them.
 */
static inline uint32_t short_run(const struct slu_queue *queue, const struct slu_op *ops,
				 uint32_t n, uint32_t flags, uint64_t slice_bytes, uint64_t now_us,
				 uint64_t *left)
{
	const struct slu_remote *remote = ops->remote;
	uint32_t max = n < POLLER_BURST ? n : POLLER_BURST;
	uint64_t room = *left;
	uint32_t run = 0;

	while (run < max && ops[run].remote == remote &&
	       (op_word(&ops[run]) ^ flags) <= SLU_WRITE_NOTIFY && ops[run].length <= slice_bytes &&
	       ops[run].length <= room &&
	       (queue->is_inline || !op_is_late(queue, &ops[run], now_us)))
		room -= ops[run++].length;
	*left = room;
	return run;
}

/* Those that went well are not told of. */
static void complete_silently(struct slu_queue *queue, struct slu_completion *done, uint32_t n)
{
	uint32_t told = 0;

	for (uint32_t i = 0; i < n; i++)
		if (done[i].status != 0)
			done[told++] = done[i];
	if (told > 0)
		queue_complete(queue, done, told);
	queue_silence(queue, n - told);
}

/* @return operations finished; fewer than @p n is back-pressure */
static inline uint32_t post_run(struct poller *poller, struct slu_queue *queue, struct path *path,
				const struct slu_op *ops, uint32_t n, bool silent)
{
	struct slu_completion done[POLLER_BURST];
	uint32_t posted = path->fast->copy(path, ops, n, done, &path->stats);

	copy_settle(poller->env.tracker);
	if (silent)
		complete_silently(queue, done, posted);
	else
		queue_complete(queue, done, posted);
	counter_add(&poller->operations, posted);
	return posted;
}

/* Is it copied at once all the same, with the flags that it has? */
static bool may_copy(const struct path *path, const struct slu_op *op)
{
	return op->opcode <= SLU_WRITE_NOTIFY && (op->flags & ~(SLU_ORDERED | SLU_SILENT)) == 0 &&
	       (!(op->flags & SLU_ORDERED) || path->requests + path->calls->requests == 0);
}

/* As post_run(); what is ordered by itself. @param run  out: how many were to be */
__attribute__((noinline)) static uint32_t
post_flagged(struct poller *poller, struct slu_queue *queue, struct path *path,
	     const struct slu_op *ops, uint32_t n, uint64_t now_us, uint64_t *left, uint32_t *run)
{
	uint32_t max = ops->flags & SLU_ORDERED ? 1 : n;

	*run = short_run(queue, ops, max, OP_FLAGS(ops->flags), path->slice_bytes, now_us, left);
	return *run > 0 ? post_run(poller, queue, path, ops, *run, ops->flags & SLU_SILENT) : 0;
}

/*
 * What kind of queue it is, is known when this is compiled.
 *
 * @return those dealt with: all, of an inline queue; of another, the first ones that together copy
 *         no more than TRANSPORT_SLICE_MAX_BYTES, so that no queue keeps the poller for longer
 */
__attribute__((always_inline)) static inline uint32_t start(struct poller *poller,
							    struct slu_queue *queue,
							    const struct slu_op *ops, uint32_t n,
							    bool is_inline)
{
	uint64_t now_us = is_inline ? 0 : poller_now_us(poller);
	uint64_t left = is_inline ? UINT64_MAX : TRANSPORT_SLICE_MAX_BYTES;
	const struct path *posted = NULL;
	uint32_t dealt = 0;

	while (dealt < n) {
		const struct slu_op *next = &ops[dealt];
		struct path *path = poller_path(poller, next);
		uint32_t run = 0, started = 0;

		bool plain = op_is_plain(next);

		if (path->immediate && (__builtin_expect(plain, 1) || may_copy(path, next)) &&
		    next->length <= path->slice_bytes) {
			if (next->length > left)
				break; /* the other queues' turn */
			if (__builtin_expect(!plain, 0))
				started = post_flagged(poller, queue, path, next, n - dealt, now_us,
						       &left, &run);
			else if ((run = short_run(queue, next, n - dealt, 0, path->slice_bytes,
						  now_us, &left)) > 0)
				started = post_run(poller, queue, path, next, run, false);
		}
		dealt += started;
		if (run > 0 && started == run)
			continue;
		if (now_us == 0)
			now_us = poller_now_us(poller);
		if (is_inline && posted && posted != path)
			path_flush_idle(posted);
		request_start(poller, queue, path, &ops[dealt++], now_us);
		posted = path;
	}
	if (is_inline && posted)
		path_flush_idle(posted);
	return dealt;
}

__attribute__((noinline)) static uint32_t
start_taken(struct poller *poller, struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	return start(poller, queue, ops, n, false);
}

__attribute__((noinline)) static uint32_t
start_several(struct poller *poller, struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	return start(poller, queue, ops, n, true);
}

uint32_t poller_start(struct poller *poller, struct slu_queue *queue, const struct slu_op *ops,
		      uint32_t n)
{
	struct path *path = poller_path(poller, ops);

	if (n > 1 || path->immediate)
		return start_several(poller, queue, ops, n);
	request_start_alone(poller, queue, path, ops);
	return 1;
}

static uint32_t take_submissions(struct poller *poller, struct slu_queue *queue)
{
	struct rte_ring_zc_data zc;
	uint32_t n = rte_ring_dequeue_zc_burst_elem_start(queue->submissions, sizeof(struct slu_op),
							  POLLER_BURST, &zc, NULL);
	uint32_t dealt;

	if (n == 0)
		return 0;
	/* Lines of another core: fetch all at once rather than one after the other. */
	for (uint32_t i = 0; i < zc.n1; i++)
		rte_prefetch0((const struct slu_op *)zc.ptr1 + i);
	dealt = start_taken(poller, queue, zc.ptr1, zc.n1);
	if (dealt == zc.n1 && zc.n1 < n)
		dealt += start_taken(poller, queue, zc.ptr2, n - zc.n1);
	rte_ring_dequeue_zc_elem_finish(queue->submissions, dealt);
	queue->taken += dealt;
	return dealt;
}

uint32_t poller_run_once(struct poller *poller)
{
	struct transport_service *service;
	uint32_t work = 0;

	for (uint32_t i = 0; i < poller->queue_count; i++)
		if (!poller->queues[i]->is_inline)
			work += take_submissions(poller, poller->queues[i]);
	if (poller_has_requests(poller))
		work += requests_run(poller);
	LIST_FOREACH (service, &poller->services, link)
		work += service->run(service);
	counter_add(&poller->loops, 1);
	counter_add(&poller->idle_loops, work == 0);
	return work;
}

void poller_serve(struct poller *poller, struct transport_service *service)
{
	LIST_INSERT_HEAD(&poller->services, service, link);
}

void poller_unserve(struct transport_service *service)
{
	LIST_REMOVE(service, link);
}

/* How long may nobody look after the requests? */
static uint64_t nap_ns(struct poller *poller, uint64_t timeout_ns)
{
	const struct schedule *schedule = &poller->schedule;
	struct transport_link *link, *next;
	uint64_t longest = LONG_NAP_NS;

	if (!poller_has_requests(poller))
		return timeout_ns;
	if (schedule->ready_count > 0 || !TAILQ_EMPTY(&schedule->paused))
		longest = NAP_NS;
	for (link = LIST_FIRST(&schedule->busy); link; link = next) {
		next = LIST_NEXT(link, link);
		if (!link->wakes && longest > NAP_NS)
			longest = NAP_NS;
		if (!requests_sleep(poller, link))
			longest = 0;
	}
	requests_tell(poller);
	return longest < timeout_ns ? longest : timeout_ns;
}

/* Links ask to be told once: without this, what nobody waits for any more would wake us for ever.
 */
static void take_events(struct poller *poller)
{
	struct epoll_event events[POLLER_BURST];

	epoll_wait(poller->env.epoll_fd, events, POLLER_BURST, 0);
}

bool poller_sleep(struct poller *poller, int eventfd, uint64_t timeout_ns)
{
	uint64_t nap = nap_ns(poller, timeout_ns);
	struct timespec limit = {.tv_sec = (time_t)(nap / NS_PER_SECOND),
				 .tv_nsec = (long)(nap % NS_PER_SECOND)};
	struct pollfd fds[] = {{.fd = poller->env.epoll_fd, .events = POLLIN},
			       {.fd = eventfd, .events = POLLIN}};

	counter_add(&poller->sleeps, 1);
	poller->clock_turns = POLLER_CLOCK_TURNS;
	if (ppoll(fds, 2, nap == UINT64_MAX ? NULL : &limit, NULL) <= 0)
		return false;
	if (fds[0].revents)
		take_events(poller);
	return true;
}

int poller_attach(struct poller *poller, struct slu_queue *queue)
{
	if (poller->queue_count == POLLER_QUEUES_MAX)
		return -ENOSPC;
	poller->queues[poller->queue_count++] = queue;
	return 0;
}

static bool all_taken(const struct poller *poller)
{
	for (uint32_t i = 0; i < poller->queue_count; i++)
		if (poller->queues[i]->taken < poller->queues[i]->take_until)
			return false;
	return true;
}

/* What is in a ring now is to be taken; others may go on submitting. */
static void note_submitted(struct poller *poller)
{
	for (uint32_t i = 0; i < poller->queue_count; i++) {
		struct slu_queue *queue = poller->queues[i];

		if (!queue->is_inline)
			queue->take_until = queue->taken + rte_ring_count(queue->submissions);
	}
}

/* Of one queue, or of one remote. */
struct drain {
	const struct slu_queue *queue;
	const struct slu_remote *remote;
	bool begun;
	bool gives_up;
	bool gave_up; /* nothing is begun after that */
	bool over;
};

static bool is_drained(const struct poller *poller, const struct drain *drain)
{
	const struct path *path = drain->remote ? drain->remote->paths[poller->index] : NULL;

	if (drain->queue)
		return drain->queue->requests_live == 0;
	return !path || (path->requests == 0 && path->calls->requests == 0);
}

static void forget_queue(struct poller *poller, const struct slu_queue *queue)
{
	for (uint32_t i = 0; i < poller->queue_count; i++) {
		if (poller->queues[i] != queue)
			continue;
		poller->queues[i] = poller->queues[--poller->queue_count];
		break;
	}
}

/* A look at how far it is. What was posted comes back in bounded time once it is given up. */
static void drain_step(struct poller *poller, void *arg)
{
	struct drain *drain = arg;

	if (!drain->begun)
		note_submitted(poller);
	drain->begun = true;
	if (!all_taken(poller))
		return;
	if (drain->gives_up && !drain->gave_up) {
		requests_cancel(poller, drain->remote, drain->queue);
		drain->gave_up = true;
	}
	if (!is_drained(poller, drain))
		return;
	requests_tell(poller);
	forget_queue(poller, drain->queue);
	drain->over = true;
}

/* The poller goes on meanwhile, and answers others who call it. */
static void drain_all(struct poller *poller, struct drain *drain)
{
	uint64_t until = clock_monotonic_ns(NULL) + DRAIN_US * NS_PER_US;

	for (;;) {
		poller_call(poller, drain_step, drain);
		if (drain->over)
			return;
		drain->gives_up = clock_monotonic_ns(NULL) >= until;
		if (!poller->is_thread)
			poller_run_once(poller);
		if (poller->is_thread || environment_is_stepped())
			pause_us(DRAIN_LOOK_US);
	}
}

struct cancel_call {
	struct slu_queue *queue;
	uint64_t user_data;
	uint64_t take_until; /* what was submitted before, as slu_queue.take_until */
	uint32_t cancelled;
	bool begun;
	bool over;
};

static void cancel_step(struct poller *poller, void *arg)
{
	struct cancel_call *call = arg;
	struct slu_queue *queue = call->queue;

	if (!call->begun && !queue->is_inline)
		call->take_until = queue->taken + rte_ring_count(queue->submissions);
	call->begun = true;
	if (queue->taken < call->take_until)
		return;
	call->cancelled = requests_cancel_some(queue, call->user_data);
	requests_tell(poller);
	call->over = true;
}

uint32_t poller_cancel(struct poller *poller, struct slu_queue *queue, uint64_t user_data)
{
	struct cancel_call call = {.queue = queue, .user_data = user_data};

	for (;;) {
		poller_call(poller, cancel_step, &call);
		if (call.over)
			return call.cancelled;
		pause_us(DRAIN_LOOK_US);
	}
}

void poller_detach(struct poller *poller, struct slu_queue *queue)
{
	drain_all(poller, &(struct drain){.queue = queue});
}

void poller_drain(struct poller *poller, struct slu_remote *remote)
{
	drain_all(poller, &(struct drain){.remote = remote});
}
