/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/timer.h"

#include <stdio.h>
#include <string.h>

#define CALIBRATION_NS UINT64_C(20000000)

struct timer timer;

/* The kernel drops the counter as its clock source when it finds it unsteady between CPUs. */
static bool kernel_trusts_tsc(void)
{
	FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
	char name[32] = "";

	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return !strcmp(name, "tsc\n");
}

void timer_start(void)
{
	timer.ns_start = clock_monotonic_ns(NULL);
	timer.tsc_start = __rdtsc();
}

void timer_calibrate(void)
{
	uint64_t ns, ticks;

	do {
		ns = clock_monotonic_ns(NULL) - timer.ns_start;
		ticks = __rdtsc() - timer.tsc_start;
	} while (ns < CALIBRATION_NS);
	timer.uses_tsc = ticks && kernel_trusts_tsc();
	if (timer.uses_tsc)
		timer.ns_per_tick_q32 = (uint64_t)(((unsigned __int128)ns << 32) / ticks);
}

const char *timer_name(void)
{
	return timer.uses_tsc ? "tsc" : "clock_gettime";
}
