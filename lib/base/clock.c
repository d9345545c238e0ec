/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <cpuid.h>
#include <x86intrin.h>

static uint64_t tsc_start;
static uint64_t ns_per_tick; /* 32.32 fixed point */

/* Leaf 0x80000007, EDX bit 8: one rate in all power states, on all cores (Intel SDM, AMD APM). */
static bool tsc_is_invariant(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && d & 1u << 8;
}

bool clock_tsc_init(uint64_t hz)
{
	if (hz == 0 || !tsc_is_invariant())
		return false;
	ns_per_tick = (uint64_t)(((unsigned __int128)NS_PER_SECOND << 32) / hz);
	tsc_start = __rdtsc();
	return true;
}

uint64_t clock_tsc_ns(void *arg)
{
	(void)arg;
	return (uint64_t)(((unsigned __int128)(__rdtsc() - tsc_start) * ns_per_tick) >> 32);
}
