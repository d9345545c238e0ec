/* SPDX-License-Identifier: Apache-2.0 */
#include "control/limits.h"

#include <arpa/inet.h>
#include <string.h>

#include "base/clock.h"
#include "tests/tap.h"

#define SECOND NS_PER_SECOND

static union address at(const char *text)
{
	union address address = {0};

	if (strchr(text, ':')) {
		address.any.sa_family = AF_INET6;
		assert_int_equal(inet_pton(AF_INET6, text, &address.v6.sin6_addr), 1);
	} else {
		address.any.sa_family = AF_INET;
		assert_int_equal(inet_pton(AF_INET, text, &address.v4.sin_addr), 1);
	}
	return address;
}

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

static void note(struct penalties *penalties, const char *text, unsigned times, uint64_t now_ns)
{
	union address address = at(text);

	for (unsigned i = 0; i < times; i++)
		penalty_note(penalties, &address, 10 * SECOND, now_ns);
}

static bool applies(const struct penalties *penalties, const char *text, uint64_t now_ns)
{
	union address address = at(text);

	return penalty_applies(penalties, &address, 10, 10 * SECOND, now_ns);
}

/* Goal: ten failures within the window close an address, and only that one, until it is over. */
static void test_penalties(void **state)
{
	static struct penalties penalties;

	(void)state;
	memset(&penalties, 0, sizeof(penalties));
	note(&penalties, "10.0.0.1", 9, SECOND);
	assert_false(applies(&penalties, "10.0.0.1", SECOND));
	note(&penalties, "10.0.0.1", 1, 2 * SECOND);
	assert_true(applies(&penalties, "10.0.0.1", 2 * SECOND));
	assert_true(applies(&penalties, "::ffff:10.0.0.1", 2 * SECOND));
	assert_false(applies(&penalties, "10.0.0.2", 2 * SECOND));
	assert_true(applies(&penalties, "10.0.0.1", 11 * SECOND));
	assert_false(applies(&penalties, "10.0.0.1", 12 * SECOND));
	note(&penalties, "10.0.0.1", 9, 12 * SECOND); /* counted anew */
	assert_false(applies(&penalties, "10.0.0.1", 12 * SECOND));
}

/* Goal: slow failures, one in a while, never close an address. */
static void test_slow_failures(void **state)
{
	static struct penalties penalties;

	(void)state;
	memset(&penalties, 0, sizeof(penalties));
	for (uint64_t i = 1; i < 100; i++) {
		note(&penalties, "10.0.0.1", 1, i * 2 * SECOND);
		assert_false(applies(&penalties, "10.0.0.1", i * 2 * SECOND));
	}
}

/* Goal: an IPv6 host cannot get around it with another address of its network; loopback, which all
 * on a host share, is never closed; whatever comes, the table holds. */
static void test_whose_address(void **state)
{
	static struct penalties penalties;
	char text[32];

	(void)state;
	memset(&penalties, 0, sizeof(penalties));
	note(&penalties, "2001:db8:1:2::1", 10, SECOND);
	assert_true(applies(&penalties, "2001:db8:1:2:ffff::9", SECOND));
	assert_false(applies(&penalties, "2001:db8:1:3::1", SECOND));
	note(&penalties, "127.0.0.1", 100, SECOND);
	note(&penalties, "::1", 100, SECOND);
	assert_false(applies(&penalties, "127.0.0.1", SECOND));
	assert_false(applies(&penalties, "::1", SECOND));
	for (unsigned i = 0; i < 100000; i++) {
		snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16, i >> 8 & 0xff, i & 0xff);
		note(&penalties, text, 1, SECOND);
	}
	note(&penalties, "192.0.2.1", 10, SECOND);
	assert_true(applies(&penalties, "192.0.2.1", SECOND));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rate),
		cmocka_unit_test(test_penalties),
		cmocka_unit_test(test_slow_failures),
		cmocka_unit_test(test_whose_address),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
