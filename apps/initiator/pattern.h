/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Data that knows where and when it belongs: each 8-byte word depends on the seed, its offset in
 * the segment and a generation, so that misplaced and stale blocks are both found.
 */
#ifndef INITIATOR_PATTERN_H
#define INITIATOR_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

/** What bytes depend on beside their offset. */
struct pattern {
	uint64_t seed;
	uint64_t generation;
};

/** Write what belongs at @p offset..@p offset + @p length of the segment to @p memory. */
void pattern_fill(const struct pattern *pattern, uint64_t offset, void *memory, uint64_t length);

/**
 * Compare @p memory with what belongs there.
 *
 * @return @p length when all is equal, else the index of the first byte that differs
 */
uint64_t pattern_compare(const struct pattern *pattern, uint64_t offset, const void *memory,
			 uint64_t length);

/** Is there nothing but zeros in @p memory, of at least one byte? */
bool pattern_is_zeros(const void *memory, uint64_t length);

/** The byte that belongs at @p offset. */
uint8_t pattern_byte(const struct pattern *pattern, uint64_t offset);

#endif
