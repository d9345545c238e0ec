/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes through both kinds of streams, full sockets and ends included. */
#include "net/stream.h"

#include <errno.h>
#include <linux/memfd.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "memory/guard.h"
#include "net/net_internal.h"
#include "net/tls.h"
#include "tests/tap.h"
#include "tests/unit/keys.h"

#define TOTAL (3u << 20)

static struct stream from, to;
static struct tls *client, *server;

static int plain_pair(void **state)
{
	int fds[2];

	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
		return -1;
	from = (struct stream){.fd = fds[0]};
	to = (struct stream){.fd = fds[1]};
	return 0;
}

static int tls_pair(void **state)
{
	int done = 0;

	if (plain_pair(state) < 0 || tls_start(client, &from, "t") < 0 ||
	    tls_start(server, &to, NULL) < 0)
		return -1;
	for (int i = 0; i < 10 && done != 3; i++)
		done |= (tls_handshake(&from) == 1) | (tls_handshake(&to) == 1) << 1;
	return done == 3 ? 0 : -1;
}

static int close_pair(void **state)
{
	(void)state;
	stream_close(&from);
	stream_close(&to);
	stream_close(&to); /* a closed one is accepted */
	return 0;
}

static uint8_t *noise(void)
{
	uint8_t *bytes = malloc(TOTAL);
	struct random random = {.state = 7};

	assert_non_null(bytes);
	for (size_t i = 0; i < TOTAL; i++)
		bytes[i] = (uint8_t)random_next(&random);
	return bytes;
}

/* Up to 64 pieces of what is left at @p at, their sizes by @p cut; the same for the same @p at. */
static int pieces(uint8_t *bytes, size_t at, struct iovec iov[64])
{
	int count = 0;

	while (at < TOTAL && count < 64) {
		struct random cut = {.state = at};
		size_t length = count % 7 == 3 ? 20000 : random_below(&cut, 300);

		if (length > TOTAL - at)
			length = TOTAL - at;
		iov[count++] = (struct iovec){.iov_base = bytes + at, .iov_len = length};
		at += length;
	}
	return count;
}

static size_t sum(const struct iovec *iov, int count)
{
	size_t total = 0;

	for (int i = 0; i < count; i++)
		total += iov[i].iov_len;
	return total;
}

/* Drop @p done bytes off the front. */
static int advance(struct iovec *iov, int count, size_t done)
{
	int dropped = 0;

	while (dropped < count && done >= iov[dropped].iov_len)
		done -= iov[dropped++].iov_len;
	memmove(iov, iov + dropped, (size_t)(count - dropped) * sizeof(*iov));
	count -= dropped;
	if (count > 0) {
		iov[0].iov_base = (char *)iov[0].iov_base + done;
		iov[0].iov_len -= done;
	}
	return count;
}

/* Goal: all bytes arrive once and in order, in whatever pieces, though the socket fills up. */
static void test_transfer(void **state)
{
	uint8_t *sent = noise(), *got = calloc(1, TOTAL);
	struct iovec out[64], in[8];
	size_t written = 0, read = 0;
	unsigned full = 0;
	int count = 0;

	(void)state;
	while (read < TOTAL) {
		ssize_t rc;

		while (written < TOTAL) {
			if (count == 0)
				count = pieces(sent, written, out);
			rc = stream_write(&from, out, count);
			assert_true(rc >= 0 && (size_t)rc <= sum(out, count));
			if (rc == 0) {
				full++;
				assert_true(!from.ssl || from.wants_write);
				break;
			}
			written += (size_t)rc;
			count = advance(out, count, (size_t)rc);
			if (count > 0 && sum(out, count) == 0)
				count = 0;
		}
		for (int i = 0; i < 8; i++) {
			size_t left = TOTAL - read, step = left / 8 < 50000 ? left / 8 : 50000;

			in[i] = (struct iovec){.iov_base = got + read + (size_t)i * step,
					       .iov_len = i < 7 ? step : left - 7 * step};
			if (step == 50000 && i == 7)
				in[i].iov_len = 50000;
		}
		rc = stream_read(&to, in, 8);
		assert_true(rc >= 0);
		read += (size_t)rc;
	}
	assert_memory_equal(sent, got, TOTAL);
	assert_true(full > 0);
	assert_int_equal(stream_read(&to, in, 1), 0);
	assert_false(stream_pending(&to));
	free(sent);
	free(got);
}

