/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/random.h"
#include "engine/engine_internal.h"
#include "tests/tap.h"

#define PAGE  PAGE_ORDINARY_BYTES
#define PAGES 64u

static struct slu_engine *engine;
static char *memory;
static struct slu_cache *cache;

static struct slu_cache_info info(void)
{
	struct slu_cache_info info = {.size = sizeof(info)};

	assert_int_equal(slu_cache_get_info(cache, &info), 0);
	return info;
}

static void open_cache(uint32_t ranges_max, uint64_t bytes_max)
{
	struct slu_cache_options options;

	slu_cache_options_init(&options, sizeof(options));
	options.ranges_max = ranges_max;
	options.bytes_max = bytes_max;
	assert_int_equal(slu_cache_open(engine, &options, &cache), 0);
}

static uint32_t regions(void)
{
	struct slu_region *region;
	uint32_t count = 0;

	pthread_mutex_lock(&engine->lock);
	LIST_FOREACH (region, &engine->regions, link)
		count++;
	pthread_mutex_unlock(&engine->lock);
	return count;
}

/* What it leaves behind is nothing. */
static void close_cache(void)
{
	slu_cache_close(cache);
	assert_int_equal(regions(), 0);
}

/* It covers what was asked for. */
static struct slu_region *get(uint64_t at, uint64_t length)
{
	struct slu_region *region;
	uint64_t offset;

	assert_int_equal(slu_cache_get(cache, memory + at, length, &region, &offset), 0);
	assert_ptr_equal((char *)slu_region_addr(region) + offset, memory + at);
	assert_true(offset + length <= region->length);
	return region;
}

static struct slu_region *get_page(uint32_t page)
{
	return get(page * PAGE, PAGE);
}

static void put(struct slu_region *region)
{
	slu_cache_put(cache, region);
}

static int get_in_vain(uint64_t at, uint64_t length)
{
	struct slu_region *region = NULL;
	uint64_t offset;
	int rc = slu_cache_get(cache, memory + at, length, &region, &offset);

	assert_null(region);
	return rc;
}

/* Goal: what is covered is found again, as are neighbours in the same pages; what is not is
 * registered. */
static void test_finds(void **state)
{
	struct slu_region *first, *other;

	(void)state;
	open_cache(0, 0);
	first = get(2 * PAGE + 100, 3 * PAGE);
	assert_int_equal(first->length, 4 * PAGE);
	put(first);
	assert_ptr_equal(get(2 * PAGE, 1), first);
	assert_ptr_equal(get(6 * PAGE - 1, 1), first);
	other = get(6 * PAGE - 1, 2);
	assert_ptr_not_equal(other, first);
	assert_ptr_equal(get(6 * PAGE - 1, 1), other);
	assert_ptr_equal(get(4 * PAGE, PAGE), first);
	assert_int_equal(info().hits, 4);
	assert_int_equal(info().misses, 2);
	assert_int_equal(info().ranges, 2);
	assert_int_equal(info().ranges_used, 2);
	assert_int_equal(info().bytes, 6 * PAGE);
	for (int i = 0; i < 3; i++)
		put(first);
	put(other);
	put(other);
	assert_int_equal(info().ranges_used, 0);
	close_cache();
}

/* Goal: a longer range takes the place of those that it covers, of which one in use stays what it
 * is until it is put. */
static void test_covers(void **state)
{
	struct slu_region *used, *whole;

	(void)state;
	open_cache(0, 0);
	used = get(10 * PAGE, 2 * PAGE);
	put(get_page(13));
	put(get(9 * PAGE, 2 * PAGE)); /* at the front of it, and beyond */
	whole = get(10 * PAGE, 5 * PAGE);
	assert_int_equal(info().ranges, 3);
	assert_int_equal(info().bytes, 9 * PAGE);
	assert_ptr_equal(get_page(10), whole);
	assert_ptr_equal(used->addr, memory + 10 * PAGE);
	put(used);
	assert_int_equal(info().ranges, 2);
	assert_int_equal(regions(), 2);
	put(whole);
	put(whole);
	close_cache();
}

/* Goal: within either bound what was not used for the longest time goes first, and what is in use
 * never. */
