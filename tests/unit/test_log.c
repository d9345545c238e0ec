/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/log.h"
#include "tests/tap.h"

struct received {
	int count;
	enum slu_log_level level;
	char text[2048];
};

static void receive(void *arg, enum slu_log_level level, const char *text)
{
	struct received *received = arg;

	received->count++;
	received->level = level;
	snprintf(received->text, sizeof(received->text), "%s", text);
}

static int restore_log(void **state)
{
	(void)state;
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
	return 0;
}

/* Goal: a line up to the level set reaches the receiver formatted; a more talkative one does not.
 */
static void test_level_filters(void **state)
{
	struct received received = {0};

	(void)state;
	slu_log_set(SLU_LOG_INFO, receive, &received);
	log_info("page %d of %s", 3, "ten");
	assert_int_equal(received.count, 1);
	assert_int_equal(received.level, SLU_LOG_INFO);
	assert_string_equal(received.text, "page 3 of ten");
	log_debug("not this one");
	assert_int_equal(received.count, 1);
	assert_true(log_enabled(SLU_LOG_ERROR));
	assert_false(log_enabled(SLU_LOG_DEBUG));
}

/* Goal: a line longer than the buffer is cut, and ends. */
static void test_long_line_is_cut(void **state)
{
	struct received received = {0};
	char text[4096];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	slu_log_set(SLU_LOG_INFO, receive, &received);
	log_error("%s", text);
	assert_int_equal(received.count, 1);
	assert_in_range(strlen(received.text), 500, sizeof(received.text) - 1);
}

/* Goal: fail() hands its error through and keeps the text for slu_last_error. */
static void test_fail_keeps_cause(void **state)
{
	(void)state;
	assert_int_equal(fail(-ENOMEM, "want %d pages", 7), -ENOMEM);
	assert_string_equal(slu_last_error(), "want 7 pages");
}

/* Goal: what a peer said cannot begin a line of its own, nor talk to a terminal. */
static void test_quoted_text(void **state)
{
	struct received received = {0};

	(void)state;
	slu_log_set(SLU_LOG_INFO, receive, &received);
	log_error("client \"%s\"", "x\nerror: fine\033[2J\x7f\tcaf\xc3\xa9");
	assert_string_equal(received.text, "client \"x?error: fine?[2J??caf\xc3\xa9\"");
	fail(-EPROTO, "said \"%s\"", "a\r\nb");
	assert_string_equal(slu_last_error(), "said \"a??b\"");
}

static void *fail_elsewhere(void *arg)
{
	(void)arg;
	fail(-EINVAL, "on the other thread");
	return NULL;
}

/* Goal: a failure on one thread does not overwrite the text of another. */
static void test_last_error_is_per_thread(void **state)
{
	pthread_t thread;

	(void)state;
	fail(-EINVAL, "on this thread");
	assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
	pthread_join(thread, NULL);
	assert_string_equal(slu_last_error(), "on this thread");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_level_filters, restore_log),
		cmocka_unit_test_teardown(test_long_line_is_cut, restore_log),
		cmocka_unit_test(test_fail_keeps_cause),
		cmocka_unit_test_teardown(test_quoted_text, restore_log),
		cmocka_unit_test(test_last_error_is_per_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
