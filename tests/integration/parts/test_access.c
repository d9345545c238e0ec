/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "initiator/access.h"
#include "tests/tap.h"

#define SIZE 24

/* Visits one pass and asserts that each block of the slice comes exactly once. */
static void assert_pass_is_complete(struct access *access)
{
	uint8_t *seen = calloc(access->blocks, 1);

	assert_non_null(seen);
	for (uint64_t i = 0; i < access->blocks; i++) {
		uint64_t offset = access_next(access);
		uint64_t block = (offset - access->base) / access->size;

		assert_true(offset >= access->base && block < access->blocks);
		assert_int_equal((offset - access->base) % access->size, 0);
		assert_int_equal(seen[block]++, 0);
	}
	free(seen);
}

/* Goal: in either order every pass visits each block once, whatever their number. */
static void test_passes_are_complete(void **state)
{
	static const uint64_t counts[] = {1, 2, 3, 4, 5, 7, 8, 9, 64, 65, 1000, 1023, 1024, 1025};

	(void)state;
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		for (uint64_t seed = 0; seed < 20; seed++) {
			struct access access;

			access_init(&access, 4096, SIZE, counts[i], seed % 2, seed);
			assert_pass_is_complete(&access);
			assert_pass_is_complete(&access);
			assert_int_equal(access.pass, 2);
			assert_int_equal(access.position, 0);
		}
	}
}

/* Goal: as many consecutive visits as there are blocks never touch a block twice. */
static void test_windows_do_not_overlap(void **state)
{
	struct access access;
	uint64_t last[100];

	(void)state;
	access_init(&access, 0, 1, 100, true, 3);
	for (uint64_t i = 0; i < 100; i++)
		last[i] = access_next(&access);
	for (uint64_t i = 100; i < 1000; i++) {
		assert_int_equal(access_next(&access), last[i % 100]);
	}
}

/* Goal: sequential order counts up; random order is another for another seed, and not in order. */
static void test_orders(void **state)
{
	struct access sequential, one, other;
	int in_order = 0, same = 0;

	(void)state;
	access_init(&sequential, 100, SIZE, 1000, false, 1);
	access_init(&one, 100, SIZE, 1000, true, 1);
	access_init(&other, 100, SIZE, 1000, true, 2);
	for (uint64_t i = 0; i < 1000; i++) {
		uint64_t offset = access_next(&one);

		assert_int_equal(access_next(&sequential), 100 + i * SIZE);
		in_order += offset == 100 + i * SIZE;
		same += offset == access_next(&other);
	}
	assert_in_range(in_order, 0, 20);
	assert_in_range(same, 0, 20);
}

/* Goal: what verification computes is where the visits went. */
static void test_offset_is_that_of_the_visit(void **state)
{
	struct access access;

	(void)state;
	access_init(&access, 7, 3, 77, true, 9);
	for (uint64_t i = 0; i < 2 * 77; i++) {
		uint64_t computed = access_offset(&access, i % 77);

		assert_int_equal(access_next(&access), computed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passes_are_complete),
		cmocka_unit_test(test_windows_do_not_overlap),
		cmocka_unit_test(test_orders),
		cmocka_unit_test(test_offset_is_that_of_the_visit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
