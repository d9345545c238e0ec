/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Registrations by address. Of the ranges that are found none covers another, so that in the order
 * of their beginnings they are in that of their ends as well: of those that begin at or before an
 * address the last one reaches furthest, and is the only one to be looked at.
 *
 * Who finds, and who puts, holds the lock for reading; who changes the table holds it for writing,
 * and never while a region is registered or closed, which takes devices their time. So room for
 * what is to be registered is taken before, and what is to be closed is taken out: by whoever holds
 * changing until it is closed, so that what invalidate() does not find is not registered either.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/sized.h"
#include "engine/engine_internal.h"

#define RANGES_DEFAULT 4096u

/* One that was registered. */
struct range {
	uintptr_t begin; /* whole pages */
	uintptr_t end;
	struct slu_region *region;
	_Atomic uint32_t users;
	bool leaves;            /* the table */
	bool stale;             /* not in the table: goes with its last user */
	_Atomic uint64_t used;  /* last, by the count of gets */
	LIST_ENTRY(range) link; /* of the stale, or of what is about to be closed */
};

LIST_HEAD(range_list, range);

struct slu_cache {
	struct slu_engine *engine;
	uint64_t bytes_max;
	uint32_t ranges_max;
	pthread_mutex_t changing; /* taken before lock */
	pthread_rwlock_t lock;    /* of what follows, but for the atomic counters */
	struct range **table;     /* ranges_max, in order */
	uint32_t count;           /* in it */
	uint32_t leaving;         /* of them */
	struct range **order;     /* likewise: those that may be let go */
	uint32_t ranges;          /* with the stale, and with those that are being registered */
	uint64_t bytes;           /* likewise */
	struct range_list stale;
	uint64_t entered; /* of the gets, those for which something was registered */
	uint64_t evictions;
	uint64_t invalidations;
	_Atomic uint64_t gets;
	_Atomic uint64_t misses;
	LIST_ENTRY(slu_cache) link; /* of the engine's */
};

static const struct slu_cache_options default_options = {.ranges_max = RANGES_DEFAULT};

static const struct sized sized_options = {SIZED(slu_cache_options, reserved),
					   SIZED_RESERVED(slu_cache_options),
					   .defaults = &default_options};
static const struct sized sized_info = {SIZED(slu_cache_info, ranges_used)};

void slu_cache_options_init(struct slu_cache_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

/* ---- the table; under the lock ---- */

/* @return how many begin at or before @p addr */
static uint32_t count_until(const struct slu_cache *cache, uintptr_t addr)
{
	uint32_t low = 0, high = cache->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (cache->table[middle]->begin <= addr)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct range *find(const struct slu_cache *cache, uintptr_t begin, uintptr_t end)
{
	uint32_t until = count_until(cache, begin);

	return until > 0 && cache->table[until - 1]->end >= end ? cache->table[until - 1] : NULL;
}

static void give_room(struct slu_cache *cache, uint64_t bytes)
{
	cache->ranges--;
	cache->bytes -= bytes;
}

/* Out of the table with the next sweep, and what nobody uses is room from now on. */
static void leave(struct slu_cache *cache, struct range *range)
{
	range->leaves = true;
	range->stale = atomic_load(&range->users) > 0;
	if (!range->stale)
		give_room(cache, range->end - range->begin);
	cache->leaving++;
}

/* To be closed is what nobody uses; of the rest each when its last user has put it. */
static void sweep(struct slu_cache *cache, struct range_list *closing)
{
	uint32_t kept = 0;

	if (cache->leaving == 0)
		return;
	for (uint32_t i = 0; i < cache->count; i++) {
		struct range *range = cache->table[i];

		if (!range->leaves)
			cache->table[kept++] = range;
		else
			LIST_INSERT_HEAD(range->stale ? &cache->stale : closing, range, link);
	}
	cache->count = kept;
	cache->leaving = 0;
}

/* Those that it covers go: none that is found may cover another. */
static void insert(struct slu_cache *cache, struct range *range, struct range_list *closing)
{
	uint32_t at = count_until(cache, range->begin);

	if (at > 0 && cache->table[at - 1]->begin == range->begin)
		at--;
	for (uint32_t i = at; i < cache->count && cache->table[i]->end <= range->end; i++)
		leave(cache, cache->table[i]);
	sweep(cache, closing); /* behind it, so its place stays */
	memmove(&cache->table[at + 1], &cache->table[at], (cache->count - at) * sizeof(range));
	cache->table[at] = range;
	cache->count++;
}

/* For what is no longer than all of it. */
static bool has_room(const struct slu_cache *cache, uint64_t bytes)
{
	return cache->ranges < cache->ranges_max &&
	       (cache->bytes_max == 0 || cache->bytes <= cache->bytes_max - bytes);
}

static bool is_unused(const struct range *range)
{
	return !range->leaves && atomic_load_explicit(&range->users, memory_order_relaxed) == 0;
}

static struct range *find_oldest(const struct slu_cache *cache)
{
	struct range *oldest = NULL;

	for (uint32_t i = 0; i < cache->count; i++) {
		struct range *range = cache->table[i];

		if (is_unused(range) && (!oldest || range->used < oldest->used))
			oldest = range;
	}
	return oldest;
}

static int by_age(const void *a, const void *b)
{
	const struct range *one = *(struct range *const *)a, *other = *(struct range *const *)b;

	return (one->used > other->used) - (one->used < other->used);
}

/* @return how many nobody uses, in order; those that were not used for the longest time first */
static uint32_t sort_unused(const struct slu_cache *cache)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < cache->count; i++)
		if (is_unused(cache->table[i]))
			cache->order[count++] = cache->table[i];
	qsort(cache->order, count, sizeof(cache->order[0]), by_age);
	return count;
}

