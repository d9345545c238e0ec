/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
	log_flush();
	assert_int_equal(received.count, 1);
	assert_int_equal(received.level, SLU_LOG_INFO);
	assert_string_equal(received.text, "page 3 of ten");
	log_debug("not this one");
	log_flush();
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
	log_flush();
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
	log_flush();
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

/* ---- readers that stall ---- */

#define FLOOD 10000u

static struct {
	_Atomic bool stalls;
	_Atomic bool stalled;
	unsigned lines;
	unsigned long lost;
	pthread_t thread;
} reader;

static void read_slowly(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	reader.thread = pthread_self();
	while (atomic_load(&reader.stalls)) {
		atomic_store(&reader.stalled, true);
		usleep(1000);
	}
	if (strstr(text, "messages were dropped"))
		reader.lost += strtoul(text, NULL, 10);
	else
		reader.lines++;
}

static void *let_go(void *arg)
{
	(void)arg;
	usleep(50000);
	atomic_store(&reader.stalls, false);
	return NULL;
}

/* Goal: a receiver that stalls holds nobody up; what is lost meanwhile is counted to the line. */
static void test_receiver_stalls(void **state)
{
	(void)state;
	memset(&reader, 0, sizeof(reader));
	atomic_store(&reader.stalls, true);
	slu_log_set(SLU_LOG_INFO, read_slowly, NULL);
	for (unsigned i = 0; i < FLOOD; i++)
		log_info("line %u of a flood", i);
	atomic_store(&reader.stalls, false);
	log_flush();
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
	assert_false(pthread_equal(reader.thread, pthread_self()));
	assert_in_range(reader.lines, 1, 2 * LOG_BUFFER_BYTES / strlen("line 0 of a flood"));
	assert_int_equal(reader.lines + reader.lost, FLOOD);
}

/* Goal: after slu_log_set() the former receiver is not called, nor still running. */
static void test_receiver_is_left(void **state)
{
	pthread_t helper;
	unsigned lines;

	(void)state;
	memset(&reader, 0, sizeof(reader));
	atomic_store(&reader.stalls, true);
	slu_log_set(SLU_LOG_INFO, read_slowly, NULL);
	log_info("one");
	while (!atomic_load(&reader.stalled))
		usleep(1000);
	assert_int_equal(pthread_create(&helper, NULL, let_go, NULL), 0);
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	lines = reader.lines;
	assert_int_equal(lines, 1);
	log_info("two");
	log_flush();
	assert_int_equal(reader.lines, lines);
	pthread_join(helper, NULL);
}

/* The standard error of this process is @p fd. @return the former one */
static int redirect_stderr(int fd)
{
	int former = dup(STDERR_FILENO);

	assert_true(former >= 0);
	assert_true(dup2(fd, STDERR_FILENO) >= 0);
	return former;
}

static void restore_stderr(int former)
{
	dup2(former, STDERR_FILENO);
	close(former);
}

/* All lines of a pipe until it says @p last. @return how many before that one */
static unsigned read_until(FILE *pipe, const char *last, char *line, int size)
{
	unsigned lines = 0;

	while (fgets(line, size, pipe)) {
		if (strstr(line, last))
			return lines;
		lines++;
	}
	fail_msg("the pipe has ended");
	return 0;
}

/* What a line of the flood stands for: itself, or those that were dropped. */
static unsigned long account(const char *line)
{
	return strstr(line, "messages were dropped")
		       ? strtoul(line + strlen("sluice: warning: "), NULL, 10)
		       : 1;
}

/* Goal: nobody reads the pipe that is our standard error: every line is taken or counted. */
static void test_pipe_is_full(void **state)
{
	char line[2048];
	unsigned long accounted = 0;
	int ends[2], former;
	FILE *out;

	(void)state;
	slu_log_set(SLU_LOG_INFO, NULL, NULL);
	assert_int_equal(pipe(ends), 0);
	former = redirect_stderr(ends[1]);
	for (unsigned i = 0; i < FLOOD; i++)
		log_info("line %u: %0100d", i, 0);
	out = fdopen(ends[0], "r");
	while (accounted < FLOOD && fgets(line, sizeof(line), out))
		accounted += account(line);
	log_flush();
	restore_stderr(former);
	assert_int_equal(accounted, FLOOD);
	fclose(out);
	close(ends[1]);
}

