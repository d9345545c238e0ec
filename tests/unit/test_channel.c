/* SPDX-License-Identifier: Apache-2.0 */
/* When a data connection's socket is asked, and how much of it leaves in a turn. */
#include "transport/tcp/channel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/environment.h"
#include "tests/tap.h"

#define BODY  (1u << 20)
#define PIECE 1000u

static const struct environment *real;
static uint64_t now_ns;
static struct channel channel;
static char body[BODY];
static int far_end;

static uint64_t held_now(void)
{
	return now_ns;
}

static struct environment held;

static int open_channel(void **state)
{
	int fds[2];

	(void)state;
	real = environment;
	held = *real;
	held.now_ns = held_now;
	environment = &held;
	now_ns = NS_PER_SECOND;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	far_end = fds[0];
	return channel_open(&channel, &(struct stream){.fd = fds[1]});
}

static int close_channel(void **state)
{
	(void)state;
	environment = real;
	close(far_end);
	channel_close(&channel);
	return 0;
}

static void come(uint32_t n)
{
	static char bytes[BODY];

	assert_int_equal(send(far_end, bytes, n, 0), n);
}

static void test_patience(void **state)
{
	(void)state;
	assert_false(channel_body(&channel, body, BODY));
	come(PIECE);
	assert_int_equal(channel_receive(&channel), PIECE);
	come(PIECE);
	assert_int_equal(channel_receive(&channel), 0); /* it was emptied just now */
	now_ns += NS_PER_SECOND / 1000;
	assert_int_equal(channel_receive(&channel), PIECE);
	assert_int_equal(channel.body_left, BODY - 2 * PIECE);
	/* The last of it is taken as it comes. */
	channel.body_left = PIECE * 2;
	come(PIECE);
	assert_int_equal(channel_receive(&channel), PIECE);
	come(PIECE);
	assert_int_equal(channel_receive(&channel), PIECE);
	assert_int_equal(channel.body_left, 0);
}

/* Who looks between two long bodies has emptied the socket as well. */
static void test_patience_between(void **state)
{
	(void)state;
	come(BODY / 16);
	assert_false(channel_body(&channel, body, BODY));
	while (channel.body_left > BODY - BODY / 16)
		assert_true(channel_receive(&channel) > 0);
	channel.body_left = 0;
	assert_int_equal(channel_receive(&channel), 0);
	come(PIECE);
	assert_true(channel_receive(&channel) > 0); /* a head, perhaps: it is taken at once */
	assert_false(channel_body(&channel, body, BODY));
	assert_int_equal(channel_receive(&channel), 0);
	now_ns += NS_PER_SECOND / 1000;
	assert_true(channel_receive(&channel) > 0);
}

static void test_small_at_once(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		assert_int_equal(channel_receive(&channel), 0);
		come(PIECE);
		assert_int_equal(channel_receive(&channel), PIECE);
		assert_true(channel_body(&channel, body, PIECE));
	}
}

static void test_turn(void **state)
{
	int room = 4 << 20;

	(void)state;
	setsockopt(channel.stream.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	for (unsigned i = 0; i < 16; i++)
		channel_refer(&channel, body, 4096, NULL);
	assert_int_equal(channel_send(&channel, 8192), 8192);
	assert_false(channel.full);
	assert_int_equal(channel.first, 2);
	assert_int_equal(channel_send(&channel, SIZE_MAX), 14 * 4096);
	assert_false(channel_unsent(&channel));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_patience, open_channel, close_channel),
		cmocka_unit_test_setup_teardown(test_patience_between, open_channel, close_channel),
		cmocka_unit_test_setup_teardown(test_small_at_once, open_channel, close_channel),
		cmocka_unit_test_setup_teardown(test_turn, open_channel, close_channel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
