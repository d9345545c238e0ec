/* SPDX-License-Identifier: Apache-2.0 */
#include "directory/p2p.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/tap.h"

static char *repeated(char letter, size_t count, const char *tail)
{
	char *text = malloc(count + strlen(tail) + 1);

	assert_non_null(text);
	memset(text, letter, count);
	strcpy(text + count, tail);
	return text;
}

/* Goal: a bare name is an abstract socket of exactly that name, without trailing NULs. */
static void test_bare_name_is_abstract(void **state)
{
	struct p2p_name name;

	(void)state;
	assert_int_equal(p2p_parse("kv-cache_0.a", &name), 0);
	assert_string_equal(name.segment, "kv-cache_0.a");
	assert_int_equal(name.endpoint.path.sun_family, AF_UNIX);
	assert_memory_equal(name.endpoint.path.sun_path, "\0sluice/kv-cache_0.a", 20);
	assert_int_equal(name.endpoint.path_length, offsetof(struct sockaddr_un, sun_path) + 20);
}

/* Goal: after '@' stands the path of a socket. */
static void test_path(void **state)
{
	struct p2p_name name;

	(void)state;
	assert_int_equal(p2p_parse("seg@/run/sluice/a@b.sock", &name), 0);
	assert_string_equal(name.segment, "seg");
	assert_string_equal(name.endpoint.path.sun_path, "/run/sluice/a@b.sock");
}

/* Goal: names and paths of the longest length are taken whole, one byte more is refused. */
static void test_limits(void **state)
{
	char *longest = repeated('n', SLU_NAME_MAX, ""),
	     *longer = repeated('n', SLU_NAME_MAX + 1, "");
	char *path = repeated('/', SLU_SOCKET_PATH_MAX, ""),
	     *long_path = repeated('/', SLU_SOCKET_PATH_MAX + 1, "");
	char text[512];
	struct p2p_name name;

	(void)state;
	assert_int_equal(p2p_parse(longest, &name), 0);
	assert_string_equal(name.segment, longest);
	assert_int_equal(p2p_parse(longer, &name), -EINVAL);
	snprintf(text, sizeof(text), "%s@%s", longest, path);
	assert_int_equal(p2p_parse(text, &name), 0);
	assert_string_equal(name.endpoint.path.sun_path, path);
	snprintf(text, sizeof(text), "%s@%s", longest, long_path);
	assert_int_equal(p2p_parse(text, &name), -EINVAL);
	free(longest);
	free(longer);
	free(path);
	free(long_path);
}

/* Goal: HOST:PORT and [IPV6]:PORT are TCP addresses, of the greatest length as well. */
static void test_host_and_port(void **state)
{
	char *longest = repeated('h', SLU_ADDRESS_MAX - 8, ""), text[SLU_REMOTE_NAME_MAX + 1];
	struct p2p_name name;

	(void)state;
	assert_int_equal(p2p_parse("seg@10.0.0.1:7000", &name), 0);
	assert_string_equal(name.segment, "seg");
	assert_false(name.endpoint.is_unix);
	assert_string_equal(name.endpoint.tcp.host, "10.0.0.1");
	assert_int_equal(name.endpoint.tcp.port, 7000);
	assert_int_equal(p2p_parse("seg@[fe80::1%eth0]:65535", &name), 0);
	assert_string_equal(name.endpoint.tcp.host, "fe80::1%eth0");
	assert_int_equal(name.endpoint.tcp.port, 65535);
	assert_int_equal(p2p_parse("seg@host.example:1", &name), 0);
	assert_string_equal(name.endpoint.tcp.host, "host.example");
	snprintf(text, sizeof(text), "seg@%s:65535", longest);
	assert_int_equal(p2p_parse(text, &name), 0);
	assert_string_equal(name.endpoint.tcp.host, longest);
	free(longest);
}

/* Goal: what is no name or no path is -EINVAL, and quoted. */
static void test_malformed(void **state)
{
	static const char *const malformed[] = {
		"",          "@",           "@/path",   "a b",       "a/b",      "a\n",
		"name@",     "n@path",      "n@./path", "n@h:",      "n@:1",     "n@h:0",
		"n@h:65536", "n@h:1x",      "n@::1:80", "n@[::1]80", "n@[]:80",  "n@h:-1",
		"n@h h:1",   "caf\xc3\xa9", "a:b",      "$(reboot)", "n@@/path", "n\x7f",
	};
	struct p2p_name name;

	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		int ret = p2p_parse(malformed[i], &name);

		if (ret != -EINVAL)
			fail_msg("\"%s\" gave %d, not -EINVAL", malformed[i], ret);
	}
	assert_int_equal(p2p_parse("what ever", &name), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "what ever"));
}

/* Goal: the address by name is the one that parsing gives, so target and initiator meet. */
static void test_both_sides_meet(void **state)
{
	struct sockaddr_un address;
	struct p2p_name name;
	socklen_t length;

	(void)state;
	assert_int_equal(p2p_check_segment("demo"), 0);
	p2p_segment_address("demo", &address, &length);
	assert_int_equal(p2p_parse("demo", &name), 0);
	assert_int_equal(name.endpoint.path_length, length);
	assert_memory_equal(&name.endpoint.path, &address, sizeof(address));
	assert_int_equal(p2p_path_address("/run/demo", &address, &length), 0);
	assert_int_equal(p2p_parse("demo@/run/demo", &name), 0);
	assert_int_equal(name.endpoint.path_length, length);
	assert_memory_equal(&name.endpoint.path, &address, sizeof(address));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bare_name_is_abstract),
		cmocka_unit_test(test_path),
		cmocka_unit_test(test_host_and_port),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_both_sides_meet),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
