/* SPDX-License-Identifier: Apache-2.0 */
/* The target's side of the control plane, talked to over plain sockets. */
#include "control/server.h"

#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "control/invitation.h"
#include "directory/p2p.h"
#include "tests/tap.h"

#define NOBODY      65534
#define PATIENCE_MS 300000
#define RACERS      4

static struct trust trust;
static struct control_thread *control;
static struct server *server;
static struct listener *listener;
static struct sockaddr_un address;
static socklen_t address_length;
static _Atomic int refusal; /* what the next open is answered with, 0: grant it */

static struct peer_info last_peer; /* the control thread's */

static _Atomic unsigned opened, closed, lost, gone, fenced;
static _Atomic uint64_t moved_operations, gone_last;
static _Atomic uint64_t fenced_connection, fenced_link; /* the last */

static int on_open(void *arg, const struct peer_info *peer, const char *segment, uint32_t rights,
		   const json_t *transports, json_t *answer, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	(void)arg;
	(void)transports;
	if (refusal)
		return fail(refusal, "segment \"%s\" is not for you", segment);
	assert_true(peer->is_unix);
	json_object_set_new(answer, "rights", json_integer(rights));
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	*close_mask = 1;
	*client = &opened;
	last_peer = *peer;
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

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	assert_true(connection > 0);
	atomic_store(&gone_last, connection);
	atomic_fetch_add(&gone, 1);
}

#define FENCE_WAITS 60 /* as if there were so many pollers */

static void on_fence(void *arg, uint64_t connection, uint64_t link)
{
	(void)arg;
	atomic_store(&fenced_connection, connection);
	atomic_store(&fenced_link, link);
	work_count(WORK_WAITS, FENCE_WAITS);
	atomic_fetch_add(&fenced, 1);
}

static _Atomic size_t described_bytes; /* of what the transports tell of themselves; 0: nothing */

static json_t *on_describe(void *arg, const struct peer_info *peer)
{
	char text[MESSAGE_MAX_BYTES + 1] = "";

	(void)arg;
	assert_true(peer->connection > 0 && peer->identity[0]);
	if (described_bytes == 0)
		return NULL;
	memset(text, 'x', described_bytes);
	return json_pack("{s:{s:s}}", "verbs", "gid", text);
}

static struct path_ask asked; /* to be answered later */

/* The offer says what comes of it. */
static int on_path(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	const char *refused = json_string_value(json_object_get(offer, "refuse"));
	json_int_t bytes = json_integer_value(json_object_get(offer, "bytes"));
	char text[MESSAGE_MAX_BYTES + 1] = "";

	assert_ptr_equal(client, &opened);
	if (json_object_get(offer, "later")) {
		asked = *ask;
		return SERVER_LATER;
	}
	if (refused)
		return fail(-ENODEV, "no device is called %s", refused);
	memset(text, 'x', (size_t)bytes);
	json_object_set_new(answer, "pad", json_string(text));
	json_object_set_new(answer, "qpn",
			    json_integer(json_integer_value(json_object_get(offer, "qpn")) + 1));
	return 0;
}

static _Atomic bool entitled = true;

static bool on_entitled(void *arg, const struct peer_info *peer)
{
	(void)arg;
	assert_true(peer->identity[0]);
	return entitled;
}

static const struct server_callbacks full_callbacks = {.describe = on_describe,
						       .open = on_open,
						       .path = on_path,
						       .moved = on_moved,
						       .close = on_close,
						       .entitled = on_entitled,
						       .fence = on_fence,
						       .gone = on_gone};
static struct server_callbacks callbacks; /* the control thread's, once it runs */

static int without_path(void *arg)
{
	(void)arg;
	callbacks.path = NULL;
	return 0;
}

static int without_fence(void *arg)
{
	(void)arg;
	callbacks.fence = NULL;
	return 0;
}

static struct server_limits limits;
static struct budgets *budgets;

static int set_up(void **state)
{
	static unsigned serial;
	struct server_options options = {.trust = &trust,
					 .name = "unit",
					 .incarnation = 0xabc,
					 .callbacks = &callbacks,
					 .limits = limits,
					 .budgets = budgets};
	char name[32];

	(void)state;
	opened = closed = lost = gone = fenced = 0;
	moved_operations = 0;
	refusal = 0;
	described_bytes = 0;
	callbacks = full_callbacks;
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
	struct message_writer writer = {.limit_bytes = MESSAGE_MAX_BYTES};
	struct pollfd writable = {.fd = fd, .events = POLLOUT};
	struct stream stream = {.fd = fd};

	assert_int_equal(message_send(&writer, &stream, message, NULL, 0), 0);
	while (message_writer_busy(&writer)) {
		assert_int_equal(poll(&writable, 1, PATIENCE_MS), 1);
		assert_int_equal(message_flush(&writer, &stream), 0);
	}
}

static json_t *hear(int fd, struct message_reader *reader)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	struct stream stream = {.fd = fd};
	json_t *message = NULL;
	int rc = 0;

	while (rc == 0) {
		assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
		rc = message_read(reader, &stream, &message);
	}
	assert_int_equal(rc, 1);
	return message;
}

static void expect(int fd, const char *type)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);

	assert_string_equal(message_type(message), type);
	json_decref(message);
}

static json_t *hear_refusal(int fd, int error, const char *text)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);

	assert_string_equal(message_type(message), "refused");
	assert_int_equal(json_integer_value(json_object_get(message, "error")), error);
	assert_non_null(strstr(json_string_value(json_object_get(message, "text")), text));
	return message;
}

static void expect_refusal(int fd, int error, const char *text)
{
	json_decref(hear_refusal(fd, error, text));
}

static void expect_end(int fd)
{
	struct pollfd readable = {.fd = fd, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&readable, 1, PATIENCE_MS), 1);
	assert_int_equal(read(fd, &byte, 1), 0);
	close(fd);
}

static json_t *hello_of(int low, int high)
{
	return json_pack("{s:s, s:[i,i], s:s}", "type", "hello", "versions", low, high, "name",
			 "me");
}

static json_t *hello(void)
{
	return hello_of(MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH);
}

static json_t *open_message(int id)
{
	return json_pack("{s:s, s:i, s:s, s:i, s:[s]}", "type", "open", "session", id, "segment",
			 "ram", "rights", 3, "transports", "shm");
}

static json_t *close_message(int id)
{
	return json_pack("{s:s, s:i, s:i, s:i, s:i}", "type", "close", "session", id, "operations",
			 5, "bytes_read", 2, "bytes_written", 3);
}

static int open_session(void)
{
	int fd = dial();

	say(fd, hello());
	expect(fd, "welcome");
	say(fd, open_message(7));
	expect(fd, "opened");
	return fd;
}

static json_t *path_message(int id, json_int_t request, json_t *offer)
{
	return json_pack("{s:s, s:i, s:I, s:o}", "type", "path", "session", id, "request", request,
			 "offer", offer);
}

/* Of a refused path, which session and request are meant. */
static void expect_path_refusal(int fd, int id, json_int_t request, int error, const char *text)
{
	json_t *message = hear_refusal(fd, error, text);
	json_int_t of, number;

	assert_int_equal(json_unpack(message, "{s:I, s:I}", "session", &of, "request", &number), 0);
	assert_int_equal(of, id);
	assert_int_equal(number, request);
	json_decref(message);
}

