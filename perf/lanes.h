/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Lanes: threads that repeat a step side by side, and the rate at which they do.
 */
#ifndef PERF_LANES_H
#define PERF_LANES_H

#include "bench.h"

#define LANES_MAX 16

/** One thread's work. Until lanes_rate() returns, @p arg belongs to that thread. */
struct lane {
	int core;                    /* one of bench.cores, or -1: either */
	uint64_t (*step)(void *arg); /* do a little; returns what counts: bytes, operations */
	void (*finish)(void *arg);   /* complete what is outstanding; NULL: nothing ever is */
	void *arg;
};

/**
 * Run the lanes together for one slice, after a warm-up that is not counted.
 *
 * @return what the lanes did together, per second
 */
double lanes_rate(const struct bench *bench, const struct lane *lanes, unsigned count);

#endif
