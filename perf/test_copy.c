/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#include "copy.h"

#define ROOM (64 * 1024 + 2 * COPY_ALIGN)

static void check_length(const struct copy_kernel *kernel, uint8_t *to, const uint8_t *from,
			 size_t length)
{
	memset(to, 0xee, ROOM);
	kernel->copy(to + COPY_ALIGN, from, length);
	assert_memory_equal(to + COPY_ALIGN, from, length);
	for (size_t i = 0; i < COPY_ALIGN; i++) {
		assert_int_equal(to[i], 0xee);
		assert_int_equal(to[COPY_ALIGN + length + i], 0xee);
	}
}

/*
 * Goal: each kernel moves every byte of its range and none beside it; a plain copy that copied too
 * little would be a false limit.
 */
static void test_kernels_copy_exactly(void **state)
{
	static const size_t lengths[] = {0, COPY_MULTIPLE, 4096, 4096 + COPY_MULTIPLE, 65536};
	struct copy_kernel kernels[COPY_KERNELS_MAX];
	unsigned count = copy_kernels(kernels);
	uint8_t *from = aligned_alloc(COPY_ALIGN, ROOM);
	uint8_t *to = aligned_alloc(COPY_ALIGN, ROOM);

	(void)state;
	assert_non_null(from);
	assert_non_null(to);
	for (size_t i = 0; i < ROOM; i++)
		from[i] = (uint8_t)(i * 131 + i / 251);
	for (unsigned k = 0; k < count; k++)
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
			check_length(&kernels[k], to, from, lengths[i]);
	free(to);
	free(from);
}

/* Goal: the table names the fastest kernel, so no two have the same name. */
static void test_kernels_have_names(void **state)
{
	struct copy_kernel kernels[COPY_KERNELS_MAX];
	unsigned count = copy_kernels(kernels);

	(void)state;
	assert_in_range(count, 2, COPY_KERNELS_MAX);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < i; k++)
			assert_string_not_equal(kernels[i].name, kernels[k].name);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernels_copy_exactly),
		cmocka_unit_test(test_kernels_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