static void expect_path(int fd, int id, json_int_t request, int qpn)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);
	json_int_t of, number;
	int got;

	assert_string_equal(message_type(message), "path");
	assert_int_equal(json_unpack(message, "{s:I, s:I, s:{s:i}}", "session", &of, "request",
				     &number, "answer", "qpn", &got),
			 0);
	assert_int_equal(of, id);
	assert_int_equal(number, request);
	assert_int_equal(got, qpn);
	json_decref(message);
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
	say(fd, hello_of(1, 9));
	message = hear(fd, &reader);
	assert_int_equal(json_integer_value(json_object_get(message, "version")),
			 MESSAGE_VERSION_HIGH);
	assert_string_equal(json_string_value(json_object_get(message, "incarnation")),
			    "0000000000000abc");
	json_decref(message);
	say(fd, open_message(7));
	message = hear(fd, &reader);
	assert_string_equal(message_type(message), "opened");
	assert_int_equal(json_integer_value(json_object_get(message, "session")), 7);
	assert_int_equal(json_integer_value(json_object_get(message, "rights")), 3);
	assert_int_equal(reader.fd_count, 1);
	json_decref(message);
	message_reader_reset(&reader);
	say(fd, json_pack("{s:s, s:[[i, i, i, i]]}", "type", "moved", "totals", 7, 1, 2, 3));
	say(fd, json_pack("{s:s}", "type", "usage"));
	expect(fd, "usage");
	assert_int_equal(moved_operations, 1);
	say(fd, close_message(7));
	assert_true(becomes(&closed, 1));
	assert_int_equal(moved_operations, 5);
	say(fd, json_pack("{s:s}", "type", "ping"));
	expect(fd, "pong");
	assert_int_equal(gone, 0);
	say(fd, json_pack("{s:s}", "type", "bye"));
	expect_end(fd);
	assert_true(becomes(&gone, 1));
	assert_int_equal(closed, 1);
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
	static const int apart[][2] = {
		{0, 0}, {1, MESSAGE_VERSION_LOW - 1}, {MESSAGE_VERSION_HIGH + 1, 99}, {-5, -1}};

	(void)state;
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++) {
		int fd = dial();

		say(fd, hello_of(apart[i][0], apart[i][1]));
		expect_refusal(fd, EPROTONOSUPPORT, "upgrade");
		expect_end(fd);
	}
}

/* Goal: what the segment's owner refuses reaches the client with error and text; the connection
 * stays, and so does the number of the session. */
static void test_refused_open(void **state)
{
	int fd = dial();

	(void)state;
	refusal = -EACCES;
	say(fd, hello());
	expect(fd, "welcome");
	say(fd, open_message(7));
	expect_refusal(fd, EACCES, "\"ram\" is not for you");
	assert_int_equal(closed, 0);
	assert_int_equal(server_session_count(server), 0);
	refusal = 0;
	say(fd, open_message(7));
	expect(fd, "opened");
	close(fd);
}

/* Goal: messages that are out of turn or lack their fields end the session with a reason. */
static void test_out_of_turn(void **state)
{
	static const char *const broken[] = {
		"{\"type\":\"open\",\"session\":-1,\"segment\":\"ram\",\"rights\":1,\"transports\":"
		"[]}",
		"{\"type\":\"open\",\"session\":4294967296,\"segment\":\"ram\",\"rights\":1,"
		"\"transports\":[]}",
		"{\"type\":\"close\",\"session\":7}",
		"{\"type\":\"moved\"}",
		"{\"type\":\"moved\",\"totals\":[[7,1,2]]}",
		"{\"type\":\"moved\",\"totals\":[7]}",
	};
	int fd = dial();

	(void)state;
	say(fd, open_message(7));
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
	fd = dial();
	say(fd, json_pack("{s:s}", "type", "hello"));
	expect_refusal(fd, EPROTO, "versions");
	expect_end(fd);
	fd = dial();
	say(fd, hello());
	expect(fd, "welcome");
	say(fd, json_pack("{s:s}", "type", "open"));
	expect_refusal(fd, EPROTO, "segment");
	expect_end(fd);
	fd = open_session();
	say(fd, hello());
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
	assert_true(becomes(&lost, 1));
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		fd = open_session();
		say(fd, json_loads(broken[i], 0, NULL));
		expect_refusal(fd, EPROTO, "without");
		expect_end(fd);
	}
}

/* Goal: the welcome tells what the transports say of themselves; what would be too long for a
 * welcome is left out, and the client is let in all the same. */
static void test_describe(void **state)
{
	static const struct {
		size_t bytes;
		bool told;
	} cases[] = {{0, false},
		     {100, true},
		     {MESSAGE_TRANSPORTS_MAX_BYTES - 20, true},
		     {MESSAGE_TRANSPORTS_MAX_BYTES - 19, false},
		     {MESSAGE_MAX_BYTES, false}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message_reader reader = {0};
		int fd = dial();
		const char *gid = "";
		json_t *welcome;

		described_bytes = cases[i].bytes;
		say(fd, hello());
		welcome = hear(fd, &reader);
		assert_string_equal(message_type(welcome), "welcome");
		json_unpack(welcome, "{s:{s:{s:s}}}", "transports", "verbs", "gid", &gid);
		assert_int_equal(strlen(gid), cases[i].told ? cases[i].bytes : 0);
		assert_int_equal(json_object_get(welcome, "transports") != NULL, cases[i].told);
		json_decref(welcome);
		close(fd);
	}
}

/* Goal: a path is asked for as often as wanted, with numbers of the client's; refusals say which
 * request they are for, and leave the session and the connection as they were. */
static void test_path(void **state)
{
	int fd = open_session();

	(void)state;
	say(fd, path_message(7, 0, json_pack("{s:i}", "qpn", 10)));
	say(fd, path_message(7, INT64_MAX, json_pack("{s:s}", "refuse", "mlx9_9")));
	say(fd, path_message(7, 0, json_pack("{s:i}", "qpn", 20)));
	expect_path(fd, 7, 0, 11);
	expect_path_refusal(fd, 7, INT64_MAX, ENODEV, "no device is called mlx9_9");
	expect_path(fd, 7, 0, 21);
	say(fd, path_message(8, 3, json_object()));
	expect_path_refusal(fd, 8, 3, ENOENT, "session 8 is not open");
	say(fd, path_message(7, 4, json_pack("{s:i}", "bytes", MESSAGE_MAX_BYTES)));
	expect_path_refusal(fd, 7, 4, EMSGSIZE, "the answer cannot be sent");
	control_call(control, without_path, NULL);
	say(fd, path_message(7, 5, json_object()));
	expect_path_refusal(fd, 7, 5, EOPNOTSUPP, "asked for no paths");
	say(fd, close_message(7));
	say(fd, path_message(7, 6, json_object()));
	expect_path_refusal(fd, 7, 6, ENOENT, "session 7 is not open");
	assert_int_equal(closed, 1);
	assert_int_equal(lost, 0);
	close(fd);
}

static int answer_later(void *arg)
{
	server_answer_path(server, &asked, 0, json_pack("{s:i}", "qpn", *(int *)arg));
	return 0;
}

static int refuse_later(void *arg)
{
	(void)arg;
	server_answer_path(server, &asked, fail(-ENODEV, "it has gone"), NULL);
	return 0;
}

