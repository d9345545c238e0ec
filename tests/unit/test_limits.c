/* SPDX-License-Identifier: Apache-2.0 */
#include "control/limits.h"

#include "base/clock.h"
#include "tests/tap.h"

#define SECOND NS_PER_SECOND

static unsigned take_all(struct rate *rate, uint64_t now_ns)
{
	unsigned taken = 0;

	while (rate_take(rate, 100, 10, now_ns))
		assert_true(++taken < 1000);
	return taken;
}

/* Goal: a burst at once, then so many in a second; what was not used does not add up beyond it. */
static void test_rate(void **state)
{
	struct rate rate = {0};
	unsigned taken = 0;

	(void)state;
	assert_int_equal(take_all(&rate, 5 * SECOND), 10);
	assert_int_equal(take_all(&rate, 5 * SECOND + SECOND / 100), 1);
	assert_int_equal(take_all(&rate, 5 * SECOND + SECOND / 100), 0);
	for (uint64_t ms = 20; ms <= 1010; ms++)
		taken += take_all(&rate, 5 * SECOND + ms * SECOND / 1000);
	assert_int_equal(taken, 100);
	assert_int_equal(take_all(&rate, 100 * SECOND), 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
