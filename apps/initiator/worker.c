/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/worker.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "initiator/batch.h"
#include "initiator/timer.h"

#define REAP_MAX      64
#define LOOK_NS       UINT64_C(100000000) /* how long a wait may overlook a moved end_ns */
#define SPIN_AHEAD_NS UINT64_C(60000)     /* a sleep may wake up this late */

static uint64_t end_ns(const struct worker *worker)
{
	return atomic_load_explicit(&worker->load->end_ns, memory_order_relaxed);
}

static void end_now(struct worker *worker)
{
	uint64_t now = timer_now();

	worker->broken = true;
	if (now < end_ns(worker))
		atomic_store_explicit(&worker->load->end_ns, now, memory_order_relaxed);
}

int worker_prepare(struct worker *worker)
{
	const struct config *config = worker->load->config;
	const struct plan *plan = &worker->load->plan;

	worker->slots = calloc(plan->depth, sizeof(*worker->slots));
	worker->ops = calloc((size_t)plan->depth * plan->batch, sizeof(*worker->ops));
	worker->idle = calloc(plan->depth, sizeof(*worker->idle));
	if (!worker->slots || !worker->ops || !worker->idle)
		return fail(-ENOMEM, "out of memory for %u batches of %u: lower --depth or --batch",
			    plan->depth, plan->batch);
	memset(worker->errors, 0, sizeof(worker->errors));
	worker->submitted = worker->finished = 0;
	worker->verified_bytes = 0;
	worker->pages_looked_at = worker->pages_of_zeros = 0;
	worker->batches_begun = 0;
	access_init(&worker->access, plan_slice(plan, worker->index), plan->size,
		    plan->slice_blocks, config->access == ACCESS_RANDOM, config->seed);
	for (uint32_t i = 0; i < plan->depth; i++) {
		batch_init(worker, &worker->slots[i]);
		worker->idle[i] = i;
	}
	worker->idle_head = 0;
	worker->idle_count = plan->depth;
	return 0;
}

void worker_reset(struct worker *worker)
{
	free(worker->slots);
	free(worker->ops);
	free(worker->idle);
	worker->slots = NULL;
	worker->ops = NULL;
	worker->idle = NULL;
}

void worker_clear_counters(struct worker *worker)
{
	worker->counters = (struct counters){0};
	histogram_reset(&worker->operation_ns);
	histogram_reset(&worker->batch_ns);
}

void worker_count_error(struct worker *worker, int error, bool ends)
{
	uint32_t number = (uint32_t)abs(error);

	worker->errors[number < ERRNO_MAX ? number : ERRNO_MAX]++;
	if (ends)
		end_now(worker);
}

void worker_report_mismatch(struct worker *worker, uint64_t offset, uint8_t expected, uint8_t got)
{
	if (!worker->mismatch.found)
		worker->mismatch = (struct mismatch){true, offset, expected, got};
	end_now(worker);
}

static void put_idle(struct worker *worker, uint32_t slot)
{
	uint32_t depth = worker->load->plan.depth;
	uint32_t tail = worker->idle_head + worker->idle_count++;

	worker->idle[tail < depth ? tail : tail - depth] = slot;
}

static void take_idle(struct worker *worker)
{
	if (++worker->idle_head == worker->load->plan.depth)
		worker->idle_head = 0;
	worker->idle_count--;
}

/* When the next batch is due: batches of all workers are spread evenly. */
static uint64_t due_ns(const struct worker *worker)
{
	const struct load *load = worker->load;
	double interval = (double)load->plan.batch * load->plan.threads * 1e9 / load->config->rate;
	double batch = (double)worker->due_count + (double)worker->index / load->plan.threads;

	return load->start_ns + (uint64_t)(batch * interval);
}

static bool is_open_loop(const struct worker *worker)
{
	return worker->load->config->rate > 0 && !worker->ending;
}

static struct slot *idle_slot(const struct worker *worker, uint32_t i)
{
	uint32_t depth = worker->load->plan.depth;
	uint32_t at = worker->idle_head + i;

