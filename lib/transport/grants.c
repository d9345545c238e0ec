/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/grants.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "message/sender.h"

/*
 * Who adds or ends a grant writes, the pollers read. Whose a grant is stands here: of one that is
 * not the asking connection's nobody asks this poller before it is freed.
 */
struct slot {
	_Alignas(32) _Atomic(struct grant *) grant; /* NULL: none, for this reason */
	_Atomic uint64_t connection;                /* that it is, or was, given on */
	_Atomic uint32_t generation;
	_Atomic int32_t reason;
};

static_assert(sizeof(struct slot) == 32, "two in a cache line, none in two");

struct grants {
	struct slot *slots;   /* GRANTS_MAX, touched as far as used */
	pthread_mutex_t lock; /* of what follows */
	uint32_t used;        /* slots so far */
	uint32_t free_count;
	uint32_t free_room;
	uint32_t *free_slots;
};

int grants_create(struct grants **out)
{
	struct grants *grants = calloc(1, sizeof(*grants));

	if (!grants)
		return fail(-ENOMEM, "out of memory");
	grants->slots = mmap(NULL, GRANTS_MAX * sizeof(struct slot), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (grants->slots == MAP_FAILED) {
		free(grants);
		return fail(-ENOMEM, "no memory for the table of grants: %s", strerror(errno));
	}
	pthread_mutex_init(&grants->lock, NULL);
	*out = grants;
	return 0;
}

void grants_destroy(struct grants *grants)
{
	if (!grants)
		return;
	munmap(grants->slots, GRANTS_MAX * sizeof(struct slot));
	pthread_mutex_destroy(&grants->lock);
	free(grants->free_slots);
	free(grants);
}

static int take_slot(struct grants *grants, uint32_t *handle)
{
	if (grants->free_count > 0) {
		*handle = grants->free_slots[--grants->free_count];
		return 0;
	}
	if (grants->used == GRANTS_MAX)
		return fail(-ENOSPC, "%u segments are open at this target", GRANTS_MAX);
	*handle = grants->used++;
	return 0;
}

static void give_slot(struct grants *grants, uint32_t handle)
{
	if (grants->free_count == grants->free_room) {
		uint32_t room = grants->free_room ? grants->free_room * 2 : 64;
		uint32_t *larger = realloc(grants->free_slots, room * sizeof(*larger));

		if (!larger)
			return; /* one of a million is lost */
		grants->free_slots = larger;
		grants->free_room = room;
	}
	grants->free_slots[grants->free_count++] = handle;
}

int grants_add(struct grants *grants, const struct grant *granted, json_t *description,
	       struct grant **out)
{
	struct grant *grant = malloc(sizeof(*grant));
	struct slot *slot;
	uint32_t generation;
	int rc = grant ? 0 : fail(-ENOMEM, "out of memory");

	if (rc == 0) {
		*grant = *granted;
		pthread_mutex_lock(&grants->lock);
		rc = take_slot(grants, &grant->handle);
		pthread_mutex_unlock(&grants->lock);
	}
	if (rc < 0) {
		free(grant);
		return rc;
	}
	if (grant->sender)
		sender_get(grant->sender);
	slot = &grants->slots[grant->handle];
	generation = atomic_load_explicit(&slot->generation, memory_order_relaxed) + 1;
	generation += generation == 0; /* which is none */
	if (json_object_set_new(description, "handle", json_integer(grant->handle)) < 0 ||
	    json_object_set_new(description, "generation", json_integer(generation)) < 0) {
		grants_free(grants, grant);
		return fail(-ENOMEM, "out of memory");
	}
	atomic_store_explicit(&slot->generation, generation, memory_order_relaxed);
	/* Each pairs with its acquire in grants_find(). */
	atomic_store_explicit(&slot->connection, granted->connection, memory_order_release);
	atomic_store_explicit(&slot->grant, grant, memory_order_release);
	*out = grant;
	return 0;
}

void grants_end(struct grants *grants, struct grant *grant, int reason)
{
	struct slot *slot = &grants->slots[grant->handle];

	atomic_store_explicit(&slot->reason, reason, memory_order_relaxed);
	atomic_store_explicit(&slot->grant, NULL, memory_order_release);
}

void grants_free(struct grants *grants, struct grant *grant)
{
	pthread_mutex_lock(&grants->lock);
	give_slot(grants, grant->handle);
	pthread_mutex_unlock(&grants->lock);
	sender_put(grant->sender);
	free(grant);
}

/*
 * From when its place is seen to be @p connection's until this returns, a grant of that connection
 * is not freed, since this poller is asked before. One that was read earlier may be another's, and
 * freed already: only if it is still there then it is ours.
 */
int grants_find(const struct grants *grants, uint64_t connection, uint32_t handle,
		uint32_t generation, struct grant **out)
{
	const struct slot *slot;
	struct grant *grant;
	uint64_t owner;

	if (handle >= GRANTS_MAX)
		return -EACCES;
	slot = &grants->slots[handle];
	/* Each pairs with its release in grants_add(). */
	grant = atomic_load_explicit(&slot->grant, memory_order_acquire);
	owner = atomic_load_explicit(&slot->connection, memory_order_acquire);
	if (generation == 0 ||
	    atomic_load_explicit(&slot->generation, memory_order_relaxed) != generation)
		return -EKEYREVOKED;
	if (!grant)
		return atomic_load_explicit(&slot->reason, memory_order_relaxed);
	if (owner != connection)
		return -EACCES;
	if (atomic_load_explicit(&slot->grant, memory_order_relaxed) != grant)
		return -EKEYREVOKED;
	*out = grant;
	return 0;
}
