/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of clients as the polling thread reads it: without a lock, while the control thread
 * replaces it as a whole. There are two of them, one published and one to write the next into, both
 * with room for all clients; so a client can always leave, also when memory is short.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/barrier.h"
#include "base/log.h"
#include "engine/engine_internal.h"

static struct client_set *set_alloc(uint32_t room)
{
	struct client_set *set = calloc(1, sizeof(*set) + room * sizeof(set->clients[0]));

	if (set)
		set->room = room;
	return set;
}

static void fill(struct client_set *set, const struct slu_segment *segment)
{
	struct segment_client *client;

	set->count = 0;
	LIST_FOREACH (client, &segment->clients, link)
		if (client->inbox)
			set->clients[set->count++] = client;
}

/*
 * Publish the spare set and wait until nobody reads the old one. The heavy barrier pairs with the
 * light one in begin_polling(): either it reads the new set or we see it polling.
 */
void client_set_update(struct slu_segment *segment)
{
	fill(segment->spare, segment);
	segment->spare = atomic_exchange(&segment->set, segment->spare);
	barrier_heavy();
	while (atomic_load_explicit(&segment->polling, memory_order_acquire))
		sched_yield();
}

int client_set_reserve(struct slu_segment *segment, uint32_t count)
{
	struct client_set *set = atomic_load(&segment->set);
	struct client_set *next, *spare;
	uint32_t room;

	if (set && count <= set->room)
		return 0;
	room = set ? 2 * count : count;
	next = set_alloc(room);
	spare = set_alloc(room);
	if (!next || !spare) {
		free(next);
		free(spare);
		return fail(-ENOMEM, "out of memory");
	}
	free(segment->spare);
	segment->spare = next;
	client_set_update(segment);
	free(segment->spare);
	segment->spare = spare;
	return 0;
}

void client_set_free(struct slu_segment *segment)
{
	free(atomic_load(&segment->set));
	free(segment->spare);
}
