/* SPDX-License-Identifier: Apache-2.0 */
/* The clients that share memory with a segment's owner, seen by who goes through them. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "base/work.h"
#include "engine/engine_internal.h"
#include "tests/tap.h"

#define COUNT (3 * CLIENT_SET_CHUNK + 7)

static struct client_set set;
static struct segment_client clients[COUNT];

static int set_up(void **state)
{
	(void)state;
	memset(&set, 0, sizeof(set));
	for (uint32_t i = 0; i < COUNT; i++) {
		clients[i] = (struct segment_client){.number = i + 1};
		if (client_set_reserve(&set) < 0)
			return -1;
		client_set_add(&set, &clients[i]);
	}
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	client_set_free(&set);
	return 0;
}

static uint32_t find(const struct segment_client *client)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < set.count; i++)
		found += client_set_at(&set, i) == client;
	return found;
}

/* Goal: whoever is in it is there once, whoever was removed is not, and there are no gaps. */
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
		client_set_remove(&set, &clients[victim]);
		removed[victim] = true;
		left--;
	}
	assert_int_equal(set.count, left);
	for (uint32_t i = 0; i < COUNT; i++)
		assert_int_equal(find(&clients[i]), !removed[i]);
	for (uint32_t i = 0; i < COUNT; i++)
		if (!removed[i])
			client_set_remove(&set, &clients[i]);
	assert_int_equal(set.count, 0);
	assert_int_equal(client_set_reserve(&set), 0);
	client_set_add(&set, &clients[5]);
	assert_ptr_equal(client_set_at(&set, 0), &clients[5]);
}

/* Goal: to add and to remove one takes as much among three thousand as alone. */
static void test_cost(void **state)
{
	(void)state;
	work_forget();
	for (uint32_t i = 0; i < COUNT; i++) {
		work_begin(WORK_EVENT);
		client_set_remove(&set, &clients[i]);
	}
	assert_int_equal(work_greatest(WORK_EVENT, WORK_ITEMS), 1);
}

static _Atomic bool done;

static void *come_and_go(void *arg)
{
	struct random random = {.state = 11};

	while (!atomic_load(&done)) {
		struct segment_client *client = &clients[1 + random_next(&random) % (COUNT - 1)];

		client_set_remove(&set, client);
		client_set_add(&set, client);
	}
	return arg;
}

/* Goal: who goes through it while others come and go sees one that stays, or that it moved. */
static void test_seen_meanwhile(void **state)
{
	unsigned passes = 0, moved = 0;
	pthread_t thread;

	(void)state;
	atomic_store(&done, false);
	assert_int_equal(pthread_create(&thread, NULL, come_and_go, NULL), 0);
	for (; passes < 2000; passes++) {
		uint32_t moves = atomic_load(&set.moves);
		uint32_t count = atomic_load(&set.count);
		uint32_t seen = 0;

		for (uint32_t i = 0; i < count; i++)
			seen += client_set_at(&set, i) == &clients[0];
		if (moves & 1 || moves != atomic_load(&set.moves))
			moved++;
		else
			assert_true(seen == 1);
		if (passes % 2)
			sched_yield();
	}
	atomic_store(&done, true);
	pthread_join(thread, NULL);
	tap_comment("%u of %u passes saw it change", moved, passes);
	assert_int_equal(find(&clients[0]), 1);
}

/* Goal: more than there can be are refused. */
static void test_limit(void **state)
{
	(void)state;
	atomic_store(&set.count, CLIENT_SET_MAX);
	assert_int_equal(client_set_reserve(&set), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "clients"));
	atomic_store(&set.count, COUNT);
}

#define with_set(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_set(test_add_and_remove),
		with_set(test_cost),
		with_set(test_seen_meanwhile),
		with_set(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
