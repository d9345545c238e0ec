/* SPDX-License-Identifier: Apache-2.0 */
/* A place that is free holds where the next free one is, as an odd number: 2 * (place + 1) + 1. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"

static _Atomic(void *) *at(struct place_set *set, uint32_t place)
{
	return &set->chunks[place / PLACE_SET_CHUNK]->items[place % PLACE_SET_CHUNK];
}

int place_set_reserve(struct place_set *set)
{
	uint32_t count = atomic_load_explicit(&set->count, memory_order_relaxed);
	struct place_chunk **chunk = &set->chunks[count / PLACE_SET_CHUNK];

	if (set->free != 0)
		return (int)set->free - 1;
	if (count == PLACE_SET_MAX)
		return fail(-ENOSPC, "%u clients share memory with this segment's owner already",
			    PLACE_SET_MAX);
	if (!*chunk)
		*chunk = calloc(1, sizeof(**chunk));
	return *chunk ? (int)count : fail(-ENOMEM, "target is out of memory");
}

void place_set_add(struct place_set *set, uint32_t place, void *item)
{
	uint32_t count = atomic_load_explicit(&set->count, memory_order_relaxed);

	if (place < count)
		set->free = (uint32_t)((uintptr_t)*at(set, place) / 2);
	/* Pairs with the acquire in place_set_at(). */
	atomic_store_explicit(at(set, place), item, memory_order_release);
	/* Likewise: the chunk is there as well. */
	if (place == count)
		atomic_store_explicit(&set->count, count + 1, memory_order_release);
	set->used++;
}

void place_set_remove(struct place_set *set, uint32_t place)
{
	work_count(WORK_ITEMS, 1);
	atomic_store_explicit(at(set, place), (void *)((uintptr_t)set->free * 2 + 1),
			      memory_order_release);
	set->free = place + 1;
	set->used--;
}

void place_set_free(struct place_set *set)
{
	for (uint32_t i = 0; i < PLACE_SET_CHUNKS; i++)
		free(set->chunks[i]);
}
