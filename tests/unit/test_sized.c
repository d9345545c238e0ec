/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sized.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "tests/tap.h"

/* Release 1.0 of it ended with reserved. */
struct thing {
	size_t size;
	uint32_t first;
	uint8_t reserved[4];
	uint64_t added;
};

#define OLD_SIZE offsetof(struct thing, added)
#define NEW_SIZE (sizeof(struct thing) + 24) /* of a release to come */

static const struct thing defaults = {.first = 1, .added = 7};
static const struct sized options_form = {SIZED(thing, reserved), SIZED_RESERVED(thing),
					  .defaults = &defaults};
static const struct sized info_form = {SIZED(thing, reserved)};

static unsigned char *page_end; /* what is read or written from here on is a crash */

static int map_pages(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t length = SLU_STRUCT_SIZE_MAX + page;
	unsigned char *pages = mmap(NULL, length + page, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)state;
	if (pages == MAP_FAILED || mprotect(pages + length, page, PROT_NONE) < 0)
		return -1;
	page_end = pages + length;
	return 0;
}

/* A struct of @p size whose last byte is the last that can be touched; the one before it is 0x55.
 */
static void *struct_of(size_t size, int fill)
{
	memset(page_end - size, fill, size);
	page_end[-(ptrdiff_t)size - 1] = 0x55;
	return page_end - size;
}

static void *options_of(size_t size)
{
	void *options = struct_of(size, 0xff);

	sized_init(&options_form, options, size);
	return options;
}

static void expect_untouched_before(size_t size)
{
	assert_int_equal(page_end[-(ptrdiff_t)size - 1], 0x55);
}

/* Goal: an init function writes as many bytes as the caller has, and none beyond. */
static void test_init_stays_inside(void **state)
{
	(void)state;
	for (size_t size = 0; size <= NEW_SIZE; size++) {
		options_of(size);
		expect_untouched_before(size);
	}
}

/* Goal: what it writes are the caller's size, our defaults, and zeros where we know nothing. */
static void test_init_fills(void **state)
{
	static const unsigned char zeros[NEW_SIZE];
	struct thing got = {0};
	unsigned char *options = options_of(OLD_SIZE);

	(void)state;
	memcpy(&got, options, OLD_SIZE);
	assert_int_equal(got.size, OLD_SIZE);
	assert_int_equal(got.first, 1);
	options = options_of(NEW_SIZE);
	memcpy(&got, options, sizeof(got));
	assert_int_equal(got.size, NEW_SIZE);
	assert_int_equal(got.added, 7);
	assert_memory_equal(options + sizeof(got), zeros, NEW_SIZE - sizeof(got));
}

/* Goal: who has never heard of a field gets its default, and is not read beyond his end. */
static void test_older_options(void **state)
{
	unsigned char *options = options_of(OLD_SIZE);
	struct thing taken;

	(void)state;
	options[offsetof(struct thing, first)] = 9;
	assert_int_equal(sized_take(&options_form, options, &taken), 0);
	assert_int_equal(taken.size, sizeof(taken));
	assert_int_equal(taken.first, 9);
	assert_int_equal(taken.added, 7);
}

/* Goal: no options at all are the defaults. */
static void test_no_options(void **state)
{
	struct thing taken;

	(void)state;
	assert_int_equal(sized_take(&options_form, NULL, &taken), 0);
	assert_int_equal(taken.size, sizeof(taken));
	assert_int_equal(taken.first, 1);
	assert_int_equal(taken.added, 7);
}

/* Goal: a newer form is taken while all that we do not know is zero; each other byte is refused. */
static void test_newer_options(void **state)
{
	unsigned char *options = options_of(NEW_SIZE);
	struct thing taken = {.first = 5};

	(void)state;
	for (size_t i = sizeof(taken); i < NEW_SIZE; i++) {
		options[i] = 0x80;
		assert_int_equal(sized_take(&options_form, options, &taken), -E2BIG);
		assert_non_null(strstr(slu_last_error(), "thing"));
		assert_non_null(strstr(slu_last_error(), "built for a newer libsluice"));
		assert_non_null(strstr(slu_last_error(), "install"));
		options[i] = 0;
	}
	assert_int_equal(taken.first, 5);
	assert_int_equal(sized_take(&options_form, options, &taken), 0);
	assert_int_equal(taken.first, 1);
}

