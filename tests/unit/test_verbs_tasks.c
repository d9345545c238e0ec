/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_tasks.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "tests/tap.h"

static uint32_t ran;

static void count(struct verbs_task *task)
{
	(void)task;
	ran++;
}

static bool is_told(const struct verbs_tasks *tasks)
{
	struct pollfd event = {.fd = tasks->eventfd, .events = POLLIN};

	return poll(&event, 1, 0) == 1;
}

/* Goal: a thread with tasks does not rest, one without does, and is told of the next. */
static void test_rests(void **state)
{
	struct verbs_task task = {.run = count};
	struct verbs_tasks tasks;

	(void)state;
	ran = 0;
	assert_int_equal(verbs_tasks_init(&tasks), 0);
	assert_true(verbs_tasks_rest(&tasks));
	verbs_tasks_post(&tasks, &task);
	assert_true(is_told(&tasks));
	assert_false(verbs_tasks_rest(&tasks));
	assert_int_equal(verbs_tasks_run(&tasks), 1);
	assert_int_equal(ran, 1);
	assert_true(verbs_tasks_rest(&tasks));
	assert_false(is_told(&tasks));
	verbs_tasks_post(&tasks, &task);
	assert_true(is_told(&tasks));
	verbs_tasks_run(&tasks);
	verbs_tasks_fini(&tasks);
}

/* Goal: a thread that ran a task before it was told of it is not kept awake by being told. */
static void test_told_too_late(void **state)
{
	struct verbs_task task = {.run = count};
	struct verbs_tasks tasks;

	(void)state;
	assert_int_equal(verbs_tasks_init(&tasks), 0);
	verbs_tasks_post(&tasks, &task);
	assert_int_equal(verbs_tasks_run(&tasks), 1);
	eventfd_write(tasks.eventfd, 1); /* the end of a post that was held up */
	assert_true(verbs_tasks_rest(&tasks));
	assert_false(is_told(&tasks));
	verbs_tasks_fini(&tasks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rests),
		cmocka_unit_test(test_told_too_late),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