/* Goal: an answer may come later, behind others; and when nobody waits for it, it is dropped. */
static void test_path_later(void **state)
{
	int fd = open_session(), qpn = 5;

	(void)state;
	say(fd, path_message(7, 1, json_pack("{s:b}", "later", 1)));
	say(fd, path_message(7, 2, json_pack("{s:i}", "qpn", 10)));
	expect_path(fd, 7, 2, 11);
	control_call(control, answer_later, &qpn);
	expect_path(fd, 7, 1, 5);
	say(fd, path_message(7, 3, json_pack("{s:b}", "later", 1)));
	say(fd, path_message(7, 4, json_pack("{s:i}", "qpn", 20)));
	expect_path(fd, 7, 4, 21);
	control_call(control, refuse_later, NULL);
	expect_path_refusal(fd, 7, 3, ENODEV, "it has gone");
	close(fd);
	assert_true(becomes(&gone, 1));
	control_call(control, answer_later, &qpn);
}

/* Goal: what is no request for a path ends the connection with a reason; so does a request from a
 * client that has not said hello. */
static void test_broken_path(void **state)
{
	static const char *const broken[] = {
		"{\"type\":\"path\"}",
		"{\"type\":\"path\",\"session\":7,\"request\":1}",
		"{\"type\":\"path\",\"session\":7,\"offer\":{}}",
		"{\"type\":\"path\",\"request\":1,\"offer\":{}}",
		"{\"type\":\"path\",\"session\":7,\"request\":1,\"offer\":[]}",
		"{\"type\":\"path\",\"session\":7,\"request\":1,\"offer\":null}",
		"{\"type\":\"path\",\"session\":7,\"request\":1,\"offer\":\"{}\"}",
		"{\"type\":\"path\",\"session\":7,\"request\":-1,\"offer\":{}}",
		"{\"type\":\"path\",\"session\":7,\"request\":1.5,\"offer\":{}}",
		"{\"type\":\"path\",\"session\":7,\"request\":\"1\",\"offer\":{}}",
		"{\"type\":\"path\",\"session\":-7,\"request\":1,\"offer\":{}}",
		"{\"type\":\"path\",\"session\":4294967303,\"request\":1,\"offer\":{}}",
	};
	static const char huge[] = "\x4e\0\0\0{\"type\":\"path\",\"session\":7,"
				   "\"request\":99999999999999999999999999999,\"offer\":{}}";
	int fd;

	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		fd = open_session();
		say(fd, json_loads(broken[i], 0, NULL));
		expect_refusal(fd, EPROTO, "path without");
		expect_end(fd);
	}
	fd = open_session();
	assert_int_equal(sizeof(huge) - 1, 4 + huge[0]);
	assert_int_equal(write(fd, huge, sizeof(huge) - 1), sizeof(huge) - 1);
	expect_end(fd);
	fd = dial();
	say(fd, path_message(7, 1, json_object()));
	expect_refusal(fd, EPROTO, "unexpected message \"path\"");
	expect_end(fd);
}

/* ---- invitations and fences ---- */

static json_t *request_message(const char *type, json_int_t request, json_t *offer)
{
	return json_pack("{s:s, s:I, s:o}", "type", type, "request", request, "offer", offer);
}

static json_t *number_of(uint64_t number)
{
	return json_sprintf("%016llx", (unsigned long long)number);
}

static json_t *invite_message(json_int_t request, uint64_t link, json_int_t count)
{
	return request_message("invite", request,
			       json_pack("{s:o, s:I}", "link", number_of(link), "count", count));
}

static json_t *fence_link_message(json_int_t request, uint64_t link)
{
	return request_message("fence", request, json_pack("{s:o}", "link", number_of(link)));
}

/* Over a Unix socket, where connections have no binding. */
#define NO_BINDING "0000000000000000000000000000000000000000000000000000000000000000"

static json_t *fence_connection_message(json_int_t request, uint64_t number, const char *proof)
{
	return request_message("fence", request,
			       json_pack("{s:o, s:s, s:s}", "connection", number_of(number),
					 "binding", NO_BINDING, "proof", proof));
}

/* Of what the other end says, by the secret of a connection. */
static const char *proof_of(const char *secret, const char *said)
{
	static char proof[PROOF_TEXT];
	uint8_t bytes[SECRET_BYTES];

	assert_true(secret_parse(secret, bytes, sizeof(bytes)));
	assert_true(secret_prove_text(bytes, said, strlen(said), proof));
	return proof;
}

/* To a request that is not a session's. */
static void expect_request_refusal(int fd, json_int_t request, int error, const char *text)
{
	json_t *message = hear_refusal(fd, error, text);

	assert_int_equal(json_integer_value(json_object_get(message, "request")), request);
	assert_null(json_object_get(message, "session"));
	json_decref(message);
}

/* @return what it is answered with, to be freed */
static json_t *expect_answer(int fd, const char *type, json_int_t request)
{
	struct message_reader reader = {0};
	json_t *message = hear(fd, &reader);
	json_t *answer = json_incref(json_object_get(message, "answer"));

	assert_string_equal(message_type(message), type);
	assert_int_equal(json_integer_value(json_object_get(message, "request")), request);
	assert_true(json_is_object(answer));
	json_decref(message);
	return answer;
}

static void expect_secret(int fd, json_int_t request, char secret[SECRET_TEXT])
{
	json_t *answer = expect_answer(fd, "invite", request);
	const char *text = json_string_value(json_object_get(answer, "secret"));
	uint8_t bytes[SECRET_BYTES];

	assert_true(secret_parse(text, bytes, sizeof(bytes)));
	strcpy(secret, text);
	json_decref(answer);
}

static void expect_fenced(int fd, json_int_t request)
{
	json_t *answer = expect_answer(fd, "fence", request);

	assert_int_equal(json_object_size(answer), 0);
	json_decref(answer);
}

static void expect_ended(int fd, json_int_t request, const char *secret)
{
	json_t *answer = expect_answer(fd, "fence", request);

	assert_string_equal(json_string_value(json_object_get(answer, "proof")),
			    proof_of(secret, FENCE_OVER));
	json_decref(answer);
}

/* A greeted connection without a session; what the welcome gives it. */
static int greeted(uint64_t *number, char secret[SECRET_TEXT])
{
	struct message_reader reader = {0};
	int fd = dial();
	json_t *welcome;

	say(fd, hello());
	welcome = hear(fd, &reader);
	assert_true(message_number(welcome, "connection", number));
	strcpy(secret, json_string_value(json_object_get(welcome, "secret")));
	assert_null(json_object_get(welcome, "token"));
	json_decref(welcome);
	return fd;
}

/* Goal: every connection has a number and a secret of its own. */
static void test_secrets(void **state)
{
	char first[SECRET_TEXT], second[SECRET_TEXT];
	uint64_t number, next;
	int fds[2] = {greeted(&number, first), greeted(&next, second)};

	(void)state;
	assert_int_not_equal(number, next);
	assert_string_not_equal(first, second);
	assert_int_equal(strlen(first), 2 * SECRET_BYTES);
	for (int i = 0; i < 2; i++)
		close(fds[i]);
}

/* Goal: who has nothing open invites nobody: not before the first session, not after the last;
 * between them each invitation has a secret of its own. */
