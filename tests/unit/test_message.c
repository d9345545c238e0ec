/* SPDX-License-Identifier: Apache-2.0 */
#include "control/message.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/tap.h"

static int ends[2];
static struct stream from, to; /* the two ends */
static struct message_reader reader;
static struct message_writer writer;

static int open_pair(void **state)
{
	(void)state;
	reader = (struct message_reader){0};
	writer = (struct message_writer){.limit_bytes = 65536};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		return -1;
	from = (struct stream){.fd = ends[0]};
	to = (struct stream){.fd = ends[1]};
	return 0;
}

static int close_pair(void **state)
{
	(void)state;
	message_reader_reset(&reader);
	message_writer_reset(&writer);
	stream_close(&from);
	stream_close(&to);
	return 0;
}

static void send_text(const char *text)
{
	assert_int_equal(message_send(&writer, &from,
				      json_pack("{s:s, s:s}", "type", "hello", "name", text), NULL,
				      0),
			 0);
}

static void send_raw(const void *bytes, size_t length)
{
	assert_int_equal(write(ends[0], bytes, length), length);
}

static void send_header(uint32_t length)
{
	uint8_t header[4] = {length & 0xff, length >> 8 & 0xff, length >> 16 & 0xff, length >> 24};

	send_raw(header, sizeof(header));
}

/* Goal: what is written is read, several messages in one go as well. */
static void test_round_trip(void **state)
{
	json_t *message;

	(void)state;
	assert_int_equal(message_read(&reader, &to, &message), 0);
	send_text("one");
	send_text("two");
	assert_int_equal(message_read(&reader, &to, &message), 1);
	assert_string_equal(message_type(message), "hello");
	assert_string_equal(json_string_value(json_object_get(message, "name")), "one");
	json_decref(message);
	assert_int_equal(message_read(&reader, &to, &message), 1);
	assert_string_equal(json_string_value(json_object_get(message, "name")), "two");
	json_decref(message);
	assert_int_equal(message_read(&reader, &to, &message), 0);
}

/* Goal: a message that arrives byte by byte is complete with its last byte, not before. */
static void test_byte_by_byte(void **state)
{
	static const char body[] = "{\"type\":\"bye\"}";
	json_t *message = NULL;
	uint8_t wire[4 + sizeof(body) - 1] = {sizeof(body) - 1};

	(void)state;
	memcpy(wire + 4, body, sizeof(body) - 1);
	for (size_t i = 0; i < sizeof(wire); i++) {
		assert_null(message);
		send_raw(&wire[i], 1);
		assert_int_equal(message_read(&reader, &to, &message), i + 1 == sizeof(wire));
	}
	assert_string_equal(message_type(message), "bye");
	json_decref(message);
}

/* Goal: lengths of 0 and over the limit are refused by the header alone; the limit itself is not.
 */
static void test_length_limits(void **state)
{
	static const uint32_t refused[] = {0, MESSAGE_MAX_BYTES + 1, 0x7fffffff, 0xffffffff};
	static char text[MESSAGE_MAX_BYTES];
	json_t *message;

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		send_header(refused[i]);
		assert_int_equal(message_read(&reader, &to, &message), -EPROTO);
		message_reader_reset(&reader);
	}
	/* {"name":"...","type":"hello"}: 26 bytes around the text. */
	memset(text, 'x', sizeof(text));
	text[MESSAGE_MAX_BYTES - 26] = '\0';
	send_text(text);
	assert_int_equal(message_read(&reader, &to, &message), 1);
	json_decref(message);
	text[MESSAGE_MAX_BYTES - 26] = 'x';
	text[MESSAGE_MAX_BYTES - 25] = '\0';
	assert_int_equal(message_send(&writer, &from,
				      json_pack("{s:s, s:s}", "type", "hello", "name", text), NULL,
				      0),
			 -EMSGSIZE);
}

/* Goal: a body that is no JSON object with a string type is -EPROTO with a reason. */
static void test_malformed_bodies(void **state)
{
	static const char *const malformed[] = {
		"x",
		"[]",
		"\"type\"",
		"{}",
		"{\"type\":1}",
		"{\"type\":null}",
		"{\"type\":\"a\"",
		"{\"type\":\"a\"}}",
		"{\"type\":\"a\",\"type\":\"b\"}",
		"{\"type\":\"\\u0000\"}",
		"{\"type\":\"\xff\"}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		json_t *message = NULL;
		int ret = message_parse(malformed[i], strlen(malformed[i]), &message);

		if (ret != -EPROTO)
			fail_msg("%s gave %d, not -EPROTO", malformed[i], ret);
		assert_null(message);
		assert_non_null(strstr(slu_last_error(), "control message"));
	}
}

