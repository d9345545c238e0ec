/* SPDX-License-Identifier: Apache-2.0 */
/* The poller over a scripted transport, in virtual time: slicing, waiting, failing, giving up. */
#include "poller/poller.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "env/eal.h"
#include "tests/tap.h"

#define SLICE      1024u
#define POSTED_MAX 512u
#define DEPTH      64u

/* A transport that does what the test says: has up to room parts out, finishes on demand. */
static struct {
	struct path path;
	struct transport_link link;
	uint32_t room;
	enum post_result without_room;
	uint32_t refusals; /* how often it was asked without room */
	uint32_t count;
	struct slu_op ops[POSTED_MAX]; /* posted and not finished, as they went out */
	struct request *requests[POSTED_MAX];
	struct {
		struct request *request;
		int status;
	} ready[POSTED_MAX];
	uint32_t ready_count;
	uint32_t cancels;
	uint32_t flushes;
	bool leaves;       /* its link, with the next post */
	bool says_no_room; /* its polls do not tell of it */
	void (*in_copy)(void);
} script;

static struct poller *poller;
static struct slu_queue *queue;
static struct slu_remote remote;
static struct slu_region region;
static uint64_t now_ns;

static uint64_t virtual_now(void *arg)
{
	(void)arg;
	return now_ns;
}

static const struct clock virtual_clock = {.now = virtual_now};
static const struct transport_env env = {.clock = &virtual_clock};

static void keep(const struct slu_op *op, struct request *request)
{
	assert_true(script.count < POSTED_MAX);
	script.ops[script.count] = *op;
	script.requests[script.count++] = request;
}

static uint32_t script_copy(struct path *path, const struct slu_op *ops, uint32_t n,
			    struct slu_completion *done, struct path_stats *stats)
{
	(void)path;
	(void)stats;
	if (script.in_copy)
		script.in_copy();
	if (n > script.room)
		n = script.room;
	for (uint32_t i = 0; i < n; i++) {
		done[i] = (struct slu_completion){.user_data = ops[i].user_data};
		keep(&ops[i], NULL);
	}
	return n;
}

static enum post_result script_post(struct path *path, struct request *request, struct op_part part)
{
	struct slu_op op = request->op;

	if (script.leaves) { /* and others may free it at once */
		path->link = NULL;
		memset(&script.link, 0xff, sizeof(script.link));
		return POST_HELD;
	}
	if (script.count >= script.room) {
		script.refusals++;
		return script.without_room;
	}
	op.remote_offset += part.offset;
	op.local_offset += part.offset;
	op.length = part.length;
	op.opcode = part.opcode;
	keep(&op, request);
	return POST_DONE;
}

static void script_flush(struct transport_link *link)
{
	(void)link;
	script.flushes++;
}

static uint32_t script_poll(struct transport_link *link)
{
	uint32_t given = script.ready_count;

	(void)link;
	script.ready_count = 0;
	for (uint32_t i = 0; i < given; i++)
		request_back(script.ready[i].request, script.ready[i].status, false);
	return given + (script.count < script.room && !script.says_no_room);
}

/* What was posted as number @p index ends. */
static struct request *take_out(uint32_t index)
{
	struct request *request = script.requests[index];

	assert_true(index < script.count);
	script.count--;
	script.ops[index] = script.ops[script.count];
	script.requests[index] = script.requests[script.count];
	return request;
}

/* It is given back by the next poll. */
static void finish(uint32_t index, int status)
{
	script.ready[script.ready_count].request = take_out(index);
	script.ready[script.ready_count++].status = status;
}

/* As a transport that has to end its link for it: all that is out is lost. */
static void script_cancel(struct path *path, struct request *request)
{
	(void)path;
	(void)request;
	script.cancels++;
	script_poll(&script.link);
	while (script.count > 0)
		request_back(take_out(0), -ECANCELED, false);
}

static const struct transport_fast script_fast = {
	.copy = script_copy, .post = script_post, .cancel = script_cancel};
static const struct link_ops script_link = {.flush = script_flush, .poll = script_poll};