static void test_invite(void **state)
{
	char own[SECRET_TEXT], first[SECRET_TEXT], second[SECRET_TEXT];
	uint64_t number;
	int fd = greeted(&number, own);

	(void)state;
	say(fd, invite_message(0, 1, 1));
	expect_request_refusal(fd, 0, EACCES, "who have opened a segment");
	refusal = -EACCES;
	say(fd, open_message(7));
	expect_refusal(fd, EACCES, "not for you");
	say(fd, invite_message(1, 1, 1));
	expect_request_refusal(fd, 1, EACCES, "who have opened a segment");
	refusal = 0;
	say(fd, open_message(7));
	expect(fd, "opened");
	say(fd, invite_message(2, 1, 1));
	expect_secret(fd, 2, first);
	say(fd, invite_message(2, 1, INVITED_MAX)); /* the numbers are the client's */
	expect_secret(fd, 2, second);
	assert_string_not_equal(first, second);
	assert_string_not_equal(first, own);
	say(fd, close_message(7));
	say(fd, invite_message(3, 1, 1));
	expect_request_refusal(fd, 3, EACCES, "who have opened a segment");
	say(fd, json_pack("{s:s}", "type", "ping"));
	expect(fd, "pong");
	close(fd);
}

/* Goal: an invitation is for a link and 1 to INVITED_MAX connections; other offers are refused, and
 * the connection stays. */
static void test_invite_counts(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"count\":1}",
		"{\"link\":\"0000000000000001\"}",
		"{\"link\":\"0000000000000001\",\"count\":0}",
		"{\"link\":\"0000000000000001\",\"count\":-1}",
		"{\"link\":\"0000000000000001\",\"count\":17}",
		"{\"link\":\"0000000000000001\",\"count\":4294967297}",
		"{\"link\":\"0000000000000001\",\"count\":\"1\"}",
		"{\"link\":\"0000000000000001\",\"count\":1.5}",
		"{\"link\":1,\"count\":1}",
		"{\"link\":\"1\",\"count\":1}",
		"{\"link\":\"000000000000000g\",\"count\":1}",
		"{\"link\":\"000000000000000A\",\"count\":1}",
		"{\"link\":\"00000000000000001\",\"count\":1}",
	};
	char secret[SECRET_TEXT];
	int fd = open_session();

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		say(fd, request_message("invite", (json_int_t)i, json_loads(bad[i], 0, NULL)));
		expect_request_refusal(fd, (json_int_t)i, EPROTO, "without link or count");
	}
	say(fd, invite_message(INT64_MAX, UINT64_MAX, INVITED_MAX));
	expect_secret(fd, INT64_MAX, secret);
	close(fd);
}

/* Goal: at most INVITATIONS_MAX invitations of a connection wait; that others wait for as many is
 * no matter, and a new one to a link takes the place of the old, as a fence makes room. */
static void test_invitations_max(void **state)
{
	char secret[SECRET_TEXT];
	int fd = open_session(), other = open_session();

	(void)state;
	for (uint32_t i = 0; i < INVITATIONS_MAX; i++) {
		say(fd, invite_message(i, i, 1));
		expect_secret(fd, i, secret);
	}
	say(fd, invite_message(1, INVITATIONS_MAX, 1));
	expect_request_refusal(fd, 1, ENOSPC, "have not come");
	say(fd, invite_message(2, INVITATIONS_MAX - 1, 1));
	expect_secret(fd, 2, secret);
	say(fd, invite_message(3, INVITATIONS_MAX, 1));
	expect_request_refusal(fd, 3, ENOSPC, "have not come");
	say(other, invite_message(4, INVITATIONS_MAX, 1));
	expect_secret(other, 4, secret);
	say(fd, fence_link_message(5, 0));
	expect_fenced(fd, 5);
	say(fd, invite_message(6, INVITATIONS_MAX, 1));
	expect_secret(fd, 6, secret);
	close(fd);
	close(other);
}

/* Goal: when a fence is answered, the transports have ended that link of that connection, and no
 * other; one that nobody knows, or that was fenced before, is over too. No session is needed. */
static void test_fence_link(void **state)
{
	char secret[SECRET_TEXT];
	uint64_t number;
	int fd = greeted(&number, secret);

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		uint64_t link = i < 2 ? UINT64_C(0xfedcba9876543210) : 0;

		say(fd, fence_link_message(i, link));
		expect_fenced(fd, i);
		assert_int_equal(fenced, i + 1);
		assert_int_equal(fenced_connection, number);
		assert_int_equal(fenced_link, link);
	}
	control_call(control, without_fence, NULL);
	say(fd, fence_link_message(9, 1));
	expect_fenced(fd, 9);
	assert_int_equal(gone, 0);
	close(fd);
}

/* Goal: an earlier connection is ended by whoever has its secret; when that is answered, its
 * sessions and links are over, and the target proves that it is the one that was meant. Said again
 * it is as true. */
static void test_fence_connection(void **state)
{
	char old_secret[SECRET_TEXT], secret[SECRET_TEXT];
	uint64_t old_number, number;
	int old = greeted(&old_number, old_secret), fd = greeted(&number, secret);

	(void)state;
	say(old, open_message(7));
	expect(old, "opened");
	say(fd, fence_connection_message(1, old_number, proof_of(old_secret, FENCE_END)));
	expect_ended(fd, 1, old_secret);
	assert_int_equal(lost, 1);
	assert_int_equal(gone, 1);
	assert_int_equal(gone_last, old_number);
	assert_int_equal(server_connection_count(server), 1);
	expect_end(old);
	say(fd, fence_connection_message(2, old_number, proof_of(old_secret, FENCE_END)));
	expect_ended(fd, 2, old_secret);
	assert_int_equal(gone, 1);
	assert_int_equal(fenced, 0);
	close(fd);
}

static json_t *same_message(json_int_t request, uint64_t number, const char *nonce)
{
	return request_message("same", request,
			       json_pack("{s:o, s:s, s:s}", "connection", number_of(number),
					 "binding", NO_BINDING, "nonce", nonce));
}

static void expect_same(int fd, json_int_t request, const char *secret, const char *nonce)
{
	json_t *answer = expect_answer(fd, "same", request);
	struct same_claim claim = {0};
	uint8_t bytes[SECRET_BYTES];

	assert_true(secret_parse(secret, bytes, sizeof(bytes)));
	assert_true(secret_parse(nonce, claim.nonce, sizeof(claim.nonce)));
	assert_true(secret_is_proven(bytes, &claim, sizeof(claim),
				     json_string_value(json_object_get(answer, "proof"))));
	json_decref(answer);
}

#define BINDING "\"binding\":\"" NO_BINDING "\""
#define NONCE   "\"nonce\":\"000102030405060708090a0b0c0d0e0f\""

/* Goal: a target proves which connections it has given their secrets, also when they have ended,
 * and for that question alone; what is no question is refused and changes nothing. */
