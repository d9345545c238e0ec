/* SPDX-License-Identifier: Apache-2.0 */
/* The control thread: calls that are waited for, and tasks that are not. */
#include "control/thread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "tests/tap.h"

#define TASKS   1000
#define THREADS 4

static struct control_thread *control;

static int set_up(void **state)
{
	(void)state;
	return control_thread_start(&control);
}

static int tear_down(void **state)
{
	(void)state;
	control_thread_stop(control);
	return 0;
}

/* Of one thread, which posts them in the order of their numbers. */
struct line {
	struct numbered {
		struct control_task task; /* first */
		int number;
		struct line *line;
	} tasks[TASKS];
	int run; /* the control thread's */
	bool in_order;
};

static void run_numbered(struct control_task *task)
{
	struct numbered *numbered = (struct numbered *)task;

	numbered->line->in_order &= numbered->number == numbered->line->run++;
}

static void post_line(struct line *line)
{
	line->run = 0;
	line->in_order = true;
	for (int i = 0; i < TASKS; i++) {
		line->tasks[i] =
			(struct numbered){.task.run = run_numbered, .number = i, .line = line};
		control_post(control, &line->tasks[i].task);
	}
}

static int count_run(void *arg)
{
	return ((struct line *)arg)->run;
}

/* Goal: a call returns what its function returned, on the thread and from others. */
static int call_again(void *arg)
{
	struct line line = {.run = 7};

	(void)arg;
	return control_call(control, count_run, &line) + 1;
}

static void test_call(void **state)
{
	(void)state;
	assert_int_equal(control_call(control, call_again, NULL), 8);
}

/* Goal: tasks run once each, in their order, and all of them before a call that is made later. */
static void test_post(void **state)
{
	static struct line line;

	(void)state;
	for (int i = 0; i < 100; i++) {
		post_line(&line);
		assert_int_equal(control_call(control, count_run, &line), TASKS);
		assert_true(line.in_order);
	}
}

static void *post_and_call(void *arg)
{
	struct line *line = arg;

	for (int i = 0; i < 20; i++) {
		post_line(line);
		if (control_call(control, count_run, line) != TASKS || !line->in_order)
			return line;
	}
	return NULL;
}

/* Goal: the same holds for each of several threads. */
static void test_many_threads(void **state)
{
	static struct line lines[THREADS];
	pthread_t threads[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, post_and_call, &lines[i]), 0);
	for (int i = 0; i < THREADS; i++) {
		void *failed;

		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
}

struct chain {
	struct control_task task; /* first */
	_Atomic int left;
};

static void post_again(struct control_task *task)
{
	struct chain *chain = (struct chain *)task;

	if (atomic_fetch_sub(&chain->left, 1) > 1)
		control_post(control, task);
}

/* Goal: a task may post itself again; others get their turn meanwhile. */
static void test_chain(void **state)
{
	struct chain chain = {.task.run = post_again, .left = TASKS};

	(void)state;
	control_post(control, &chain.task);
	assert_int_equal(control_call(control, call_again, NULL), 8);
	for (int i = 0; i < 20000 && atomic_load(&chain.left) > 0; i++)
		usleep(1000);
	assert_int_equal(chain.left, 0);
	control_call(control, call_again, NULL); /* it is not run any more */
}

#define on_thread(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_thread(test_call),
		on_thread(test_post),
		on_thread(test_many_threads),
		on_thread(test_chain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
