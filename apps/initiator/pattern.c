/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/pattern.h"

#include <string.h>

#include "base/random.h"

#define STEP UINT64_C(0x9e3779b97f4a7c15)

static uint64_t base_of(const struct pattern *pattern)
{
	struct random random = {.state = pattern->seed};

	random.state = random_next(&random) ^ pattern->generation;
	return random_next(&random);
}

/* One multiplication: checking must keep up with memory. Distinct words stay distinct. */
static inline uint64_t word_at(uint64_t base, uint64_t index)
{
	uint64_t word = base + index * STEP;

	return (word ^ (word >> 32)) * UINT64_C(0xbf58476d1ce4e5b9);
}

static uint8_t byte_at(uint64_t base, uint64_t offset)
{
	return (uint8_t)(word_at(base, offset / 8) >> (offset % 8 * 8));
}

bool pattern_is_zeros(const void *memory, uint64_t length)
{
	const uint8_t *bytes = memory;

	return bytes[0] == 0 && !memcmp(bytes, bytes + 1, length - 1);
}

uint8_t pattern_byte(const struct pattern *pattern, uint64_t offset)
{
	return byte_at(base_of(pattern), offset);
}

void pattern_fill(const struct pattern *pattern, uint64_t offset, void *memory, uint64_t length)
{
	uint64_t base = base_of(pattern);
	uint8_t *to = memory;
	uint64_t i = 0;

	for (; i < length && (offset + i) % 8; i++)
		to[i] = byte_at(base, offset + i);
	for (; i + 8 <= length; i += 8) {
		uint64_t word = word_at(base, (offset + i) / 8);

		memcpy(to + i, &word, 8);
	}
	for (; i < length; i++)
		to[i] = byte_at(base, offset + i);
}

static uint64_t compare_bytes(uint64_t base, uint64_t offset, const uint8_t *from, uint64_t i,
			      uint64_t end)
{
	while (i < end && from[i] == byte_at(base, offset + i))
		i++;
	return i;
}

uint64_t pattern_compare(const struct pattern *pattern, uint64_t offset, const void *memory,
			 uint64_t length)
{
	uint64_t base = base_of(pattern);
	const uint8_t *from = memory;
	uint64_t head = -offset % 8;
	uint64_t i;

	if (head > length)
		head = length;
	i = compare_bytes(base, offset, from, 0, head);
	if (i < head)
		return i;
	for (; i + 8 <= length; i += 8) {
		uint64_t word;

		memcpy(&word, from + i, 8);
		if (word != word_at(base, (offset + i) / 8))
			break;
	}
	return compare_bytes(base, offset, from, i, length);
}
