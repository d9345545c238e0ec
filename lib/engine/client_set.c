/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"

int client_set_reserve(struct client_set *set)
{
	uint32_t place = atomic_load_explicit(&set->count, memory_order_relaxed);
	struct client_chunk **chunk = &set->chunks[place / CLIENT_SET_CHUNK];

	if (place == CLIENT_SET_MAX)
		return fail(-ENOSPC, "%u clients share memory with this segment's owner already",
			    CLIENT_SET_MAX);
	if (!*chunk)
		*chunk = calloc(1, sizeof(**chunk));
	return *chunk ? 0 : fail(-ENOMEM, "target is out of memory");
}

static void put(struct client_set *set, uint32_t place, struct segment_client *client)
{
	struct client_chunk *chunk = set->chunks[place / CLIENT_SET_CHUNK];

	/* Pairs with the acquire in client_set_at(). */
	atomic_store_explicit(&chunk->clients[place % CLIENT_SET_CHUNK], client,
			      memory_order_release);
	if (client)
		client->place = place;
}

void client_set_add(struct client_set *set, struct segment_client *client)
{
	uint32_t count = atomic_load_explicit(&set->count, memory_order_relaxed);

	put(set, count, client);
	/* Pairs with the acquire in begin_polling(): the chunk is there as well. */
	atomic_store_explicit(&set->count, count + 1, memory_order_release);
}

/*
 * Who goes through the set at this moment may have passed the place that the last one gets, and
 * then finds nobody at its old one: so that store comes after the first change of moves, and who
 * has seen it sees that.
 */
void client_set_remove(struct client_set *set, struct segment_client *client)
{
	uint32_t last = atomic_load_explicit(&set->count, memory_order_relaxed) - 1;

	work_count(WORK_ITEMS, 1);
	atomic_fetch_add(&set->moves, 1);
	if (client->place != last)
		put(set, client->place, client_set_at(set, last));
	put(set, last, NULL);
	atomic_store_explicit(&set->count, last, memory_order_release);
	atomic_fetch_add(&set->moves, 1);
}

void client_set_free(struct client_set *set)
{
	for (uint32_t i = 0; i < CLIENT_SET_CHUNKS; i++)
		free(set->chunks[i]);
}