/* Goal: bytes without a meaning have to be zero, in an old form too. */
static void test_reserved(void **state)
{
	unsigned char *options = options_of(OLD_SIZE);
	struct thing taken;

	(void)state;
	for (size_t i = 0; i < sizeof(taken.reserved); i++) {
		options[offsetof(struct thing, reserved) + i] = 1;
		assert_int_equal(sized_take(&options_form, options, &taken), -E2BIG);
		options[offsetof(struct thing, reserved) + i] = 0;
	}
	assert_int_equal(sized_take(&options_form, options, &taken), 0);
}

/* Goal: a size that cannot be is refused, and nothing but the size is read or written. */
static void test_sizes_that_cannot_be(void **state)
{
	static const size_t sizes[] = {
		0,       1, sizeof(size_t), OLD_SIZE - 1, SLU_STRUCT_SIZE_MAX + 1, SIZE_MAX / 2,
		SIZE_MAX};
	struct thing own = {.first = 3}, taken;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		void *theirs = struct_of(sizeof(size_t), 0);

		memcpy(theirs, &sizes[i], sizeof(size_t));
		assert_int_equal(sized_take(&options_form, theirs, &taken), -EINVAL);
		assert_non_null(strstr(slu_last_error(), "init function"));
		assert_int_equal(sized_give(&info_form, &own, theirs), -EINVAL);
		assert_non_null(strstr(slu_last_error(), "sizeof(struct thing)"));
		assert_memory_equal(theirs, &sizes[i], sizeof(size_t));
	}
}

/* Goal: the largest size that can be is read to its end, and no further. */
static void test_largest_size(void **state)
{
	unsigned char *options = options_of(SLU_STRUCT_SIZE_MAX);
	struct thing taken;

	(void)state;
	assert_int_equal(sized_take(&options_form, options, &taken), 0);
	options[SLU_STRUCT_SIZE_MAX - 1] = 1;
	assert_int_equal(sized_take(&options_form, options, &taken), -E2BIG);
}

/* Goal: of an info each caller gets what it knows; its size stays, and the rest is zero. */
static void test_infos(void **state)
{
	const struct thing own = {.first = 3, .added = 4};

	(void)state;
	for (size_t size = OLD_SIZE; size <= NEW_SIZE; size++) {
		size_t known = size < sizeof(own) ? size : sizeof(own);
		unsigned char expected[NEW_SIZE] = {0};
		unsigned char *info = struct_of(size, 0xff);

		memcpy(expected, &own, known);
		memcpy(expected, &size, sizeof(size));
		memcpy(info, &size, sizeof(size));
		assert_int_equal(sized_give(&info_form, &own, info), 0);
		assert_memory_equal(info, expected, size);
		expect_untouched_before(size);
	}
}

/* Goal: what cannot grow by its size says whose bytes are not zero, and which. */
static void test_check_reserved(void **state)
{
	unsigned char *bytes = struct_of(12, 0);

	(void)state;
	assert_int_equal(sized_check_reserved("thing.reserved", bytes, 12), 0);
	assert_int_equal(sized_check_reserved("thing.reserved", page_end, 0), 0);
	bytes[11] = 1;
	assert_int_equal(sized_check_reserved("thing.reserved", bytes, 12), -E2BIG);
	assert_non_null(strstr(slu_last_error(), "thing.reserved, byte 11"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_stays_inside),
		cmocka_unit_test(test_init_fills),
		cmocka_unit_test(test_older_options),
		cmocka_unit_test(test_no_options),
		cmocka_unit_test(test_newer_options),
		cmocka_unit_test(test_reserved),
		cmocka_unit_test(test_sizes_that_cannot_be),
		cmocka_unit_test(test_largest_size),
		cmocka_unit_test(test_infos),
		cmocka_unit_test(test_check_reserved),
	};

	return cmocka_run_group_tests(tests, map_pages, NULL);
}