	return &worker->slots[worker->idle[at < depth ? at : at - depth]];
}

static void finish(struct worker *worker, struct slot *slot)
{
	if (slot->done)
		batch_finish(worker, slot);
	slot->done = false;
}

static void build(struct worker *worker, struct slot *slot)
{
	finish(worker, slot);
	if (!slot->built)
		batch_build(worker, slot);
}

/*
 * Submit the batch of the idle slot that waited longest.
 *
 * @return 1 done; 0 not now: the queue is full, it is not due, or the worker is broken
 */
static int submit_next(struct worker *worker)
{
	struct slot *slot = idle_slot(worker, 0);
	bool open_loop = is_open_loop(worker);
	int rc;

	if (!slot->begun) {
		if (open_loop && due_ns(worker) > timer_now())
			return 0;
		build(worker, slot);
		worker->now_ns = timer_now();
		slot->started_ns = open_loop ? due_ns(worker) : worker->now_ns;
		slot->begun = true;
		worker->due_count++;
	}
	rc = batch_submit(worker, slot);
	if (rc < 0)
		worker_count_error(worker, rc, true);
	if (rc <= 0)
		return 0;
	take_idle(worker);
	return 1;
}

static void slot_finished(struct worker *worker, struct slot *slot, uint64_t now, bool counted)
{
	if (counted && !slot->failed) {
		histogram_record(&worker->batch_ns, now - slot->started_ns, 1);
		histogram_add(&worker->counters.batches, 1);
	}
	slot->built = slot->begun = false;
	slot->done = true;
	put_idle(worker, (uint32_t)(slot - worker->slots));
}

static void count_done(struct worker *worker, const struct slot *slot, uint64_t now, uint32_t n)
{
	struct counters *counters = &worker->counters;
	uint64_t bytes = n * worker->load->plan.size;

	histogram_record(&worker->operation_ns, now - slot->started_ns, n);
	histogram_add(&counters->operations, n);
	histogram_add(slot->opcode == SLU_READ ? &counters->bytes_read : &counters->bytes_written,
		      bytes);
}

/* How many from the front are the same batch's and went well. */
static uint32_t run_length(const struct slu_completion *done, uint32_t n)
{
	uint32_t i = 0;

	while (i < n && done[i].user_data == done[0].user_data && done[i].status == 0)
		i++;
	return i;
}

