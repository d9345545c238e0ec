/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "initiator/plan.h"
#include "tests/tap.h"

#define MIB (UINT64_C(1) << 20)

static struct config config_of(uint64_t size, uint64_t batch, uint64_t depth, uint64_t threads)
{
	return (struct config){.size = size, .batch = batch, .depth = depth, .threads = threads};
}

/* Goal: slices lie side by side inside the segment, each with room for a batch. */
static void test_slices_fit(void **state)
{
	struct config config = config_of(1000, 7, 3, 5);
	struct plan plan;

	(void)state;
	assert_int_equal(plan_make(&config, 100003, &plan), 0);
	assert_int_equal(plan.slice_blocks, 20);
	assert_int_equal(plan_slice(&plan, 0), 0);
	assert_int_equal(plan_slice(&plan, 4), 80000);
	assert_true(plan_slice(&plan, 5) <= 100003);
	assert_true(plan.window_bytes >= 1000 * 7 * 3);
	assert_int_equal(plan.window_bytes % 64, 0);
}

/* Goal: size times batch times threads may be the segment, and not a byte more. */
static void test_limit_is_exact(void **state)
{
	struct config config = config_of(65536, 16, 2, 4);
	struct plan plan;

	(void)state;
	assert_int_equal(plan_make(&config, 4 * MIB, &plan), 0);
	assert_int_equal(plan_make(&config, 4 * MIB - 1, &plan), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "4 MiB"));
}

/* Goal: the largest flags there are overflow nothing. */
static void test_extremes(void **state)
{
	struct config config = config_of(UINT64_C(1) << 40, 65536, 1, THREADS_MAX);
	struct plan plan;

	(void)state;
	assert_int_equal(plan_make(&config, UINT64_MAX, &plan), -EINVAL);
	config = config_of(UINT64_C(1) << 40, 1, 65536, THREADS_MAX);
	assert_int_equal(plan_make(&config, UINT64_MAX, &plan), -EINVAL);
	config = config_of(1, 1, 1, 1);
	assert_int_equal(plan_make(&config, 1, &plan), 0);
	assert_int_equal(plan.slice_blocks, 1);
}

/* Goal: only with the check is the depth lowered, and to what the slice holds. */
static void test_depth_of_checked_runs(void **state)
{
	struct config config = config_of(4096, 16, 8, 1);
	struct plan plan;

	(void)state;
	assert_int_equal(plan_make(&config, 48 * 4096, &plan), 0);
	assert_int_equal(plan.depth, 8);
	config.integrity_check = true;
	assert_int_equal(plan_make(&config, 48 * 4096, &plan), 0);
	assert_int_equal(plan.depth, 3);
}

/* Goal: the shares of the threads cover every byte of the segment once. */
static void test_shares_cover_the_segment(void **state)
{
	static const uint64_t lengths[] = {1, 63, 64, 65, 1000, 4096, 1000003};

	(void)state;
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (uint32_t threads = 1; threads < 20; threads++) {
			struct plan plan = {.segment_bytes = lengths[i], .threads = threads};
			uint64_t offset, length, next = 0;

			for (uint32_t t = 0; t < threads; t++) {
				plan_share(&plan, t, &offset, &length);
				assert_int_equal(offset, next);
				next = offset + length;
			}
			assert_int_equal(next, lengths[i]);
		}
}

/* Goal: a sweep lowers the batch where it must, ends where nothing fits, and bounds its memory. */
static void test_sweep(void **state)
{
	struct config config = config_of(1, 16, 2, 4);
	struct plan plan;

	(void)state;
	assert_int_equal(plan_make_sweep(&config, 64 * MIB, 0, &plan), 0);
	assert_int_equal(plan.size, PLAN_SWEEP_MIN);
	assert_int_equal(plan.batch, 16);
	assert_int_equal(plan_make_sweep(&config, 64 * MIB, PLAN_SWEEP_SIZES - 1, &plan), 0);
	assert_int_equal(plan.size, PLAN_SWEEP_MAX);
	assert_int_equal(plan.batch, 1);
	assert_int_equal(plan_make_sweep(&config, 32 * MIB, PLAN_SWEEP_SIZES - 1, &plan), -EINVAL);
	assert_int_equal(plan_make_sweep(&config, 1 << 30, PLAN_SWEEP_SIZES - 1, &plan), 0);
	assert_true(plan.window_bytes * plan.threads <= PLAN_SWEEP_LOCAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slices_fit),
		cmocka_unit_test(test_limit_is_exact),
		cmocka_unit_test(test_extremes),
		cmocka_unit_test(test_depth_of_checked_runs),
		cmocka_unit_test(test_shares_cover_the_segment),
		cmocka_unit_test(test_sweep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
