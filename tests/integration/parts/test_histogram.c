/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>

#include "common/histogram.h"
#include "base/random.h"
#include "tests/tap.h"

#define SECOND UINT64_C(1000000000)

static struct histogram *new_histogram(void)
{
	struct histogram *histogram = calloc(1, sizeof(*histogram));

	assert_non_null(histogram);
	return histogram;
}

/* Goal: an empty histogram answers 0 for everything. */
static void test_empty_is_zero(void **state)
{
	struct histogram *histogram = new_histogram();

	(void)state;
	assert_int_equal(histogram_percentile(histogram, 50), 0);
	assert_int_equal(histogram_percentile(histogram, 100), 0);
	free(histogram);
}

/* Goal: buckets follow each other without a gap or an overlap, at every power of two. */
static void test_buckets_are_monotonic(void **state)
{
	(void)state;
	for (uint32_t bit = 1; bit <= HISTOGRAM_BITS; bit++) {
		uint64_t value = UINT64_C(1) << bit;
		uint32_t step = histogram_bucket(value) - histogram_bucket(value - 1);

		assert_in_range(step, bit == HISTOGRAM_BITS ? 0 : 1, 1);
	}
	assert_int_equal(histogram_bucket(HISTOGRAM_MAX), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

/* Goal: from 1 ns to 1 hour a recorded value is read back within 1 %. */
static void test_error_is_within_one_percent(void **state)
{
	struct histogram *histogram = new_histogram();
	struct random random = {.state = 1};

	(void)state;
	for (uint64_t limit = 2; limit < 3600 * SECOND; limit *= 3) {
		for (int i = 0; i < 200; i++) {
			uint64_t value = 1 + random_below(&random, limit);
			double read;

			histogram_reset(histogram);
			histogram_record(histogram, value, 1);
			histogram_record(histogram, 3600 * SECOND, 1);
			read = (double)histogram_percentile(histogram, 50);
			assert_true(fabs(read - (double)value) <= 0.01 * (double)value);
		}
	}
	free(histogram);
}

static int compare(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* Goal: percentiles agree with those of the sorted values within 1 %; the maximum is exact. */
static void test_percentiles_agree_with_sorting(void **state)
{
	static const double percents[] = {0, 1, 50, 90, 99, 99.9, 99.99};
	static uint64_t values[20000];
	const size_t n = sizeof(values) / sizeof(values[0]);
	struct histogram *histogram = new_histogram();
	struct random random = {.state = 7};

	(void)state;
	for (size_t i = 0; i < n; i++) {
		values[i] = UINT64_C(1) << random_below(&random, 30);
		values[i] += random_below(&random, values[i]);
		histogram_record(histogram, values[i], 1);
	}
	qsort(values, n, sizeof(values[0]), compare);
	for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
		double rank = ceil((double)n * percents[i] / 100);
		double exact = (double)values[rank > 0 ? (size_t)rank - 1 : 0];
		double read = (double)histogram_percentile(histogram, percents[i]);

		assert_true(fabs(read - exact) <= 0.01 * exact);
	}
	assert_int_equal(histogram_percentile(histogram, 100), values[n - 1]);
	free(histogram);
}

/* Goal: recording a value n times is the same as recording it once, n times. */
static void test_counts_weigh(void **state)
{
	struct histogram *histogram = new_histogram();

	(void)state;
	histogram_record(histogram, 10, 99);
	histogram_record(histogram, 1000, 1);
	assert_int_equal(histogram->count, 100);
	assert_int_equal(histogram_percentile(histogram, 99), 10);
	assert_int_equal(histogram_percentile(histogram, 99.5), 1000);
	free(histogram);
}

/* Goal: merging equals recording everything into one; resetting forgets everything. */
static void test_merge_adds_and_reset_forgets(void **state)
{
	struct histogram *one = new_histogram(), *other = new_histogram();

	(void)state;
	histogram_record(one, 100, 3);
	histogram_record(other, 100000, 1);
	histogram_merge(one, other);
	assert_int_equal(one->count, 4);
	assert_int_equal(histogram_percentile(one, 75), 100);
	assert_int_equal(histogram_percentile(one, 100), 100000);
	histogram_reset(one);
	assert_int_equal(histogram_percentile(one, 100), 0);
	assert_int_equal(one->count, 0);
	free(one);
	free(other);
}

/* Goal: what is over an hour stays in the last bucket, and the maximum stays exact. */
static void test_over_range_is_clamped(void **state)
{
	struct histogram *histogram = new_histogram();

	(void)state;
	histogram_record(histogram, UINT64_MAX, 1);
	histogram_record(histogram, 1, 1);
	assert_int_equal(histogram_percentile(histogram, 100), UINT64_MAX);
	assert_true(histogram_percentile(histogram, 99) > 3600 * SECOND);
	free(histogram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty_is_zero),
		cmocka_unit_test(test_buckets_are_monotonic),
		cmocka_unit_test(test_error_is_within_one_percent),
		cmocka_unit_test(test_percentiles_agree_with_sorting),
		cmocka_unit_test(test_counts_weigh),
		cmocka_unit_test(test_merge_adds_and_reset_forgets),
		cmocka_unit_test(test_over_range_is_clamped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