static int set_up(bool immediate)
{
	struct slu_queue_options options = {
		.size = sizeof(options), .depth = DEPTH, .poller = SLU_POLLER_INLINE};

	memset(&script, 0, sizeof(script));
	memset(&remote, 0, sizeof(remote));
	now_ns = NS_PER_SECOND;
	script.room = POSTED_MAX;
	script.without_room = POST_FULL;
	script.path = (struct path){.fast = &script_fast,
				    .slice_bytes = SLICE,
				    .immediate = immediate,
				    .remote = &remote,
				    .transport = SLU_TRANSPORT_FAKE,
				    .link = immediate ? NULL : &script.link,
				    .calls = &script.path};
	path_init(&script.path);
	remote.paths[0] = &script.path;
	if (poller_create(0, &env, 0, 0, &poller) < 0 ||
	    queue_create(&options, poller, -1, &queue) < 0)
		return -1;
	link_init(&script.link, &script_link, poller->env.schedule);
	queue->clock = &virtual_clock;
	return poller_attach(poller, queue);
}

static int set_up_immediate(void **state)
{
	(void)state;
	return set_up(true);
}

static int set_up_asynchronous(void **state)
{
	(void)state;
	return set_up(false);
}

static int tear_down(void **state)
{
	(void)state;
	poller_detach(poller, queue);
	queue_destroy(queue);
	poller_destroy(poller);
	return 0;
}

static struct slu_op op_of(uint8_t opcode, uint64_t id, uint64_t length)
{
	return (struct slu_op){.user_data = id,
			       .remote = &remote,
			       .region = &region,
			       .remote_offset = 1000000,
			       .local_offset = 5000,
			       .length = length,
			       .opcode = opcode,
			       .tag = (uint32_t)id};
}

static void start(const struct slu_op *op)
{
	poller_start(poller, queue, op, 1);
}

/* The poller looks at the clock in its next turn; left alone it does so every few. */
static void pass_us(uint64_t us)
{
	now_ns += us * NS_PER_US;
	poller->clock_turns = POLLER_CLOCK_TURNS;
}

static void run(unsigned turns)
{
	while (turns-- > 0)
		poller_run_once(poller);
}

static uint32_t reap(struct slu_completion *done, uint32_t n)
{
	return queue_take_done(queue, done, n);
}

static void assert_done(uint64_t id, int status)
{
	struct slu_completion done;

	assert_int_equal(reap(&done, 1), 1);
	assert_int_equal(done.user_data, id);
	assert_int_equal(done.status, status);
}

/* All of 1..n, in any order. */
static void assert_all_done(uint32_t n, int status)
{
	struct slu_completion done[8];
	unsigned seen = 0;

	assert_int_equal(reap(done, 8), n);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(done[i].status, status);
		seen |= 1u << done[i].user_data;
	}
	assert_int_equal(seen, (2u << n) - 2);
}

static void assert_nothing_done(void)
{
	assert_int_equal(queue_ready(queue), 0);
}

/* Goal: short operations on an immediate path are finished in poller_start(), in order. */
static void test_short_finish_at_once(void **state)
{
	struct slu_op ops[40];

	(void)state;
	for (uint64_t i = 0; i < 40; i++)
		ops[i] = op_of(SLU_WRITE, i, i);
	poller_start(poller, queue, ops, 40);
	for (uint64_t i = 0; i < 40; i++)
		assert_done(i, 0);
	assert_nothing_done();
}

/* A queue behind a poller's thread, which this one plays. */
static struct slu_queue *ringed;
static uint32_t taken_again;

static void open_ringed(void)
{
	struct slu_queue_options options = {.size = sizeof(options), .depth = DEPTH};

	assert_int_equal(queue_create(&options, poller, -1, &ringed), 0);
	ringed->clock = &virtual_clock;
	assert_int_equal(poller_attach(poller, ringed), 0);
}

static void submit_ringed(const struct slu_op *ops, uint32_t n)
{
	assert_int_equal(
		rte_ring_sp_enqueue_burst_elem(ringed->submissions, ops, sizeof(*ops), n, NULL), n);
}

static uint32_t reap_ringed(struct slu_completion *done, uint32_t n)
{
	return rte_ring_sc_dequeue_burst_elem(ringed->completions, done, sizeof(*done), n, NULL);
}

static void close_ringed(void)
{
	poller_detach(poller, ringed);
	queue_destroy(ringed);
}

