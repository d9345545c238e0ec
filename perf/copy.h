/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Plain copies: every kind of store that this CPU has. They are the physical limit that Sluice's
 * copies are held against, so they know nothing of Sluice.
 */
#ifndef PERF_COPY_H
#define PERF_COPY_H

#include <stddef.h>

#define COPY_ALIGN       64  /* of both addresses */
#define COPY_MULTIPLE    256 /* of the length */
#define COPY_KERNELS_MAX 8

/** Copy @p length bytes; the ranges do not overlap. */
typedef void (*copy_fn)(void *to, const void *from, size_t length);

struct copy_kernel {
	const char *name; /* "memcpy", "rep movsb", "avx2", "avx2 non-temporal", ... */
	copy_fn copy;
};

/**
 * The kernels that this CPU can run, in a fixed order. Any thread.
 *
 * @param kernels  out: room for COPY_KERNELS_MAX
 * @return         how many, at least 2
 */
unsigned copy_kernels(struct copy_kernel *kernels);

#endif
