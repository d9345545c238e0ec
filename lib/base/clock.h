/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Time. Code below the engine takes a struct clock; tests put virtual time behind it.
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/environment.h"

#define NS_PER_SECOND UINT64_C(1000000000)
#define NS_PER_US     UINT64_C(1000)

/** Nanoseconds, monotonic. */
struct clock {
	uint64_t (*now)(void *arg);
	void *arg;
};

static inline uint64_t clock_now_ns(const struct clock *clock)
{
	return clock->now(clock->arg);
}

/** CLOCK_MONOTONIC, also in a simulation; read in user space by way of the vDSO. */
static inline uint64_t clock_kernel_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/** Of the environment: CLOCK_MONOTONIC, or a simulation's virtual time. */
static inline uint64_t clock_monotonic_ns(void *arg)
{
	(void)arg;
	return environment->now_ns();
}

/** In @p timeout_us from now; more than a day is taken for a day, so that no sum overflows. */
static inline uint64_t clock_deadline_ns(uint64_t timeout_us)
{
	const uint64_t day_us = UINT64_C(86400000000);

	return clock_monotonic_ns(NULL) + (timeout_us < day_us ? timeout_us : day_us) * NS_PER_US;
}

/** When half of the time until @p deadline_ns has passed. */
static inline uint64_t clock_halfway_ns(uint64_t deadline_ns)
{
	uint64_t now = clock_monotonic_ns(NULL);

	return deadline_ns > now ? now + (deadline_ns - now) / 2 : deadline_ns;
}

/** Where the kernel says by what it keeps time. */
#define CLOCK_SOURCE_FILE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

/**
 * Let clock_tsc_ns() count at @p hz. Once per process, before it is used.
 *
 * What the CPU says of its time stamp counter is not enough: the counters of two cores, or of a
 * guest that was moved, can differ all the same. The kernel compares them, and keeps time by
 * something else where they do.
 *
 * @param source  CLOCK_SOURCE_FILE, or a test's
 * @return        false: the counter is not invariant, or the kernel does not keep time by it; use
 *                clock_monotonic_ns()
 */
bool clock_tsc_init(uint64_t hz, const char *source);

/** The time stamp counter in nanoseconds; where the kernel keeps time by it. */
uint64_t clock_tsc_ns(void *arg);

/** How far the clock of another core may be ahead of ours. */
#define CLOCK_AHEAD_MAX_US 10000000u

/**
 * Have @p timeout_us passed from @p since_us to @p now_us, both the low 32 bits of a time?
 *
 * A time that is yet to come, by another core's clock, is no time long ago: the last
 * CLOCK_AHEAD_MAX_US before the bits come round again are taken for that. So @p timeout_us is at
 * most half of the round, and somebody has to look before the rest of it has passed as well.
 */
static inline bool clock_passed_us(uint32_t since_us, uint32_t timeout_us, uint32_t now_us)
{
	uint32_t passed = now_us - since_us;

	return passed >= timeout_us && passed <= UINT32_MAX - CLOCK_AHEAD_MAX_US;
}

/** CPU time of this process, all threads, in nanoseconds. */
static inline uint64_t clock_process_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

#endif