/* Goal: a full disk costs the lines alone, and is told of as soon as there is room. */
static void test_disk_is_full(void **state)
{
	char line[2048];
	int ends[2], former, full = open("/dev/full", O_WRONLY);
	FILE *out;

	(void)state;
	if (full < 0)
		skip_because("no /dev/full");
	slu_log_set(SLU_LOG_INFO, NULL, NULL);
	assert_int_equal(pipe(ends), 0);
	former = redirect_stderr(full);
	for (unsigned i = 0; i < 10; i++) {
		log_info("line %u", i);
		log_flush();
	}
	dup2(ends[1], STDERR_FILENO);
	log_info("there is room");
	log_flush();
	out = fdopen(ends[0], "r");
	assert_int_equal(read_until(out, "10 messages were lost", line, sizeof(line)), 1);
	assert_non_null(strstr(line, "No space left on device"));
	restore_stderr(former);
	fclose(out);
	close(ends[1]);
	close(full);
}

/* ---- what peers cause ---- */

static struct {
	_Atomic unsigned lines;
	_Atomic unsigned told;
} peers;

static void count_peers(void *arg, enum slu_log_level level, const char *text)
{
	const char *more = strstr(text, "(and ");

	(void)arg;
	assert_int_equal(level, SLU_LOG_WARNING);
	atomic_fetch_add(&peers.told, 1 + (more ? (unsigned)atoi(more + 5) : 0));
	atomic_fetch_add(&peers.lines, 1);
}

/* Goal: of a flood that a peer causes a burst is said, then now and then the latest with a count
 * of the others; another kind of message is not held up by it. */
static void test_peer_floods(void **state)
{
	(void)state;
	slu_log_set(SLU_LOG_INFO, count_peers, NULL);
	for (unsigned i = 0; i < FLOOD; i++)
		log_peer(SLU_LOG_WARNING, "a peer says %u", i);
	log_peer(SLU_LOG_WARNING, "another kind");
	log_flush();
	assert_in_range(peers.lines, LOG_PEER_BURST + 1, LOG_PEER_BURST + 100);
	for (unsigned i = 0; i < 30000 && atomic_load(&peers.told) < FLOOD + 1; i++)
		usleep(1000);
	assert_int_equal(peers.told, FLOOD + 1);
	assert_in_range(peers.lines, LOG_PEER_BURST + 2, LOG_PEER_BURST + 100);
}

/* Goal: a child that forked off has a log of its own, and says nothing of its parent's. */
static void test_fork(void **state)
{
	char line[2048];
	int ends[2], former, status;
	FILE *out;
	pid_t child;

	(void)state;
	slu_log_set(SLU_LOG_INFO, NULL, NULL);
	assert_int_equal(pipe(ends), 0);
	former = redirect_stderr(ends[1]);
	log_info("parent");
	child = fork();
	if (child == 0) {
		log_info("child");
		log_flush();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	log_flush();
	restore_stderr(former);
	close(ends[1]);
	out = fdopen(ends[0], "r");
	for (unsigned i = 0; i < 2; i++)
		assert_non_null(fgets(line, sizeof(line), out));
	assert_null(fgets(line, sizeof(line), out));
	fclose(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_level_filters, restore_log),
		cmocka_unit_test_teardown(test_long_line_is_cut, restore_log),
		cmocka_unit_test(test_fail_keeps_cause),
		cmocka_unit_test_teardown(test_quoted_text, restore_log),
		cmocka_unit_test(test_last_error_is_per_thread),
		cmocka_unit_test_teardown(test_receiver_stalls, restore_log),
		cmocka_unit_test_teardown(test_receiver_is_left, restore_log),
		cmocka_unit_test_teardown(test_pipe_is_full, restore_log),
		cmocka_unit_test_teardown(test_disk_is_full, restore_log),
		cmocka_unit_test_teardown(test_peer_floods, restore_log),
		cmocka_unit_test_teardown(test_fork, restore_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