/* The first half is done: whoever has reaped it may submit as much again. */
static void reap_and_submit(void)
{
	struct slu_op ops[DEPTH / 2];
	struct slu_completion done[DEPTH];
	uint32_t reaped = reap_ringed(done, DEPTH);

	for (uint64_t i = 0; i < DEPTH / 2; i++)
		ops[i] = op_of(SLU_WRITE, i, 8);
	taken_again += rte_ring_sp_enqueue_burst_elem(ringed->submissions, ops, sizeof(ops[0]),
						      reaped, NULL);
}

/*
 * Goal: an operation's place in the queue is free as soon as its completion is there to be reaped,
 * although the poller is still at the burst that it came with.
 */
static void test_completed_leave_room(void **state)
{
	struct slu_remote other = remote;
	struct slu_op ops[DEPTH];

	(void)state;
	open_ringed();
	for (uint64_t i = 0; i < DEPTH; i++) {
		ops[i] = op_of(SLU_WRITE, i, 8);
		if (i >= DEPTH / 2)
			ops[i].remote = &other;
	}
	submit_ringed(ops, DEPTH);
	taken_again = 0;
	script.in_copy = reap_and_submit;
	run(1);
	script.in_copy = NULL;
	assert_int_equal(taken_again, DEPTH / 2);
	assert_int_equal(queue_ready(ringed), DEPTH / 2);
	run(1);
	assert_int_equal(queue_ready(ringed), DEPTH);
	close_ringed();
}

static _Atomic bool detached;

static void *detach(void *arg)
{
	poller_detach(poller, ringed);
	detached = true;
	return arg;
}

static void count_call(struct poller *of, void *arg)
{
	(void)of;
	++*(uint32_t *)arg;
}

/* @return did the poller answer while it had the work of a queue to finish? */
static bool answers_while_it_drains(void)
{
	struct slu_queue_options options = {.size = sizeof(options), .depth = DEPTH};
	struct slu_op op = op_of(SLU_WRITE, 1, 8);
	uint32_t calls = 0;
	pthread_t thread;
	bool answered;

	assert_int_equal(queue_create(&options, poller, -1, &ringed), 0);
	ringed->clock = &virtual_clock;
	assert_int_equal(poller_attach(poller, ringed), 0);
	assert_int_equal(rte_ring_sp_enqueue_elem(ringed->submissions, &op, sizeof(op)), 0);
	detached = false;
	atomic_store(&poller->stopping, false);
	assert_int_equal(poller_thread_start(poller, sched_getcpu(), -1, SLU_POLL_BUSY), 0);
	assert_int_equal(pthread_create(&thread, NULL, detach, NULL), 0);
	usleep(50000);
	poller_call(poller, count_call, &calls);
	answered = calls == 1 && !detached;
	pthread_join(thread, NULL);
	poller_thread_stop(poller);
	queue_destroy(ringed);
	return answered;
}

/* Goal: a queue or a remote that takes long to be closed keeps the poller from nobody. On a busy
 * machine it may be closed before we come to call. */
static void test_drain_holds_up_nobody(void **state)
{
	bool answered = false;

	(void)state;
	script.room = 0;
	script.without_room = POST_HELD;
	for (int tries = 0; tries < 10 && !answered; tries++)
		answered = answers_while_it_drains();
	assert_true(answered);
}

/* Goal: a long operation is cut into slices that cover it once, and completes once at its end. */
static void test_long_is_sliced(void **state)
{
	struct slu_op op = op_of(SLU_READ, 7, 5 * SLICE + 1);
	uint64_t covered = 0;

	(void)state;
	start(&op);
	run(5);
	assert_nothing_done();
	run(1);
	assert_done(7, 0);
	assert_int_equal(script.count, 6);
	for (uint32_t i = 0; i < 6; i++) {
		assert_int_equal(script.ops[i].remote_offset, op.remote_offset + covered);
		assert_int_equal(script.ops[i].local_offset, op.local_offset + covered);
		covered += script.ops[i].length;
	}
	assert_int_equal(covered, op.length);
}

/* Goal: a short operation that comes while a long one is under way does not wait for its end. */
static void test_short_overtakes_long(void **state)
{
	struct slu_op large = op_of(SLU_WRITE, 1, 100 * SLICE), small = op_of(SLU_WRITE, 2, 8);

	(void)state;
	start(&large);
	run(3);
	start(&small);
	assert_done(2, 0);
	run(97);
	assert_done(1, 0);
}