static void evict(struct slu_cache *cache, struct range *range)
{
	leave(cache, range);
	cache->evictions++;
}

/* One as a rule, and is looked for; for many they are put in order once. */
static void make_room(struct slu_cache *cache, uint64_t bytes)
{
	struct range *oldest = find_oldest(cache);
	uint32_t count;

	if (!oldest)
		return;
	evict(cache, oldest);
	if (has_room(cache, bytes))
		return;
	count = sort_unused(cache);
	for (uint32_t i = 0; i < count && !has_room(cache, bytes); i++)
		evict(cache, cache->order[i]);
}

/* @return 0; -ENOSPC */
static int take_room(struct slu_cache *cache, uint64_t bytes, struct range_list *closing)
{
	if (cache->bytes_max && bytes > cache->bytes_max)
		return -ENOSPC;
	if (!has_room(cache, bytes))
		make_room(cache, bytes);
	sweep(cache, closing);
	if (!has_room(cache, bytes))
		return -ENOSPC;
	cache->ranges++;
	cache->bytes += bytes;
	return 0;
}

/* ---- regions ---- */

/* Under changing and lock, which it gives back; changing when all is closed. */
static void close_all(struct slu_cache *cache, struct range_list *closing)
{
	struct range *range;

	pthread_rwlock_unlock(&cache->lock);

	while ((range = LIST_FIRST(closing))) {
		LIST_REMOVE(range, link);
		slu_region_close(range->region);
		free(range);
	}
	pthread_mutex_unlock(&cache->changing);
}

static void change(struct slu_cache *cache)
{
	pthread_mutex_lock(&cache->changing);
	pthread_rwlock_wrlock(&cache->lock);
}

static int make(struct slu_cache *cache, uintptr_t begin, uintptr_t end, struct range **out)
{
	struct range *range = calloc(1, sizeof(*range));
	int rc;

	if (!range)
		return fail(-ENOMEM, "out of memory");
	rc = slu_region_register(cache->engine, (void *)begin, end - begin, &range->region);
	if (rc < 0) {
		free(range);
		return rc;
	}
	range->begin = begin;
	range->end = end;
	range->region->cached = range;
	*out = range;
	return 0;
}

/* Whole pages around it. */
static int round_out(const void *addr, uint64_t length, uintptr_t *begin, uintptr_t *end)
{
	uintptr_t at = (uintptr_t)addr, page = PAGE_ORDINARY_BYTES;

	if (!addr || length == 0 || at + length < at || at + length > UINTPTR_MAX - page)
		return fail(-EINVAL, "an empty or wrapping range of memory");
	*begin = at & ~(page - 1);
	*end = (at + length + page - 1) & ~(page - 1);
	return 0;
}

/* Under the lock, for reading at least. */
static struct slu_region *use(struct slu_cache *cache, struct range *range)
{
	uint64_t turn = atomic_fetch_add_explicit(&cache->gets, 1, memory_order_relaxed);

	atomic_fetch_add_explicit(&range->users, 1, memory_order_relaxed);
	atomic_store_explicit(&range->used, turn, memory_order_relaxed);
	return range->region;
}

static struct slu_region *get_known(struct slu_cache *cache, uintptr_t begin, uintptr_t end)
{
	struct slu_region *region = NULL;
	struct range *range;

