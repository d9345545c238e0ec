/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/tap.h"

#define MINUTE_US 60000000u

/* Goal: a time by a clock that is ahead is not long past; whatever the bits that were cut off. */
static void test_clock_ahead(void **state)
{
	const uint32_t starts[] = {0, 1000, UINT32_MAX / 2, UINT32_MAX - 10, UINT32_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		uint32_t since = starts[i];

		for (uint32_t ahead = 1; ahead < CLOCK_AHEAD_MAX_US; ahead += 1 + ahead / 2) {
			assert_false(clock_passed_us(since, 1, since - ahead));
			assert_false(clock_passed_us(since, 30000000, since - ahead));
		}
		assert_false(clock_passed_us(since, 1, since - CLOCK_AHEAD_MAX_US));
	}
}

/* Goal: a deadline passes when it is reached, and stays passed for whoever looks late; through the
 * end of the 32 bits too. */
static void test_deadline_passes(void **state)
{
	const uint32_t starts[] = {0, UINT32_MAX - 20, UINT32_MAX / 2 - 20};
	const uint32_t timeouts[] = {1, 50, 30 * MINUTE_US};

	(void)state;
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
		for (size_t j = 0; j < sizeof(timeouts) / sizeof(timeouts[0]); j++) {
			uint32_t since = starts[i], timeout = timeouts[j];

			assert_false(clock_passed_us(since, timeout, since));
			assert_false(clock_passed_us(since, timeout, since + timeout - 1));
			assert_true(clock_passed_us(since, timeout, since + timeout));
			assert_true(clock_passed_us(since, timeout, since + timeout + MINUTE_US));
			assert_true(
				clock_passed_us(since, timeout, since + timeout + 30 * MINUTE_US));
		}
}

static bool trusts(const char *source)
{
	char path[] = "/tmp/sluice-clock-XXXXXX";
	int fd = mkstemp(path);
	bool trusted;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, source, strlen(source)), strlen(source));
	close(fd);
	trusted = clock_tsc_init(NS_PER_SECOND, path);
	unlink(path);
	return trusted;
}

/* Goal: the time stamp counter is used where the kernel does, and nowhere else. */
static void test_kernel_is_asked(void **state)
{
	(void)state;
	assert_false(trusts("kvm-clock\n"));
	assert_false(trusts("hpet\n"));
	assert_false(trusts("tsc-early\n"));
	assert_false(trusts(""));
	assert_false(clock_tsc_init(NS_PER_SECOND, "/nowhere/current_clocksource"));
	assert_false(clock_tsc_init(0, CLOCK_SOURCE_FILE));
	if (!trusts("tsc\n"))
		skip_because("this CPU's time stamp counter is not invariant");
	assert_true(clock_tsc_ns(NULL) <= clock_tsc_ns(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clock_ahead),
		cmocka_unit_test(test_deadline_passes),
		cmocka_unit_test(test_kernel_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
