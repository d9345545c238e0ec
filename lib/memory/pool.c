/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools: an rte_mempool whose objects lie in a region. The pool's own bookkeeping is EAL memory;
 * only the buffers and their 64-byte headers are in the region.
 *
 * EAL has caches only for threads of its own. A thread has one of a few of ours instead, mostly for
 * itself: its line stays with its core, where the mempool's ring goes from core to core. When the
 * mempool has too few all caches are emptied into it, so none is lost to whoever asks.
 */
#include "memory/pool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_errno.h>

#include "base/log.h"
#include "base/random.h"
#include "base/tsan.h"
#include "memory/heap.h"
#include "memory/region.h"

#define POOL_BURST 32
#define POOL_ALIGN 64
#define POOL_FLAGS (RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG)

#define POOL_CACHES 8u /* threads share one where there are more */
#define POOL_CACHED 32u

struct pool_cache {
	_Alignas(64) _Atomic bool taken; /* by a thread that looks into it */
	struct rte_mempool_cache of;
};

static int populate(struct slu_pool *pool, char *start, uint64_t length, uint32_t count)
{
	int rc = rte_mempool_populate_iova(pool->mempool, start, RTE_BAD_IOVA, length, NULL, NULL);

	if (rc < 0)
		return fail(rc == -ENOSPC ? -ENOSPC : -ENOMEM, "cannot fill the pool: %s",
			    rte_strerror(-rc));
	if ((uint32_t)rc < count)
		return fail(-ENOSPC, "the range holds %d buffers, %u are wanted", rc, count);
	return 0;
}

/* Entered into the heap. Processes may share an EAL, and with it the names. */
static struct rte_mempool *mempool_create(uint32_t buffer_bytes, uint32_t count)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	struct rte_mempool *mempool;
	int socket;

	if (heap_socket(sizeof(struct rte_mempool) + 2 * sizeof(void *) * (size_t)count, &socket) <
	    0) {
		rte_errno = ENOMEM;
		return NULL;
	}
	snprintf(name, sizeof(name), "slu_pool_%016" PRIx64, random_word());
	mempool = rte_mempool_create_empty(name, count, buffer_bytes, 0, 0, socket, POOL_FLAGS);
	/* The default ring makes every thread spin for one that lost its CPU in the middle. */
	if (mempool && rte_mempool_set_ops_byname(mempool, "ring_mt_rts", NULL) < 0) {
		rte_mempool_free(mempool);
		return NULL;
	}
	return mempool;
}

uint64_t pool_bytes(uint32_t buffer_bytes, uint32_t count)
{
	return (uint64_t)count * rte_mempool_calc_obj_size(buffer_bytes, POOL_FLAGS, NULL);
}

static int make(struct slu_pool *pool, char *start, uint64_t length, uint32_t buffer_bytes,
		uint32_t count)
{
	pool->mempool = mempool_create(buffer_bytes, count);
	return pool->mempool ? populate(pool, start, length, count)
			     : fail(-ENOMEM, "cannot make a pool: %s", rte_strerror(rte_errno));
}

int pool_open(struct slu_region *region, uint64_t offset_bytes, uint64_t length_bytes,
	      uint32_t buffer_bytes, uint32_t count, struct slu_pool **out)
{
	struct slu_pool *pool;
	int rc;

	if (offset_bytes % POOL_ALIGN || offset_bytes > region->length ||
	    length_bytes > region->length - offset_bytes)
		return fail(-EINVAL, "the pool's range is unaligned or outside its region");
	if (buffer_bytes == 0 || buffer_bytes > UINT32_MAX / 2 || count == 0)
		return fail(-EINVAL, "a pool needs buffers of 1 byte to 2 GiB, and at least one");
	pool = calloc(1, sizeof(*pool));
	if (!pool)
		return fail(-ENOMEM, "out of memory");
	pool->base = region->addr;
	heap_enter();
	rc = make(pool, region->addr + offset_bytes, length_bytes, buffer_bytes, count);
	heap_leave();
	if (rc < 0) {
		slu_pool_close(pool);
		return rc;
	}
	*out = pool;
	return 0;
}

/* Nobody finds a cache to himself, and whoever finds none looks whether he is the child. */
static void shut_in_child(struct fork_hook *hook)
{
	struct slu_pool *pool =
		(struct slu_pool *)((char *)hook - offsetof(struct slu_pool, forked));

	for (uint32_t i = 0; i < POOL_CACHES; i++)
		atomic_store(&pool->caches[i].taken, true);
}

