/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/repair.h"

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
static _Atomic uint32_t silent, most_silent, mended;
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

static bool mend(struct repair_item *item)
{
	(void)item;
	mended++;
	return true;
}

/* Until the test says that it answers. */
static bool mend_silent(struct repair_item *item)
{
	uint32_t now = ++silent;

	(void)item;
	pthread_mutex_lock(&lock);
	if (now > most_silent)
		most_silent = now;
	pthread_mutex_unlock(&lock);
	while (!answers)
		usleep(500);
	silent--;
	mended++;
	return true;
}

static bool mend_third(struct repair_item *item)
{
	(void)item;
	return ++mended == 3;
}

static int start(void **state)
{
	(void)state;
	silent = most_silent = mended = 0;
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
	struct repair_item slow[SILENT], quick = {.attempt = mend, .peer = peer_of(SILENT)};

	(void)state;
	for (uint32_t i = 0; i < SILENT; i++) {
		slow[i] = (struct repair_item){.attempt = mend_silent, .peer = peer_of(i)};
		repair_ask(repair, &slow[i]);
	}
	wait_for(&silent, SILENT);
	repair_ask(repair, &quick);
	wait_for(&mended, 1);
	answers = true;
	wait_for(&mended, SILENT + 1);
	for (uint32_t i = 0; i < SILENT; i++)
		repair_forget(repair, &slow[i]);
	repair_forget(repair, &quick);
}

/* Goal: what is broken at one peer is mended one after the other, by one thread. */
static void one_peer_has_one_turn(void **state)
{
	struct repair_item items[SILENT];

	(void)state;
	for (uint32_t i = 0; i < SILENT; i++) {
		items[i] = (struct repair_item){.attempt = mend_silent, .peer = peer_of(0)};
		repair_ask(repair, &items[i]);
	}
	wait_for(&silent, 1);
	usleep(20000);
	answers = true;
	wait_for(&mended, SILENT);
	assert_int_equal(most_silent, 1);
	for (uint32_t i = 0; i < SILENT; i++)
		repair_forget(repair, &items[i]);
}

/* Goal: what fails is tried again; what was forgotten is not. */
static void tries_again(void **state)
{
	struct repair_item item = {.attempt = mend_third, .peer = peer_of(0)};
	struct repair_item never = {.attempt = mend, .peer = peer_of(1)};

	(void)state;
	repair_ask(repair, &item);
	wait_for(&mended, 3);
	repair_forget(repair, &item);
	repair_forget(repair, &never);
	assert_int_equal(mended, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(silent_peers_hold_up_nobody, start, stop),
		cmocka_unit_test_setup_teardown(one_peer_has_one_turn, start, stop),
		cmocka_unit_test_setup_teardown(tries_again, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