/* Goal: the depth of nesting is bounded: a message of brackets only is refused. */
static void test_deep_nesting(void **state)
{
	static char deep[MESSAGE_MAX_BYTES];
	json_t *message = NULL;

	(void)state;
	memset(deep, '[', sizeof(deep));
	assert_int_equal(message_parse(deep, sizeof(deep), &message), -EPROTO);
}

/* Goal: a peer that goes, between messages or inside one, is -ECONNRESET. */
static void test_end_of_stream(void **state)
{
	json_t *message;

	(void)state;
	send_header(100);
	send_raw("{", 1);
	shutdown(ends[0], SHUT_WR);
	assert_int_equal(message_read(&reader, &to, &message), 0);
	assert_int_equal(message_read(&reader, &to, &message), -ECONNRESET);
}

static int same_file(int a, int b)
{
	struct stat first, second;

	assert_int_equal(fstat(a, &first), 0);
	assert_int_equal(fstat(b, &second), 0);
	return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

/* Goal: descriptors ride along, closed on exec, and are the caller's when taken. */
static void test_descriptors(void **state)
{
	int fds[2], given[2];
	json_t *message;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	reader.takes_fds = true;
	assert_int_equal(message_send(&writer, &from, json_pack("{s:s}", "type", "opened"), fds, 2),
			 0);
	assert_int_equal(message_read(&reader, &to, &message), 1);
	json_decref(message);
	assert_int_equal(reader.fd_count, 2);
	memcpy(given, reader.fds, sizeof(given));
	reader.fd_count = 0;
	assert_true(same_file(given[0], fds[0]));
	assert_true(same_file(given[1], fds[1]));
	assert_int_equal(fcntl(given[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	close(given[0]);
	close(given[1]);
	close(fds[0]);
	close(fds[1]);
}

/* Goal: descriptors that are not taken are closed with the next message; a pipe then sees its end.
 */
static void test_untaken_descriptors_are_closed(void **state)
{
	json_t *message;
	int fds[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	reader.takes_fds = true;
	assert_int_equal(
		message_send(&writer, &from, json_pack("{s:s}", "type", "opened"), &fds[1], 1), 0);
	close(fds[1]);
	assert_int_equal(message_read(&reader, &to, &message), 1);
	json_decref(message);
	send_text("next");
	assert_int_equal(message_read(&reader, &to, &message), 1);
	json_decref(message);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

/* Goal: a reader that takes no descriptors leaves none open, however many are sent. */
static void test_uninvited_descriptors(void **state)
{
	json_t *message;
	int fds[2];
	char byte;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	assert_int_equal(
		message_send(&writer, &from, json_pack("{s:s}", "type", "hello"), &fds[1], 1), 0);
	close(fds[1]);
	assert_int_equal(message_read(&reader, &to, &message), 1);
	json_decref(message);
	assert_int_equal(reader.fd_count, 0);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

/* Goal: what a full socket does not take is queued up to the limit, not blocked on; then it comes
 * in order. */
static void test_peer_that_reads_late(void **state)
{
	json_t *message;
	int sent = 0, read = 0, ret;

	(void)state;
	while ((ret = message_send(&writer, &from,
				   json_pack("{s:s, s:i}", "type", "usage", "n", sent), NULL, 0)) ==
	       0)
		assert_true(++sent < 1000000);
	assert_int_equal(ret, -EAGAIN);
	assert_string_equal(slu_last_error(), "it does not read what it is told");
	assert_true(message_writer_busy(&writer));
	assert_true(writer.queued_bytes <= 65536);
	for (;;) {
		ret = message_read(&reader, &to, &message);
		if (ret == 0 && !message_writer_busy(&writer))
			break;
		if (ret == 0) {
			assert_int_equal(message_flush(&writer, &from), 0);
			continue;
		}
		assert_int_equal(ret, 1);
		assert_int_equal(json_integer_value(json_object_get(message, "n")), read++);
		json_decref(message);
	}
	assert_int_equal(read, sent);
	assert_int_equal(writer.queued_bytes, 0);
}

static void expect_text(int rc, int error, const char *text)
{
	assert_int_equal(rc, error);
	assert_non_null(strstr(slu_last_error(), text));
	fail(-EPERM, "another failure's text");
}

/* Goal: whatever fails has a text of its own, not what is left of another failure. */
static void test_failure_texts(void **state)
{
	char longer[MESSAGE_MAX_BYTES + 1];
	struct stream no_socket;
	json_t *message;
	int fds[2];

	(void)state;
	assert_int_equal(pipe(fds), 0);
	no_socket = (struct stream){.fd = fds[0]};
	memset(longer, 'x', sizeof(longer));
	longer[MESSAGE_MAX_BYTES] = '\0';
	fail(-EPERM, "another failure's text");
	expect_text(message_send(&writer, &from, NULL, NULL, 0), -ENOMEM, "memory");
	expect_text(message_send(&writer, &from, json_pack("{s:s}", "type", longer), NULL, 0),
		    -EMSGSIZE, "16384 are allowed");
	for (uint32_t passed = 0; passed < 2; passed++) {
		reader.takes_fds = passed;
		expect_text(message_read(&reader, &no_socket, &message), -ENOTSOCK, "broke");
		expect_text(message_send(&writer, &no_socket, json_pack("{s:s}", "type", "bye"),
					 &fds[0], passed),
			    -ENOTSOCK, "broke");
	}
	expect_text((int)stream_error(ETIMEDOUT), -ETIMEDOUT, "did not confirm");
	close(fds[0]);
	close(fds[1]);
}

/* Goal: descriptors of a message that had to wait arrive with it, though the sender closed its own;
 * and are closed with the queue if they never leave. */
static void test_queued_descriptors(void **state)
{
	json_t *message;
	int fds[2], ret;
	char byte;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	reader.takes_fds = true;
	while (!message_writer_busy(&writer))
		assert_int_equal(
			message_send(&writer, &from, json_pack("{s:s}", "type", "usage"), NULL, 0),
			0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(message_send(&writer, &from, json_pack("{s:s}", "type", "opened"),
					      &fds[1], 1),
				 0);
	close(fds[1]);
	do {
		ret = message_read(&reader, &to, &message);
		if (ret == 0)
			assert_int_equal(message_flush(&writer, &from), 0);
		if (ret == 1 && strcmp(message_type(message), "usage") == 0) {
			json_decref(message);
			ret = 0;
		}
	} while (ret == 0);
	assert_string_equal(message_type(message), "opened");
	json_decref(message);
	assert_int_equal(reader.fd_count, 1);
	assert_int_equal(write(reader.fds[0], "x", 1), 1);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	message_reader_reset(&reader);
	message_writer_reset(&writer);
	stream_close(&from);
	stream_close(&to);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

/* Goal: any text becomes a JSON string, one that was cut inside a character too. */
static void test_texts(void **state)
{
	json_t *text = message_text("caf\xc3\xa9");

	(void)state;
	assert_string_equal(json_string_value(text), "caf\xc3\xa9");
	json_decref(text);
	text = message_text("caf\xc3");
	assert_string_equal(json_string_value(text), "caf?");
	json_decref(text);
}

/* Goal: what could not be packed is -ENOMEM, not a crash; too many descriptors are refused. */
static void test_nothing_to_write(void **state)
{
	int fds[MESSAGE_FDS_MAX + 1] = {0};

	(void)state;
	assert_int_equal(message_send(&writer, &from, NULL, NULL, 0), -ENOMEM);
	assert_int_equal(message_send(&writer, &from, json_pack("{s:s}", "type", "x"), fds,
				      MESSAGE_FDS_MAX + 1),
			 -EMSGSIZE);
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, open_pair, close_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_round_trip),
		with_pair(test_byte_by_byte),
		with_pair(test_length_limits),
		with_pair(test_failure_texts),
		cmocka_unit_test(test_malformed_bodies),
		cmocka_unit_test(test_deep_nesting),
		with_pair(test_end_of_stream),
		with_pair(test_descriptors),
		with_pair(test_untaken_descriptors_are_closed),
		with_pair(test_uninvited_descriptors),
		with_pair(test_peer_that_reads_late),
		with_pair(test_queued_descriptors),
		cmocka_unit_test(test_texts),
		with_pair(test_nothing_to_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