static void test_evicts(void **state)
{
	struct slu_region *held, *first;

	(void)state;
	for (int by_bytes = 0; by_bytes <= 1; by_bytes++) {
		open_cache(by_bytes ? 0 : 4, by_bytes ? 4 * PAGE : 0);
		held = get_page(0);
		first = get_page(2);
		put(first);
		put(get_page(4));
		put(get_page(6));
		assert_ptr_equal(get_page(2), first); /* later than the others */
		put(first);
		put(get_page(8)); /* 4 goes */
		assert_int_equal(info().evictions, 1);
		assert_int_equal(info().ranges, 4);
		put(get_page(6));
		put(get_page(2));
		put(get_page(8));
		assert_int_equal(info().evictions, 1);
		put(get_page(4)); /* 6 goes */
		put(get_page(2));
		assert_int_equal(info().evictions, 2);
		assert_ptr_equal(get_page(0), held);
		put(held);
		put(held);
		assert_int_equal(regions(), 4);
		close_cache();
	}
}

/* Goal: for a long one as many go as it takes, the oldest first. */
static void test_evicts_several(void **state)
{
	(void)state;
	open_cache(0, 5 * PAGE);
	for (uint32_t page = 0; page < 10; page += 2)
		put(get_page(page));
	put(get_page(0));
	put(get(20 * PAGE, 3 * PAGE)); /* 2, 4 and 6 go */
	assert_int_equal(info().evictions, 3);
	put(get_page(0));
	put(get_page(8));
	assert_int_equal(info().misses, 6);
	assert_int_equal(regions(), 3);
	close_cache();
}

/* Goal: where nothing can be let go, and for what is longer than all of it, it says so. */
static void test_full(void **state)
{
	struct slu_region *held[2];

	(void)state;
	open_cache(2, 3 * PAGE);
	held[0] = get_page(0);
	assert_int_equal(get_in_vain(8 * PAGE, 4 * PAGE), -ENOSPC);
	assert_int_equal(get_in_vain(8 * PAGE, 3 * PAGE), -ENOSPC);
	held[1] = get_page(2);
	assert_int_equal(get_in_vain(4 * PAGE, PAGE), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "beside what is in use"));
	put(held[1]);
	put(get_page(4));
	put(held[0]);
	close_cache();
}

/* Goal: what is invalidated is found no more; what is in use goes when it is put, and until then
 * that is said. */
static void test_invalidates(void **state)
{
	struct slu_region *used, *again;

	(void)state;
	open_cache(0, 0);
	for (uint32_t page = 0; page < 10; page += 2)
		put(get_page(page));
	assert_int_equal(slu_cache_invalidate(cache, memory + 2 * PAGE, 3 * PAGE), 0);
	assert_int_equal(info().ranges, 3);
	assert_int_equal(slu_cache_invalidate(cache, memory + PAGE, PAGE), 0);
	assert_int_equal(info().ranges, 3);
	used = get_page(6);
	assert_int_equal(slu_cache_invalidate(cache, memory, PAGES * PAGE), -EBUSY);
	assert_int_equal(info().ranges, 1);
	assert_int_equal(slu_cache_invalidate(cache, memory, 6 * PAGE), 0);
	again = get_page(6);
	assert_ptr_not_equal(again, used);
	put(again);
	assert_int_equal(slu_cache_invalidate(cache, memory + 6 * PAGE, 1), -EBUSY);
	put(used);
	assert_int_equal(slu_cache_invalidate(cache, memory + 6 * PAGE, 1), 0);
	assert_int_equal(info().ranges, 0);
	assert_int_equal(info().bytes, 0);
	assert_int_equal(info().invalidations, 6);
	close_cache();
}

/* Goal: a range that was unmapped and mapped anew is registered anew, in the middle of another that
 * is in use as well. */
static void test_part_is_unmapped(void **state)
{
	struct slu_region *used, *other;

	(void)state;
	open_cache(0, 0);
	used = get(20 * PAGE, 8 * PAGE);
	assert_int_equal(slu_cache_invalidate(cache, memory + 23 * PAGE, PAGE), -EBUSY);
	other = get_page(21);
	assert_ptr_not_equal(other, used);
	put(used);
	assert_int_equal(slu_cache_invalidate(cache, memory + 23 * PAGE, PAGE), 0);
	assert_ptr_equal(get_page(21), other);
	put(other);
	put(other);
	close_cache();
}

