/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Plain copies as lanes: what the machine moves without Sluice.
 */
#ifndef PERF_PLAIN_H
#define PERF_PLAIN_H

#include "copy.h"
#include "cursor.h"
#include "lanes.h"

/** One thread that copies piece after piece, to the same offset that it reads from. */
struct plain {
	char *to;
	const char *from;
	uint64_t window; /* of @from, read again and again; 0: all of it */
	struct cursor *cursor;
	int core;     /* as in struct lane */
	copy_fn copy; /* set by plain_rate() */
};

/** Copy with @p kernel on all of @p plains for one slice. @return bytes a second, together */
double plain_rate(const struct bench *bench, struct plain *plains, unsigned count,
		  const struct copy_kernel *kernel);

/**
 * Try every kernel five times in turn and name the fastest, by the second best try of each.
 *
 * @param rates  out: that of each kernel, in the order of copy_kernels(); room for COPY_KERNELS_MAX
 */
struct copy_kernel plain_fastest(const struct bench *bench, struct plain *plains, unsigned count,
				 double *rates);

#endif
