/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/plan.h"

#include <errno.h>

#include "base/log.h"

#define ALIGNMENT UINT64_C(64)
#define WHOLE_WINDOW                                                                               \
	(UINT64_C(1) << 20) /* least, so that all of a segment goes in large pieces                \
			     */

static int fail_over_segment(const struct plan *plan)
{
	char size[OPTION_SIZE_TEXT], need[OPTION_SIZE_TEXT], have[OPTION_SIZE_TEXT];
	unsigned __int128 bytes = (unsigned __int128)plan->size * plan->batch * plan->threads;

	option_format_size(plan->size, size);
	option_format_size(bytes >> 64 ? UINT64_MAX : (uint64_t)bytes, need);
	option_format_size(plan->segment_bytes, have);
	return fail(
		-EINVAL,
		"--size %s times --batch %u times --threads %u is %s, over the segment's %s: lower "
		"one of them, or serve a larger segment",
		size, plan->batch, plan->threads, need, have);
}

/* Batches that are checked must not overlap while in flight, so a slice has to hold them all. */
static void reduce_depth(const struct config *config, struct plan *plan)
{
	uint64_t batches = plan->slice_blocks / plan->batch;

	if (config->integrity_check && plan->depth > batches)
		plan->depth = (uint32_t)batches;
}

static int set_window(const struct config *config, struct plan *plan)
{
	bool whole = config->integrity_check || config_fills(config);
	uint64_t least = whole ? WHOLE_WINDOW : ALIGNMENT;
	uint64_t all;

	if (__builtin_mul_overflow(plan->size, (uint64_t)plan->batch * plan->depth,
				   &plan->window_bytes) ||
	    __builtin_mul_overflow(plan->window_bytes + ALIGNMENT, plan->threads, &all))
		return fail(-EINVAL,
			    "--size times --batch times --depth times --threads is over 64 "
			    "bits: lower one of them");
	if (plan->window_bytes < least)
		plan->window_bytes = least;
	plan->window_bytes = (plan->window_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	return 0;
}

static int lay_out(const struct config *config, struct plan *plan)
{
	plan->slice_blocks = plan->segment_bytes / plan->threads / plan->size;
	if (plan->slice_blocks < plan->batch)
		return fail_over_segment(plan);
	reduce_depth(config, plan);
	return set_window(config, plan);
}

int plan_make(const struct config *config, uint64_t segment_bytes, struct plan *plan)
{
	*plan = (struct plan){
		.segment_bytes = segment_bytes,
		.size = config->size,
		.batch = (uint32_t)config->batch,
		.depth = (uint32_t)config->depth,
		.threads = (uint32_t)config->threads,
	};
	return lay_out(config, plan);
}

int plan_make_sweep(const struct config *config, uint64_t segment_bytes, uint32_t index,
		    struct plan *plan)
{
	struct config step = *config;
	uint64_t fits, local;

	step.size = PLAN_SWEEP_MIN;
	while (index-- > 0)
		step.size *= PLAN_SWEEP_STEP;
	fits = segment_bytes / config->threads / step.size;
	local = PLAN_SWEEP_LOCAL / config->threads / config->depth / step.size;
	if (fits > local && local > 0)
		fits = local;
	if (step.batch > fits)
		step.batch = fits ? fits : 1;
	return plan_make(&step, segment_bytes, plan);
}

void plan_share(const struct plan *plan, uint32_t index, uint64_t *offset, uint64_t *length)
{
	uint64_t share = plan->segment_bytes / plan->threads / ALIGNMENT * ALIGNMENT;

	*offset = share * index;
	*length = index + 1 == plan->threads ? plan->segment_bytes - *offset : share;
}
