/* SPDX-License-Identifier: Apache-2.0 */
/* The target's side of the control plane, talked to over plain sockets. */
#include "control/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "directory/p2p.h"
#include "tests/tap.h"

#define NOBODY      65534
#define PATIENCE_MS 10000

static struct trust trust;
static struct control_thread *control;
static struct server *server;
static struct listener *listener;
static struct sockaddr_un address;
static socklen_t address_length;
static int refusal; /* what the next open is answered with, 0: grant it */

static _Atomic unsigned opened, closed, lost;
static _Atomic uint64_t moved_operations;

static int on_open(void *arg, const char *segment, uint32_t rights, const json_t *transports,
		   json_t *answer, int fds[MESSAGE_FDS_MAX], uint32_t *close_mask, void **client)
{
	(void)arg;
	(void)transports;
	if (refusal)
		return fail(refusal, "segment \"%s\" is not for you", segment);
	json_object_set_new(answer, "rights", json_integer(rights));
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*close_mask = 1;
	*client = &opened;
	atomic_fetch_add(&opened, 1);
	return 1;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	assert_ptr_equal(client, &opened);
	assert_int_equal(bytes_read, 2);
	assert_int_equal(bytes_written, 3);
	atomic_store(&moved_operations, operations);
}

static void on_close(void *client, bool was_lost)
{
	assert_ptr_equal(client, &opened);
	atomic_fetch_add(&lost, was_lost);
	atomic_fetch_add(&closed, 1);
}

static const struct server_callbacks callbacks = {
	.open = on_open, .moved = on_moved, .close = on_close};

static int set_up(void **state)
{
	static unsigned serial;
	struct server_options options = {
		.trust = &trust, .name = "unit", .incarnation = 0xabc, .callbacks = &callbacks};
	char name[32];

	(void)state;
	opened = closed = lost = 0;
	moved_operations = 0;
	refusal = 0;
	trust.count = 0;
	snprintf(name, sizeof(name), "unit-server-%d-%u", (int)getpid(), serial++);
	p2p_segment_address(name, &address, &address_length);
	if (control_thread_start(&control) < 0)
		return -1;
	options.control = control;
	return server_create(&options, &server) < 0 ||
	       server_listen(server, &address, address_length, &listener) < 0;
}

static int tear_down(void **state)
{
	(void)state;
	server_destroy(server);
	control_thread_stop(control);
	return 0;
}

/* ---- a client made of a socket ---- */

static int dial(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, address_length), 0);
	return fd;
}

static void say(int fd, json_t *message)
{
	assert_int_equal(message_write_new(fd, message, NULL, 0), 0);
}

static json_t *hear(int fd, struct message_reader *reader)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	json_t *message = NULL;

	assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
	assert_int_equal(message_read(reader, fd, &message), 1);
	return message;
}

static void expect(int fd, const char *type)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);

	assert_string_equal(message_type(message), type);
	json_decref(message);
}

static void expect_refusal(int fd, int error, const char *text)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);

	assert_string_equal(message_type(message), "refused");
	assert_int_equal(json_integer_value(json_object_get(message, "error")), error);
	assert_non_null(strstr(json_string_value(json_object_get(message, "text")), text));
	json_decref(message);
}

static void expect_end(int fd)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
	assert_int_equal(read(fd, &byte, 1), 0);
	close(fd);
}

static json_t *hello(int low, int high)
{
	return json_pack("{s:s, s:[i,i], s:s}", "type", "hello", "versions", low, high, "name",
			 "me");
}

static json_t *open_message(void)
{
	return json_pack("{s:s, s:s, s:i, s:[s]}", "type", "open", "segment", "ram", "rights", 3,
			 "transports", "shm");
}

static int open_session(void)
{
	int fd = dial();

	say(fd, hello(1, 1));
	expect(fd, "welcome");
	say(fd, open_message());
	expect(fd, "opened");
	return fd;
}

static bool becomes(_Atomic unsigned *count, unsigned value)
{
	for (int i = 0; i < PATIENCE_MS && atomic_load(count) != value; i++)
		usleep(1000);
	return atomic_load(count) == value;
}

/* ---- tests ---- */

/* Goal: hello, open, moved, usage and bye go as the protocol says, and the end is a goodbye. */
static void test_whole_session(void **state)
{
	struct message_reader reader = {.takes_fds = true};
	int fd = dial();
	json_t *message;

	(void)state;
	say(fd, hello(1, 7));
	message = hear(fd, &reader);
	assert_int_equal(json_integer_value(json_object_get(message, "version")), 1);
	assert_string_equal(json_string_value(json_object_get(message, "incarnation")),
			    "0000000000000abc");
	json_decref(message);
	say(fd, open_message());
	message = hear(fd, &reader);
	assert_string_equal(message_type(message), "opened");
	assert_int_equal(json_integer_value(json_object_get(message, "rights")), 3);
	assert_int_equal(reader.fd_count, 1);
	json_decref(message);
	message_reader_reset(&reader);
	say(fd, json_pack("{s:s, s:i, s:i, s:i}", "type", "moved", "operations", 1, "bytes_read", 2,
			  "bytes_written", 3));
	say(fd, json_pack("{s:s}", "type", "usage"));
	expect(fd, "usage");
	assert_int_equal(moved_operations, 1);
	say(fd, json_pack("{s:s}", "type", "bye"));
	expect_end(fd);
	assert_true(becomes(&closed, 1));
	assert_int_equal(lost, 0);
}