/* Goal: long operations are finished one after the other, so that each streams through memory. */
static void test_long_ones_in_order(void **state)
{
	struct slu_op a = op_of(SLU_WRITE, 1, 10 * SLICE), b = op_of(SLU_READ, 2, 2 * SLICE);

	(void)state;
	start(&a);
	start(&b);
	run(10);
	assert_done(1, 0);
	assert_nothing_done();
	run(2);
	assert_done(2, 0);
}

/* Goal: an operation that finds no room waits and goes later; those behind it are not lost. */
static void test_back_pressure(void **state)
{
	struct slu_op ops[3] = {op_of(SLU_WRITE_NOTIFY, 1, 8), op_of(SLU_WRITE, 2, 8),
				op_of(SLU_WRITE, 3, 8)};

	(void)state;
	script.room = 0;
	poller_start(poller, queue, ops, 3);
	run(10);
	assert_nothing_done();
	script.room = POSTED_MAX;
	run(3);
	assert_all_done(3, 0);
	assert_nothing_done();
}

/* Goal: an operation of no bytes is posted once and completes, on either kind of path. */
static void test_zero_length(void **state)
{
	struct slu_op op = op_of(SLU_WRITE_NOTIFY, 9, 0);

	(void)state;
	start(&op);
	run(1);
	if (!script.path.immediate) {
		assert_nothing_done();
		finish(0, 0);
		run(1);
	}
	assert_done(9, 0);
	run(5);
	assert_nothing_done();
}

/* Goal: completions that come in any order end the right operations, each at its last slice. */
static void test_completions_out_of_order(void **state)
{
	struct slu_op a = op_of(SLU_READ, 1, 2 * SLICE), b = op_of(SLU_READ, 2, SLICE);

	(void)state;
	start(&a);
	start(&b);
	run(2);
	assert_int_equal(script.count, 3);
	finish(2, 0); /* b */
	run(1);
	assert_done(2, 0);
	finish(1, 0);
	run(1);
	assert_nothing_done();
	finish(0, 0);
	run(1);
	assert_done(1, 0);
}

/* Goal: the slice that notifies is posted when all other slices of its operation are finished. */
static void test_notification_after_data(void **state)
{
	struct slu_op op = op_of(SLU_WRITE_NOTIFY, 5, 4 * SLICE);

	(void)state;
	start(&op);
	run(10);
	assert_int_equal(script.count, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(script.ops[i].opcode, SLU_WRITE);
	finish(1, 0);
	finish(0, 0);
	run(10);
	assert_int_equal(script.count, 1);
	finish(0, 0);
	run(2);
	assert_int_equal(script.count, 1);
	assert_int_equal(script.ops[0].opcode, SLU_WRITE_NOTIFY);
	assert_int_equal(script.ops[0].tag, 5);
	assert_nothing_done();
	finish(0, 0);
	run(1);
	assert_done(5, 0);
}

/* Goal: a slice that fails ends its operation once, with that error, after those already posted. */
static void test_failed_slice(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 3, 100 * SLICE);
	struct slu_completion done;

	(void)state;
	script.room = 2;
	start(&op);
	assert_int_equal(script.count, 2);
	script.room = 0;
	finish(0, -EIO);
	run(5);
	assert_nothing_done();
	script.room = POSTED_MAX;
	finish(0, 0);
	run(5);
	assert_int_equal(reap(&done, 1), 1);
	assert_int_equal(done.status, -EIO);
	assert_int_equal(done.scope, SLU_SCOPE_OPERATION);
	assert_int_equal(script.count, 0);
	assert_nothing_done();
}

/*
 * Goal: what comes to an idle path is posted and goes at once; what comes while the link is busy
 * goes together, later.
 */
static void test_idle_link_is_flushed(void **state)
{
	struct slu_op ops[] = {op_of(SLU_WRITE, 1, 8), op_of(SLU_READ, 2, 8),
			       op_of(SLU_WRITE, 3, 8)};

	(void)state;
	poller_start(poller, queue, ops, 2);
	assert_int_equal(script.count, 2);
	assert_int_equal(script.flushes, 1);
	start(&ops[2]);
	assert_int_equal(script.count, 3);
	assert_int_equal(script.flushes, 1);
	run(1);
	assert_int_equal(script.flushes, 2);
	run(1);
	assert_int_equal(script.flushes, 2);
	finish(2, 0);
	finish(1, 0);
	finish(0, 0);
	run(1);
	assert_all_done(3, 0);
}

