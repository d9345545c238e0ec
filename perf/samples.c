/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <stdlib.h>

#include "base/clock.h"
#include "bench.h"

#define SAMPLES_MAX     65536
#define SAMPLES_WARM_UP 1000

static double sample_ns(unsigned block, void (*before)(void *arg), void (*once)(void *arg),
			void *arg)
{
	uint64_t start;

	if (before)
		before(arg);
	start = ticks();
	for (unsigned i = 0; i < block; i++) {
		once(arg);
		__builtin_ia32_lfence();
	}
	return (double)(ticks() - start) * tick_ns() / block;
}

double samples_percentile_ns(uint64_t slice_ns, unsigned block, double fraction,
			     void (*before)(void *arg), void (*once)(void *arg), void *arg)
{
	double *samples = malloc(SAMPLES_MAX * sizeof(*samples));
	uint64_t start_ns = clock_kernel_ns();
	size_t count = 0;
	double value;

	if (!samples)
		die("out of memory");
	for (unsigned i = 0; i < SAMPLES_WARM_UP && clock_kernel_ns() - start_ns < slice_ns; i++)
		sample_ns(block, before, once, arg);
	start_ns = clock_kernel_ns();
	while (count < SAMPLES_MAX && clock_kernel_ns() - start_ns < slice_ns)
		samples[count++] = sample_ns(block, before, once, arg);
	value = percentile(samples, count, fraction);
	free(samples);
	return value;
}

double samples_p50_ns(uint64_t slice_ns, unsigned block, void (*once)(void *arg), void *arg)
{
	return samples_percentile_ns(slice_ns, block, 0.5, NULL, once, arg);
}
