/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/work.h"
#include "tests/tap.h"

/* What an event does is added up, and begins anew with the next; the greatest is kept. */
static void test_greatest(void **state)
{
	(void)state;
	work_forget();
	work_begin(WORK_EVENT);
	work_count(WORK_ITEMS, 3);
	work_count(WORK_ITEMS, 4);
	work_begin(WORK_EVENT);
	work_count(WORK_ITEMS, 5);
	assert_int_equal(work_greatest(WORK_EVENT, WORK_ITEMS), 7);
	assert_string_equal(work_culprit(WORK_EVENT, WORK_ITEMS), "test_greatest");
	assert_int_equal(work_greatest(WORK_EVENT, WORK_WAITS), 0);
	assert_null(work_culprit(WORK_EVENT, WORK_WAITS));
	assert_int_equal(work_greatest(WORK_TURN, WORK_ITEMS), 0);
}

/* A turn's work is its own. */
static void test_places(void **state)
{
	(void)state;
	work_forget();
	work_begin(WORK_EVENT);
	work_count(WORK_BYTES, 100);
	work_begin(WORK_TURN);
	work_count(WORK_BYTES, 50);
	assert_int_equal(work_greatest(WORK_EVENT, WORK_BYTES), 100);
	assert_int_equal(work_greatest(WORK_TURN, WORK_BYTES), 50);
}

static void *count_without_beginning(void *arg)
{
	work_count(WORK_ITEMS, 1000);
	return arg;
}

/* A thread that serves nobody counts nothing. */
static void test_other_thread(void **state)
{
	pthread_t thread;

	(void)state;
	work_forget();
	work_begin(WORK_EVENT);
	work_count(WORK_ITEMS, 1);
	assert_int_equal(pthread_create(&thread, NULL, count_without_beginning, NULL), 0);
	pthread_join(thread, NULL);
	assert_int_equal(work_greatest(WORK_EVENT, WORK_ITEMS), 1);
}

/* The report of a program can be read by another. */
static void test_report(void **state)
{
	char path[] = "/tmp/sluice-work-XXXXXX", text[512] = "";
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	work_forget();
	work_begin(WORK_EVENT);
	work_count(WORK_ITEMS, 2);
	setenv("SLUICE_WORK", path, 1);
	work_report();
	unsetenv("SLUICE_WORK");
	assert_true(read(fd, text, sizeof(text) - 1) > 0);
	assert_non_null(strstr(text, "{\"event\": {\"items\": [2, \"test_report\"], "));
	close(fd);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_greatest),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_other_thread),
		cmocka_unit_test(test_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
