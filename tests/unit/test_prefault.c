/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/prefault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/tap.h"

#define MIB (UINT64_C(1) << 20)

static char *map(uint64_t length)
{
	char *memory =
		mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static uint64_t resident_pages(char *memory, uint64_t length)
{
	uint64_t pages = length / (uint64_t)sysconf(_SC_PAGESIZE), present = 0;
	unsigned char *map = malloc(pages);

	assert_non_null(map);
	assert_int_equal(mincore(memory, length, map), 0);
	for (uint64_t i = 0; i < pages; i++)
		present += map[i] & 1;
	free(map);
	return present;
}

static void check(uint64_t length)
{
	char *memory = map(length);
	int ret = prefault(memory, length, NULL, NULL);

	if (ret < 0)
		fail_msg("prefault of %lu bytes: %d, %s", (unsigned long)length, ret,
			 slu_last_error());
	assert_int_equal(resident_pages(memory, length), length / (uint64_t)sysconf(_SC_PAGESIZE));
	munmap(memory, length);
}

/* Goal: after it every page is there: one page, one chunk, several chunks and a rest. */
static void test_every_page_is_present(void **state)
{
	(void)state;
	check(4096);
	check(64 * MIB);
	check(130 * MIB + 4096);
}

/* Goal: what cannot be had is -ENOMEM with a text, not a signal. */
static void test_unmapped_is_refused(void **state)
{
	char *memory = map(2 * MIB);

	(void)state;
	munmap(memory + MIB, MIB);
	assert_int_equal(prefault(memory, 2 * MIB, NULL, NULL), -ENOMEM);
	assert_non_null(strstr(slu_last_error(), "memory"));
	munmap(memory, MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_page_is_present),
		cmocka_unit_test(test_unmapped_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
