/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wrap.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

static void check(uint32_t width, uint32_t indent, const char *text, const char *expected)
{
	char *written = NULL;
	size_t size;
	FILE *out = open_memstream(&written, &size);

	assert_non_null(out);
	wrap_print(out, width, indent, text);
	fclose(out);
	assert_string_equal(written, expected);
	free(written);
}

/* Goal: lines end between words, none is over the width, and what follows is indented. */
static void test_lines(void **state)
{
	(void)state;
	check(24, 4, "this host has no RDMA device at all",
	      "this host has no\n    RDMA device at all\n");
	check(24, 4, "exactly twenty bytes", "exactly twenty bytes\n");
	check(24, 4, "exactly twenty bytes and on", "exactly twenty bytes\n    and on\n");
	check(24, 4, "", "\n");
}

/* Goal: a word that is longer than a line, such as a path, is not cut. */
static void test_long_word(void **state)
{
	(void)state;
	check(24, 4, "see /sys/devices/system/node/node0/hugepages there",
	      "see\n    /sys/devices/system/node/node0/hugepages\n    there\n");
	check(24, 4, "/sys/devices/system/node/node0", "/sys/devices/system/node/node0\n");
}

/* Goal: one line where there is no terminal, or hardly one. */
static void test_no_width(void **state)
{
	(void)state;
	check(0, 4, "a text that would be longer than a line",
	      "a text that would be longer than a line\n");
	check(23, 4, "a text that would be longer than a line",
	      "a text that would be longer than a line\n");
	check(3, 4, "a text that would be longer than a line",
	      "a text that would be longer than a line\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_long_word),
		cmocka_unit_test(test_no_width),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