static void account(struct worker *worker, const struct slu_completion *done, uint32_t n)
{
	uint64_t now = worker->now_ns = timer_now();
	bool counted = now >= worker->load->begin_ns && now < end_ns(worker);

	worker->outstanding -= n;
	worker->finished += n;
	while (n > 0) {
		struct slot *slot = &worker->slots[done->user_data];
		uint32_t well = run_length(done, n);

		if (well && counted)
			count_done(worker, slot, now, well);
		if (!well) {
			worker_count_error(worker, done->status,
					   (done->scope & ~SLU_MAY_LAND) >= SLU_SCOPE_PATH);
			slot->failed++;
		}
		slot->completed += well ? well : 1;
		if (slot->completed == worker->load->plan.batch)
			slot_finished(worker, slot, now, counted);
		done += well ? well : 1;
		n -= well ? well : 1;
	}
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How long there is nothing to submit for; 0 when the queue is merely full for the moment. */
static uint64_t until_due(const struct worker *worker)
{
	uint64_t due;

	if (!worker->idle_count)
		return LOOK_NS;
	if (!is_open_loop(worker))
		return 0;
	due = due_ns(worker);
	return due > worker->now_ns + SPIN_AHEAD_NS
		       ? least(LOOK_NS, due - worker->now_ns - SPIN_AHEAD_NS)
		       : 0;
}

/*
 * Nothing to reap: wait for a completion, or for the next due time. Short waits yield, so that
 * threads that outnumber the cores do not keep each other from working.
 */
static void idle(struct worker *worker)
{
	uint64_t wait_ns;

	worker->now_ns = timer_now();
	wait_ns = until_due(worker);
	if (wait_ns < NS_PER_US)
		sched_yield();
	else if (worker->outstanding)
		slu_wait(worker->queue, 1, wait_ns / NS_PER_US);
	else
		nanosleep(&(struct timespec){.tv_nsec = (long)wait_ns}, NULL);
}

static void reap(struct worker *worker)
{
	struct slu_completion done[REAP_MAX];
	int n = slu_reap(worker->queue, done, REAP_MAX);

	if (n > 0)
		account(worker, done, (uint32_t)n);
	else
		idle(worker);
}

/* At the end: batches that were built and READs that check a WRITE are still made, no others. */
static void submit_last(struct worker *worker)
{
	for (uint32_t n = worker->idle_count; n > 0 && !worker->broken; n--) {
		struct slot *slot = idle_slot(worker, 0);

		finish(worker, slot);
		if (slot->read_back || slot->built) {
			if (!submit_next(worker))
				return;
		} else {
			take_idle(worker);
			put_idle(worker, (uint32_t)(slot - worker->slots));
		}
	}
}

/* Wait for all workers; the last one does @what first. */
static void meet(struct worker *worker, void (*what)(struct load *load))
{
	struct meeting *meeting = &worker->load->meeting;
	uint32_t number = atomic_load_explicit(&meeting->number, memory_order_relaxed);

	if (atomic_fetch_add_explicit(&meeting->arrived, 1, memory_order_acq_rel) + 1 ==
	    worker->load->plan.threads) {
		what(worker->load);
		atomic_store_explicit(&meeting->arrived, 0, memory_order_relaxed);
		/* Pairs with the acquire below: what was written here is seen by all. */
		atomic_store_explicit(&meeting->number, number + 1, memory_order_release);
	}
	while (atomic_load_explicit(&meeting->number, memory_order_acquire) == number)
		sched_yield();
}

static void begin_moving(struct load *load)
{
	load->meeting.began_ns = timer_now();
	load->meeting.over =
		load->meeting.began_ns >= atomic_load_explicit(&load->end_ns, memory_order_relaxed);
}

/* Time counts as completions do: from begin_ns to end_ns. */
static void end_moving(struct load *load)
{
	uint64_t end =
		least(timer_now(), atomic_load_explicit(&load->end_ns, memory_order_relaxed));
	uint64_t begin = load->meeting.began_ns;

	if (begin < load->begin_ns)
		begin = load->begin_ns;
	if (end > begin)
		atomic_fetch_add_explicit(&load->meeting.moving_ns, end - begin,
					  memory_order_relaxed);
}

/* Move what every slot holds, once. */
static void move_window(struct worker *worker)
{
	uint32_t left = worker->load->plan.depth;

	do {
		while (left && worker->idle_count && submit_next(worker))
			left--;
		reap(worker);
	} while (worker->outstanding || (left && !worker->broken));
}

/* Who fails ends the measurement, and moves nothing more until all have noticed. */
static void measure_in_rounds(struct worker *worker)
{
	for (;;) {
		for (uint32_t i = 0; i < worker->idle_count; i++)
			build(worker, idle_slot(worker, i));
		meet(worker, begin_moving);
		if (worker->load->meeting.over)
			return;
		move_window(worker);
		meet(worker, end_moving);
	}
}

static void measure_freely(struct worker *worker)
{
	while (!worker->broken && worker->now_ns < end_ns(worker)) {
		while (worker->idle_count && submit_next(worker))
			;
		reap(worker);
	}
}

void worker_measure(struct worker *worker)
{
	worker->ending = false;
	worker->due_count = 0;
	worker->now_ns = timer_now();
	if (load_in_rounds(worker->load))
		measure_in_rounds(worker);
	else
		measure_freely(worker);
	worker->ending = true;
	for (submit_last(worker); worker->outstanding; submit_last(worker))
		reap(worker);
}
