/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/repair.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/tap.h"

#define SILENT 5u /* peers, a lane of each */

/* What only a hang takes. */
#define HANG_NS (60 * NS_PER_SECOND)

static struct repair *repair;
static struct repair_lane lanes[SILENT + 1];
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

static void drop(struct repair_item *item)
{
	(void)item;
	dropped++;
}

static struct repair_item item_of(int (*attempt)(struct repair_item *, uint64_t), uint32_t lane)
{
	return (struct repair_item){
		.attempt = attempt, .dropped = drop, .lane = &lanes[lane], .target = "unit"};
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
	for (uint32_t i = 0; i <= SILENT; i++)
		repair_lane_init(&lanes[i]);
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
		repair_settle(repair, &lanes[i]);
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
	repair_settle(repair, &lanes[0]);
}

/* Goal: what fails is tried again until it succeeds. */
static void tries_again(void **state)
{
	struct repair_item item = item_of(mend_third, 0);

	(void)state;
	repair_ask(repair, &item);
	wait_for(&tried, 3);
	repair_drop(repair, &item);
	repair_settle(repair, &lanes[0]);
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
	repair_settle(repair, &lanes[0]);
	assert_int_equal(dropped, 2);
	assert_int_equal(mended, 1);
}

/* On this thread, in its turn. */
static int now(struct repair_item *item)
{
	return repair_now(repair, item, NULL, clock_deadline_ns(HANG_NS / NS_PER_US));
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
	assert_int_equal(now(&other), 0);
	assert_int_equal(repair_now(repair, &mine, NULL, clock_deadline_ns(1000)), -ETIMEDOUT);
	assert_int_equal(mended, 1);
	answers = true;
	assert_int_equal(now(&mine), 0);
	assert_int_equal(mended, 3);
	repair_drop(repair, &slow);
	repair_drop(repair, &other);
	repair_drop(repair, &mine);
	assert_int_equal(dropped, 3);
}

/* Due again and again, until the test says that it answers. */
static int mend_again(struct repair_item *item, uint64_t until_ns)
{
	(void)until_ns;
	tried++;
	if (!answers)
		repair_ask(repair, item);
	return 0;
}

/* Goal: who wants a link himself gets his turn, also where the threads have always something to do.
 */
static void gets_its_turn(void **state)
{
	struct repair_item again = item_of(mend_again, 0), mine = item_of(mend, 0);

	(void)state;
	repair_ask(repair, &again);
	wait_for(&tried, 1);
	assert_int_equal(now(&mine), 0);
	answers = true;
	assert_int_equal(now(&mine), 0); /* what is tried from here on asks no more */
	assert_int_equal(mended, 2);
	repair_drop(repair, &again);
	repair_settle(repair, &lanes[0]);
	repair_drop(repair, &mine);
}

/* Goal: who has dropped something waits for what is attempted only if that was dropped. */
static void settles_what_was_dropped(void **state)
{
	struct repair_item slow = item_of(mend_silent, 0), idle = item_of(mend, 0);

	(void)state;
	repair_ask(repair, &slow);
	wait_for(&silent, 1);
	repair_drop(repair, &idle);
	repair_settle(repair, &lanes[0]);
	assert_int_equal(silent, 1);
	answers = true;
	wait_for(&mended, 1);
	repair_drop(repair, &slow);
	repair_settle(repair, &lanes[0]);
	assert_int_equal(dropped, 2);
}

static pthread_mutex_t held = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint32_t begun;

static void *open_one(void *arg)
{
	pthread_mutex_lock(&held);
	begun++;
	assert_int_equal(repair_now(repair, arg, &held, clock_deadline_ns(HANG_NS / NS_PER_US)), 0);
	tried++;
	return NULL;
}

static int mend_after(struct repair_item *item, uint64_t until_ns)
{
	(void)item;
	(void)until_ns;
	assert_int_equal(dropped, 1);
	mended++;
	return 0;
}

/* Goal: what was dropped while it was attempted is let go of before the next in its lane has its
 * turn, though somebody waits for it, who waits no longer. */
static void lets_go_in_its_turn(void **state)
{
	struct repair_item item = item_of(mend_silent, 0), next = item_of(mend_after, 0);
	pthread_t opener;

	(void)state;
	repair_ask(repair, &item);
	wait_for(&silent, 1);
	assert_int_equal(pthread_create(&opener, NULL, open_one, &item), 0);
	wait_for(&begun, 1);
	pthread_mutex_lock(&held); /* it is waited for by now */
	repair_drop(repair, &item);
	pthread_mutex_unlock(&held);
	wait_for(&tried, 1);
	pthread_join(opener, NULL);
	repair_ask(repair, &next);
	assert_int_equal(dropped, 0);
	answers = true;
	wait_for(&mended, 2);
	repair_drop(repair, &next);
	repair_settle(repair, &lanes[0]);
}

/* Goal: what was asked for is tried again, whoever has tried it in vain. */
static void stays_asked_for(void **state)
{
	struct repair_item slow = item_of(mend_silent, 0), item = item_of(mend_third, 0);

	(void)state;
	repair_ask(repair, &slow);
	wait_for(&silent, 1);
	repair_ask(repair, &item);
	answers = true;
	now(&item);
	wait_for(&tried, 3);
	repair_drop(repair, &slow);
	repair_drop(repair, &item);
	repair_settle(repair, &lanes[0]);
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
		cmocka_unit_test_setup_teardown(gets_its_turn, start, stop),
		cmocka_unit_test_setup_teardown(settles_what_was_dropped, start, stop),
		cmocka_unit_test_setup_teardown(lets_go_in_its_turn, start, stop),
		cmocka_unit_test_setup_teardown(stays_asked_for, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
