/* SPDX-License-Identifier: Apache-2.0 */
/* The initiator's side of a session, at a target that a thread of the test plays from a script. */
#include "control/client.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "directory/p2p.h"
#include "tests/tap.h"

#define WELCOME                                                                                    \
	"{\"type\":\"welcome\",\"version\":1,\"name\":\"played\","                                 \
	"\"incarnation\":\"00000000deadbeef\",\"pid\":1}"
#define OPENED                                                                                     \
	"{\"type\":\"opened\",\"transport\":\"shm\",\"length\":8192,\"rights\":1,"                 \
	"\"page_bytes\":4096,\"node\":0,\"grant\":{}}"

/* What the target says after each message that it hears; NULL: hang up. "": say nothing more. */
static const char *const *lines;
static int listener;
static pthread_t actor;
static struct sockaddr_un address;
static socklen_t address_length;
static const struct trust trust;

static void tell(int fd, const char *text)
{
	json_t *message = json_loads(text, 0, NULL);

	message_write_new(fd, message, NULL, 0);
}

/* One message of the client. @return 0, or it hung up */
static int listen_to(int fd, struct message_reader *reader)
{
	json_t *message;
	int rc = message_read(reader, fd, &message);

	if (rc == 1)
		json_decref(message);
	return rc == 1 ? 0 : -1;
}

static void *play(void *arg)
{
	struct message_reader reader = {0};
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	for (const char *const *line = lines; listen_to(fd, &reader) == 0; line++) {
		if (!*line)
			break;
		if (**line)
			tell(fd, *line);
	}
	message_reader_reset(&reader);
	close(fd);
	return arg;
}

static int set_up(void **state)
{
	static unsigned serial;
	char name[32];

	(void)state;
	snprintf(name, sizeof(name), "unit-client-%d-%u", (int)getpid(), serial++);
	p2p_segment_address(name, &address, &address_length);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, address_length) < 0)
		return -1;
	return listen(listener, 1);
}

static int tear_down(void **state)
{
	(void)state;
	return close(listener);
}

static int open_at(const char *const *script, uint64_t timeout_us, struct client **client,
		   struct client_grant *grant)
{
	struct client_request request = {.address = address,
					 .address_length = address_length,
					 .described = "the stage",
					 .name = "unit",
					 .segment = "ram",
					 .rights = SLU_RIGHT_READ,
					 .transport = SLU_TRANSPORT_AUTO,
					 .timeout_us = timeout_us,
					 .trust = &trust};

	lines = script;
	if (script)
		assert_int_equal(pthread_create(&actor, NULL, play, NULL), 0);
	return client_open(&request, client, grant);
}

static void assert_fails(const char *const *script, int error, const char *text)
{
	struct client_grant grant;
	struct client *client;
	int ret = open_at(script, 10000000, &client, &grant);

	pthread_join(actor, NULL);
	if (ret != error || !strstr(slu_last_error(), text))
		fail_msg("%d (%s), not %d (... %s ...)", ret, slu_last_error(), error, text);
}

/* Goal: a granted segment is described as the target said, and closing hangs up. */
static void test_granted(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, NULL};
	struct client_grant grant;
	struct client *client;

	(void)state;
	assert_int_equal(open_at(script, 10000000, &client, &grant), 0);
	assert_string_equal(grant.target, "played");
	assert_int_equal(grant.incarnation, 0xdeadbeef);
	assert_int_equal(grant.pid, getpid()); /* of the socket, not of the message */
	assert_int_equal(grant.transport, SLU_TRANSPORT_SHM);
	assert_int_equal(grant.length, 8192);
	assert_int_equal(grant.page_bytes, 4096);
	assert_int_equal(grant.fd_count, 0);
	client_grant_free(&grant);
	client_close(client);
	pthread_join(actor, NULL);
}

/* Goal: nobody at the address is -ECONNREFUSED, with the command that would help. */
static void test_nobody_listens(void **state)
{
	struct client_grant grant;
	struct client *client;

	(void)state;
	close(listener);
	listener = dup(STDERR_FILENO);
	assert_int_equal(open_at(NULL, 1000000, &client, &grant), -ECONNREFUSED);
	assert_non_null(strstr(slu_last_error(), "sluice-target --segment ram"));
}

/* Goal: a target that says nothing is given up at the timeout, not before and not for ever. */
static void test_silent_target(void **state)
{
	static const char *const script[] = {"", NULL};
	uint64_t before = clock_monotonic_ns(NULL);
	struct client_grant grant;
	struct client *client;

	(void)state;
	assert_int_equal(open_at(script, 100000, &client, &grant), -ETIMEDOUT);
	assert_true(clock_monotonic_ns(NULL) - before >= 100 * 1000 * NS_PER_US);
	pthread_join(actor, NULL);
}

/* Goal: a refusal arrives with the target's error and words. */
static void test_refusal(void **state)
{
	static const char *const script[] = {
		WELCOME, "{\"type\":\"refused\",\"error\":13,\"text\":\"not today\"}", NULL};

	(void)state;
	assert_fails(script, -EACCES, "not today");
}

