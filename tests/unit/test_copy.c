/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/copy.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "tests/tap.h"

#define ROOM 8192u
#define EDGE 64u /* bytes on both sides that must stay as they were */

static char source[ROOM], destination[ROOM], expected[ROOM];

static void assert_copied(void (*copy)(void *, const void *, uint64_t), uint64_t to, uint64_t from,
			  uint64_t length)
{
	memset(destination, 0x5a, sizeof(destination));
	memset(expected, 0x5a, sizeof(expected));
	memcpy(expected + to, source + from, length);
	copy(destination + to, source + from, length);
	_mm_sfence();
	if (memcmp(destination, expected, sizeof(expected)) != 0)
		fail_msg("%lu bytes from offset %lu to %lu differ, or their neighbours",
			 (unsigned long)length, (unsigned long)from, (unsigned long)to);
}

static void small(void *dst, const void *src, uint64_t length)
{
	copy_small(dst, src, length);
}

/* Goal: every length that is copied in line arrives whole at any alignment and touches no more. */
static void test_small_lengths(void **state)
{
	(void)state;
	for (uint64_t length = 0; length <= COPY_SMALL_BYTES; length++)
		for (uint64_t offset = 0; offset < 16; offset++)
			assert_copied(small, EDGE + offset, EDGE + 15 - offset, length);
}

static void check_streamed(void)
{
	static const uint64_t lengths[] = {0,   1,   15,  63,   64,   65,  127,
					   128, 129, 255, 4095, 4096, 6000};

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (uint64_t offset = 0; offset < 64; offset += 7)
			assert_copied(copy_streamed, EDGE + offset, EDGE + 63 - offset, lengths[i]);
}

/* Goal: the baseline kernel copies whole, at any alignment, and touches no more. */
static void test_streamed_baseline(void **state)
{
	(void)state;
	check_streamed();
}

/* Goal: the kernel chosen for this CPU does the same, and is named. */
static void test_streamed_for_this_cpu(void **state)
{
	(void)state;
	copy_init();
	assert_non_null(strstr(copy_describe(), "non-temporal"));
	check_streamed();
}

/* Goal: a page is cached once it was written, until more than the cache was moved since. */
static void test_tracker_follows_working_set(void **state)
{
	const uint64_t llc = UINT64_C(4) << 20;
	struct copy_tracker *tracker = copy_tracker_create(llc, 0);
	char *base = (char *)(UINT64_C(1) << 32);

	(void)state;
	assert_non_null(tracker);
	assert_false(copy_tracker_cached(tracker, base, 4096));
	assert_true(copy_tracker_cached(tracker, base, 4096));
	for (uint64_t at = 4096; at < 2 * llc; at += 4096)
		copy_tracker_cached(tracker, base + at, 4096);
	assert_false(copy_tracker_cached(tracker, base, 4096));
	copy_tracker_destroy(tracker);
}

/* Goal: a working set well inside the cache stays cached, one of many times its size never is. */
static void test_tracker_small_and_large_sets(void **state)
{
	const uint64_t llc = UINT64_C(4) << 20;
	struct copy_tracker *tracker = copy_tracker_create(llc, 0);
	unsigned cached_small = 0, cached_large = 0;
	char *base = (char *)(UINT64_C(1) << 32);

	(void)state;
	assert_non_null(tracker);
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t at = 0; at < llc / 16; at += 4096)
			cached_small += copy_tracker_cached(tracker, base + at, 4096);
	assert_int_equal(cached_small, 3 * llc / 16 / 4096);
	for (unsigned round = 0; round < 4; round++)
		for (uint64_t at = 0; at < llc * 16; at += 4096)
			cached_large += copy_tracker_cached(tracker, base + llc + at, 4096);
	assert_int_equal(cached_large, 0);
	copy_tracker_destroy(tracker);
}

/* Goal: what another core moves through the same cache evicts a page too. */
static void test_trackers_share_a_cache(void **state)
{
	const uint64_t llc = 8 << 20;
	struct copy_tracker *one = copy_tracker_create(llc, 3);
	struct copy_tracker *two = copy_tracker_create(llc, 3);
	struct copy_tracker *elsewhere = copy_tracker_create(llc, 4);
	char *base = (char *)((uintptr_t)64 << 20);

	(void)state;
	copy_tracker_cached(one, base, 4096);
	copy_tracker_cached(elsewhere, base, 4096);
	for (uint64_t at = 0; at < llc; at += 4096)
		copy_tracker_cached(two, base + llc + at, 4096);
	for (uint64_t at = 4096; at < 1 << 20; at += 4096) {
		copy_tracker_cached(one, base + at, 4096);
		copy_tracker_cached(elsewhere, base + at, 4096);
	}
	assert_false(copy_tracker_cached(one, base, 4096));
	assert_true(copy_tracker_cached(elsewhere, base, 4096));
	copy_tracker_destroy(one);
	copy_tracker_destroy(two);
	copy_tracker_destroy(elsewhere);
}

/* Goal: a machine whose cache size is unknown gets a tracker that takes nothing for cached. */
static void test_tracker_without_cache_size(void **state)
{
	struct copy_tracker *tracker = copy_tracker_create(0, 0);

	(void)state;
	assert_non_null(tracker);
	assert_false(copy_tracker_cached(tracker, source, 4096));
	assert_false(copy_tracker_cached(tracker, source, 4096));
	copy_tracker_destroy(tracker);
	copy_tracker_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_lengths),
		cmocka_unit_test(test_streamed_baseline),
		cmocka_unit_test(test_streamed_for_this_cpu),
		cmocka_unit_test(test_tracker_follows_working_set),
		cmocka_unit_test(test_tracker_small_and_large_sets),
		cmocka_unit_test(test_trackers_share_a_cache),
		cmocka_unit_test(test_tracker_without_cache_size),
	};
	struct random random = {.state = 1};

	for (size_t i = 0; i < sizeof(source); i++)
		source[i] = (char)random_next(&random);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
