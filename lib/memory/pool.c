/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools: an rte_mempool whose objects lie in a region. The pool's own bookkeeping is EAL memory;
 * only the buffers and their 64-byte headers are in the region.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <rte_errno.h>
#include <rte_mempool.h>

#include "base/log.h"
#include "memory/heap.h"
#include "memory/region.h"

#define POOL_BURST 32
#define POOL_ALIGN 64

struct slu_pool {
	struct rte_mempool *mempool;
	char *base; /* of the region */
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

static struct rte_mempool *mempool_create(uint32_t buffer_bytes, uint32_t count)
{
	static _Atomic uint32_t serial;
	int socket = heap_socket(sizeof(struct rte_mempool) + 2 * sizeof(void *) * (size_t)count);
	char name[RTE_MEMPOOL_NAMESIZE];
	struct rte_mempool *mempool;

	if (socket < 0) {
		rte_errno = ENOMEM;
		return NULL;
	}
	snprintf(name, sizeof(name), "slu_pool_%u", atomic_fetch_add(&serial, 1));
	mempool = rte_mempool_create_empty(name, count, buffer_bytes, 0, 0, socket,
					   RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG);
	/* The default ring makes every thread spin for one that lost its CPU in the middle. */
	if (mempool && rte_mempool_set_ops_byname(mempool, "ring_mt_rts", NULL) < 0) {
		rte_mempool_free(mempool);
		return NULL;
	}
	return mempool;
}

int slu_pool_open(struct slu_region *region, uint64_t offset_bytes, uint64_t length_bytes,
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
	pool->mempool = mempool_create(buffer_bytes, count);
	if (!pool->mempool) {
		free(pool);
		return fail(-ENOMEM, "cannot make a pool: %s", rte_strerror(rte_errno));
	}
	rc = populate(pool, region->addr + offset_bytes, length_bytes, count);
	if (rc < 0) {
		slu_pool_close(pool);
		return rc;
	}
	*out = pool;
	return 0;
}

void slu_pool_close(struct slu_pool *pool)
{
	if (!pool)
		return;
	rte_mempool_free(pool->mempool);
	free(pool);
}

int slu_pool_get(struct slu_pool *pool, uint64_t *offsets, uint32_t n)
{
	void *buffers[POOL_BURST];
	uint32_t got = 0;

	while (got < n) {
		uint32_t burst = n - got < POOL_BURST ? n - got : POOL_BURST;

		if (rte_mempool_get_bulk(pool->mempool, buffers, burst) < 0) {
			slu_pool_put(pool, offsets, got);
			return -ENOBUFS;
		}
		for (uint32_t i = 0; i < burst; i++)
			offsets[got + i] = (uint64_t)((char *)buffers[i] - pool->base);
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

		for (uint32_t i = 0; i < burst; i++)
			buffers[i] = pool->base + offsets[put + i];
		rte_mempool_put_bulk(pool->mempool, buffers, burst);
		put += burst;
	}
}
