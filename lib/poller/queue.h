/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A queue as its owner and its poller see it.
 *
 * Who writes what: nobody the first line, once it is open; the owner the second, the poller the
 * requests; the two rings have one producer and one consumer each; wanted is the one word that both
 * write. An inline queue is its owner's alone, and needs no rings.
 */
#ifndef POLLER_QUEUE_H
#define POLLER_QUEUE_H

#include <assert.h>
#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/queue.h>

#include <rte_ring.h>
#include <rte_ring_peek_zc.h>

#include <sluice/queue.h>

#include "base/clock.h"
#include "base/fork.h"

#include "transport/request.h"

struct poller;

struct slu_queue {
	struct poller *poller;
	struct rte_ring *submissions; /* of struct slu_op; NULL when inline */
	struct rte_ring *completions; /* of struct slu_completion; NULL when inline: done */
	const struct clock *clock;
	uint32_t depth;
	uint32_t timeout_us;
	int eventfd;
	bool is_inline;

	/* The owner's. */
	_Alignas(64) uint32_t outstanding; /* accepted and not yet reaped: never over depth */
	uint64_t accepted;
	uint64_t full;
	struct slu_completion *done; /* inline: depth places, of which first..last are taken */
	uint32_t first;
	uint32_t last;
	uint64_t silent_seen; /* of silent, not outstanding any more */
	struct vector_scratch scratch;

	/* Completions that the sleeping owner waits for; 0: it is awake. */
	_Alignas(64) _Atomic uint32_t wanted;
	counter silent; /* ended well without a completion; the poller's */

	/* The poller's: an operation that cannot finish at once is kept in a request. */
	_Alignas(64) struct request *free_requests;
	struct request *requests; /* depth of them */
	uint32_t requests_live;   /* not free */
	uint64_t taken;           /* operations out of the submission ring so far */
	uint64_t take_until;      /* what taken must reach before a drain is done */
	struct slu_engine *engine;
	LIST_ENTRY(slu_queue) link;
	struct fork_hook forked;
};

static_assert(SLU_TIMEOUT_MAX_US < UINT32_MAX / 2 - CLOCK_AHEAD_MAX_US, "see clock_passed_us()");
static_assert(offsetof(struct slu_op, opcode) % 4 == 0 &&
		      offsetof(struct slu_op, flags) == offsetof(struct slu_op, opcode) + 1,
	      "see op_word()");
static_assert(offsetof(struct slu_queue, outstanding) == 64, "read by both | owner's");
static_assert(offsetof(struct slu_queue, free_requests) == 192, "shared word | poller's");

/** @return 0; -ENOMEM, -EMFILE. @p node: where its poller runs, or -1 */
int queue_create(const struct slu_queue_options *options, struct poller *poller, int node,
		 struct slu_queue **queue);

/** Its poller has forgotten it. Accepts NULL. */
void queue_destroy(struct slu_queue *queue);

/** Poller: @p n operations have ended well, and no completion is wanted of them. */
void queue_silence(struct slu_queue *queue, uint32_t n);

/** Owner: what has ended in silence is not outstanding any more. */
static inline void queue_take_silent(struct slu_queue *queue)
{
	/* Pairs with the release in queue_silence(): what they have done is seen then. */
	uint64_t silent = atomic_load_explicit(&queue->silent, memory_order_acquire);

	queue->outstanding -= (uint32_t)(silent - queue->silent_seen);
	queue->silent_seen = silent;
}

/** Poller: hand results to the owner and wake it if it has enough. There is always room. */
void queue_complete(struct slu_queue *queue, const struct slu_completion *done, uint32_t n);

/** Opcode, flags and what must be zero, in one word. */
static inline uint32_t op_word(const struct slu_op *op)
{
	uint32_t word;

	memcpy(&word, &op->opcode, sizeof(word));
	return word;
}

#define OP_FLAGS(flags) ((uint32_t)(flags) << 8) /* as they stand in it */

/** A copy with no flags, and nothing where zeros must be. */
static inline bool op_is_plain(const struct slu_op *op)
{
	return op_word(op) <= SLU_WRITE_NOTIFY;
}

/** 0: the operation names no timeout and neither does its queue. */
static inline uint32_t queue_timeout_us(const struct slu_queue *queue, const struct slu_op *op)
{
	return op->timeout_us ? op->timeout_us : queue->timeout_us;
}

/** Is an operation that carries the low bits of the time of its submission past its deadline? */
static inline bool op_is_late(const struct slu_queue *queue, const struct slu_op *op,
			      uint64_t now_us)
{
	uint32_t timeout = queue_timeout_us(queue, op);

	return timeout != 0 && clock_passed_us(op->engine, timeout, (uint32_t)now_us);
}

static inline struct request *request_get(struct slu_queue *queue)
{
	struct request *request = queue->free_requests;

	queue->free_requests = request->link.tqe_next;
	queue->requests_live++;
	return request;
}

static inline void request_put(struct slu_queue *queue, struct request *request)
{
	request->path = NULL;
	request->link.tqe_next = queue->free_requests;
	queue->free_requests = request;
	queue->requests_live--;
}

/** Owner: completions that are ready. */
static inline uint32_t queue_ready(const struct slu_queue *queue)
{
	return queue->is_inline ? queue->last - queue->first : rte_ring_count(queue->completions);
}

/** An inline queue's own place for its next completion. */
static inline struct slu_completion *queue_next_done(struct slu_queue *queue)
{
	return &queue->done[queue->last++ & (queue->depth - 1)];
}

/** In the pieces in which it was stored: of others the read would wait for the store buffer. */
static inline void completion_copy(struct slu_completion *to, const struct slu_completion *from)
{
	_mm_storeu_si128((__m128i *)to, _mm_loadu_si128((const __m128i *)from));
	_mm_storeu_si128((__m128i *)to + 1, _mm_loadu_si128((const __m128i *)from + 1));
}

/** Take up to @p n completions of an inline queue. @return how many */
static inline uint32_t queue_take_done(struct slu_queue *queue, struct slu_completion *out,
				       uint32_t n)
{
	uint32_t ready = queue->last - queue->first;
	uint32_t taken = n < ready ? n : ready;

	for (uint32_t i = 0; i < taken; i++)
		completion_copy(&out[i], &queue->done[queue->first++ & (queue->depth - 1)]);
	return taken;
}

#endif