/* Goal: what an idle path does not take at once is posted when it does. */
static void test_idle_path_without_room(void **state)
{
	struct slu_op ops[] = {op_of(SLU_WRITE, 1, 8), op_of(SLU_READ, 2, 8)};

	(void)state;
	script.room = 1;
	poller_start(poller, queue, ops, 2);
	assert_int_equal(script.count, 1);
	script.room = 0;
	run(2);
	assert_int_equal(script.count, 1);
	script.room = POSTED_MAX;
	run(2);
	assert_int_equal(script.count, 2);
	finish(1, 0);
	finish(0, 0);
	run(1);
	assert_all_done(2, 0);
}

/* Goal: what is not posted by its deadline times out, and nothing is taken back. */
static void test_deadline_of_unposted(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 4, 8);

	(void)state;
	op.timeout_us = 5000;
	script.room = 0;
	start(&op);
	run(1);
	pass_us(4000);
	run(2);
	assert_nothing_done();
	pass_us(2000);
	run(2);
	assert_done(4, -ETIMEDOUT);
	assert_int_equal(script.cancels, 0);
}

/* Goal: what is late when the poller takes it is not carried out, on either kind of path. */
static void test_late_from_the_start(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 4, 8);
	struct slu_completion done;

	(void)state;
	open_ringed();
	op.timeout_us = 5000;
	op.engine = (uint32_t)(now_ns / NS_PER_US);
	submit_ringed(&op, 1);
	pass_us(6000);
	run(1);
	assert_int_equal(reap_ringed(&done, 1), 1);
	assert_int_equal(done.status, -ETIMEDOUT);
	assert_int_equal(script.count, 0);
	close_ringed();
}

/* Goal: a path that its link has no room for is not asked again before that has done something. */
static void test_stalled_path_is_left_alone(void **state)
{
	struct slu_op ops[] = {op_of(SLU_WRITE, 1, 8), op_of(SLU_READ, 2, 8)};

	(void)state;
	script.room = 1;
	poller_start(poller, queue, ops, 2);
	run(100);
	assert_int_equal(script.refusals, 1);
	finish(0, 0);
	run(1);
	assert_int_equal(script.refusals, 1);
	assert_int_equal(script.count, 1);
	assert_done(1, 0);
	finish(0, 0);
	run(1);
	assert_done(2, 0);
}

static void test_cancel_makes_room(void **state)
{
	/* Goal: the room of what was given up is for who was stalled, though no poll tells of it.
	 */
	struct slu_op late = op_of(SLU_WRITE, 1, 64), stalled = op_of(SLU_WRITE, 2, 64);

	(void)state;
	script.room = 1;
	script.says_no_room = true;
	late.timeout_us = 1000;
	start(&late);
	start(&stalled);
	assert_int_equal(script.count, 1);
	pass_us(2000);
	run(2);
	assert_done(1, -ETIMEDOUT);
	assert_int_equal(script.count, 1);
	assert_int_equal(script.ops[0].user_data, 2);
	finish(0, 0);
	run(1);
	assert_done(2, 0);
}

/* Goal: a path that is held is not asked again before something has changed. */
static void test_held_path_is_left_alone(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 1, 8);

	(void)state;
	run(1);
	script.room = 0;
	script.without_room = POST_HELD;
	start(&op);
	run(100);
	assert_int_equal(script.refusals, 1);
	script.room = 1;
	transport_changed();
	run(1);
	assert_int_equal(script.count, 1);
	finish(0, 0);
	run(1);
	assert_done(1, 0);
}

/* Goal: a path that has lost its link waits without one, and nobody looks at the one it had. */
static void test_path_without_link_is_held(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 1, 8);

	(void)state;
	start(&op);
	script.room = 0;
	script.without_room = POST_FULL;
	op.user_data = 2;
	op.timeout_us = 5000;
	start(&op);
	run(1);
	finish(0, 0);
	script.leaves = true;
	run(1);
	assert_done(1, 0);
	pass_us(10000);
	run(10);
	assert_done(2, -ETIMEDOUT);
	op.user_data = 3;
	op.timeout_us = 0;
	start(&op);
	run(1);
	script.leaves = false;
	script.room = POSTED_MAX;
	memset(&script.link, 0, sizeof(script.link));
	link_init(&script.link, &script_link, poller->env.schedule);
	script.path.link = &script.link;
	transport_changed();
	run(1);
	finish(0, 0);
	run(1);
	assert_done(3, 0);
}

