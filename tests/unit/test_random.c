/* SPDX-License-Identifier: Apache-2.0 */
#include "base/random.h"
#include "tests/tap.h"

/* Goal: the generator is SplitMix64 as published: the first outputs of seed 1234567. */
static void test_published_sequence(void **state)
{
	static const uint64_t published[] = {
		UINT64_C(6457827717110365317),  UINT64_C(3203168211198807973),
		UINT64_C(9817491932198370423),  UINT64_C(4593380528125082431),
		UINT64_C(16408922859458223821),
	};
	struct random random = {.state = 1234567};

	(void)state;
	for (size_t i = 0; i < sizeof(published) / sizeof(published[0]); i++)
		assert_int_equal(random_next(&random), published[i]);
}

/* Goal: equal seeds give equal histories, others do not. */
static void test_seed_decides(void **state)
{
	struct random a = {.state = 5}, b = {.state = 5}, c = {.state = 6};
	int same = 0;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint64_t value = random_next(&a);

		assert_int_equal(value, random_next(&b));
		same += value == random_next(&c);
	}
	assert_int_equal(same, 0);
}

/* Goal: random_below stays below its bound, reaches every value, and evenly so. */
static void test_below_is_bounded_and_even(void **state)
{
	struct random random = {.state = 99};
	unsigned hits[10] = {0};

	(void)state;
	for (int i = 0; i < 100000; i++) {
		uint64_t value = random_below(&random, 10);

		assert_true(value < 10);
		hits[value]++;
	}
	for (int i = 0; i < 10; i++)
		assert_in_range(hits[i], 9500, 10500);
	assert_int_equal(random_below(&random, 1), 0);
	assert_true(random_below(&random, UINT64_MAX) < UINT64_MAX);
}

/* Goal: a chance of 0 never happens, of 1 always, of one quarter about that often. */
static void test_chance(void **state)
{
	struct random random = {.state = 7};
	unsigned quarter = 0;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		assert_false(random_chance(&random, 0.0));
		assert_true(random_chance(&random, 1.0));
		quarter += (unsigned)random_chance(&random, 0.25);
	}
	assert_in_range(quarter, 24000, 26000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published_sequence),
		cmocka_unit_test(test_seed_decides),
		cmocka_unit_test(test_below_is_bounded_and_even),
		cmocka_unit_test(test_chance),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
