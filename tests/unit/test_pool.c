/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/memory.h>

#include "base/log.h"
#include "env/eal.h"
#include "memory/region.h"
#include "tests/tap.h"

#define REGION_BYTES (UINT64_C(1) << 20)
#define BUFFER_BYTES 1000u
#define BUFFERS      100u

static struct slu_region *region;

static struct slu_pool *open_pool(uint64_t offset, uint64_t length, uint32_t count)
{
	struct slu_pool *pool = NULL;
	int ret = slu_pool_open(region, offset, length, BUFFER_BYTES, count, &pool);

	if (ret < 0)
		fail_msg("slu_pool_open: %d, %s", ret, slu_last_error());
	return pool;
}

static int by_offset(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

/* Goal: all buffers can be had; each is aligned, inside the range and apart from the others. */
static void test_buffers_are_apart(void **state)
{
	const uint64_t start = 64 * 1024, length = 256 * 1024;
	struct slu_pool *pool = open_pool(start, length, BUFFERS);
	uint64_t offsets[BUFFERS];

	(void)state;
	assert_int_equal(slu_pool_get(pool, offsets, BUFFERS), 0);
	qsort(offsets, BUFFERS, sizeof(offsets[0]), by_offset);
	for (uint32_t i = 0; i < BUFFERS; i++) {
		assert_int_equal(offsets[i] % 64, 0);
		assert_in_range(offsets[i], start, start + length - BUFFER_BYTES);
		if (i > 0)
			assert_true(offsets[i] - offsets[i - 1] >= BUFFER_BYTES);
	}
	slu_pool_put(pool, offsets, BUFFERS);
	slu_pool_close(pool);
}

/* Goal: a pool gives all that are asked for or none, and what was put back comes again. */
static void test_all_or_none(void **state)
{
	struct slu_pool *pool = open_pool(0, REGION_BYTES, BUFFERS);
	uint64_t offsets[BUFFERS], rest[2];

	(void)state;
	assert_int_equal(slu_pool_get(pool, offsets, BUFFERS - 1), 0);
	assert_int_equal(slu_pool_get(pool, rest, 2), -ENOBUFS);
	assert_int_equal(slu_pool_get(pool, rest, 1), 0);
	assert_int_equal(slu_pool_get(pool, rest + 1, 1), -ENOBUFS);
	slu_pool_put(pool, rest, 1);
	slu_pool_put(pool, offsets, BUFFERS - 1);
	assert_int_equal(slu_pool_get(pool, offsets, BUFFERS), 0);
	slu_pool_put(pool, offsets, BUFFERS);
	slu_pool_close(pool);
}

/* Goal: ranges that are unaligned, outside or too small are refused, and nothing is made. */
static void test_refused_ranges(void **state)
{
	struct slu_pool *untouched = (struct slu_pool *)state;
	struct slu_pool *pool = untouched;

	assert_int_equal(slu_pool_open(region, 1, 4096, 64, 1, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, REGION_BYTES + 64, 64, 64, 1, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, 64, REGION_BYTES, 64, 1, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, 64, UINT64_MAX, 64, 1, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, 0, REGION_BYTES, 0, 1, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, 0, REGION_BYTES, 64, 0, &pool), -EINVAL);
	assert_int_equal(slu_pool_open(region, 0, 64 * 1024, BUFFER_BYTES, BUFFERS, &pool),
			 -ENOSPC);
	assert_ptr_equal(pool, untouched);
	slu_pool_close(NULL);
}

struct sharing {
	struct slu_pool *pool;
	_Atomic unsigned clashes;
};

/* Write our mark into each buffer that we hold; a foreign mark means two holders. */
static void *get_and_put(void *arg)
{
	struct sharing *sharing = arg;
	uint64_t mark = (uint64_t)pthread_self(), offsets[8];
	char *base = slu_region_addr(region);

	for (int round = 0; round < 1000; round++) {
		if (slu_pool_get(sharing->pool, offsets, 8) < 0)
			continue;
		for (int i = 0; i < 8; i++)
			memcpy(base + offsets[i], &mark, sizeof(mark));
		for (int i = 0; i < 8; i++)
			if (memcmp(base + offsets[i], &mark, sizeof(mark)) != 0)
				sharing->clashes++;
		slu_pool_put(sharing->pool, offsets, 8);
	}
	return NULL;
}

/* Goal: threads that share a pool never hold the same buffer, and none is lost. */
static void test_shared_by_threads(void **state)
{
	struct sharing sharing = {.pool = open_pool(0, REGION_BYTES, 24)};
	pthread_t threads[4];
	uint64_t offsets[24];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, get_and_put, &sharing), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(sharing.clashes, 0);
	assert_int_equal(slu_pool_get(sharing.pool, offsets, 24), 0);
	slu_pool_put(sharing.pool, offsets, 24);
	slu_pool_close(sharing.pool);
}

static int open_region(void **state)
{
	struct slu_region_options options;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	if (eal_start() < 0 || region_create(REGION_BYTES, &options, &region) < 0) {
		tap_comment("%s", slu_last_error());
		return -1;
	}
	return 0;
}

static int close_region(void **state)
{
	(void)state;
	region_destroy(region);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buffers_are_apart),
		cmocka_unit_test(test_all_or_none),
		cmocka_unit_test(test_refused_ranges),
		cmocka_unit_test(test_shared_by_threads),
	};

	return cmocka_run_group_tests(tests, open_region, close_region);
}