/* Goal: while something that was given up may land nothing is posted, and nobody asks for it. */
static void test_fenced_remote_is_held(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 1, 8);
	struct fence fence = {.pending = 1};

	(void)state;
	remote.fence = &fence;
	start(&op);
	run(10);
	assert_int_equal(script.refusals + script.count, 0);
	fence.pending = 0;
	transport_changed();
	run(1);
	assert_int_equal(script.count, 1);
	finish(0, 0);
	run(1);
	assert_done(1, 0);
}

/* Goal: what the far end had no room for goes again, after a pause and not before. */
static void test_refused_is_paused(void **state)
{
	struct slu_op op = op_of(SLU_WRITE_NOTIFY, 1, 8);

	(void)state;
	start(&op);
	finish(0, -EAGAIN);
	run(20);
	assert_int_equal(script.count, 0);
	pass_us(99);
	run(20);
	assert_int_equal(script.count, 0);
	pass_us(1);
	run(2);
	assert_int_equal(script.count, 1);
	finish(0, 0);
	run(1);
	assert_done(1, 0);
}

/* Goal: with its remote dead nothing more is posted, and what waited says why. */
static void test_dead_remote(void **state)
{
	struct slu_op ops[] = {op_of(SLU_WRITE, 1, 8), op_of(SLU_READ, 2, 100 * SLICE)};
	struct slu_completion done[2];

	(void)state;
	script.room = 0;
	poller_start(poller, queue, ops, 2);
	remote_fail(&remote, -ESHUTDOWN);
	script.room = POSTED_MAX;
	run(2);
	assert_int_equal(script.count, 0);
	assert_int_equal(reap(done, 2), 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(done[i].status, -ESHUTDOWN);
		assert_int_equal(done[i].scope, SLU_SCOPE_SESSION);
	}
	assert_int_equal(script.path.stats.failed, 2);
}

/* Goal: an operation is counted once, in how many parts it was posted. */
static void test_parts_are_not_counted(void **state)
{
	struct slu_op op = op_of(SLU_READ, 1, 3 * SLICE);

	(void)state;
	start(&op);
	run(3);
	for (unsigned i = 0; i < 3 && !script.path.immediate; i++)
		finish(0, 0);
	run(1);
	assert_done(1, 0);
	assert_int_equal(script.path.stats.reads, 1);
	assert_int_equal(script.path.stats.bytes_read, 3 * SLICE);
}

/* Goal: by a clock that is behind the one of the submission a deadline far off has not passed. */
static void test_clock_behind(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 4, 8);

	(void)state;
	op.timeout_us = 30000000;
	script.room = 0;
	start(&op);
	pass_us(1000);
	run(1);
	now_ns -= 50 * NS_PER_US;
	poller->clock_turns = POLLER_CLOCK_TURNS;
	poller->expire_at_us = 0;
	run(1);
	assert_nothing_done();
	pass_us(30001000);
	run(2);
	assert_done(4, -ETIMEDOUT);
}

/* Goal: what is posted is taken back before it times out, its neighbours are sent once more. */
static void test_deadline_of_posted(void **state)
{
	struct slu_op late = op_of(SLU_WRITE, 1, 8), neighbour = op_of(SLU_WRITE, 2, 8);

	(void)state;
	late.timeout_us = 5000;
	start(&late);
	start(&neighbour);
	pass_us(1000);
	run(1);
	assert_int_equal(script.count, 2);
	pass_us(6000);
	run(2);
	assert_int_equal(script.cancels, 1);
	assert_done(1, -ETIMEDOUT);
	assert_nothing_done();
	run(2);
	assert_int_equal(script.count, 1);
	assert_int_equal(script.ops[0].length, 8);
	finish(0, 0);
	run(1);
	assert_done(2, 0);
}

/* Goal: a notification that may have arrived is never sent twice: lost with its link, it fails. */
static void test_notification_is_not_repeated(void **state)
{
	struct slu_op late = op_of(SLU_WRITE, 1, 8), notifies = op_of(SLU_WRITE_NOTIFY, 2, 8);

	(void)state;
	late.timeout_us = 5000;
	start(&late);
	start(&notifies);
	pass_us(1000);
	run(1);
	pass_us(6000);
	run(4);
	assert_done(1, -ETIMEDOUT);
	assert_done(2, -ECONNRESET);
	assert_int_equal(script.count, 0);
}