/* Goal: a client that vanishes after opening is counted as lost, one before opening is nothing. */
static void test_vanished_clients(void **state)
{
	int fd = open_session();

	(void)state;
	close(dial());
	close(fd);
	assert_true(becomes(&lost, 1));
	assert_int_equal(closed, 1);
	assert_int_equal(opened, 1);
}

/* Goal: clients of other protocol versions are told so, in words. */
static void test_versions(void **state)
{
	static const int apart[][2] = {{0, 0}, {2, 9}, {-5, -1}};

	(void)state;
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++) {
		int fd = dial();

		say(fd, hello(apart[i][0], apart[i][1]));
		expect_refusal(fd, EPROTONOSUPPORT, "upgrade");
		expect_end(fd);
	}
}

/* Goal: what the segment's owner refuses reaches the client with error and text. */
static void test_refused_open(void **state)
{
	int fd = dial();

	(void)state;
	refusal = -EACCES;
	say(fd, hello(1, 1));
	expect(fd, "welcome");
	say(fd, open_message());
	expect_refusal(fd, EACCES, "\"ram\" is not for you");
	expect_end(fd);
	assert_int_equal(closed, 0);
}

/* Goal: messages that are out of turn or lack their fields end the session with a reason. */
static void test_out_of_turn(void **state)
{
	int fd = dial();

	(void)state;
	say(fd, open_message());
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
	fd = dial();
	say(fd, json_pack("{s:s}", "type", "hello"));
	expect_refusal(fd, EPROTO, "versions");
	expect_end(fd);
	fd = dial();
	say(fd, hello(1, 1));
	expect(fd, "welcome");
	say(fd, json_pack("{s:s}", "type", "open"));
	expect_refusal(fd, EPROTO, "segment");
	expect_end(fd);
	fd = open_session();
	say(fd, open_message());
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
	assert_true(becomes(&lost, 1));
}

static bool is_first(void *client, void *arg)
{
	(void)client;
	return (*(unsigned *)arg)++ == 0;
}

static int dismiss_one(void *arg)
{
	server_dismiss(server, is_first, arg);
	return 0;
}

/* Goal: a client that is dismissed is told, the others are not. */
static void test_dismiss(void **state)
{
	struct pollfd clients[2] = {{.fd = open_session(), .events = POLLIN},
				    {.fd = open_session(), .events = POLLIN}};
	unsigned asked = 0;

	(void)state;
	control_call(control, dismiss_one, &asked);
	assert_int_equal(asked, 2);
	assert_int_equal(poll(clients, 2, PATIENCE_MS), 1);
	expect(clients[0].revents ? clients[0].fd : clients[1].fd, "closing");
	assert_int_equal(server_session_count(server), 2);
	close(clients[0].fd);
	close(clients[1].fd);
	assert_true(becomes(&closed, 2));
}

/* Goal: an address has one listener, and is free again when that one is gone. */
static void test_address_in_use(void **state)
{
	struct listener *untouched = listener, *second = untouched;

	(void)state;
	assert_int_equal(server_listen(server, &address, address_length, &second), -EADDRINUSE);
	assert_ptr_equal(second, untouched);
	server_unlisten(server, listener);
	assert_int_equal(server_listen(server, &address, address_length, &listener), 0);
	close(open_session());
}

/* Goal: a socket file that a killed target left is taken over, and removed at the end. */
static void test_stale_path(void **state)
{
	char directory[] = "/tmp/sluice-unit-XXXXXX", path[64];
	struct listener *on_path;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	assert_int_equal(p2p_path_address(path, &address, &address_length), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, address_length), 0);
	close(fd);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(server_listen(server, &address, address_length, &on_path), 0);
	assert_int_equal(server_listen(server, &address, address_length, &listener), -EADDRINUSE);
	close(open_session());
	server_unlisten(server, on_path);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(rmdir(directory), 0);
}

/* In a process of another user: 0 refused with EACCES, 1 welcome. */
static int knock_as_nobody(void)
{
	struct message_reader reader = {0};
	json_t *message;
	int fd, ret;

	if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return 2;
	fd = dial();
	message_write_new(fd, hello(1, 1), NULL, 0); /* may come too late */
	message = hear(fd, &reader);
	ret = strcmp(message_type(message), "welcome") == 0;
	if (!ret && json_integer_value(json_object_get(message, "error")) != EACCES)
		ret = 3;
	json_decref(message);
	return ret;
}

static int foreign_knock(void)
{
	int status = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0)
		_exit(knock_as_nobody());
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Goal: a foreign user is refused, unless allowed by number. */
static void test_foreign_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip_because("only root can become another user");
	assert_int_equal(foreign_knock(), 0);
	trust.count = 1;
	trust.uids[0] = NOBODY;
	assert_int_equal(foreign_knock(), 1);
}

/* Goal: hundreds of sessions live side by side and all are closed with the server. */
static void test_many_sessions(void **state)
{
	int fds[300];

	(void)state;
	for (int i = 0; i < 300; i++)
		fds[i] = open_session();
	assert_int_equal(server_session_count(server), 300);
	server_destroy(server);
	server = NULL;
	assert_int_equal(closed, 300);
	for (int i = 0; i < 300; i++)
		close(fds[i]);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(test_whole_session),  with_server(test_vanished_clients),
		with_server(test_versions),       with_server(test_refused_open),
		with_server(test_out_of_turn),    with_server(test_dismiss),
		with_server(test_address_in_use), with_server(test_stale_path),
		with_server(test_foreign_user),   with_server(test_many_sessions),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
