/* SPDX-License-Identifier: Apache-2.0 */
#include "net/address.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/stream.h"
#include "tests/tap.h"

static uint64_t in_ms(uint64_t ms)
{
	return clock_monotonic_ns(NULL) + ms * 1000000;
}

static union address resolved(const char *text)
{
	union address addresses[ADDRESSES_MAX];
	struct host_port at;

	assert_int_equal(address_parse(text, &at), 0);
	assert_int_equal(address_resolve(&at, in_ms(1000), addresses), 1);
	return addresses[0];
}

/* A listening socket and the address that it got. */
static int listening(const char *text, union address *address)
{
	union address wanted = resolved(text);

	return address_listen(&wanted, 1, address);
}

static int connecting(const union address *addresses, int count, uint64_t until_ns)
{
	struct dial dial = {.count = count, .until_ns = until_ns};
	struct stream stream = {.fd = -1};
	int rc;

	memcpy(dial.addresses, addresses, (size_t)count * sizeof(*addresses));
	while ((rc = dial_advance(&dial, &stream)) == 0)
		wait_ready(stream.fd, POLLOUT, dial.wake_ns);
	return rc < 0 ? rc : stream.fd;
}

/* Goal: HOST:PORT and [IPV6]:PORT are taken apart, anything else is quoted. */
static void test_parse(void **state)
{
	static const char *const bad[] = {"",      "host",    ":1",     "host:",     "host:x",
					  "h:1:2", "[::1]",   "[::1]:", "[]:1",      "::1:80",
					  "h:-1",  "h:65536", "h:1 ",   "h h:1",     "[::1:80",
					  "a/b:1", "h\n:1",   "[[a]:1", "h:0000001", "@h:1"};
	struct host_port at;

	(void)state;
	assert_int_equal(address_parse("a.example:7000", &at), 0);
	assert_string_equal(at.host, "a.example");
	assert_int_equal(at.port, 7000);
	assert_int_equal(address_parse("[::1]:0", &at), 0);
	assert_string_equal(at.host, "::1");
	assert_int_equal(at.port, 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (address_parse(bad[i], &at) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	assert_int_equal(address_parse("what ever", &at), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "what ever"));
}

/* Goal: what it is can be told of an address, and written so that it can be parsed again. */
static void test_kinds(void **state)
{
	char text[ADDRESS_TEXT_MAX];
	union address address = resolved("127.9.9.9:80");

	(void)state;
	assert_true(address_is_loopback(&address));
	assert_false(address_is_any(&address));
	assert_int_equal(address_port(&address), 80);
	address_format(&address, text);
	assert_string_equal(text, "127.9.9.9:80");
	address = resolved("[::1]:81");
	assert_true(address_is_loopback(&address));
	address_format(&address, text);
	assert_string_equal(text, "[::1]:81");
	address = resolved("0.0.0.0:1");
	assert_true(address_is_any(&address));
	assert_false(address_is_loopback(&address));
	address = resolved("[::]:1");
	assert_true(address_is_any(&address));
	address = resolved("128.0.0.1:1");
	assert_false(address_is_loopback(&address));
	address = resolved("[::ffff:127.0.0.1]:1");
	assert_true(address_is_loopback(&address));
	address = resolved("[::2]:1");
	assert_false(address_is_loopback(&address));
}

/* Goal: endpoints are written for people, and compared. */
static void test_endpoints(void **state)
{
	struct endpoint tcp = {.tcp = {.host = "::1", .port = 5}}, other = tcp;
	struct endpoint local = {.is_unix = true, .path = {.sun_family = AF_UNIX}};
	char text[ADDRESS_TEXT_MAX];

	(void)state;
	endpoint_format(&tcp, text);
	assert_string_equal(text, "tcp:[::1]:5");
	assert_true(endpoint_equal(&tcp, &other));
	other.tcp.port = 6;
	assert_false(endpoint_equal(&tcp, &other));
	assert_false(endpoint_equal(&tcp, &local));
	strcpy(tcp.tcp.host, "a.example");
	endpoint_format(&tcp, text);
	assert_string_equal(text, "tcp:a.example:5");
	strcpy(local.path.sun_path, "/run/x");
	local.path_length = sizeof(local.path);
	endpoint_format(&local, text);
	assert_string_equal(text, "unix:/run/x");
	other = local;
	assert_true(endpoint_equal(&local, &other));
	memcpy(other.path.sun_path, "\0sluice/x", 9);
	other.path_length = offsetof(struct sockaddr_un, sun_path) + 9;
	assert_false(endpoint_equal(&local, &other));
	endpoint_format(&other, text);
	assert_string_equal(text, "unix:@sluice/x");
}

/* Goal: a name that nobody knows is -EADDRNOTAVAIL, with the name (RFC 2606 keeps .invalid free).
 */
static void test_name_unknown(void **state)
{
	union address addresses[ADDRESSES_MAX];
	struct host_port at = {.host = "no-such-host.invalid", .port = 1};
	int rc = address_resolve(&at, in_ms(20000), addresses);

	(void)state;
	if (rc == -ETIMEDOUT)
		skip_because("the name server does not answer");
	assert_int_equal(rc, -EADDRNOTAVAIL);
	assert_non_null(strstr(slu_last_error(), "no-such-host.invalid"));
}

/* Goal: looking up ends when the time is up; the thread that asks goes on without us. */
static void test_lookup_deadline(void **state)
{
	union address addresses[ADDRESSES_MAX];
	struct host_port at = {.host = "no-such-host-either.invalid", .port = 1};
	int rc = address_resolve(&at, 0, addresses);

	(void)state;
	assert_true(rc == -ETIMEDOUT || rc == -EADDRNOTAVAIL);
	assert_non_null(strstr(slu_last_error(), "no-such-host-either.invalid"));
}

static int option(int fd, int level, int name)
{
	socklen_t length = sizeof(int);
	int value = -1;

	assert_int_equal(getsockopt(fd, level, name, &value, &length), 0);
	return value;
}

/* Goal: a connection is made, and tuned so that a dead peer is noticed within about 20 s. */
static void test_connect(void **state)
{
	union address address;
	int listener = listening("127.0.0.1:0", &address);
	int fd = connecting(&address, 1, in_ms(1000));

	(void)state;
	assert_true(listener >= 0 && fd >= 0);
	assert_int_equal(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_true(option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
			    option(fd, IPPROTO_TCP, TCP_KEEPINTVL) *
				    option(fd, IPPROTO_TCP, TCP_KEEPCNT) <=
		    20);
	assert_true(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT) <= 20000);
	close(fd);
	close(listener);
}

/* Goal: of several addresses the first that answers is taken. */
static void test_connect_to_the_second(void **state)
{
	union address addresses[2];
	int listener = listening("127.0.0.1:0", &addresses[0]);
	int fd;

	(void)state;
	close(listener); /* nobody is there now */
	listener = listening("127.0.0.1:0", &addresses[1]);
	fd = connecting(addresses, 2, in_ms(1000));
	assert_true(fd >= 0);
	close(fd);
	close(listener);
}

/* Goal: nobody at the port is -ECONNREFUSED, and the message names it. */
static void test_refused(void **state)
{
	char text[ADDRESS_TEXT_MAX];
	union address address;

	(void)state;
	close(listening("127.0.0.1:0", &address));
	assert_int_equal(connecting(&address, 1, in_ms(1000)), -ECONNREFUSED);
	address_format(&address, text);
	assert_non_null(strstr(slu_last_error(), text));
	assert_non_null(strstr(slu_last_error(), "--listen"));
}

/* In a network of its own, which has no routes. @return what connecting gave; 1 no such network */
static int connect_without_routes(void)
{
	union address address = resolved("192.0.2.1:9");
	int rc;

	if (unshare(CLONE_NEWNET) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return 1;
	rc = connecting(&address, 1, in_ms(1000));
	return rc == -EHOSTUNREACH && strstr(slu_last_error(), "192.0.2.1:9") ? 0 : 2;
}

/* Goal: an address without a way to it is -EHOSTUNREACH, and the message names it. */
static void test_unreachable(void **state)
{
	int status = 0;
	pid_t child;

	(void)state;
	fflush(stdout);
	child = fork();
	if (child == 0)
		_exit(connect_without_routes());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 1)
		skip_because("no network namespace may be made here");
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* Goal: somebody who does not answer is -ETIMEDOUT, not before the time is up. */
static void test_no_answer(void **state)
{
	uint64_t begun = 0;
	union address address;
	int listener = listening("127.0.0.1:0", &address), fds[16], count = 0, rc;

	(void)state;
	do { /* until its queue is full and the kernel drops what comes */
		begun = clock_monotonic_ns(NULL);
		rc = fds[count] = connecting(&address, 1, in_ms(300));
	} while (rc >= 0 && ++count < 16);
	assert_int_equal(rc, -ETIMEDOUT);
	assert_non_null(strstr(slu_last_error(), "did not answer"));
	assert_true(clock_monotonic_ns(NULL) - begun >= 300 * 1000000ull);
	while (count > 0)
		close(fds[--count]);
	close(listener);
}

/* Goal: a port that is taken is -EADDRINUSE, an address of another host -EADDRNOTAVAIL. */
static void test_listen(void **state)
{
	union address address, again, foreign = resolved("192.0.2.1:0");
	int listener = listening("127.0.0.1:0", &address);

	(void)state;
	assert_int_equal(address_listen(&address, 1, &again), -EADDRINUSE);
	assert_non_null(strstr(slu_last_error(), "is taken"));
	assert_int_equal(address_listen(&foreign, 1, &again), -EADDRNOTAVAIL);
	assert_non_null(strstr(slu_last_error(), "192.0.2.1:0 is not an address of this host"));
	close(listener);
	listener = address_listen(&address, 1, &again); /* free again at once */
	assert_true(listener >= 0);
	close(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_endpoints),
		cmocka_unit_test(test_name_unknown),
		cmocka_unit_test(test_lookup_deadline),
		cmocka_unit_test(test_connect),
		cmocka_unit_test(test_connect_to_the_second),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_unreachable),
		cmocka_unit_test(test_no_answer),
		cmocka_unit_test(test_listen),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
