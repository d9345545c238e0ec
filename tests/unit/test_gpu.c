/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/gpu.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

/* LD_LIBRARY_PATH names the folder of fake_cuda.c's libcuda.so.1. */
static void set_driver(const char *init, const char *count, const char *count_error)
{
	setenv("FAKE_CUDA_INIT", init, 1);
	setenv("FAKE_CUDA_COUNT", count, 1);
	setenv("FAKE_CUDA_COUNT_ERROR", count_error, 1);
}

#ifdef SLU_GPU_CUDA

/* Goal: the devices that the driver counts are returned. */
static void test_devices_are_counted(void **state)
{
	char why[128] = "untouched";

	(void)state;
	set_driver("0", "3", "0");
	assert_int_equal(gpu_count(why, sizeof(why)), 3);
	assert_string_equal(why, "untouched");
}

/* Goal: a driver without a device says that. */
static void test_no_device(void **state)
{
	char why[128] = "";

	(void)state;
	set_driver("0", "0", "0");
	assert_int_equal(gpu_count(why, sizeof(why)), 0);
	assert_non_null(strstr(why, "no CUDA device"));
}

/* Goal: a driver error is named, by number when the driver has no name for it. */
static void test_driver_errors(void **state)
{
	char why[128] = "";

	(void)state;
	set_driver("100", "0", "0");
	assert_int_equal(gpu_count(why, sizeof(why)), 0);
	assert_non_null(strstr(why, "CUDA_ERROR_NO_DEVICE"));
	set_driver("0", "4", "999");
	assert_int_equal(gpu_count(why, sizeof(why)), 0);
	assert_non_null(strstr(why, "999"));
}

#else

/* Goal: a build without CUDA says so, whatever libraries are there. */
static void test_left_out(void **state)
{
	char why[128] = "";

	(void)state;
	set_driver("0", "3", "0");
	assert_int_equal(gpu_count(why, sizeof(why)), 0);
	assert_non_null(strstr(why, "left out of the build"));
}

#endif

/* Goal: a reason longer than its room is cut, not overrun. */
static void test_short_reason(void **state)
{
	char why[8] = "12345678";

	(void)state;
	set_driver("100", "0", "0");
	assert_int_equal(gpu_count(why, 4), 0);
	assert_int_equal(strlen(why), 3);
	assert_memory_equal(why + 4, "5678", 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef SLU_GPU_CUDA
		cmocka_unit_test(test_devices_are_counted),
		cmocka_unit_test(test_no_device),
		cmocka_unit_test(test_driver_errors),
#else
		cmocka_unit_test(test_left_out),
#endif
		cmocka_unit_test(test_short_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
