/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The p50, or another percentile, of something short.
 *
 * The time stamp counter steps by 10 ns on current AMD processors, so a sample of something that
 * takes tens of nanoseconds is the mean of a few repetitions in a row, each of which has finished
 * before the next starts.
 */
#ifndef PERF_SAMPLES_H
#define PERF_SAMPLES_H

#include <stdint.h>

#define SAMPLES_BLOCK 8

/**
 * Repeat @p once for one slice of @p slice_ns, on the calling thread, and take the p50.
 *
 * @param block  repetitions that make one sample: SAMPLES_BLOCK, or 1 for what takes microseconds
 * @return nanoseconds of one repetition
 */
double samples_p50_ns(uint64_t slice_ns, unsigned block, void (*once)(void *arg), void *arg);

/**
 * The same for what @p fraction (0..1) of the samples do not exceed.
 *
 * @param before  comes before each sample and is not timed; NULL = nothing
 */
double samples_percentile_ns(uint64_t slice_ns, unsigned block, double fraction,
			     void (*before)(void *arg), void (*once)(void *arg), void *arg);

#endif
