/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Pools as the rest of the library sees them: an rte_mempool over part of a region. Threads that
 * share one find what they gave back in caches, of which there is none in a pool that is opened
 * here: whoever does that has its own.
 */
#ifndef MEMORY_POOL_H
#define MEMORY_POOL_H

#include <stdint.h>

#include <rte_mempool.h>

#include <sluice/memory.h>

#include "base/fork.h"

struct pool_cache;

struct slu_pool {
	struct rte_mempool *mempool;
	char *base;                /* of the region */
	struct pool_cache *caches; /* NULL: none */
	struct fork_hook forked;   /* with caches */
};

/** As slu_pool_open(), without caches. */
int pool_open(struct slu_region *region, uint64_t offset_bytes, uint64_t length_bytes,
	      uint32_t buffer_bytes, uint32_t count, struct slu_pool **pool);

/** What @p count buffers of @p buffer_bytes take of a region. */
uint64_t pool_bytes(uint32_t buffer_bytes, uint32_t count);

#endif