int slu_pool_open(struct slu_region *region, uint64_t offset_bytes, uint64_t length_bytes,
		  uint32_t buffer_bytes, uint32_t count, struct slu_pool **out)
{
	struct pool_cache *caches;
	int rc = fork_check();

	if (rc < 0)
		return rc;
	caches = aligned_alloc(64, POOL_CACHES * sizeof(*caches));
	if (!caches)
		return fail(-ENOMEM, "out of memory");
	for (uint32_t i = 0; i < POOL_CACHES; i++) {
		caches[i].taken = false;
		caches[i].of.len = 0;
		caches[i].of.size = POOL_CACHED;
		caches[i].of.flushthresh = POOL_CACHED * 3 / 2;
	}
	rc = pool_open(region, offset_bytes, length_bytes, buffer_bytes, count, out);
	if (rc < 0) {
		free(caches);
		return rc;
	}
	(*out)->caches = caches;
	(*out)->forked.in_child = shut_in_child;
	fork_watch(&(*out)->forked);
	return 0;
}

void slu_pool_close(struct slu_pool *pool)
{
	if (!pool || fork_is_child())
		return;
	fork_unwatch(&pool->forked);
	heap_enter();
	rte_mempool_free(pool->mempool);
	heap_leave();
	free(pool->caches);
	free(pool);
}

/* ---- caches ---- */

/* @return the thread's, until leave(); NULL: another thread, which shares it, has it now */
static struct pool_cache *enter(struct pool_cache *cache)
{
	/* Pairs with the release in leave(). */
	return atomic_exchange_explicit(&cache->taken, true, memory_order_acquire) ? NULL : cache;
}

static void leave(struct pool_cache *cache)
{
	if (cache)
		atomic_store_explicit(&cache->taken, false, memory_order_release);
}

static struct pool_cache *own_cache(const struct slu_pool *pool)
{
	static _Atomic uint32_t threads;
	static _Thread_local uint32_t number; /* from 1; 0: it has none yet */

	if (__builtin_expect(number == 0, 0))
		number = 1 + atomic_fetch_add(&threads, 1) % POOL_CACHES;
	return enter(&pool->caches[number - 1]);
}

static void empty_caches(const struct slu_pool *pool)
{
	for (uint32_t i = 0; i < POOL_CACHES; i++) {
		struct pool_cache *cache = enter(&pool->caches[i]);

		if (cache)
			rte_mempool_cache_flush(&cache->of, pool->mempool);
		leave(cache);
	}
}

static int take(const struct slu_pool *pool, void **buffers, uint32_t n)
{
	struct pool_cache *cache = own_cache(pool);
	int rc;

	if (__builtin_expect(!cache, 0) && fork_is_child())
		return -ECHILD;
	rc = rte_mempool_generic_get(pool->mempool, buffers, n, cache ? &cache->of : NULL);
	leave(cache);
	if (__builtin_expect(rc == 0, 1))
		return 0;
	empty_caches(pool);
	return rte_mempool_generic_get(pool->mempool, buffers, n, NULL);
}

static void give(const struct slu_pool *pool, void *const *buffers, uint32_t n)
{
	struct pool_cache *cache = own_cache(pool);

	if (__builtin_expect(!cache, 0) && fork_is_child())
		return;
	rte_mempool_generic_put(pool->mempool, buffers, n, cache ? &cache->of : NULL);
	leave(cache);
}

/* ---- the hot path ---- */

int slu_pool_get(struct slu_pool *pool, uint64_t *offsets, uint32_t n)
{
	void *buffers[POOL_BURST];
	uint32_t got = 0;

	while (got < n) {
		uint32_t burst = n - got < POOL_BURST ? n - got : POOL_BURST;

		if (take(pool, buffers, burst) < 0) {
			slu_pool_put(pool, offsets, got);
			return fork_is_child() ? fork_refuse() : -ENOBUFS;
		}
		for (uint32_t i = 0; i < burst; i++) {
			tsan_taken(buffers[i]);
			offsets[got + i] = (uint64_t)((char *)buffers[i] - pool->base);
		}
		got += burst;
	}
	return 0;
}

void slu_pool_put(struct slu_pool *pool, const uint64_t *offsets, uint32_t n)
{
	void *buffers[POOL_BURST];
	uint32_t put = 0;

	while (put < n) {
		uint32_t burst = n - put < POOL_BURST ? n - put : POOL_BURST;

		for (uint32_t i = 0; i < burst; i++) {
			buffers[i] = pool->base + offsets[put + i];
			tsan_given(buffers[i]);
		}
		give(pool, buffers, burst);
		put += burst;
	}
}
