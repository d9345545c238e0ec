/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The order in which a worker visits the blocks of its slice of the segment.
 *
 * A pass visits every block once; passes repeat. Sequential order counts up. Random order is a
 * seeded permutation, the same in each pass: any run of up to `blocks` consecutive visits touches
 * different blocks, so batches in flight never overlap and what a block holds last is computable.
 */
#ifndef INITIATOR_ACCESS_H
#define INITIATOR_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

struct access {
	uint64_t base;     /* first byte of the slice in the segment */
	uint64_t size;     /* bytes of a block */
	uint64_t blocks;   /* in the slice, 1 or more */
	uint64_t position; /* of the next visit in its pass */
	uint64_t pass;     /* of the next visit */
	bool random;
	uint32_t shift;    /* half the bits of the permutation's domain */
	uint64_t mask;     /* its domain, a power of two, minus 1 */
	uint64_t key[2];   /* odd multipliers */
};

/** Start before the first visit of pass 0. */
void access_init(struct access *access, uint64_t base, uint64_t size, uint64_t blocks, bool random,
		 uint64_t seed);

/* Bijective on 0..mask, as adding, multiplying by an odd number and folding down high bits are. */
static inline uint64_t access_scramble(const struct access *access, uint64_t x)
{
	x = ((x + access->key[1]) * access->key[0]) & access->mask;
	x ^= x >> access->shift;
	x = (x * access->key[1]) & access->mask;
	return x ^ (x >> access->shift);
}

/** Offset in the segment of the block at @p position of a pass. */
static inline uint64_t access_offset(const struct access *access, uint64_t position)
{
	uint64_t block = position;

	/* Cycle walking: the domain is under twice the blocks, so this takes under two rounds. */
	if (access->random)
		do
			block = access_scramble(access, block);
		while (block >= access->blocks);
	return access->base + block * access->size;
}

/** Offset in the segment of the next visit. */
static inline uint64_t access_next(struct access *access)
{
	uint64_t offset = access_offset(access, access->position);

	if (++access->position == access->blocks) {
		access->position = 0;
		access->pass++;
	}
	return offset;
}

#endif
