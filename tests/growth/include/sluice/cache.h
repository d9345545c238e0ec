/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A cache of registrations, for those who are handed any pointer: it finds a region that covers the
 * bytes, or registers one, and keeps it for the next who comes with them.
 *
 * It does not see what becomes of the memory: nothing is hooked. Whoever unmaps, or hands to an
 * allocator that does, memory that was ever passed to slu_cache_get() says so before, by
 * slu_cache_invalidate(). If he does not, and other memory comes to lie at those addresses, a
 * device goes on reading and writing the pages of before.
 *
 * Order of calls: slu_cache_open; slu_cache_get, operations with the region, and when their
 * completions were reaped slu_cache_put; slu_cache_invalidate before munmap; slu_cache_close.
 *
 * Memory is registered in whole pages of 4 KiB, so neighbours in one page find each other's. Ranges
 * are not joined: a longer one takes the place of those that it covers.
 */
#ifndef SLUICE_CACHE_H
#define SLUICE_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include <sluice/engine.h>
#include <sluice/export.h>
#include <sluice/memory.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_CACHE_RANGES_MAX 65536 /* of one cache */

struct slu_cache;

struct slu_cache_options {
	size_t size;
	uint64_t bytes_max;  /* registered at a time, in whole pages; 0 = unbounded */
	uint32_t ranges_max; /* 1..SLU_CACHE_RANGES_MAX; 0 = 4096 */
	uint32_t reserved;   /* zero */
};

struct slu_cache_info {
	size_t size;
	uint64_t bytes; /* registered now, with what is in use */
	uint64_t hits;
	uint64_t misses;        /* registered for, or in vain */
	uint64_t evictions;     /* ranges let go to make room */
	uint64_t invalidations; /* ranges let go, or to be, by slu_cache_invalidate() */
	uint32_t ranges;        /* registered now */
	uint32_t ranges_used;   /* of them got and not put */
};

/** Fill @p options, of which the caller has @p size bytes, with the defaults. */
SLU_API void slu_cache_options_init(struct slu_cache_options *options, size_t size);

/**
 * Open an empty one on @p engine. Any thread.
 *
 * @param options  NULL = the defaults
 * @return         0; -EINVAL bad options; -ENOMEM
 */
SLU_API int slu_cache_open(struct slu_engine *engine, const struct slu_cache_options *options,
			   struct slu_cache **cache);

/**
 * Let all go; accepts NULL. Every range must have been put. What is not closed when the engine is
 * closed is closed by that.
 */
SLU_API void slu_cache_close(struct slu_cache *cache);

/**
 * Find a region that covers the bytes, or register them. It stays until slu_cache_put().
 *
 * Where one is found: no system call, unless others register or let go at this moment; time by the
 * logarithm of the number of ranges. Else as slu_region_register(), after those that were not used
 * for the longest time were let go, if that is needed to stay within the bounds. Any thread.
 *
 * @param addr, length_bytes  mapped until the region is put, and after that until it is invalidated
 * @param region              out: for slu_op.region; never to be closed or exported
 * @param offset_bytes        out: of @p addr in it, for slu_op.local_offset
 * @return  0; -EINVAL an empty or wrapping range; -ENOSPC the bounds leave no room beside what is
 * in use; -ENOMEM, -errno as slu_region_register()
 */
SLU_API int slu_cache_get(struct slu_cache *cache, void *addr, uint64_t length_bytes,
			  struct slu_region **region, uint64_t *offset_bytes);

/** Once for each slu_cache_get(), when no operation names it any more. Any thread; cheap. */
SLU_API void slu_cache_put(struct slu_cache *cache, struct slu_region *region);

/**
 * The bytes are about to be unmapped: no range that touches them is found any more. Any thread.
 *
 * @return 0 none is registered either: unmap them; -EBUSY some are in use: they go when they are
 *         put, and only when a further call says 0 may the bytes be unmapped; -EINVAL an empty or
 *         wrapping range
 */
SLU_API int slu_cache_invalidate(struct slu_cache *cache, const void *addr, uint64_t length_bytes);

/** Set @p info.size before. Any thread. @return 0; -EINVAL */
SLU_API int slu_cache_get_info(struct slu_cache *cache, struct slu_cache_info *info);

#ifdef __cplusplus
}
#endif

#endif
