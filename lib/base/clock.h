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

/** CLOCK_MONOTONIC; read in user space by way of the vDSO. */
static inline uint64_t clock_monotonic_ns(void *arg)
{
	struct timespec now;

	(void)arg;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/**
 * Let clock_tsc_ns() count at @p hz. Once per process, before it is used.
 *
 * @return false: this CPU's time stamp counter is not invariant; use clock_monotonic_ns()
 */
bool clock_tsc_init(uint64_t hz);

/** The time stamp counter in nanoseconds; where reading it is cheaper than the vDSO, as in a VM. */
uint64_t clock_tsc_ns(void *arg);

/** CPU time of this process, all threads, in nanoseconds. */
static inline uint64_t clock_process_cpu_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

#endif
