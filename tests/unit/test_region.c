/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/region.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "tests/tap.h"

static struct slu_region_info info_of(const struct slu_region *region)
{
	struct slu_region_info info = {.size = sizeof(info)};

	assert_int_equal(slu_region_get_info(region, &info), 0);
	return info;
}

/* Goal: what the init function fills is what the header promises. */
static void test_defaults(void **state)
{
	struct slu_region_options options;

	(void)state;
	memset(&options, 0xff, sizeof(options));
	slu_region_options_init(&options, sizeof(options));
	assert_int_equal(options.size, sizeof(options));
	assert_int_equal(options.page, SLU_PAGE_AUTO);
	assert_int_equal(options.node, -1);
	assert_false(options.lock);
	assert_false(options.private_memory);
	assert_null(options.progress);
}

/* Goal: the length is the one asked for, not the pages'; the memory can be exported. */
static void test_create(void **state)
{
	struct slu_region_options options;
	struct slu_region *region;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(region_create(5000, &options, &region), 0);
	assert_int_equal(info_of(region).length_bytes, 5000);
	assert_int_equal(info_of(region).page_bytes, 4096);
	assert_true(info_of(region).shareable);
	assert_int_equal((uintptr_t)slu_region_addr(region) % 4096, 0);
	memset(slu_region_addr(region), 1, 5000);
	region_destroy(region);
}

/* Goal: private memory and the caller's own are regions that cannot be exported. */
static void test_not_shareable(void **state)
{
	struct slu_region_options options;
	struct slu_region *region;
	char own[100];

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.private_memory = true;
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(region_create(100, &options, &region), 0);
	assert_false(info_of(region).shareable);
	region_destroy(region);
	assert_int_equal(region_wrap(own, sizeof(own), &region), 0);
	assert_ptr_equal(slu_region_addr(region), own);
	assert_int_equal(info_of(region).length_bytes, sizeof(own));
	assert_false(info_of(region).shareable);
	region_destroy(region);
}

/* Goal: an empty, a wrapping and an impossible range are refused and the output stays alone. */
static void test_refused_ranges(void **state)
{
	struct slu_region *untouched = (struct slu_region *)state;
	struct slu_region *region = untouched;
	struct slu_region_options options;
	char own[16];

	slu_region_options_init(&options, sizeof(options));
	assert_int_equal(region_create(0, &options, &region), -EINVAL);
	assert_int_equal(region_create(UINT64_MAX, &options, &region), -ENOMEM);
	assert_int_equal(region_wrap(NULL, 16, &region), -EINVAL);
	assert_int_equal(region_wrap(own, 0, &region), -EINVAL);
	assert_int_equal(region_wrap(own, UINT64_MAX, &region), -EINVAL);
	assert_ptr_equal(region, untouched);
}

/* Goal: sizes that no release has are refused. */
static void test_sizes_are_checked(void **state)
{
	struct slu_region_options options, taken;
	struct slu_region_info info = {.size = sizeof(info) - 1};
	struct slu_region *region;
	char own[16];

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.size--;
	assert_int_equal(region_take_options(&options, &taken), -EINVAL);
	assert_int_equal(region_wrap(own, sizeof(own), &region), 0);
	assert_int_equal(slu_region_get_info(region, &info), -EINVAL);
	region_destroy(region);
	region_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),          cmocka_unit_test(test_create),
		cmocka_unit_test(test_not_shareable),     cmocka_unit_test(test_refused_ranges),
		cmocka_unit_test(test_sizes_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