static void test_same(void **state)
{
	static const char *const nonces[] = {"000102030405060708090a0b0c0d0e0f",
					     "f00102030405060708090a0b0c0d0e0f"};
	static const char *const bad[] = {
		"{}",
		"{\"connection\":\"0000000000000001\"," BINDING "}",
		"{" BINDING "," NONCE "}",
		"{\"connection\":1," BINDING "," NONCE "}",
		"{\"connection\":\"0000000000000001\"," NONCE "}",
		"{\"connection\":\"0000000000000001\",\"binding\":\"00\"," NONCE "}",
		"{\"connection\":\"0000000000000001\"," BINDING ",\"nonce\":\"00\"}",
		"{\"connection\":\"0000000000000001\"," BINDING ",\"nonce\":\"\"}",
		"{\"connection\":\"0000000000000001\"," BINDING ",\"nonce\":7}",
	};
	char old_secret[SECRET_TEXT], secret[SECRET_TEXT];
	uint64_t old_number, number;
	int old = greeted(&old_number, old_secret), fd = greeted(&number, secret);

	(void)state;
	say(fd, same_message(0, old_number, nonces[0]));
	expect_same(fd, 0, old_secret, nonces[0]);
	close(old);
	assert_true(becomes(&gone, 1));
	say(fd, same_message(1, old_number, nonces[1]));
	expect_same(fd, 1, old_secret, nonces[1]);
	say(fd, same_message(2, number, nonces[1]));
	expect_same(fd, 2, secret, nonces[1]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		say(fd, request_message("same", (json_int_t)i, json_loads(bad[i], 0, NULL)));
		expect_request_refusal(fd, (json_int_t)i, EPROTO, "without connection or nonce");
	}
	assert_int_equal(server_connection_count(server), 1);
	say(fd, json_pack("{s:s}", "type", "same"));
	expect_refusal(fd, EPROTO, "same without request or offer");
	expect_end(fd);
	fd = dial();
	say(fd, same_message(1, number, nonces[0]));
	expect_refusal(fd, EPROTO, "unexpected message \"same\"");
	expect_end(fd);
}

static _Atomic unsigned security_lines;

static void count_security(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	if (level == SLU_LOG_WARNING && strstr(text, "security: "))
		atomic_fetch_add(&security_lines, 1);
}

/* Goal: without its secret no connection is ended, nor with another's, nor by what is said of its
 * end; also of one that there is not nothing is said. The attempt is logged; nobody ends their own.
 */
static void test_fence_of_others(void **state)
{
	char other_secret[SECRET_TEXT], secret[SECRET_TEXT], wrong[PROOF_TEXT];
	uint64_t other_number, number;
	int other = greeted(&other_number, other_secret), fd = greeted(&number, secret);

	(void)state;
	atomic_store(&security_lines, 0);
	slu_log_set(SLU_LOG_WARNING, count_security, NULL);
	strcpy(wrong, proof_of(other_secret, FENCE_END));
	wrong[31] = wrong[31] == '0' ? '1' : '0';
	say(fd, fence_connection_message(0, other_number, wrong));
	say(fd, fence_connection_message(1, other_number, proof_of(secret, FENCE_END)));
	say(fd, fence_connection_message(2, other_number, proof_of(other_secret, FENCE_OVER)));
	say(fd, fence_connection_message(3, UINT64_MAX, proof_of(secret, FENCE_END)));
	say(fd, fence_connection_message(4, 0, proof_of(secret, FENCE_END)));
	say(fd, fence_connection_message(5, other_number, other_secret));
	wrong[30] = '\0';
	say(fd, fence_connection_message(6, other_number, wrong));
	say(fd, fence_connection_message(7, other_number, ""));
	for (int i = 0; i < 8; i++)
		expect_request_refusal(fd, i, EACCES, "without the secret");
	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	assert_int_equal(security_lines, 8);
	say(fd, request_message("fence", 8,
				json_pack("{s:o, s:s}", "connection", number_of(other_number),
					  "binding", NO_BINDING)));
	expect_request_refusal(fd, 8, EPROTO, "without a proof");
	say(fd, fence_connection_message(9, number, proof_of(secret, FENCE_END)));
	expect_request_refusal(fd, 9, EPROTO, "another connection");
	say(fd, request_message("fence", 10, json_object()));
	expect_request_refusal(fd, 10, EPROTO, "without link or connection");
	for (int i = 0; i < 2; i++) {
		say(i ? fd : other, json_pack("{s:s}", "type", "ping"));
		expect(i ? fd : other, "pong");
		close(i ? fd : other);
	}
}

/* Goal: what is no request ends the connection with a reason; so does one before hello. */
static void test_broken_requests(void **state)
{
	static const char *const types[] = {"invite", "fence"};
	static const char *const broken[] = {
		"{\"type\":\"%s\"}",
		"{\"type\":\"%s\",\"request\":1}",
		"{\"type\":\"%s\",\"offer\":{}}",
		"{\"type\":\"%s\",\"request\":1,\"offer\":[]}",
		"{\"type\":\"%s\",\"request\":1,\"offer\":null}",
		"{\"type\":\"%s\",\"request\":-1,\"offer\":{}}",
		"{\"type\":\"%s\",\"request\":1.5,\"offer\":{}}",
		"{\"type\":\"%s\",\"request\":\"1\",\"offer\":{}}",
	};
	char text[128];
	int fd;

	(void)state;
	for (size_t i = 0; i < 2 * sizeof(broken) / sizeof(broken[0]); i++) {
		snprintf(text, sizeof(text), broken[i / 2], types[i % 2]);
		fd = open_session();
		say(fd, json_loads(text, 0, NULL));
		expect_refusal(fd, EPROTO, "without request or offer");
		expect_end(fd);
	}
	for (int i = 0; i < 2; i++) {
		fd = dial();
		say(fd, i ? invite_message(1, 1, 1) : fence_link_message(1, 1));
		expect_refusal(fd, EPROTO, "unexpected message");
		expect_end(fd);
	}
	assert_int_equal(fenced, 0);
}

/* Goal: over a Unix socket nobody attaches: that is for TCP; a proof of nothing is out of turn. */
static void test_attach_here(void **state)
{
	char secret[SECRET_TEXT];
	uint64_t number;
	int owner = greeted(&number, secret), fd;

	(void)state;
	say(owner, open_message(7));
	expect(owner, "opened");
	say(owner, invite_message(1, 5, 1));
	expect_secret(owner, 1, secret);
	fd = dial();
	say(fd, json_pack("{s:s, s:o, s:o}", "type", "attach", "connection", number_of(number),
			  "link", number_of(5)));
	expect_refusal(fd, EOPNOTSUPP, "no data connections");
	expect_end(fd);
	fd = dial();
	say(fd, json_pack("{s:s, s:s}", "type", "proof", "proof", secret));
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
	say(owner, json_pack("{s:s, s:s}", "type", "proof", "proof", secret));
	expect_refusal(owner, EPROTO, "unexpected");
	expect_end(owner);
}

static bool is_first(void *client, void *arg)
{
	(void)client;
	return (*(unsigned *)arg)++ == 0;
}

/* Goal: many sessions go over one connection; each is closed by its number, the rest at its end. */
static void test_sessions_of_one_connection(void **state)
{
	int fd = open_session();

	(void)state;
	say(fd, open_message(7));
	expect_refusal(fd, EPROTO, "open already");
	for (int i = 0; i < 1000; i++) {
		say(fd, open_message(100 + 37 * i));
		expect(fd, "opened");
	}
	assert_int_equal(server_session_count(server), 1001);
	assert_int_equal(server_connection_count(server), 1);
	for (int i = 0; i < 1000; i += 2)
		say(fd, close_message(100 + 37 * i));
	assert_true(becomes(&closed, 500));
	say(fd, close_message(100)); /* is closed: no offence */
	say(fd, json_pack("{s:s}", "type", "ping"));
	expect(fd, "pong");
	assert_int_equal(server_session_count(server), 501);
	close(fd);
	assert_true(becomes(&gone, 1));
	assert_true(becomes(&closed, 1001)); /* in several events */
	assert_true(becomes(&lost, 501));
	assert_int_equal(server_session_count(server), 0);
	assert_int_equal(server_connection_count(server), 0);
}

