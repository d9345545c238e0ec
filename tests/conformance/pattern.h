/* SPDX-License-Identifier: Apache-2.0 */
/** @file Bytes that tell where and when they were written. */
#ifndef CONFORMANCE_PATTERN_H
#define CONFORMANCE_PATTERN_H

#include <stdint.h>

static inline uint8_t pattern_byte(uint64_t offset, uint64_t generation)
{
	return (uint8_t)((offset * UINT64_C(0x9e3779b97f4a7c15) + generation * 0x5851f42d) >> 56);
}

static inline void pattern_fill(void *memory, uint64_t offset, uint64_t length, uint64_t generation)
{
	for (uint64_t i = 0; i < length; i++)
		((uint8_t *)memory)[i] = pattern_byte(offset + i, generation);
}

/** @return index of the first byte that differs, or @p length */
static inline uint64_t pattern_mismatch(const void *memory, uint64_t offset, uint64_t length,
					uint64_t generation)
{
	for (uint64_t i = 0; i < length; i++)
		if (((const uint8_t *)memory)[i] != pattern_byte(offset + i, generation))
			return i;
	return length;
}

#endif
