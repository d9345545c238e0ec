/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * One worker: a thread's queue, its slices of the segment and of local memory, and what it counts.
 *
 * The worker's thread writes everything here; the main thread reads the counters and histograms
 * at any time (they are atomic) and the rest while the worker stands still between two steps.
 */
#ifndef INITIATOR_WORKER_H
#define INITIATOR_WORKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/sluice.h>

#include "common/histogram.h"
#include "initiator/access.h"
#include "initiator/config.h"
#include "initiator/plan.h"

#define ERRNO_MAX 160 /* numbers that errors are told apart by; larger ones count as this one */

/**
 * Where all workers meet in a checked measurement: they fill and compare together, with nothing in
 * flight, and then move together, so that the time of moving alone can be told.
 */
struct meeting {
	_Atomic uint32_t arrived;
	_Atomic uint32_t number;    /* of the meeting; who sees it change may go on */
	bool over;                  /* the following are written by who arrives last */
	uint64_t began_ns;          /* when they last began to move */
	_Atomic uint64_t moving_ns; /* within the measured time, so far */
};

/** What all workers share. Constant during a step, but for end_ns and the meeting. */
struct load {
	const struct config *config;
	struct plan plan;
	struct slu_remote *remote;
	struct slu_region *region;
	uint64_t generation;     /* of the patterns of this measurement; low 32 bits zero */
	uint64_t start_ns;       /* when the first operation is due */
	uint64_t begin_ns;       /* the measured time, in timer_now() */
	_Atomic uint64_t end_ns; /* may be moved forward: by a signal, by a worker that fails */
	_Alignas(64) struct meeting meeting;
};

/** One batch, idle or in flight. */
struct slot {
	struct slu_op *ops;
	uint64_t started_ns; /* when it was submitted, or due */
	uint64_t generation; /* of the pattern that it was filled with */
	uint32_t submitted;  /* of its operations */
	uint32_t completed;
	uint32_t failed;
	bool built;     /* its operations are what is to be submitted next */
	bool begun;     /* and started_ns is set */
	bool done;      /* all of it has completed, and batch_finish() has not been called */
	bool read_back; /* its WRITE is done, the READ that checks it comes next */
	uint8_t opcode;
};

/** Counted within the measured time. */
struct counters {
	_Atomic uint64_t operations;
	_Atomic uint64_t batches;
	_Atomic uint64_t bytes_read;
	_Atomic uint64_t bytes_written;
};

/** The first byte that was not what it should be. */
struct mismatch {
	bool found;
	uint64_t offset; /* in the segment */
	uint8_t expected;
	uint8_t got;
};

struct worker {
	_Alignas(64) struct load *load; /* no cache line of one worker is another's as well */
	uint32_t index;
	int core;      /* that its thread is pinned to; -1 = none */
	int pin_error; /* why it could not be */
	struct slu_queue *queue;
	uint8_t *memory;       /* its window of local memory */
	uint64_t local_offset; /* of the window in load->region */

	struct access access;
	struct slot *slots;
	struct slu_op *ops;
	uint32_t *idle; /* ring of idle slots, next to be used first */
	uint32_t idle_head;
	uint32_t idle_count;
	uint32_t outstanding; /* operations */
	uint64_t due_count;   /* batches that have become due, with --rate */
	uint64_t batches_begun;
	uint64_t now_ns; /* the latest look at the clock */
	bool ending;     /* only what was begun is finished */
	bool broken;     /* nothing more can be submitted */

	struct counters counters;
	struct histogram operation_ns;
	struct histogram batch_ns;
	uint64_t submitted; /* operations of batches, measured or not */
	uint64_t finished;  /* of these, well or badly */
	uint64_t errors[ERRNO_MAX + 1];
	uint64_t verified_bytes;
	uint64_t pages_looked_at; /* of what was read last, see verify_look() */
	uint64_t pages_of_zeros;
	struct mismatch mismatch;
};

/**
 * Get ready for the measurements of load->plan.
 *
 * @return 0; -ENOMEM. worker_reset() before the next plan, or at the end.
 */
int worker_prepare(struct worker *worker);

/** Give back what worker_prepare() took; accepts a worker that was never prepared. */
void worker_reset(struct worker *worker);

/**
 * Is filling and comparing kept apart from moving? Not in an open loop: there requests are due
 * while others are filled.
 */
static inline bool load_in_rounds(const struct load *load)
{
	return load->config->integrity_check && !(load->config->rate > 0);
}

/** A step: submit and reap from now to load->end_ns, then let everything finish. */
void worker_measure(struct worker *worker);

/** Forget counters and latencies, for the next repeat. Errors and checked bytes stay. */
void worker_clear_counters(struct worker *worker);

/** Count a failed operation by its errno and end the measurement when @p ends. */
void worker_count_error(struct worker *worker, int error, bool ends);

/** Keep the first mismatch and end the measurement. @p got differs from what belongs there. */
void worker_report_mismatch(struct worker *worker, uint64_t offset, uint8_t expected, uint8_t got);

#endif
