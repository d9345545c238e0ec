/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/buffers.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/tsan.h"
#include "memory/pool.h"
#include "transport/transport.h"

/* What is made at a time, at least. */
#define POOL_MIN 48u

/* A poller takes so many together from a mempool, and gives as many back. */
#define BATCH (BUFFERS_CACHED / 2)

struct buffers *buffers_create(const struct transport_env *env)
{
	struct buffers *buffers = calloc(1, sizeof(*buffers));

	if (!buffers)
		return NULL;
	buffers->env = env;
	buffers->node = -1;
	buffers->holders = 1;
	pthread_mutex_init(&buffers->lock, NULL);
	return buffers;
}

uint32_t buffers_used(const struct buffers *buffers)
{
	return buffers->lent + buffers->shared -
	       (buffers->room - (uint32_t)counter_read(&buffers->promised));
}

static void destroy_pool(struct buffers *buffers, struct slu_region *region, struct slu_pool *pool)
{
	slu_pool_close(pool);
	transports_remove(buffers->env, region);
	region_destroy(region);
}

struct buffers *buffers_get(struct buffers *buffers)
{
	if (buffers)
		atomic_fetch_add(&buffers->holders, 1);
	return buffers;
}

void buffers_put(struct buffers *buffers)
{
	if (!buffers || atomic_fetch_sub(&buffers->holders, 1) > 1)
		return;
	for (uint32_t i = 0; i < buffers->count; i++)
		destroy_pool(buffers, buffers->pools[i].region, buffers->pools[i].pool);
	pthread_mutex_destroy(&buffers->lock);
	free(buffers);
}

/* ---- more of them; under the lock ---- */

/* On 2 MiB pages where it fills one and there are some. */
static int make_region(const struct buffers *buffers, uint64_t bytes, struct slu_region **region)
{
	struct slu_region_options options;
	int rc = -ENOMEM;

	slu_region_options_init(&options, sizeof(options));
	options.private_memory = true;
	options.node = buffers->node;
	options.page = SLU_PAGE_2M;
	if (bytes >= PAGE_2M_BYTES / 2)
		rc = region_create(bytes, &options, region);
	options.page = SLU_PAGE_ORDINARY;
	if (rc < 0)
		rc = region_create(bytes, &options, region);
	if (rc < 0)
		return rc;
	(*region)->of_buffers = true;
	rc = transports_add(buffers->env, *region);
	if (rc < 0)
		region_destroy(*region);
	return rc;
}

static void init_buffer(struct rte_mempool *mempool, void *arg, void *object, unsigned index)
{
	(void)mempool;
	(void)index;
	((struct buffer *)object)->region = arg;
}

static int grow(struct buffers *buffers, uint32_t wanted)
{
	uint32_t index = buffers->count, made = buffers->made;
	uint32_t n = wanted > made / 4 ? wanted : made / 4;
	struct slu_region *region;
	struct slu_pool *pool;
	uint64_t bytes;
	int rc;

	n = n > POOL_MIN ? n : POOL_MIN;
	if (index == BUFFERS_POOLS || wanted > BUFFERS_MAX - made)
		return fail(-ENOSPC, "a poller has %u buffers for messages, no more", made);
	n = n < BUFFERS_MAX - made ? n : BUFFERS_MAX - made;
	bytes = pool_bytes(sizeof(struct buffer), n);
	rc = make_region(buffers, bytes, &region);
	if (rc < 0)
		return rc;
	rc = pool_open(region, 0, bytes, sizeof(struct buffer), n, &pool);
	if (rc < 0) {
		destroy_pool(buffers, region, NULL);
		return rc;
	}
	rte_mempool_obj_iter(pool->mempool, init_buffer, region);
	buffers->pools[index].region = region;
	buffers->pools[index].pool = pool;
	buffers->spare += n;
	buffers->made = made + n;
	/* Pairs with the acquire in take_some(). */
	atomic_store_explicit(&buffers->count, index + 1, memory_order_release);
	return 0;
}

