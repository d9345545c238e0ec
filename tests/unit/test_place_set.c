/* SPDX-License-Identifier: Apache-2.0 */
/* What is found by its place, while others are added and removed. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/work.h"
#include "engine/engine_internal.h"
#include "tests/tap.h"

#define COUNT (3 * PLACE_SET_CHUNK + 7)

static struct place_set set;
static uint32_t places[COUNT];
static uint64_t items[COUNT];

static void add(uint32_t item)
{
	int place = place_set_reserve(&set);

	assert_true(place >= 0);
	places[item] = (uint32_t)place;
	place_set_add(&set, places[item], &items[item]);
}

static int set_up(void **state)
{
	(void)state;
	memset(&set, 0, sizeof(set));
	for (uint32_t i = 0; i < COUNT; i++)
		add(i);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	place_set_free(&set);
	return 0;
}

/* Goal: what is in it is at its place, what was removed nowhere, and places are used again. */
static void test_add_and_remove(void **state)
{
	struct random random = {.state = 7};
	bool removed[COUNT] = {false};
	uint32_t left = COUNT;

	(void)state;
	for (uint32_t i = 0; i < COUNT / 2; i++) {
		uint32_t victim = (uint32_t)(random_next(&random) % COUNT);

		if (removed[victim])
			continue;
		place_set_remove(&set, places[victim]);
		removed[victim] = true;
		left--;
	}
	assert_int_equal(set.used, left);
	for (uint32_t i = 0; i < COUNT; i++)
		assert_ptr_equal(place_set_at(&set, places[i]), removed[i] ? NULL : &items[i]);
	for (uint32_t i = 0; i < COUNT; i++)
		if (removed[i])
			add(i);
	assert_int_equal(set.used, COUNT);
	assert_int_equal(set.count, COUNT);
	for (uint32_t i = 0; i < COUNT; i++)
		assert_ptr_equal(place_set_at(&set, places[i]), &items[i]);
}

/* Goal: any number may be asked for. */
static void test_any_place(void **state)
{
	static struct place_set empty;
	volatile uint32_t beyond[] = {COUNT, PLACE_SET_CHUNK * 4, PLACE_SET_MAX, UINT32_MAX};

	(void)state;
	assert_null(place_set_at(&empty, 0));
	for (uint32_t i = 0; i < 4; i++)
		assert_null(place_set_at(&set, beyond[i]));
}

/* Goal: to add and to remove one takes as much among three thousand as alone. */
static void test_cost(void **state)
{
	(void)state;
	work_forget();
	for (uint32_t i = 0; i < COUNT; i++) {
		work_begin(WORK_EVENT);
		place_set_remove(&set, places[i]);
	}
	assert_int_equal(work_greatest(WORK_EVENT, WORK_ITEMS), 1);
}

static _Atomic bool done;

static void *come_and_go(void *arg)
{
	struct random random = {.state = 11};

	while (!atomic_load(&done)) {
		uint32_t item = 1 + (uint32_t)(random_next(&random) % (COUNT - 1));

		place_set_remove(&set, places[item]);
		add(item);
	}
	return arg;
}

/* Goal: while others come and go, who stays is seen, and all that is seen is there. */
static void test_seen_meanwhile(void **state)
{
	pthread_t thread;

	(void)state;
	atomic_store(&done, false);
	assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
	for (unsigned passes = 0; passes < 1000; passes++) {
		assert_ptr_equal(place_set_at(&set, places[0]), &items[0]);
		for (uint32_t i = 0; i < COUNT; i++) {
			const uint64_t *item = place_set_at(&set, i);

			assert_true(!item || (item >= items && item < items + COUNT));
		}
		if (passes % 2)
			sched_yield();
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
}

/* Goal: more than there can be are refused. */
static void test_limit(void **state)
{
	(void)state;
	atomic_store(&set.count, PLACE_SET_MAX);
	assert_int_equal(place_set_reserve(&set), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "clients"));
	atomic_store(&set.count, COUNT);
}

#define with_set(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_set(test_add_and_remove), with_set(test_any_place), with_set(test_cost),
		with_set(test_seen_meanwhile), with_set(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
