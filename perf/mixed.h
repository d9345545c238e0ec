/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How long a short READ takes beside bulk that saturates its poller. Bulk goes in slices, so it is
 * held against what a READ takes when there is nothing else, and what a slice takes then.
 */
#ifndef PERF_MIXED_H
#define PERF_MIXED_H

#include "rig.h"

struct mixed_row {
	const char *name;
	double floor;
	enum slu_opcode opcode; /* of bulk */
	enum rig_memory memory; /* of which it walks a half */
	int32_t poller;         /* as in slu_queue_options */
	uint64_t slice_bytes;
};

/** The row of it; the target is paused between measurements. */
void mixed_run(const struct rig *rig, const struct mixed_row *row);

#endif
