/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <x86intrin.h>

static uint64_t ns_per_tick; /* 32.32 fixed point */

/* Leaf 0x80000007, EDX bit 8: one rate in all power states, on all cores (Intel SDM, AMD APM). */
static bool tsc_is_invariant(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007, &a, &b, &c, &d) && d & 1u << 8;
}

static bool kernel_keeps_time_by_tsc(const char *source)
{
	FILE *file = fopen(source, "re");
	char name[32] = "";

	if (!file)
		return false;
	(void)!fgets(name, sizeof(name), file);
	fclose(file);
	return strcmp(name, "tsc\n") == 0;
}

bool clock_tsc_init(uint64_t hz, const char *source)
{
	if (hz == 0 || !tsc_is_invariant() || !kernel_keeps_time_by_tsc(source))
		return false;
	ns_per_tick = (uint64_t)(((unsigned __int128)NS_PER_SECOND << 32) / hz);
	return true;
}

/* Not from a start of ours: on a core whose counter is behind, that would be yet to come. */
uint64_t clock_tsc_ns(void *arg)
{
	(void)arg;
	return (uint64_t)(((unsigned __int128)__rdtsc() * ns_per_tick) >> 32);
}