/* Goal: a refusal without a usable reason is a broken protocol, not success. */
static void test_refusal_without_reason(void **state)
{
	static const char *const no_error[] = {"{\"type\":\"refused\",\"text\":\"x\"}", NULL};
	static const char *const no_text[] = {"{\"type\":\"refused\",\"error\":13}", NULL};
	static const char *const negative[] = {
		"{\"type\":\"refused\",\"error\":-13,\"text\":\"x\"}", NULL};

	(void)state;
	assert_fails(no_error, -EPROTO, "without a reason");
	assert_fails(no_text, -EPROTO, "without a reason");
	assert_fails(negative, -EPROTO, "without a reason");
}

/* Goal: a version that we did not offer is -EPROTONOSUPPORT. */
static void test_version(void **state)
{
	static const char *const script[] = {"{\"type\":\"welcome\",\"version\":2,\"name\":\"n\","
					     "\"incarnation\":\"1\",\"pid\":1}",
					     NULL};

	(void)state;
	assert_fails(script, -EPROTONOSUPPORT, "version 2");
}

/* Goal: incomplete, impossible and unexpected answers are -EPROTO, each with its reason. */
static void test_broken_answers(void **state)
{
	static const char *const bare_welcome[] = {"{\"type\":\"welcome\"}", NULL};
	static const char *const wrong_type[] = {"{\"type\":\"opened\"}", NULL};
	static const char *const bare_opened[] = {WELCOME, "{\"type\":\"opened\"}", NULL};
	static const char *const negative[] = {
		WELCOME,
		"{\"type\":\"opened\",\"transport\":\"shm\",\"length\":-1,\"rights\":1,"
		"\"page_bytes\":4096,\"node\":0,\"grant\":{}}",
		NULL};

	(void)state;
	assert_fails(bare_welcome, -EPROTO, "welcome");
	assert_fails(wrong_type, -EPROTO, "opened");
	assert_fails(bare_opened, -EPROTO, "incomplete");
	assert_fails(negative, -EPROTO, "incomplete");
}

/* Goal: a target that hangs up at either step of the handshake is -ECONNRESET. */
static void test_hang_up(void **state)
{
	static const char *const at_once[] = {NULL};
	static const char *const after_welcome[] = {WELCOME, NULL};

	(void)state;
	assert_fails(at_once, -ECONNRESET, "closed the connection");
	assert_fails(after_welcome, -ECONNRESET, "closed the connection");
}

/* ---- watched ---- */

static _Atomic int lost_with;
static _Atomic unsigned lost_times;

static void on_lost(void *arg, int error)
{
	(void)arg;
	atomic_store(&lost_with, error);
	atomic_fetch_add(&lost_times, 1);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){0};
}

static const struct client_callbacks callbacks = {.lost = on_lost, .totals = on_totals};

/* Watch a session and ask for usage, which makes the target say its third line. */
static int ask_usage(const char *const *script, uint64_t timeout_us, uint64_t *cpu_ns)
{
	struct control_thread *control;
	struct client_grant grant;
	struct client *client;
	int ret;

	atomic_store(&lost_with, 0);
	atomic_store(&lost_times, 0);
	assert_int_equal(control_thread_start(&control), 0);
	assert_int_equal(open_at(script, 10000000, &client, &grant), 0);
	client_grant_free(&grant);
	assert_int_equal(client_watch(client, control, &callbacks, NULL), 0);
	ret = client_usage(client, timeout_us, cpu_ns);
	for (int i = 0; i < 10000 && ret < 0 && ret != -ETIMEDOUT && !lost_times; i++)
		usleep(1000);
	client_close(client);
	control_thread_stop(control);
	pthread_join(actor, NULL);
	return ret;
}

/* Goal: the target's usage is what it answered. */
static void test_usage(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, "{\"type\":\"usage\",\"cpu_ns\":77}",
					     "",      "",     NULL};
	uint64_t cpu_ns = 0;

	(void)state;
	assert_int_equal(ask_usage(script, 10000000, &cpu_ns), 0);
	assert_int_equal(cpu_ns, 77);
	assert_int_equal(lost_times, 0);
}

/* Goal: a target that does not answer is -ETIMEDOUT and the output stays as it was. */
static void test_usage_timeout(void **state)
{
	static const char *const script[] = {WELCOME, OPENED, "", "", NULL};
	uint64_t cpu_ns = 5;

	(void)state;
	assert_int_equal(ask_usage(script, 50000, &cpu_ns), -ETIMEDOUT);
	assert_int_equal(cpu_ns, 5);
}

/* Goal: the target's death and its announced end are told apart, once each. */
static void test_lost(void **state)
{
	static const char *const dies[] = {WELCOME, OPENED, NULL};
	static const char *const closes[] = {WELCOME, OPENED, "{\"type\":\"closing\"}", NULL};
	uint64_t cpu_ns;

	(void)state;
	assert_int_equal(ask_usage(dies, 10000000, &cpu_ns), -ECONNRESET);
	assert_int_equal(lost_with, -ECONNRESET);
	assert_int_equal(lost_times, 1);
	assert_int_equal(ask_usage(closes, 10000000, &cpu_ns), -ESHUTDOWN);
	assert_int_equal(lost_with, -ESHUTDOWN);
	assert_int_equal(lost_times, 1);
}

#define on_stage(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		on_stage(test_granted),
		on_stage(test_nobody_listens),
		on_stage(test_silent_target),
		on_stage(test_refusal),
		on_stage(test_refusal_without_reason),
		on_stage(test_version),
		on_stage(test_broken_answers),
		on_stage(test_hang_up),
		on_stage(test_usage),
		on_stage(test_usage_timeout),
		on_stage(test_lost),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