/* Goal: the end of the stream comes after its last byte, as -ECONNRESET, and again. */
static void test_end(void **state)
{
	char bytes[8];
	struct iovec out = {.iov_base = "last", .iov_len = 4};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};

	(void)state;
	assert_int_equal(stream_write(&from, &out, 1), 4);
	stream_close(&from);
	assert_int_equal(from.fd, -1);
	assert_int_equal(stream_read(&to, &in, 1), 4);
	assert_int_equal(stream_read(&to, &in, 1), -ECONNRESET);
	assert_int_equal(stream_read(&to, &in, 1), -ECONNRESET);
}

/* Goal: writing to a peer that has gone is an error, and no signal kills the application. */
static void test_no_signal(void **state)
{
	struct iovec out = {.iov_base = "lost", .iov_len = 4};
	ssize_t rc;

	(void)state;
	signal(SIGPIPE, SIG_DFL);
	stream_close(&to);
	rc = stream_write(&from, &out, 1);
	assert_true(rc == -EPIPE || rc == -ECONNRESET);
	rc = stream_write(&from, &out, 1);
	assert_true(rc == -EPIPE || rc == -ECONNRESET || rc == -EPROTO);
}

/* Goal: bytes that TLS has already read off the socket are pending. */
static void test_pending(void **state)
{
	char bytes[4];
	struct iovec out = {.iov_base = "eight...", .iov_len = 8};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};

	(void)state;
	assert_int_equal(stream_write(&from, &out, 1), 8);
	assert_int_equal(stream_read(&to, &in, 1), 4);
	assert_true(stream_pending(&to));
	assert_int_equal(stream_read(&to, &in, 1), 4);
	assert_false(stream_pending(&to));
}

/* Goal: sixty-four small pieces cost one record, not one each. */
static void test_gathering(void **state)
{
	struct iovec out[64];
	int queued;

	(void)state;
	for (int i = 0; i < 64; i++)
		out[i] = (struct iovec){.iov_base = "0123456789abcdef", .iov_len = 16};
	assert_int_equal(stream_write(&from, out, 64), 1024);
	assert_int_equal(ioctl(to.fd, FIONREAD, &queued), 0);
	assert_in_range(queued, 1024, 1024 + 64);
}

/* Goal: what is no TLS any more, in the middle of a stream, is -EPROTO, not bytes. */
static void test_garbage(void **state)
{
	char bytes[64];
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};

	(void)state;
	assert_int_equal(write(from.fd, "this is no record of TLS at all", 31), 31);
	assert_int_equal(stream_read(&to, &in, 1), -EPROTO);
	assert_true(stream_read(&to, &in, 1) < 0); /* and it stays broken */
}

/* Goal: a changed byte on the way is -EPROTO: nothing of its record is handed out. */
static void test_tampering(void **state)
{
	char bytes[256];
	struct iovec out = {.iov_base = "genuine", .iov_len = 7};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	ssize_t length;

	(void)state;
	assert_int_equal(stream_write(&from, &out, 1), 7);
	length = recv(to.fd, bytes, sizeof(bytes), 0);
	assert_true(length > 7);
	bytes[length - 1] ^= 1;
	assert_int_equal(send(from.fd, bytes, (size_t)length, 0), length);
	assert_int_equal(stream_read(&to, &in, 1), -EPROTO);
}

static int bytes_queued(void)
{
	int queued;

	assert_int_equal(ioctl(to.fd, FIONREAD, &queued), 0);
	return queued;
}

/* Goal: a peer that changes its keys again and again has the reader's time for one change in a
 * call, not for all that have come; and what it sends after them arrives. */
