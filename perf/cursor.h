/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The order in which a buffer is walked: both sides of a comparison take their offsets from the
 * same cursor, so that each goes on where the other stopped and neither finds its data warmed.
 */
#ifndef PERF_CURSOR_H
#define PERF_CURSOR_H

#include <stdalign.h>
#include <stdint.h>

struct cursor {
	alignas(64) uint64_t base; /* bytes, of the walked part; a cache line for each thread */
	uint64_t size;             /* bytes of one piece */
	uint64_t count;            /* pieces in the part */
	uint64_t next;             /* 0..count-1 */
	const uint32_t *order;     /* a permutation of the pieces; NULL = ascending */
};

/** Offset of the next piece, round and round. */
static inline uint64_t cursor_next(struct cursor *cursor)
{
	uint64_t piece = cursor->order ? cursor->order[cursor->next] : cursor->next;

	if (++cursor->next == cursor->count)
		cursor->next = 0;
	return cursor->base + piece * cursor->size;
}

/** A seeded permutation of 0..count-1; free() it. Dies when out of memory. */
uint32_t *cursor_permutation(uint32_t count, uint64_t seed);

#endif
