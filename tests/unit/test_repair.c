/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/repair.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/tap.h"

#define SILENT 5u /* peers */

/* What only a hang takes. */
#define HANG_NS (60 * NS_PER_SECOND)

static struct repair *repair;
static const char peers[SILENT + 1];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t silent, most_silent, mended, tried, dropped;
static _Atomic bool answers;

static void wait_for(_Atomic uint32_t *count, uint32_t wanted)
{
	uint64_t until_ns = clock_monotonic_ns(NULL) + HANG_NS;

	while (*count < wanted && clock_monotonic_ns(NULL) < until_ns)
		usleep(500);
	assert_true(*count >= wanted);
}

static const struct transport_peer *peer_of(uint32_t i)
{
	return (const void *)&peers[i];
}

static void drop(struct repair_item *item)
{
	(void)item;
	dropped++;
}

static struct repair_item item_of(int (*attempt)(struct repair_item *, uint64_t), uint32_t peer)
{
	return (struct repair_item){.attempt = attempt,
				    .dropped = drop,
				    .peer = peer_of(peer),
				    .lane = &peers[peer],
				    .target = "unit"};
}

static int mend(struct repair_item *item, uint64_t until_ns)
{
	(void)item;
	(void)until_ns;
	mended++;
	return 0;
}

/* Until the test says that it answers. */
static int mend_silent(struct repair_item *item, uint64_t until_ns)
{
	uint32_t now = ++silent;

	(void)item;
	(void)until_ns;
	pthread_mutex_lock(&lock);
	if (now > most_silent)
		most_silent = now;
	pthread_mutex_unlock(&lock);
	while (!answers)
		usleep(500);
	silent--;
	mended++;
	return 0;
}

static int mend_third(struct repair_item *item, uint64_t until_ns)
{
	(void)item;
	(void)until_ns;
	return ++tried == 3 ? 0 : -EAGAIN;
}

static int start(void **state)
{
	(void)state;
	silent = most_silent = mended = tried = dropped = 0;
	answers = false;
	return repair_start(&repair);
}

static int stop(void **state)
{
	(void)state;
	repair_stop(repair);
	return 0;
}

/* Goal: peers that do not answer keep nobody else's links from being mended. */
static void silent_peers_hold_up_nobody(void **state)
{
	struct repair_item slow[SILENT], quick = item_of(mend, SILENT);

	(void)state;
	for (uint32_t i = 0; i < SILENT; i++) {
		slow[i] = item_of(mend_silent, i);
		repair_ask(repair, &slow[i]);
	}
	wait_for(&silent, SILENT);
	repair_ask(repair, &quick);
	wait_for(&mended, 1);
	answers = true;
	wait_for(&mended, SILENT + 1);
	for (uint32_t i = 0; i < SILENT; i++)
		repair_drop(repair, &slow[i]);
	repair_drop(repair, &quick);
	for (uint32_t i = 0; i < SILENT; i++)
		repair_settle(repair, peer_of(i));
	assert_int_equal(dropped, SILENT + 1);
}

/* Goal: what is broken at one peer is mended one after the other, by one thread. */
static void one_peer_has_one_turn(void **state)
{
	struct repair_item items[SILENT];

	(void)state;
	for (uint32_t i = 0; i < SILENT; i++) {
		items[i] = item_of(mend_silent, 0);
		repair_ask(repair, &items[i]);
	}
	wait_for(&silent, 1);
	usleep(20000);
	answers = true;
	wait_for(&mended, SILENT);
	assert_int_equal(most_silent, 1);
	for (uint32_t i = 0; i < SILENT; i++)
		repair_drop(repair, &items[i]);
	repair_settle(repair, peer_of(0));
}

/* Goal: what fails is tried again until it succeeds. */
static void tries_again(void **state)
{
	struct repair_item item = item_of(mend_third, 0);

	(void)state;
	repair_ask(repair, &item);
	wait_for(&tried, 3);
	repair_drop(repair, &item);
	repair_settle(repair, peer_of(0));
	assert_int_equal(tried, 3);
	assert_int_equal(dropped, 1);
}

/* Goal: nobody waits to drop what is being attempted; it stays until the attempt is over. */
static void drops_without_waiting(void **state)
{
	struct repair_item slow = item_of(mend_silent, 0), idle = item_of(mend, 0);

	(void)state;
	repair_ask(repair, &slow);
	wait_for(&silent, 1);
	repair_ask(repair, &idle);
	repair_drop(repair, &idle);
	assert_int_equal(dropped, 1);
	repair_drop(repair, &slow);
	assert_int_equal(dropped, 1);
	answers = true;
	repair_settle(repair, peer_of(0));
	assert_int_equal(dropped, 2);
	assert_int_equal(mended, 1);
}

/* Goal: who wants a link himself waits for the peer no longer than he wants to, and for no other.
 */
static void attempts_in_its_turn(void **state)
{
	struct repair_item slow = item_of(mend_silent, 0), mine = item_of(mend, 0);
	struct repair_item other = item_of(mend, 1);

	(void)state;
	repair_ask(repair, &slow);
	wait_for(&silent, 1);
	repair_hold(repair, &other);
	assert_int_equal(repair_now(repair, &other, clock_deadline_ns(HANG_NS / NS_PER_US)), 0);
	repair_hold(repair, &mine);
	assert_int_equal(repair_now(repair, &mine, clock_deadline_ns(1000)), -ETIMEDOUT);
	assert_int_equal(mended, 1);
	answers = true;
	repair_hold(repair, &mine);
	assert_int_equal(repair_now(repair, &mine, clock_deadline_ns(HANG_NS / NS_PER_US)), 0);
	assert_int_equal(mended, 3);
	repair_drop(repair, &slow);
	repair_drop(repair, &other);
	repair_hold(repair, &mine);
	repair_drop(repair, &mine);
	assert_int_equal(dropped, 2);
	assert_int_equal(repair_now(repair, &mine, 0), 0); /* for nobody: it lets go */
	assert_int_equal(dropped, 3);
	assert_int_equal(mended, 3);
}

/* Goal: what was asked for is tried again, whoever has tried it in vain. */
static void stays_asked_for(void **state)
{
	struct repair_item slow = item_of(mend_silent, 0), item = item_of(mend_third, 0);

	(void)state;
	repair_ask(repair, &slow);
	wait_for(&silent, 1);
	repair_ask(repair, &item);
	repair_hold(repair, &item);
	answers = true;
	repair_now(repair, &item, clock_deadline_ns(HANG_NS / NS_PER_US));
	wait_for(&tried, 3);
	repair_drop(repair, &slow);
	repair_drop(repair, &item);
	repair_settle(repair, peer_of(0));
	assert_int_equal(dropped, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(silent_peers_hold_up_nobody, start, stop),
		cmocka_unit_test_setup_teardown(one_peer_has_one_turn, start, stop),
		cmocka_unit_test_setup_teardown(tries_again, start, stop),
		cmocka_unit_test_setup_teardown(drops_without_waiting, start, stop),
		cmocka_unit_test_setup_teardown(attempts_in_its_turn, start, stop),
		cmocka_unit_test_setup_teardown(stays_asked_for, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