static int copy_peer(void *arg)
{
	*(struct peer_info *)arg = last_peer;
	return 0;
}

/* Goal: over a Unix socket the identity is the user's, and our own user is the owner. */
static void test_identity(void **state)
{
	char expected[SLU_IDENTITY_MAX + 1];
	struct peer_info peer;

	(void)state;
	close(open_session());
	control_call(control, copy_peer, &peer);
	credentials_identity(geteuid(), expected);
	assert_string_equal(peer.identity, expected);
	assert_int_equal(strncmp(expected, "user:", 5), 0);
	assert_true(peer.owner);
	credentials_identity(4000000000u, expected);
	assert_string_equal(expected, "user:4000000000");
}

/* Goal: a server that drains asks everybody to leave and opens nothing more. */
static void test_drain(void **state)
{
	int fd = open_session();

	(void)state;
	server_drain(server);
	expect(fd, "closing");
	say(fd, open_message(8));
	expect_refusal(fd, ESHUTDOWN, "closing");
	assert_int_equal(closed, 0);
	say(fd, close_message(7));
	assert_true(becomes(&closed, 1));
	assert_int_equal(lost, 0);
	close(fd);
}

static bool everyone(void *client, void *arg)
{
	(void)client;
	(void)arg;
	return true;
}

/* Goal: a revoked session is over at once, and the client is told which and why; the connection
 * stays, for other segments. */
static void test_revoke(void **state)
{
	struct message_reader reader = {0};
	int fd = open_session();
	json_t *message;

	(void)state;
	server_revoke(server, everyone, NULL, -EKEYREVOKED);
	assert_int_equal(closed, 1);
	assert_int_equal(lost, 0);
	assert_int_equal(server_session_count(server), 0);
	message = hear(fd, &reader);
	assert_string_equal(message_type(message), "closing");
	assert_int_equal(json_integer_value(json_object_get(message, "error")), EKEYREVOKED);
	assert_int_equal(
		json_integer_value(json_array_get(json_object_get(message, "sessions"), 0)), 7);
	json_decref(message);
	say(fd, json_pack("{s:s, s:[[i, i, i, i]]}", "type", "moved", "totals", 7, 1, 2, 3));
	say(fd, open_message(7));
	expect(fd, "opened");
	assert_int_equal(moved_operations, 0);
	close(fd);
}

static _Atomic int allocations_left = INT_MAX;

static void *allocate(size_t size)
{
	return atomic_fetch_sub(&allocations_left, 1) > 0 ? malloc(size) : NULL;
}

/* Goal: a session is over when its right is taken away, whatever memory is missing for saying so.
 */
static void test_revoke_without_memory(void **state)
{
	(void)state;
	json_set_alloc_funcs(allocate, free);
	for (int enough = 0; enough < 40; enough++) {
		int fd = open_session();

		say(fd, open_message(8));
		expect(fd, "opened");
		atomic_store(&allocations_left, enough);
		server_revoke(server, everyone, NULL, -EKEYREVOKED);
		atomic_store(&allocations_left, INT_MAX);
		assert_int_equal(server_session_count(server), 0);
		assert_int_equal(closed, 2 * (enough + 1));
		close(fd);
	}
	json_set_alloc_funcs(malloc, free);
}

/* Goal: so many sessions are told that one message does not hold their numbers. */
static void test_revoke_many(void **state)
{
	struct message_reader reader = {0};
	size_t told = 0;
	int fd = open_session();

	(void)state;
	for (int i = 0; i < 2000; i++) {
		say(fd, open_message(1000000000 + i));
		expect(fd, "opened");
	}
	server_revoke(server, everyone, NULL, -EKEYREVOKED);
	while (told < 2001) {
		json_t *message = hear(fd, &reader);

		assert_string_equal(message_type(message), "closing");
		told += json_array_size(json_object_get(message, "sessions"));
		json_decref(message);
	}
	assert_int_equal(told, 2001);
	close(fd);
}

/* Goal: of a client that asks and does not read, no more is read; others are served, and when it
 * reads at last, nothing is missing. */
static void test_client_that_does_not_read(void **state)
{
	struct message_reader reader = {0};
	struct message_writer writer = {.limit_bytes = 0};
	struct stream stream = {.fd = open_session()};
	int asked = 0, answered = 0;

	(void)state;
	fcntl(stream.fd, F_SETFL, O_NONBLOCK);
	for (int full = 0; full < 50;) {
		if (message_send(&writer, &stream, json_pack("{s:s}", "type", "usage"), NULL, 0) ==
		    0) {
			asked++;
			full = 0;
		} else {
			full++;
			usleep(1000);
		}
	}
	close(open_session());
	assert_int_equal(server_connection_count(server) >= 1, 1);
	for (; answered < asked; answered++)
		json_decref(hear(stream.fd, &reader));
	close(stream.fd);
}

/* Goal: a connection's messages over the limit of a second wait, and are not lost. */
static void test_message_rate(void **state)
{
	struct message_reader reader = {0};
	int fd = open_session();

	(void)state;
	for (int i = 0; i < 150; i++)
		say(fd, json_pack("{s:s}", "type", "ping"));
	for (int i = 0; i < 150; i++)
		json_decref(hear(fd, &reader));
	close(fd);
}

static int few_messages(void **state)
{
	int rc;

	limits.messages_per_second = 100;
	rc = set_up(state);
	limits.messages_per_second = 0;
	return rc;
}

/* Goal: silent strangers cost the oldest of them its place, never a newcomer; who has said hello is
 * not touched. */
static void test_strangers(void **state)
{
	int good = open_session(), silent[20];

	(void)state;
	for (int i = 0; i < 20; i++)
		silent[i] = dial();
	expect_end(silent[0]);
	close(open_session());
	say(good, json_pack("{s:s}", "type", "ping"));
	expect(good, "pong");
	close(good);
	for (int i = 1; i < 20; i++)
		close(silent[i]);
}

static int few_strangers(void **state)
{
	int rc;

	limits.unauthenticated = 4;
	limits.connections = 3;
	rc = set_up(state);
	limits.unauthenticated = limits.connections = 0;
	return rc;
}

/* Goal: over the limit of connections a client is told so. */
static void test_connection_limit(void **state)
{
	int fds[3], fd;

	(void)state;
	for (int i = 0; i < 3; i++)
		fds[i] = open_session();
	fd = dial();
	say(fd, hello());
	expect_refusal(fd, ENOSPC, "limit of 3");
	expect_end(fd);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
}

static int with_budgets(void **state)
{
	const uint64_t all[SLU_LIMIT_COUNT] = {[SLU_LIMIT_DESCRIPTORS] = 32};

	return budgets_create(all, &budgets) < 0 ? -1 : set_up(state);
}

static int without_budgets(void **state)
{
	tear_down(state);
	budgets_destroy(budgets);
	budgets = NULL;
	return 0;
}

/* The table of budgets is the control thread's. */
static int find_ours(void *arg)
{
	char identity[SLU_IDENTITY_MAX + 1];

	credentials_identity(geteuid(), identity);
	*(struct budget **)arg = budget_find(budgets, identity);
	return 0;
}

static struct budget *our_budget(void)
{
	struct budget *budget;

	control_call(control, find_ours, &budget);
	return budget;
}

static int two_connections(void *arg)
{
	const uint64_t all[SLU_LIMIT_COUNT] = {[SLU_LIMIT_CONNECTIONS] = 2};

	(void)arg;
	return budgets_set(budgets, all, NULL, 0);
}