/* Goal: bad ranges and bad options are refused. */
static void test_refuses(void **state)
{
	struct slu_cache_options options;
	struct slu_cache *untouched = NULL;
	struct slu_region *region;
	uint64_t offset;

	(void)state;
	open_cache(0, 0);
	assert_int_equal(get_in_vain(0, 0), -EINVAL);
	assert_int_equal(get_in_vain(0, UINT64_MAX), -EINVAL);
	assert_int_equal(slu_cache_get(cache, NULL, 1, &region, &offset), -EINVAL);
	assert_int_equal(slu_cache_get(cache, (void *)(UINTPTR_MAX - 10), 4, &region, &offset),
			 -EINVAL);
	assert_int_equal(slu_cache_invalidate(cache, memory, 0), -EINVAL);
	slu_cache_options_init(&options, sizeof(options));
	options.ranges_max = SLU_CACHE_RANGES_MAX + 1;
	assert_int_equal(slu_cache_open(engine, &options, &untouched), -EINVAL);
	slu_cache_options_init(&options, sizeof(options));
	options.reserved = 1;
	assert_int_equal(slu_cache_open(engine, &options, &untouched), -E2BIG);
	slu_cache_options_init(&options, sizeof(options));
	options.size--;
	assert_int_equal(slu_cache_open(engine, &options, &untouched), -EINVAL);
	assert_null(untouched);
	close_cache();
}

#define HELD 12u

/* Goal: through any history each region that is got covers its bytes, none goes that is in use, and
 * the bounds hold. */
static void test_any_history(void **state)
{
	struct slu_region *held[HELD] = {0};
	const char *seed = getenv("SEED");
	struct random random = {.state = seed ? strtoull(seed, NULL, 0) : random_word()};
	uint64_t before = 0;

	(void)state;
	tap_comment("seed: SEED=%llu", (unsigned long long)random.state);
	open_cache(16, 40 * PAGE);
	for (uint32_t step = 0; step < 20000; step++) {
		uint32_t slot = (uint32_t)random_below(&random, HELD);
		uint64_t at = random_below(&random, PAGES * PAGE - 1);
		uint64_t length = 1 + random_below(&random, 4 * PAGE);
		struct slu_region *region;
		uint64_t offset;

		if (length > PAGES * PAGE - at)
			length = PAGES * PAGE - at;
		if (held[slot]) {
			put(held[slot]);
			held[slot] = NULL;
		} else if (random_below(&random, 10) == 0) {
			slu_cache_invalidate(cache, memory + at, length);
		} else if (slu_cache_get(cache, memory + at, length, &region, &offset) == 0) {
			assert_ptr_equal(region->addr + offset, memory + at);
			assert_true(offset + length <= region->length);
			held[slot] = region;
		}
		assert_true(info().ranges <= 16 && info().bytes <= 40 * PAGE);
		assert_int_equal(info().ranges, regions());
		before += info().evictions > 0;
	}
	assert_true(before > 0 && info().hits > 0 && info().invalidations > 0);
	for (uint32_t i = 0; i < HELD; i++)
		if (held[i])
			put(held[i]);
	assert_int_equal(slu_cache_invalidate(cache, memory, PAGES * PAGE), 0);
	assert_int_equal(regions(), 0);
	close_cache();
}

static void *use_it(void *arg)
{
	struct random random = {.state = (uintptr_t)arg};

	for (uint32_t step = 0; step < 3000; step++) {
		uint64_t at = random_below(&random, PAGES * PAGE - 2 * PAGE);
		struct slu_region *region;
		uint64_t offset;

		if (random_below(&random, 20) == 0) {
			slu_cache_invalidate(cache, memory + at, 2 * PAGE);
			continue;
		}
		if (slu_cache_get(cache, memory + at, PAGE, &region, &offset) < 0)
			continue;
		if (region->addr + offset != memory + at || region->length - offset < PAGE)
			abort();
		slu_cache_put(cache, region);
	}
	return NULL;
}

/* Goal: several threads get, put and invalidate the same memory, and nothing is lost. */
static void test_threads(void **state)
{
	pthread_t threads[4];

	(void)state;
	open_cache(8, 0);
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_it, (void *)(i + 1)), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(info().ranges_used, 0);
	assert_int_equal(info().ranges, regions());
	assert_true(info().ranges <= 8);
	assert_int_equal(slu_cache_invalidate(cache, memory, PAGES * PAGE), 0);
	close_cache();
}

/* Goal: the engine takes along what was not closed. */
static void test_closed_by_the_engine(void **state)
{
	(void)state;
	open_cache(0, 0);
	put(get_page(1));
	get_page(2);
	slu_engine_close(engine);
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
}

static int setup(void **state)
{
	(void)state;
	memory = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		      0);
	return memory == MAP_FAILED ? -1 : slu_engine_open(NULL, &engine);
}

static int teardown(void **state)
{
	(void)state;
	slu_engine_close(engine);
	munmap(memory, PAGES * PAGE);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds),
		cmocka_unit_test(test_covers),
		cmocka_unit_test(test_evicts),
		cmocka_unit_test(test_evicts_several),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_invalidates),
		cmocka_unit_test(test_part_is_unmapped),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_any_history),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_closed_by_the_engine),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
