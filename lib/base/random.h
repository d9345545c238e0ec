/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Seeded randomness: SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
 * generators, 2014). Equal seeds give equal histories. Not for secrets: those, and seeds, come from
 * the environment.
 */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include <stdint.h>

#include "base/environment.h"

struct random {
	uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
	uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/** A number that nobody may guess; waits for the kernel to have randomness. */
static inline uint64_t random_word(void)
{
	uint64_t word = 0;

	environment->random(&word, sizeof(word), true);
	return word;
}

/** 0..bound-1, without the division (Lemire's multiplication). @p bound is at least 1. */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
	return (uint64_t)(((unsigned __int128)random_next(random) * bound) >> 64);
}

/** True with a probability of @p chance, 0..1. */
static inline int random_chance(struct random *random, double chance)
{
	return (double)(random_next(random) >> 11) * 0x1p-53 < chance;
}

#endif