/* Goal: connections are charged to their identity and given back; over its limit the client is
 * told, with what raises it. */
static void test_connection_budget(void **state)
{
	int first = open_session(), second = open_session(), third = dial();
	struct budget *budget = our_budget();

	(void)state;
	assert_int_equal(budget_used(budget, SLU_LIMIT_CONNECTIONS), 2);
	assert_int_equal(control_call(control, two_connections, NULL), 0);
	say(third, hello());
	expect_refusal(third, EDQUOT, "--max-connections");
	expect_end(third);
	close(first);
	assert_true(becomes(&gone, 1));
	third = open_session();
	assert_int_equal(budget_used(budget, SLU_LIMIT_CONNECTIONS), 2);
	close(second);
	close(third);
	assert_true(becomes(&gone, 3));
	assert_int_equal(budget_used(budget, SLU_LIMIT_CONNECTIONS), 0);
	budget_put(budget);
}

/* Goal: an identity that may do nothing gets few connections. */
static void test_rightless(void **state)
{
	int fds[SERVER_RIGHTLESS_CONNECTIONS_MAX], fd;

	(void)state;
	entitled = false;
	for (unsigned i = 0; i < SERVER_RIGHTLESS_CONNECTIONS_MAX; i++)
		fds[i] = open_session();
	fd = dial();
	say(fd, hello());
	expect_refusal(fd, EDQUOT, "no right on any segment");
	expect_end(fd);
	entitled = true;
	close(open_session());
	for (unsigned i = 0; i < SERVER_RIGHTLESS_CONNECTIONS_MAX; i++)
		close(fds[i]);
}

/* How many of the opens that were sent have been granted? */
static unsigned hear_opened(int fd, unsigned count)
{
	unsigned granted = 0;

	for (unsigned i = 0; i < count; i++) {
		struct message_reader reader = {.takes_fds = true};
		json_t *message = hear(fd, &reader);

		if (strcmp(message_type(message), "opened") == 0)
			granted++;
		else
			assert_int_equal(json_integer_value(json_object_get(message, "error")),
					 EDQUOT);
		json_decref(message);
		message_reader_reset(&reader);
	}
	return granted;
}

/* Goal: a client that does not receive its descriptors gets no more of them, and leaves others of
 * its identity some; when it has received them it gets the rest. */
static void test_descriptors_in_flight(void **state)
{
	int fd = open_session(), other;
	struct budget *budget = our_budget();

	(void)state;
	for (int i = 0; i < 40; i++)
		say(fd, open_message(100 + i));
	other = open_session();
	say(other, json_pack("{s:s}", "type", "ping"));
	expect(other, "pong");
	assert_in_range(budget_used(budget, SLU_LIMIT_DESCRIPTORS), 1, 16 + 4);
	assert_in_range(atomic_load(&opened), 2, 2 + 16);
	assert_int_equal(hear_opened(fd, 40), 40);
	close(fd);
	close(other);
	budget_put(budget);
}

/* Goal: descriptors that a client leaves in its socket are charged also when its connection has
 * ended, since the kernel has them still, until it closes it. */
static void test_descriptors_left_behind(void **state)
{
	struct budget *budget = our_budget();
	int fd = dial();

	(void)state;
	say(fd, hello());
	expect(fd, "welcome");
	for (int i = 0; i < 10; i++)
		say(fd, open_message(100 + i));
	say(fd, json_pack("{s:s}", "type", "bye"));
	assert_true(becomes(&gone, 1));
	usleep(1500000); /* a sweep */
	assert_int_equal(budget_used(budget, SLU_LIMIT_DESCRIPTORS), 10);
	close(fd);
	for (int i = 0; i < PATIENCE_MS && budget_used(budget, SLU_LIMIT_DESCRIPTORS) > 0; i++)
		usleep(1000);
	assert_int_equal(budget_used(budget, SLU_LIMIT_DESCRIPTORS), 0);
	budget_put(budget);
}

/* Goal: a text with a name that was cut inside a character still arrives. */
static void test_refusal_with_broken_text(void **state)
{
	int fd = open_session();

	(void)state;
	say(fd, json_pack("{s:s}", "type", "1234567890123456789012345678901\xc3\xa9"));
	expect_refusal(fd, EPROTO, "unexpected");
	expect_end(fd);
}

/* Goal: what does not begin with a length of a message, or never ends, is closed; it is no lost
 * session. */
static void test_oversized_and_half(void **state)
{
	int fd = dial();

	(void)state;
	assert_int_equal(write(fd, "\xff\xff\xff\x7f", 4), 4);
	expect_end(fd);
	fd = dial();
	assert_int_equal(write(fd, "\x20\0\0\0{", 5), 5);
	shutdown(fd, SHUT_WR);
	expect_end(fd);
	close(open_session());
}

/* Goal: a client that is dismissed is told, the others are not. */
static void test_dismiss(void **state)
{
	struct pollfd clients[2] = {{.fd = open_session(), .events = POLLIN},
				    {.fd = open_session(), .events = POLLIN}};
	unsigned asked = 0;

	(void)state;
	server_dismiss(server, is_first, &asked);
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

struct racer {
	pthread_t thread;
	pthread_barrier_t *start;
	struct listener *listener;
	int result;
};

static void *race(void *arg)
{
	struct racer *racer = arg;

	pthread_barrier_wait(racer->start);
	racer->result = server_listen(server, &address, address_length, &racer->listener);
	return NULL;
}

/* Goal: of several targets that take over a path at the same time one has it, and is reached. */
static void test_race_for_stale_path(void **state)
{
	char directory[] = "/tmp/sluice-unit-XXXXXX", path[64];
	struct racer racers[RACERS];
	pthread_barrier_t start;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/socket", directory);
	assert_int_equal(p2p_path_address(path, &address, &address_length), 0);
	pthread_barrier_init(&start, NULL, RACERS);
	for (int round = 0; round < 200; round++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), won = 0;

		assert_int_equal(bind(fd, (struct sockaddr *)&address, address_length), 0);
		close(fd);
		for (int i = 0; i < RACERS; i++) {
			racers[i] = (struct racer){.start = &start};
			assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]),
					 0);
		}
		for (int i = 0; i < RACERS; i++) {
			pthread_join(racers[i].thread, NULL);
			won += racers[i].result == 0;
			assert_true(racers[i].result == 0 || racers[i].result == -EADDRINUSE);
		}
		assert_int_equal(won, 1);
		close(open_session());
		for (int i = 0; i < RACERS; i++)
			server_unlisten(server, racers[i].listener);
	}
	pthread_barrier_destroy(&start);
	assert_int_equal(rmdir(directory), 0);
}

/* Goal: a file that is no socket is nobody's to take over. */
static void test_path_of_a_file(void **state)
{
	char path[] = "/tmp/sluice-unit-XXXXXX";
	struct listener *on_path;
	int fd = mkstemp(path);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(p2p_path_address(path, &address, &address_length), 0);
	assert_int_equal(server_listen(server, &address, address_length, &on_path), -EADDRINUSE);
	assert_int_equal(unlink(path), 0);
	close(fd);
}

