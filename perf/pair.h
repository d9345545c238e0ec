/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A fair comparison: two sides that run in turn, closely, while the cores stay where they are.
 *
 * The machine changes from minute to minute, so no figure is compared with one of another minute. A
 * round is a few neighbouring pairs of slices; its ratio is the median of theirs. The core-to-core
 * latency is probed before and after each round, and a round in which it changed is repeated.
 */
#ifndef PERF_PAIR_H
#define PERF_PAIR_H

#include "bench.h"

#define PAIR_ROUNDS_MAX 1000

/** One side: runs one slice and returns its rate or its latency. */
struct side {
	double (*measure)(void *arg);
	void *arg;
};

enum better {
	BETTER_HIGHER, /* a rate: the ratio is sluice / reference */
	BETTER_LOWER,  /* a latency: the ratio is reference / sluice */
};

struct pair_round {
	double sluice, reference;
	double ratio; /* over 1: Sluice is the better */
	double core_to_core_ns;
};

/**
 * Run bench.rounds rounds. A round is repeated up to eight times while the cores move.
 *
 * @param rounds  out: room for bench.rounds
 * @return        rounds that were thrown away because the cores moved
 */
unsigned pair_measure(const struct bench *bench, const struct side *sluice,
		      const struct side *reference, enum better better, struct pair_round *rounds);

#endif
