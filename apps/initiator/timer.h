/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Timestamps for latencies: the processor's time-stamp counter where the kernel itself keeps time
 * by it (half the cost of clock_gettime), else CLOCK_MONOTONIC.
 *
 * Order of calls: timer_start early, timer_calibrate before the first timer_now, both from one
 * thread; then timer_now from any.
 */
#ifndef INITIATOR_TIMER_H
#define INITIATOR_TIMER_H

#include <stdbool.h>
#include <stdint.h>
#include <x86intrin.h>

#include "base/clock.h"

struct timer {
	bool uses_tsc;
	uint64_t tsc_start;
	uint64_t ns_start;
	uint64_t ns_per_tick_q32; /* nanoseconds per tick, 32 binary places */
};

extern struct timer timer;

/** Take the first of the two readings that calibrate the counter. */
void timer_start(void);

/** Take the second one; waits until 20 ms after the first. */
void timer_calibrate(void);

/** "tsc" or "clock_gettime" */
const char *timer_name(void);

/** Nanoseconds, monotonic. Hot. */
static inline uint64_t timer_now(void)
{
	unsigned __int128 ns;

	if (!timer.uses_tsc)
		return clock_monotonic_ns(NULL);
	ns = (unsigned __int128)(__rdtsc() - timer.tsc_start) * timer.ns_per_tick_q32;
	return timer.ns_start + (uint64_t)(ns >> 32);
}

#endif