/* Goal: a queue that is detached gives up what does not finish: each one once, nothing in flight.
 */
static void test_detach_cancels(void **state)
{
	struct slu_op a = op_of(SLU_WRITE, 1, 3 * SLICE), b = op_of(SLU_READ, 2, 8);

	(void)state;
	start(&a);
	start(&b);
	run(1);
	poller_detach(poller, queue);
	assert_int_equal(script.count, 0);
	assert_all_done(2, -ECANCELED);
	assert_int_equal(poller_attach(poller, queue), 0);
}

/* One turn of a random history. @return operations started */
static uint64_t random_turn(struct random *random, uint64_t next, uint32_t outstanding)
{
	uint64_t begun = 0;

	script.room = (uint32_t)random_below(random, 8);
	if (outstanding < DEPTH && random_chance(random, 0.4)) {
		struct slu_op op = op_of((uint8_t)random_below(random, 3), next,
					 random_below(random, 6 * SLICE));

		if (random_chance(random, 0.2))
			op.timeout_us = 1 + (uint32_t)random_below(random, 50000);
		start(&op);
		begun = 1;
	}
	if (script.count > 0 && random_chance(random, 0.5))
		finish((uint32_t)random_below(random, script.count),
		       random_chance(random, 0.05) ? -EIO : 0);
	now_ns += random_below(random, 1000) * NS_PER_US;
	run(1);
	return begun;
}

/* Goal: in thousands of random histories every operation completes exactly once. */
static void test_random_histories(void **state)
{
	static unsigned char times[20000];
	struct random random = {.state = 42};
	struct slu_completion done[DEPTH];
	uint64_t begun = 0, ended = 0;

	(void)state;
	memset(times, 0, sizeof(times));
	for (unsigned turn = 0; turn < 1000000 && ended < sizeof(times); turn++) {
		uint32_t n;

		script.room = 8; /* for the last ones, which no random turn follows */
		if (begun < sizeof(times))
			begun += random_turn(&random, begun, (uint32_t)(begun - ended));
		else if (script.count > 0)
			finish(0, 0);
		run(1);
		n = reap(done, DEPTH);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(++times[done[i].user_data], 1);
		ended += n;
	}
	assert_int_equal(begun, sizeof(times));
	assert_int_equal(ended, begun);
	assert_int_equal(script.count, 0);
}

#define immediate(test)    cmocka_unit_test_setup_teardown(test, set_up_immediate, tear_down)
#define asynchronous(test) cmocka_unit_test_setup_teardown(test, set_up_asynchronous, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		immediate(test_short_finish_at_once),
		immediate(test_completed_leave_room),
		immediate(test_long_is_sliced),
		immediate(test_short_overtakes_long),
		immediate(test_long_ones_in_order),
		immediate(test_back_pressure),
		immediate(test_zero_length),
		asynchronous(test_zero_length),
		asynchronous(test_completions_out_of_order),
		asynchronous(test_notification_after_data),
		asynchronous(test_failed_slice),
		asynchronous(test_idle_link_is_flushed),
		asynchronous(test_idle_path_without_room),
		asynchronous(test_deadline_of_unposted),
		immediate(test_late_from_the_start),
		asynchronous(test_late_from_the_start),
		asynchronous(test_stalled_path_is_left_alone),
		asynchronous(test_cancel_makes_room),
		asynchronous(test_held_path_is_left_alone),
		asynchronous(test_path_without_link_is_held),
		asynchronous(test_drain_holds_up_nobody),
		asynchronous(test_fenced_remote_is_held),
		asynchronous(test_refused_is_paused),
		immediate(test_dead_remote),
		asynchronous(test_dead_remote),
		immediate(test_parts_are_not_counted),
		asynchronous(test_parts_are_not_counted),
		asynchronous(test_clock_behind),
		asynchronous(test_deadline_of_posted),
		asynchronous(test_notification_is_not_repeated),
		asynchronous(test_detach_cancels),
		asynchronous(test_random_histories),
	};

	if (eal_start() < 0) {
		printf("Bail out! %s\n", slu_last_error());
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
