/* SPDX-License-Identifier: Apache-2.0 */
#include "control/origins.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "tests/tap.h"

#define SECOND NS_PER_SECOND
#define HOUR   (3600 * SECOND)

static struct origins origins;

static int set_up(void **state)
{
	(void)state;
	origins_init(&origins, 1);
	return 0;
}

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

static struct origin *from(const char *text, uint64_t now_ns)
{
	union address address = at(text);

	return origins_of_address(&origins, &address, now_ns);
}

static void fail_from(const char *text, unsigned times, uint64_t now_ns)
{
	for (unsigned i = 0; i < times; i++)
		origin_fail(from(text, now_ns), 10 * SECOND, now_ns);
}

static bool fails(const char *text, uint64_t now_ns)
{
	return origin_fails(from(text, now_ns), 10, 10 * SECOND, now_ns);
}

/* Goal: ten failures within the window close an address, and only that one, until it is over. */
static void test_failures(void **state)
{
	(void)state;
	fail_from("10.0.0.1", 9, 11 * SECOND);
	assert_false(fails("10.0.0.1", 11 * SECOND));
	fail_from("10.0.0.1", 1, 12 * SECOND);
	assert_true(fails("10.0.0.1", 12 * SECOND));
	assert_true(fails("::ffff:10.0.0.1", 12 * SECOND));
	assert_false(fails("10.0.0.2", 12 * SECOND));
	assert_true(fails("10.0.0.1", 21 * SECOND));
	assert_false(fails("10.0.0.1", 22 * SECOND));
	fail_from("10.0.0.1", 9, 22 * SECOND); /* counted anew */
	assert_false(fails("10.0.0.1", 22 * SECOND));
}

/* Goal: slow failures, one in a while, never close an address. */
static void test_slow_failures(void **state)
{
	(void)state;
	for (uint64_t i = 1; i < 100; i++) {
		fail_from("10.0.0.1", 1, i * 2 * SECOND);
		assert_false(fails("10.0.0.1", i * 2 * SECOND));
	}
}

/* Goal: an IPv6 host cannot get around it with another address of its network; loopback, which all
 * on a host share, is never closed; a user is nobody's address. */
static void test_whose(void **state)
{
	(void)state;
	assert_ptr_equal(from("2001:db8:1:2::1", SECOND), from("2001:db8:1:2:ffff::9", SECOND));
	assert_ptr_not_equal(from("2001:db8:1:2::1", SECOND), from("2001:db8:1:3::1", SECOND));
	fail_from("127.0.0.1", 100, SECOND);
	fail_from("::1", 100, SECOND);
	assert_false(fails("127.0.0.1", SECOND) || fails("::1", SECOND));
	assert_ptr_not_equal(from("127.0.0.1", SECOND), from("127.0.0.2", SECOND));
	assert_ptr_not_equal(origins_of_user(&origins, 1000, SECOND),
			     origins_of_user(&origins, 1001, SECOND));
	assert_ptr_not_equal(origins_of_user(&origins, 1000, SECOND), from("0.0.3.232", SECOND));
}

/* Goal: known is who has proved himself within the hour; loopback always is. */
static void test_known(void **state)
{
	struct origin *origin = from("10.0.0.1", SECOND);

	(void)state;
	assert_false(origin_is_known(origin, SECOND));
	origin_prove(origin, SECOND);
	assert_true(origin_is_known(from("10.0.0.1", HOUR), HOUR));
	assert_false(origin_is_known(origin, HOUR + 2 * SECOND));
	assert_true(origin_is_known(from("127.0.0.9", SECOND), SECOND));
	assert_false(origin_is_known(origins_of_user(&origins, 1, SECOND), SECOND));
}

/* Goal: however many come, the table holds, and who is known or is connected stays in it. */
static void test_eviction(void **state)
{
	struct origin *known = from("192.0.2.1", SECOND), *present = from("192.0.2.2", SECOND);
	char text[32];

	(void)state;
	origin_prove(known, SECOND);
	present->strangers = 1;
	for (unsigned i = 0; i < 200000; i++) {
		snprintf(text, sizeof(text), "10.%u.%u.%u", i >> 16, i >> 8 & 0xff, i & 0xff);
		assert_non_null(from(text, 2 * SECOND + i));
	}
	assert_true(origin_is_known(from("192.0.2.1", 3 * SECOND), 3 * SECOND));
	assert_ptr_equal(from("192.0.2.2", 3 * SECOND), present);
	assert_int_equal(present->strangers, 1);
}

/* Goal: where all places are taken by those who are connected, nobody is pushed out. */
static void test_full(void **state)
{
	unsigned refused = 0;
	char text[32];

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		struct origin *origin;

		snprintf(text, sizeof(text), "10.0.%u.%u", i >> 8, i & 0xff);
		origin = from(text, SECOND);
		if (origin)
			assert_int_equal(origin->strangers++, 0);
		else
			refused++;
	}
	assert_int_equal(refused, 20000 - ORIGIN_SETS * ORIGIN_WAYS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_failures, set_up),
		cmocka_unit_test_setup(test_slow_failures, set_up),
		cmocka_unit_test_setup(test_whose, set_up),
		cmocka_unit_test_setup(test_known, set_up),
		cmocka_unit_test_setup(test_eviction, set_up),
		cmocka_unit_test_setup(test_full, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
