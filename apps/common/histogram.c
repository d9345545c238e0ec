/* SPDX-License-Identifier: Apache-2.0 */
#include "common/histogram.h"

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(_Atomic uint64_t *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

void histogram_reset(struct histogram *histogram)
{
	store(&histogram->count, 0);
	store(&histogram->max, 0);
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		store(&histogram->buckets[i], 0);
}

void histogram_merge(struct histogram *histogram, const struct histogram *from)
{
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
		histogram_add(&histogram->buckets[i], load(&from->buckets[i]));
	histogram_add(&histogram->count, load(&from->count));
	if (load(&from->max) > load(&histogram->max))
		store(&histogram->max, load(&from->max));
}

/* Middle of a bucket; the inverse of histogram_bucket(). */
static uint64_t bucket_value(uint32_t bucket)
{
	uint32_t shift;

	if (bucket < 2 * HISTOGRAM_SUB)
		return bucket;
	shift = (bucket >> HISTOGRAM_SUB_BITS) - 1;
	return ((uint64_t)(bucket - (shift << HISTOGRAM_SUB_BITS)) << shift) +
	       (UINT64_C(1) << shift) / 2;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
	uint64_t count = load(&histogram->count);
	uint64_t max = load(&histogram->max);
	double rank = (double)count * percent / 100;
	uint64_t seen = 0;

	if (!count)
		return 0;
	for (uint32_t i = 0; i < HISTOGRAM_BUCKETS && percent < 100; i++) {
		seen += load(&histogram->buckets[i]);
		if (seen && (double)seen >= rank)
			return bucket_value(i) < max ? bucket_value(i) : max;
	}
	return max;
}