/* In a process of another user: 0 refused with EACCES, 1 welcome. */
static int knock_as_nobody(void)
{
	struct message_reader reader = {0};
	struct message_writer writer = {.limit_bytes = 0};
	struct stream stream;
	json_t *message;
	int fd, ret;

	if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
		return 2;
	fd = dial();
	stream = (struct stream){.fd = fd};
	message_send(&writer, &stream, hello(), NULL, 0); /* may come too late */
	message = hear(fd, &reader);
	ret = strcmp(message_type(message), "welcome") == 0;
	if (!ret && json_integer_value(json_object_get(message, "error")) != EACCES)
		ret = 3;
	json_decref(message);
	return ret;
}

static int trust_nobody(void *arg)
{
	(void)arg;
	trust.count = 1;
	trust.uids[0] = NOBODY;
	return 0;
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
	control_call(control, trust_nobody, NULL);
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

/* Goal: who asks for many fences at once gets one in each event: others do not wait for all. */
static void test_fences_in_turns(void **state)
{
	int fd = open_session();

	(void)state;
	work_forget();
	for (int i = 0; i < 100; i++)
		say(fd, json_pack("{s:s, s:i, s:{s:s}}", "type", "fence", "request", i, "offer",
				  "link", "00000000000000ff"));
	for (int i = 0; i < 100; i++)
		expect(fd, "fence");
	assert_int_equal(fenced, 100);
	assert_in_range(work_greatest(WORK_EVENT, WORK_WAITS), 1, WORK_EVENT_WAITS_MAX);
	close(fd);
}

/* ---- very many sessions ---- */

#define MANY 20000

static int fast_messages(void **state)
{
	limits = (struct server_limits){.messages_per_second = 10000000};
	return set_up(state);
}

static int slow_again(void **state)
{
	limits = (struct server_limits){0};
	return tear_down(state);
}

/* Numbers as a client chooses them that wants them to meet in one place of a table. */
static int open_many(void)
{
	int fd = open_session();

	for (int i = 1; i < MANY; i++) {
		say(fd, open_message(i << 16));
		expect(fd, "opened");
	}
	return fd;
}

static void check_work(void)
{
	tap_comment("at most %u items in one event, in %s",
		    (unsigned)work_greatest(WORK_EVENT, WORK_ITEMS),
		    work_culprit(WORK_EVENT, WORK_ITEMS));
	assert_true(work_greatest(WORK_EVENT, WORK_ITEMS) > 0);
	assert_true(work_greatest(WORK_EVENT, WORK_ITEMS) <= WORK_EVENT_ITEMS_MAX);
}

/* Goal: no event is longer because a client has very many sessions: neither their beginning nor the
 * end of it, whether it says goodbye or is killed. Nothing is served to it before they end. */
static void test_end_in_runs(void **state)
{
	int neighbour = open_session();
	int fd;

	(void)state;
	work_forget();
	fd = open_many();
	close(fd);
	assert_true(becomes(&gone, 1));
	say(neighbour, json_pack("{s:s}", "type", "ping"));
	expect(neighbour, "pong");
	assert_true(becomes(&closed, MANY));
	assert_int_equal(lost, MANY);
	assert_int_equal(server_session_count(server), 1);
	check_work();
	close(neighbour);
}

/* Goal: revoking very many is no long event either, and they are over when it returns. */
static void test_revoke_in_runs(void **state)
{
	int fd = open_many();

	(void)state;
	work_forget();
	server_revoke(server, everyone, NULL, -EKEYREVOKED);
	assert_int_equal(closed, MANY);
	assert_int_equal(server_session_count(server), 0);
	check_work();
	close(fd);
}

/* As when memory is found lost while another thread closes a segment. */
static bool loses_memory(void *client, void *arg)
{
	bool *asked = arg;

	(void)client;
	if (!*asked) {
		server_revoke_soon(server, everyone, NULL, -EFAULT);
		server_revoke_soon(server, everyone, NULL, -EFAULT);
	}
	*asked = true;
	return false;
}

/* Goal: what the control thread revokes by itself, in the middle of another walk, waits for that
 * and is no long event either. */
static void test_revoke_soon(void **state)
{
	int fd = open_many();
	bool asked = false;

	(void)state;
	work_forget();
	server_dismiss(server, loses_memory, &asked);
	assert_true(becomes(&closed, MANY));
	assert_int_equal(server_session_count(server), 0);
	check_work();
	close(fd);
}

/* Goal: what is dropped is over when it returns, also those whose connection ended just before. */
static void test_drop_in_runs(void **state)
{
	int fd = open_many();

	(void)state;
	work_forget();
	close(fd);
	fd = open_session();
	server_drop(server, everyone, NULL);
	assert_int_equal(closed, MANY + 1);
	assert_int_equal(server_session_count(server), 0);
	check_work();
	say(fd, json_pack("{s:s}", "type", "ping"));
	expect(fd, "pong");
	close(fd);
}

/* Goal: a server that is destroyed ends those that were still ending. */
static void test_destroyed_while_ending(void **state)
{
	int fd = open_many();

	(void)state;
	close(fd);
	server_destroy(server);
	server = NULL;
	assert_int_equal(closed, MANY);
}

#define with_server(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_server(test_whole_session),
		with_server(test_vanished_clients),
		with_server(test_versions),
		with_server(test_refused_open),
		with_server(test_out_of_turn),
		with_server(test_describe),
		with_server(test_path),
		with_server(test_path_later),
		with_server(test_broken_path),
		with_server(test_secrets),
		with_server(test_invite),
		with_server(test_invite_counts),
		with_server(test_invitations_max),
		with_server(test_fence_link),
		with_server(test_fence_connection),
		with_server(test_fence_of_others),
		with_server(test_same),
		with_server(test_fences_in_turns),
		with_server(test_broken_requests),
		with_server(test_attach_here),
		with_server(test_dismiss),
		with_server(test_address_in_use),
		with_server(test_stale_path),
		with_server(test_race_for_stale_path),
		with_server(test_path_of_a_file),
		with_server(test_foreign_user),
		with_server(test_many_sessions),
		with_server(test_sessions_of_one_connection),
		with_server(test_identity),
		with_server(test_drain),
		with_server(test_revoke),
		with_server(test_revoke_without_memory),
		with_server(test_revoke_many),
		with_server(test_client_that_does_not_read),
		cmocka_unit_test_setup_teardown(test_message_rate, few_messages, tear_down),
		cmocka_unit_test_setup_teardown(test_strangers, few_strangers, tear_down),
		cmocka_unit_test_setup_teardown(test_connection_budget, with_budgets,
						without_budgets),
		cmocka_unit_test_setup_teardown(test_rightless, with_budgets, without_budgets),
		cmocka_unit_test_setup_teardown(test_descriptors_in_flight, with_budgets,
						without_budgets),
		cmocka_unit_test_setup_teardown(test_descriptors_left_behind, with_budgets,
						without_budgets),
		cmocka_unit_test_setup_teardown(test_connection_limit, few_strangers, tear_down),
		with_server(test_refusal_with_broken_text),
		with_server(test_oversized_and_half),
		cmocka_unit_test_setup_teardown(test_end_in_runs, fast_messages, slow_again),
		cmocka_unit_test_setup_teardown(test_revoke_in_runs, fast_messages, slow_again),
		cmocka_unit_test_setup_teardown(test_revoke_soon, fast_messages, slow_again),
		cmocka_unit_test_setup_teardown(test_drop_in_runs, fast_messages, slow_again),
		cmocka_unit_test_setup_teardown(test_destroyed_while_ending, fast_messages,
						slow_again),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