	pthread_rwlock_rdlock(&cache->lock);
	range = find(cache, begin, end);
	if (range)
		region = use(cache, range);
	pthread_rwlock_unlock(&cache->lock);
	return region;
}

static int reserve(struct slu_cache *cache, uint64_t bytes)
{
	struct range_list closing = LIST_HEAD_INITIALIZER(closing);
	int rc;

	change(cache);
	rc = take_room(cache, bytes, &closing);
	close_all(cache, &closing);
	return rc < 0 ? fail(rc,
			     "the cache of registrations has no room for %lu KiB beside what is in "
			     "use: put ranges when operations are done, or raise its bounds",
			     bytes >> 10)
		      : 0;
}

/* Somebody else may have been faster: then his is used. */
static struct slu_region *enter(struct slu_cache *cache, struct range *range)
{
	struct range_list closing = LIST_HEAD_INITIALIZER(closing);
	struct slu_region *region;
	struct range *found;

	change(cache);
	found = find(cache, range->begin, range->end);
	region = use(cache, found ? found : range);
	cache->entered++;
	if (found) {
		LIST_INSERT_HEAD(&closing, range, link);
		give_room(cache, range->end - range->begin);
	} else {
		insert(cache, range, &closing);
	}
	close_all(cache, &closing);
	return region;
}

static int get_new(struct slu_cache *cache, uintptr_t begin, uintptr_t end,
		   struct slu_region **region)
{
	struct range *range = NULL;
	int rc = reserve(cache, end - begin);

	atomic_fetch_add_explicit(&cache->misses, 1, memory_order_relaxed);
	if (rc < 0)
		return rc;
	rc = make(cache, begin, end, &range);
	if (rc < 0) {
		pthread_rwlock_wrlock(&cache->lock);
		give_room(cache, end - begin);
		pthread_rwlock_unlock(&cache->lock);
		return rc;
	}
	*region = enter(cache, range);
	return 0;
}

int slu_cache_get(struct slu_cache *cache, void *addr, uint64_t length_bytes,
		  struct slu_region **out, uint64_t *offset_bytes)
{
	struct slu_region *region;
	uintptr_t begin = 0, end = 0;
	int rc = fork_check();

	if (rc == 0)
		rc = round_out(addr, length_bytes, &begin, &end);
	if (rc < 0)
		return rc;
	region = get_known(cache, begin, end);
	if (!region)
		rc = get_new(cache, begin, end, &region);
	if (rc < 0)
		return rc;
	*offset_bytes = (uint64_t)((char *)addr - region->addr);
	*out = region;
	return 0;
}

/*
 * Stale ones are found by nobody, so their users only become fewer: one of them is the last. What
 * is stale was made so under the lock for writing, when it had users, which is before this.
 */
void slu_cache_put(struct slu_cache *cache, struct slu_region *region)
{
	struct range_list closing = LIST_HEAD_INITIALIZER(closing);
	struct range *range = region->cached;
	bool last;

	if (fork_is_child())
		return;
	pthread_rwlock_rdlock(&cache->lock);
	/* What was done with it is before its closing: pairs with the others'. */
	last = atomic_fetch_sub_explicit(&range->users, 1, memory_order_acq_rel) == 1 &&
	       range->stale;
	pthread_rwlock_unlock(&cache->lock);
	if (!last)
		return;
	change(cache);
	LIST_REMOVE(range, link);
	LIST_INSERT_HEAD(&closing, range, link);
	give_room(cache, range->end - range->begin);
	close_all(cache, &closing);
}

/* ---- what becomes of the memory ---- */

/* Under the lock. */
static void take_out_touched(struct slu_cache *cache, uintptr_t begin, uintptr_t end,
			     struct range_list *closing)
{
	uint32_t at = count_until(cache, begin);

	while (at > 0 && cache->table[at - 1]->end > begin)
		at--;
	while (at < cache->count && cache->table[at]->begin < end) {
		leave(cache, cache->table[at++]);
		cache->invalidations++;
	}
	sweep(cache, closing);
}

static bool is_stale(const struct slu_cache *cache, uintptr_t begin, uintptr_t end)
{
	const struct range *range;

	LIST_FOREACH (range, &cache->stale, link)
		if (range->begin < end && range->end > begin)
			return true;
	return false;
}

