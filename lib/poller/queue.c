/* SPDX-License-Identifier: Apache-2.0 */
#include "poller/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_common.h>
#include <rte_ring_elem.h>

#include "base/barrier.h"
#include "base/log.h"
#include "memory/heap.h"
#include "poller/poller.h"

static struct rte_ring *ring_create(uint32_t element_bytes, uint32_t depth, int node)
{
	ssize_t size = rte_ring_get_memsize_elem(element_bytes, rte_align32pow2(depth + 1));
	struct rte_ring *ring;

	if (size < 0)
		return NULL;
	ring = heap_alloc((size_t)size, node);
	if (ring && rte_ring_init(ring, "slu_ring", depth,
				  RING_F_SP_ENQ | RING_F_SC_DEQ | RING_F_EXACT_SZ) < 0) {
		heap_free(ring);
		return NULL;
	}
	return ring;
}

static int requests_create(struct slu_queue *queue, int node)
{
	queue->requests = heap_alloc(queue->depth * sizeof(struct request), node);
	if (!queue->requests)
		return -ENOMEM; /* heap_alloc() has said why */
	for (uint32_t i = queue->depth; i-- > 0;)
		request_put(queue, &queue->requests[i]);
	queue->requests_live = 0;
	return 0;
}

static int places_create(struct slu_queue *queue, int node)
{
	queue->done = heap_alloc(queue->depth * sizeof(struct slu_completion), node);
	return queue->done ? 0 : -ENOMEM; /* heap_alloc() has said why */
}

/*
 * A burst's submissions are given back after its completions: the owner may reap those and fill its
 * queue again meanwhile.
 */
static int rings_create(struct slu_queue *queue, int node)
{
	uint32_t submissions = queue->depth + RTE_MIN(queue->depth, POLLER_BURST);

	queue->completions = ring_create(sizeof(struct slu_completion), queue->depth, node);
	queue->submissions = ring_create(sizeof(struct slu_op), submissions, node);
	return queue->completions && queue->submissions ? 0 : -ENOMEM;
}

/*
 * The child's copy, which has no poller: neither is there room in it, nor anything in its rings,
 * which may be shared with the parent where they are a host's memory.
 */
static void shut_in_child(struct fork_hook *hook)
{
	static struct rte_ring empty = {.prod.sync_type = RTE_RING_SYNC_ST,
					.cons.sync_type = RTE_RING_SYNC_ST};
	struct slu_queue *queue =
		(struct slu_queue *)((char *)hook - offsetof(struct slu_queue, forked));

	queue->is_inline = false;
	queue->completions = queue->submissions = &empty;
	queue->silent_seen = counter_read(&queue->silent);
	queue->outstanding = queue->depth;
}

int queue_create(const struct slu_queue_options *options, struct poller *poller, int node,
		 struct slu_queue **out)
{
	struct slu_queue *queue = aligned_alloc(64, sizeof(*queue));
	int rc;

	if (!queue)
		return fail(-ENOMEM, "out of memory");
	memset(queue, 0, sizeof(*queue));
	queue->poller = poller;
	queue->depth = rte_align32pow2(options->depth);
	queue->timeout_us = options->timeout_us;
	queue->is_inline = options->poller == SLU_POLLER_INLINE;
	queue->eventfd = -1;
	rc = vector_scratch_init(&queue->scratch);
	if (rc == 0)
		rc = queue->is_inline ? places_create(queue, node) : rings_create(queue, node);
	if (rc == 0)
		rc = requests_create(queue, node);
	if (rc == 0 && !queue->is_inline) {
		queue->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (queue->eventfd < 0)
			rc = fail(-errno, "eventfd: %s", strerror(errno));
	}
	if (rc < 0) {
		queue_destroy(queue);
		return rc;
	}
	queue->forked.in_child = shut_in_child;
	fork_watch(&queue->forked);
	*out = queue;
	return 0;
}

void queue_destroy(struct slu_queue *queue)
{
	if (!queue)
		return;
	fork_unwatch(&queue->forked);
	if (queue->eventfd >= 0)
		close(queue->eventfd);
	vector_scratch_fini(&queue->scratch);
	heap_free(queue->submissions);
	heap_free(queue->completions);
	heap_free(queue->done);
	heap_free(queue->requests);
	free(queue);
}

/*
 * The owner may have left its wait, or even begun another, since we looked: the exchange takes back
 * only what we saw. At worst it is woken once for nothing, never left asleep.
 */
static void wake_owner(struct slu_queue *queue)
{
	uint32_t wanted = atomic_load_explicit(&queue->wanted, memory_order_relaxed);

	if (wanted == 0 || queue_ready(queue) < wanted)
		return;
	if (atomic_compare_exchange_strong(&queue->wanted, &wanted, 0))
		eventfd_write(queue->eventfd, 1);
}

/* The owner may sleep until nothing is outstanding: it looks again. */
void queue_silence(struct slu_queue *queue, uint32_t n)
{
	uint32_t wanted;

	/* Pairs with the acquire in queue_take_silent(). */
	atomic_store_explicit(&queue->silent, counter_read(&queue->silent) + n,
			      memory_order_release);
	if (queue->is_inline)
		return;
	barrier_light(); /* as in queue_complete() */
	wanted = atomic_load_explicit(&queue->wanted, memory_order_relaxed);
	if (wanted != 0 && atomic_compare_exchange_strong(&queue->wanted, &wanted, 0))
		eventfd_write(queue->eventfd, 1);
}

void queue_complete(struct slu_queue *queue, const struct slu_completion *done, uint32_t n)
{
	if (queue->is_inline) {
		for (uint32_t i = 0; i < n; i++)
			completion_copy(queue_next_done(queue), &done[i]);
		return;
	}
	rte_ring_sp_enqueue_burst_elem(queue->completions, done, sizeof(*done), n, NULL);
	/* Pairs with barrier_heavy() where the owner announces that it will sleep. */
	barrier_light();
	if (__builtin_expect(atomic_load_explicit(&queue->wanted, memory_order_relaxed) != 0, 0))
		wake_owner(queue);
}
