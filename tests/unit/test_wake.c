/* SPDX-License-Identifier: Apache-2.0 */
/* Waking an owner: by whom, how often, and that nobody can make it, or another, wait. */
#include "message/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "tests/tap.h"

#define SOON_MS     120000
#define CONNECTIONS 2000u

static struct wake_set *set;

static int setup(void **state)
{
	(void)state;
	return wake_set_create(&set);
}

static int teardown(void **state)
{
	(void)state;
	wake_set_destroy(set);
	return 0;
}

static bool woken(int timeout_ms)
{
	struct pollfd ready = {.fd = wake_set_fd(set), .events = POLLIN};

	return poll(&ready, 1, timeout_ms) == 1;
}

/* Take all that rang. @return how many, in @p numbers if there is room */
static uint32_t take(uint32_t numbers[WAKE_TAKEN])
{
	wake_set_clear(set);
	return wake_set_take(set, numbers);
}

/* Goal: each of several clients, and this process, wakes the owner, as often as it is cleared; and
 * it is told who. */
static void test_wakes(void **state)
{
	int one = wake_set_add(set, 1), other = wake_set_add(set, 2);
	uint32_t numbers[WAKE_TAKEN];

	(void)state;
	assert_true(one >= 0 && other >= 0);
	assert_false(woken(0));
	for (int i = 0; i < 10; i++) {
		if (i % 3 == 2)
			assert_int_equal(eventfd_write(wake_set_eventfd(set), 1), 0);
		else
			wake_ring(i % 3 ? one : other);
		assert_true(woken(SOON_MS));
		assert_int_equal(take(numbers), i % 3 != 2);
		if (i % 3 != 2)
			assert_int_equal(numbers[0], i % 3 ? 1 : 2);
		assert_false(woken(0));
	}
	wake_set_remove(set, one);
	wake_set_remove(set, other);
}

/* Goal: what this process wakes by is not taken away with what rang. */
static void test_eventfd_stays(void **state)
{
	int one = wake_set_add(set, 1);
	uint32_t numbers[WAKE_TAKEN];

	(void)state;
	wake_ring(one);
	assert_int_equal(eventfd_write(wake_set_eventfd(set), 1), 0);
	while (wake_set_take(set, numbers) == 0)
		;
	assert_true(woken(0));
	wake_set_clear(set);
	assert_false(woken(0));
	wake_set_remove(set, one);
}

/* Goal: it ends also for a client that keeps it. */
static void test_ends(void **state)
{
	int fd = wake_set_add(set, 7), kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	uint32_t numbers[WAKE_TAKEN];

	(void)state;
	wake_ring(kept);
	assert_true(woken(SOON_MS));
	take(numbers);
	wake_set_remove(set, fd);
	wake_ring(kept);
	assert_false(woken(50));
	close(kept);
}

/* Goal: a client that changes flags, rings all the time, silences itself or closes harms nobody. */
static void test_hostile_client(void **state)
{
	const struct itimerspec never = {0},
				often = {.it_value.tv_nsec = 1, .it_interval.tv_nsec = 1};
	uint64_t count = UINT64_MAX - 1;
	uint32_t numbers[WAKE_TAKEN];
	int mine, good, hostile;

	(void)state;
	good = wake_set_add(set, 1);
	mine = wake_set_add(set, 2);
	hostile = fcntl(mine, F_DUPFD_CLOEXEC, 0);
	assert_int_equal(fcntl(hostile, F_SETFL, 0), 0);
	assert_int_equal(timerfd_settime(hostile, 0, &often, NULL), 0);
	assert_int_equal(write(hostile, &count, sizeof(count)), -1); /* it cannot be filled */
	assert_in_range(take(numbers), 0, 1);
	assert_int_equal(timerfd_settime(hostile, 0, &never, NULL), 0);
	take(numbers);
	wake_ring(good);
	assert_true(woken(SOON_MS));
	close(hostile);
	take(numbers);
	wake_ring(good);
	assert_true(woken(SOON_MS));
	assert_int_equal(take(numbers), 1);
	assert_int_equal(numbers[0], 1);
}

/* Goal: with many ringing at once the owner is never held up, and nobody is lost. */
static void test_many(void **state)
{
	static bool seen[CONNECTIONS];
	static int fds[CONNECTIONS];
	uint32_t numbers[WAKE_TAKEN], count = 0, n;

	(void)state;
	for (uint32_t i = 0; i < CONNECTIONS; i++) {
		fds[i] = wake_set_add(set, i);
		if (fds[i] < 0 && i > 500)
			skip_because("only %d descriptors are allowed", (int)i);
		assert_true(fds[i] >= 0);
		wake_ring(fds[i]);
	}
	while (count < CONNECTIONS && woken(SOON_MS)) {
		n = wake_set_take(set, numbers);
		assert_in_range(n, 1, WAKE_TAKEN);
		for (uint32_t i = 0; i < n; i++) {
			assert_false(seen[numbers[i]]);
			seen[numbers[i]] = true;
		}
		count += n;
	}
	assert_false(woken(0));
	for (uint32_t i = 0; i < CONNECTIONS; i++)
		wake_set_remove(set, fds[i]);
}

/* Goal: only what can be rung is taken for it. */
static void test_checks(void **state)
{
	int ends[2];

	(void)state;
	assert_int_equal(wake_check(wake_set_add(set, 1)), 0);
	assert_int_equal(wake_check(wake_set_eventfd(set)), -EPROTO);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(wake_check(ends[1]), -EPROTO);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_wakes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_eventfd_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_checks, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