int slu_cache_invalidate(struct slu_cache *cache, const void *addr, uint64_t length_bytes)
{
	struct range_list closing = LIST_HEAD_INITIALIZER(closing);
	uintptr_t begin = 0, end = 0;
	bool busy;
	int rc = fork_check();

	if (rc == 0)
		rc = round_out(addr, length_bytes, &begin, &end);
	if (rc < 0)
		return rc;
	change(cache);
	take_out_touched(cache, begin, end, &closing);
	busy = is_stale(cache, begin, end);
	close_all(cache, &closing);
	return busy ? fail(-EBUSY, "the memory is in use: put its ranges before it is unmapped")
		    : 0;
}

/* ---- the whole of it ---- */

static int take_options(struct slu_cache *cache, const struct slu_cache_options *given)
{
	struct slu_cache_options options;
	int rc = sized_take(&sized_options, given, &options);

	if (rc < 0)
		return rc;
	if (options.ranges_max > SLU_CACHE_RANGES_MAX)
		return fail(-EINVAL, "%u ranges, at most %d are possible", options.ranges_max,
			    SLU_CACHE_RANGES_MAX);
	cache->bytes_max = options.bytes_max;
	cache->ranges_max = options.ranges_max ? options.ranges_max : RANGES_DEFAULT;
	return 0;
}

/* Those who find must not keep out those who change. */
static void init_locks(struct slu_cache *cache)
{
	pthread_rwlockattr_t attributes;

	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&cache->lock, &attributes);
	pthread_rwlockattr_destroy(&attributes);
	pthread_mutex_init(&cache->changing, NULL);
}

static void cache_free(struct slu_cache *cache)
{
	if (!cache)
		return;
	free(cache->order);
	free(cache->table);
	free(cache);
}

int slu_cache_open(struct slu_engine *engine, const struct slu_cache_options *options,
		   struct slu_cache **out)
{
	struct slu_cache *cache;
	int rc = fork_check();

	if (rc < 0)
		return rc;
	cache = calloc(1, sizeof(*cache));
	rc = cache ? take_options(cache, options) : fail(-ENOMEM, "out of memory");
	if (rc == 0) {
		cache->table = calloc(cache->ranges_max, sizeof(cache->table[0]));
		cache->order = calloc(cache->ranges_max, sizeof(cache->order[0]));
		rc = cache->table && cache->order ? 0 : fail(-ENOMEM, "out of memory");
	}
	if (rc < 0) {
		cache_free(cache);
		return rc;
	}
	init_locks(cache);
	LIST_INIT(&cache->stale);
	cache->engine = engine;
	pthread_mutex_lock(&engine->lock);
	LIST_INSERT_HEAD(&engine->caches, cache, link);
	pthread_mutex_unlock(&engine->lock);
	*out = cache;
	return 0;
}

void slu_cache_close(struct slu_cache *cache)
{
	struct range_list closing = LIST_HEAD_INITIALIZER(closing);
	struct range *range;

	if (!cache || fork_is_child())
		return;
	pthread_mutex_lock(&cache->engine->lock);
	LIST_REMOVE(cache, link);
	pthread_mutex_unlock(&cache->engine->lock);
	change(cache);
	for (uint32_t i = 0; i < cache->count; i++)
		leave(cache, cache->table[i]);
	sweep(cache, &closing);
	while ((range = LIST_FIRST(&cache->stale))) {
		LIST_REMOVE(range, link);
		LIST_INSERT_HEAD(&closing, range, link);
	}
	close_all(cache, &closing);
	pthread_rwlock_destroy(&cache->lock);
	pthread_mutex_destroy(&cache->changing);
	cache_free(cache);
}

static uint32_t count_used(const struct slu_cache *cache)
{
	const struct range *range;
	uint32_t used = 0;

	for (uint32_t i = 0; i < cache->count; i++)
		used += atomic_load(&cache->table[i]->users) > 0;
	LIST_FOREACH (range, &cache->stale, link)
		used += atomic_load(&range->users) > 0;
	return used;
}

int slu_cache_get_info(struct slu_cache *cache, struct slu_cache_info *info)
{
	struct slu_cache_info own;

	if (fork_is_child())
		return fork_refuse();
	pthread_rwlock_rdlock(&cache->lock);
	own = (struct slu_cache_info){
		.bytes = cache->bytes,
		.misses = atomic_load(&cache->misses),
		.hits = atomic_load(&cache->gets) - cache->entered,
		.evictions = cache->evictions,
		.invalidations = cache->invalidations,
		.ranges = cache->ranges,
		.ranges_used = count_used(cache),
	};
	pthread_rwlock_unlock(&cache->lock);
	return sized_give(&sized_info, &own, info);
}
