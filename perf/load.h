/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Sluice's side of a comparison: a thread that submits batches to its queue and reaps them.
 */
#ifndef PERF_LOAD_H
#define PERF_LOAD_H

#include <sluice/sluice.h>

#include "common/histogram.h"
#include "cursor.h"
#include "lanes.h"
#include "rig.h"

#define LOAD_BATCH_MAX 64

struct load_options {
	enum slu_opcode opcode;
	bool calls;      /* in place of operations, of so many bytes */
	uint64_t length; /* of one operation; at most the cursor's piece */
	uint32_t batch;  /* operations submitted together, 1..LOAD_BATCH_MAX */
	uint32_t depth;  /* batches in flight */
	int32_t poller;  /* as in slu_queue_options */
	bool sleep;      /* once the queue is full, sleep in slu_wait() until half of it is done */
	struct histogram *batch_ns; /* from submit to the end of the step; NULL = not wanted */
};

/** Everything that one thread needs; opened and closed by the main thread. */
struct load {
	alignas(64) struct load_options options;
	struct cursor *cursor;
	struct slu_queue *queue;
	bool fixed; /* batches walk all pieces, whole times: the operations never change */
	uint32_t outstanding;
	uint64_t reaped; /* operations, since load_open() */
	struct slu_op ops[LOAD_BATCH_MAX];
};

/** Open its queue. @p cursor gives the offsets, the same ones at both ends of @p pair. */
void load_open(struct load *load, const struct rig *rig, const struct rig_pair *pair,
	       struct cursor *cursor, const struct load_options *options);

void load_close(struct load *load);

/** A lane's step: hand over one batch; with the queue full, reap. @return bytes reaped */
uint64_t load_step(void *arg);

/** A lane's finish: reap all that is outstanding. */
void load_finish(void *arg);

/**
 * Does it really move the bytes? One batch of the load, and both ends compared; dies if not.
 *
 * Leaves the cursor where it was.
 */
void load_verify(struct load *load, const struct rig_pair *pair);

#endif