static void test_key_changes(void **state)
{
	char bytes[64];
	struct iovec out = {.iov_base = "after", .iov_len = 5};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	ssize_t got = 0;
	int one;

	(void)state;
	for (int i = 0; i < 100; i++) {
		assert_int_equal(SSL_key_update(from.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(from.ssl), 1);
	}
	one = bytes_queued() / 100;
	assert_int_equal(stream_write(&from, &out, 1), 5);
	while (bytes_queued() > 0) {
		int before = bytes_queued();

		assert_int_equal(got, 0);
		got = stream_read(&to, &in, 1);
		assert_in_range(before - bytes_queued(), 1, one);
		assert_true(got >= 0);
	}
	assert_int_equal(got, 5);
}

static void change_keys(int times)
{
	for (int i = 0; i < times; i++) {
		assert_int_equal(SSL_key_update(from.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
		assert_int_equal(SSL_do_handshake(from.ssl), 1);
	}
}

/* Goal: where much is read ahead a few changes are taken together, and what follows them arrives; a
 * peer that does nothing else is refused, with most of its changes not carried out. */
static void test_key_changes_ahead(void **state)
{
	char bytes[64];
	struct iovec out = {.iov_base = "after", .iov_len = 5};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	ssize_t got = 0;

	(void)state;
	stream_expect_bulk(&to);
	for (int round = 0; round < 3; round++) {
		change_keys(30);
		assert_int_equal(stream_write(&from, &out, 1), 5);
		for (got = 0; got == 0;)
			got = stream_read(&to, &in, 1);
		assert_int_equal(got, 5);
	}
	change_keys(100);
	for (got = 0; got == 0;)
		got = stream_read(&to, &in, 1);
	assert_int_equal(got, -EPROTO);
	assert_non_null(strstr(slu_last_error(), "changes its keys again and again"));
	assert_int_equal(tls_peer(to.ssl)->asides, TLS_ASIDES_MAX + 1);
	assert_int_equal(stream_read(&to, &in, 1), -EPROTO); /* and it stays so */
}

/* Goal: nor with single bytes between its changes has a peer the reader's time for all of them: in
 * a call for no more than are allowed in a row. */
static void test_key_changes_between(void **state)
{
	char bytes[64];
	struct iovec out = {.iov_base = "x", .iov_len = 1};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	ssize_t total = 0;

	(void)state;
	stream_expect_bulk(&to);
	for (int i = 0; i < 6; i++) {
		change_keys(TLS_ASIDES_MAX / 2);
		assert_int_equal(stream_write(&from, &out, 1), 1);
	}
	for (int calls = 0; calls < 6; calls++) {
		ssize_t got = stream_read(&to, &in, 1);

		assert_int_equal(got, 1);
		assert_int_equal(stream_pending(&to), calls < 5);
		total += got;
	}
	assert_int_equal(total, 6);
}

/* Goal: what was read ahead is told of, but not a part of a record that nothing can be made of. */
static void test_read_ahead_pending(void **state)
{
	static char bytes[40000];
	struct iovec out = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct iovec in = {.iov_base = bytes, .iov_len = 10000};
	int length;

	(void)state;
	stream_expect_bulk(&to);
	assert_false(stream_pending(&to));
	assert_int_equal(stream_write(&from, &out, 1), sizeof(bytes));
	for (int i = 0; i < 4; i++) {
		assert_int_equal(stream_read(&to, &in, 1), 10000);
		assert_int_equal(bytes_queued(), 0); /* all of it was read at once */
		assert_int_equal(stream_pending(&to), i < 3);
	}
	out.iov_len = 1000;
	assert_int_equal(stream_write(&from, &out, 1), 1000);
	length = (int)recv(to.fd, bytes, sizeof(bytes), 0);
	assert_in_range(length, 1001, 2000);
	assert_int_equal(send(from.fd, bytes, 500, 0), 500);
	assert_int_equal(stream_read(&to, &in, 1), 0);
	assert_false(stream_pending(&to));
	assert_int_equal(send(from.fd, bytes + 500, (size_t)length - 500, 0), length - 500);
	assert_int_equal(stream_read(&to, &in, 1), 1000);
}

/* Goal: nor has one that sends records of a byte each the time for all of them. */
static void test_small_records(void **state)
{
	static char records[64000], bytes[2000];
	struct iovec out = {.iov_base = "x", .iov_len = 1};
	struct iovec in = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	ssize_t length = 0, total = 0, got;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(stream_write(&from, &out, 1), 1);
		got = recv(to.fd, records + length, sizeof(records) - (size_t)length, 0);
		assert_true(got > 0);
		length += got;
	}
	/* At once: a socket has less room for many pieces. */
	assert_int_equal(send(from.fd, records, (size_t)length, 0), length);
	for (; total < 1000; total += got) {
		got = stream_read(&to, &in, 1);
		assert_in_range(got, 1, 256);
	}
	assert_int_equal(bytes_queued(), 0);
}

/* Memory that others could take pages from, all of them taken. cmocka has a handler of its own for
 * each test: on with the guard's, as it would be elsewhere. */
static struct guard *lost_memory(struct iovec *iov)
{
	static struct sigaction ours;
	int fd = memfd_create("empty", MFD_CLOEXEC);
	struct guard *guard;

	iov->iov_len = 8192;
	iov->iov_base = mmap(NULL, iov->iov_len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(iov->iov_base, MAP_FAILED);
	assert_int_equal(guard_add(iov->iov_base, iov->iov_len, &guard), 0);
	sigaction(SIGBUS, ours.sa_sigaction ? &ours : NULL, ours.sa_sigaction ? NULL : &ours);
	close(fd);
	return guard;
}

/* Goal: a read or write that fails for want of pages says so, and the memory is marked. */
static void test_lost_memory(void **state)
{
	struct iovec good = {.iov_base = "good", .iov_len = 4}, lost;
	struct guard *guard = lost_memory(&lost);

	(void)state;
	assert_int_equal(stream_write(&from, &lost, 1), -EFAULT);
	assert_true(guard_is_dead(guard));
	guard_remove(guard);
	munmap(lost.iov_base, lost.iov_len);
	guard = lost_memory(&lost);
	assert_int_equal(stream_write(&from, &good, 1), 4);
	assert_int_equal(stream_read(&to, &lost, 1), -EFAULT);
	assert_true(guard_is_dead(guard));
	guard_remove(guard);
	munmap(lost.iov_base, lost.iov_len);
}

/* Goal: nor is it encrypted and sent as if it held something, whole or beside what is good. */
static void test_lost_memory_encrypted(void **state)
{
	struct iovec out[2] = {{.iov_base = "good", .iov_len = 4}};
	struct guard *guard;
	char got[16];
	struct iovec in = {.iov_base = got, .iov_len = sizeof(got)};

	(void)state;
	for (int first = 0; first < 2; first++) {
		guard = lost_memory(&out[1]);
		assert_int_equal(stream_write(&from, out + first, 2 - first), -EFAULT);
		assert_true(guard_is_dead(guard));
		assert_int_equal(stream_read(&to, &in, 1), 0);
		guard_remove(guard);
		munmap(out[1].iov_base, out[1].iov_len);
		close_pair(state);
		assert_int_equal(tls_pair(state), 0);
	}
}

static int open_keys(void **state)
{
	struct slu_tls_options options = {0};

	(void)state;
	if (keys_open() < 0)
		return -1;
	options.psk_file = keys_write("keys", "alice:" KEY_ALICE "\n");
	return tls_open(TLS_CLIENT, &options, &client) < 0 ||
	       tls_open(TLS_SERVER, &options, &server) < 0;
}

static int close_keys(void **state)
{
	(void)state;
	tls_close(client);
	tls_close(server);
	keys_close();
	return 0;
}

#define plain(test)                                                                                \
	{                                                                                          \
#test " plain", test, plain_pair, close_pair, NULL                                 \
	}
#define over_tls(test)                                                                             \
	{                                                                                          \
#test " TLS", test, tls_pair, close_pair, NULL                                     \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		plain(test_transfer),
		over_tls(test_transfer),
		plain(test_end),
		over_tls(test_end),
		plain(test_no_signal),
		over_tls(test_no_signal),
		over_tls(test_pending),
		over_tls(test_gathering),
		over_tls(test_garbage),
		over_tls(test_tampering),
		over_tls(test_key_changes),
		over_tls(test_key_changes_ahead),
		over_tls(test_key_changes_between),
		over_tls(test_read_ahead_pending),
		over_tls(test_small_records),
		plain(test_lost_memory),
		over_tls(test_lost_memory_encrypted),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, open_keys, close_keys);
}
