/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How one measurement is laid out: which bytes of the segment and of local memory each worker uses.
 *
 *   segment:  | slice 0 | slice 1 | ... | slice threads-1 | unused rest, under one block a slice |
 *   slice:    blocks of `size` bytes, 1 or more batches of them
 *   local:    | window 0 | window 1 | ...,  window: depth batches of `batch` blocks
 */
#ifndef INITIATOR_PLAN_H
#define INITIATOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "initiator/config.h"

#define PLAN_SWEEP_MIN   UINT64_C(64)
#define PLAN_SWEEP_MAX   UINT64_C(16777216)
#define PLAN_SWEEP_STEP  4
#define PLAN_SWEEP_SIZES 10
#define PLAN_SWEEP_LOCAL (UINT64_C(1) << 30) /* local memory that a sweep uses at most */

struct plan {
	uint64_t segment_bytes;
	uint64_t size;
	uint32_t batch;
	uint32_t depth;         /* under --depth when the slices hold fewer batches to check */
	uint32_t threads;
	uint64_t slice_blocks;
	uint64_t window_bytes;
};

/**
 * Lay out a measurement of --size.
 *
 * @return 0; -EINVAL it does not fit into the segment or into memory, see slu_last_error()
 */
int plan_make(const struct config *config, uint64_t segment_bytes, struct plan *plan);

/**
 * Lay out one size of a sweep, with a smaller batch where --batch does not fit.
 *
 * @param index  0..PLAN_SWEEP_SIZES-1
 * @return       0; -EINVAL not even a batch of one fits
 */
int plan_make_sweep(const struct config *config, uint64_t segment_bytes, uint32_t index,
		    struct plan *plan);

/** Where worker @p index's slice starts. */
static inline uint64_t plan_slice(const struct plan *plan, uint32_t index)
{
	return plan->slice_blocks * plan->size * index;
}

/** The share of worker @p index in a pass over the whole segment, which has no unused rest. */
void plan_share(const struct plan *plan, uint32_t index, uint64_t *offset, uint64_t *length);

#endif
