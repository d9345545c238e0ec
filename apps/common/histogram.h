/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Histogram of durations, log-linear as in Tene's HdrHistogram: each power of two is cut into 64
 * equal buckets and a bucket stands for its middle, so a percentile is off by at most 0.8 %.
 *
 * Values from 0 to HISTOGRAM_MAX are told apart; larger ones count as HISTOGRAM_MAX, while the
 * largest is kept as it was. Fixed size, no allocation; zeroed memory is an empty histogram.
 *
 * One thread records; any thread may read meanwhile and sees a state of the recent past.
 */
#ifndef COMMON_HISTOGRAM_H
#define COMMON_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUB      (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_BITS     42 /* 2^42 ns is over an hour */
#define HISTOGRAM_MAX      ((UINT64_C(1) << HISTOGRAM_BITS) - 1)
#define HISTOGRAM_BUCKETS  ((HISTOGRAM_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB)

struct histogram {
	_Atomic uint64_t count;
	_Atomic uint64_t max;
	_Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
};

/** Forget everything. Recording thread only. */
void histogram_reset(struct histogram *histogram);

/** Add all that @p from holds; nobody may be recording into @p histogram. */
void histogram_merge(struct histogram *histogram, const struct histogram *from);

/**
 * The value that @p percent of the recorded ones do not exceed.
 *
 * @param percent  0..100; 100 gives the exact maximum
 * @return         0 when nothing was recorded
 */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

/* Values under 2 * HISTOGRAM_SUB are their own bucket; above, the top 7 bits choose it. */
static inline uint32_t histogram_bucket(uint64_t value)
{
	uint32_t shift;

	if (value > HISTOGRAM_MAX)
		value = HISTOGRAM_MAX;
	if (value < 2 * HISTOGRAM_SUB)
		return (uint32_t)value;
	shift = 63 - HISTOGRAM_SUB_BITS - (uint32_t)__builtin_clzll(value);
	return (shift << HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

/* One writer: a load and a store, no locked instruction; readers only need untorn words. */
static inline void histogram_add(_Atomic uint64_t *word, uint64_t n)
{
	atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + n,
			      memory_order_relaxed);
}

/** Count @p value @p n times. Hot: neither blocks nor allocates. */
static inline void histogram_record(struct histogram *histogram, uint64_t value, uint64_t n)
{
	histogram_add(&histogram->buckets[histogram_bucket(value)], n);
	histogram_add(&histogram->count, n);
	if (value > atomic_load_explicit(&histogram->max, memory_order_relaxed))
		atomic_store_explicit(&histogram->max, value, memory_order_relaxed);
}

#endif