/* ---- taking ---- */

/* All or none of them; the newest pool has most. Any thread. */
static bool take_some(const struct buffers *buffers, void **taken, uint32_t n)
{
	/* Pairs with the release in grow(). */
	uint32_t i = atomic_load_explicit(&buffers->count, memory_order_acquire);

	while (i-- > 0)
		if (rte_mempool_get_bulk(buffers->pools[i].pool->mempool, taken, n) == 0) {
			for (uint32_t k = 0; k < n; k++)
				tsan_taken(taken[k]);
			return true;
		}
	return false;
}

static void put_back(void *buffer)
{
	tsan_given(buffer);
	rte_mempool_put(rte_mempool_from_obj(buffer), buffer);
}

/* Of two that note at once one may be lost. */
static void note_most(struct buffers *buffers)
{
	uint32_t used = buffers_used(buffers);

	if (__builtin_expect(used > buffers->most, 0))
		buffers->most = used;
}

void buffers_promise(struct buffers *buffers)
{
	counter_add(&buffers->promised, 1);
	note_most(buffers);
}

struct buffer *buffers_take(struct buffers *buffers)
{
	if (buffers->cached == 0) {
		if (take_some(buffers, buffers->cache, BATCH))
			buffers->cached = BATCH;
		else
			buffers->cached = take_some(buffers, buffers->cache, 1);
	}
	if (buffers->cached == 0)
		return NULL;
	return buffers->cache[--buffers->cached];
}

void buffers_give(struct buffers *buffers, struct buffer *buffer)
{
	if (buffers->cached == BUFFERS_CACHED)
		while (buffers->cached > BATCH)
			put_back(buffers->cache[--buffers->cached]);
	buffers->cache[buffers->cached++] = buffer;
}

/* ---- lending; under the lock ---- */

static void put_chain(struct buffer *first)
{
	for (struct buffer *next; first; first = next) {
		next = first->next;
		put_back(first);
	}
}

/* There are as many spare ones, but the poller's cache may have some of them: then more are made.
 */
static int take_chain(struct buffers *buffers, uint32_t n, struct buffer **out)
{
	struct buffer *first = NULL;
	int rc = 0;

	while (n > 0 && rc == 0) {
		void *taken;

		if (!take_some(buffers, &taken, 1)) {
			rc = grow(buffers, n);
			continue;
		}
		((struct buffer *)taken)->next = first;
		first = taken;
		n--;
	}
	if (rc < 0)
		put_chain(first);
	else if (first)
		*out = first;
	return rc;
}

static int lend(struct buffers *buffers, uint32_t n, uint32_t shared, struct buffer **first)
{
	uint32_t most = BUFFERS_SHARED - buffers->shared;
	uint32_t more = shared < most ? shared : most;
	int rc = 0;

	if (buffers->spare < n + more)
		rc = grow(buffers, n + more - buffers->spare);
	if (rc == 0)
		rc = take_chain(buffers, n, first);
	if (rc < 0)
		return rc;
	buffers->spare -= n + more;
	buffers->shared += more;
	buffers->lent += n;
	atomic_fetch_add(&buffers->room, more);
	note_most(buffers);
	return 0;
}

int buffers_lend(struct buffers *buffers, uint32_t n, uint32_t shared, struct buffer **first)
{
	int rc;

	pthread_mutex_lock(&buffers->lock);
	rc = lend(buffers, n, shared, first);
	pthread_mutex_unlock(&buffers->lock);
	return rc;
}

void buffers_return(struct buffers *buffers, struct buffer *first, uint32_t lent, uint32_t promised)
{
	pthread_mutex_lock(&buffers->lock);
	put_chain(first);
	buffers->spare += lent;
	buffers->lent -= lent;
	atomic_fetch_add(&buffers->room, promised);
	pthread_mutex_unlock(&buffers->lock);
}
