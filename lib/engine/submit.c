/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot calls. An operation is checked here, once, and then travels by its queue's ring to a
 * poller, or is started at once by the inline queue's own.
 */
#include <errno.h>
#include <immintrin.h>

#include <rte_prefetch.h>
#include <rte_ring_elem.h>

#include "base/barrier.h"
#include "engine/engine_internal.h"

static_assert(sizeof(struct slu_op) == 64, "one cache line per element of the submission ring");
static_assert(sizeof(struct slu_completion) == 16, "four to a cache line");

static inline bool inside(uint64_t offset, uint64_t length, uint64_t limit)
{
	return length <= limit && offset <= limit - length;
}

static inline bool permitted(const struct slu_remote *remote, uint8_t opcode)
{
	return atomic_load_explicit(&remote->permitted, memory_order_relaxed) >> opcode & 1;
}

/* Both ends of a call lie in the region: the request, and at remote_offset room for the answer. */
static bool valid_call(const struct slu_op *op)
{
	return op->remote && op->region && op->opcode == SLU_CALL &&
	       permitted(op->remote, SLU_CALL) && op->length <= SLU_MESSAGE_MAX &&
	       op->tag <= SLU_MESSAGE_MAX &&
	       inside(op->remote_offset, op->tag, op->region->length) &&
	       inside(op->local_offset, op->length, op->region->length) &&
	       op->timeout_us <= SLU_TIMEOUT_MAX_US;
}

static inline bool valid_copy(const struct slu_op *op)
{
	return op->remote && op->region && op->opcode <= SLU_WRITE_NOTIFY &&
	       permitted(op->remote, op->opcode) &&
	       inside(op->remote_offset, op->length, op->remote->length) &&
	       inside(op->local_offset, op->length, op->region->length) &&
	       op->timeout_us <= SLU_TIMEOUT_MAX_US;
}

static inline bool valid(const struct slu_op *op)
{
	return valid_copy(op) || valid_call(op);
}

/* Calls among the copies. @return how many of @p ops are valid, of which @p count are */
__attribute__((noinline)) static uint32_t count_all_valid(const struct slu_op *ops, uint32_t n,
							  uint32_t count)
{
	while (count < n && valid(&ops[count]))
		count++;
	return count;
}

static inline uint32_t count_valid(const struct slu_op *ops, uint32_t n)
{
	uint32_t count = 0;

	while (valid_copy(&ops[count]))
		if (++count == n)
			return n;
	return count_all_valid(ops, n, count);
}

/* Why valid() said no. */
static int why_invalid(const struct slu_op *op)
{
	int state;

	if (!op->remote || !op->region || op->opcode > SLU_CALL ||
	    op->timeout_us > SLU_TIMEOUT_MAX_US || op->length > SLU_LENGTH_MAX)
		return -EINVAL;
	if (op->opcode == SLU_CALL && (op->length > SLU_MESSAGE_MAX || op->tag > SLU_MESSAGE_MAX))
		return -EINVAL;
	state = atomic_load_explicit(&op->remote->state, memory_order_acquire);
	if (state != 0)
		return state;
	return permitted(op->remote, op->opcode) ? -ERANGE : -EACCES;
}

/* Check and copy into the ring in one go: the elements are claimed first, the rest given back. */
static inline uint32_t fill(struct slu_op *into, const struct slu_op *ops, uint32_t n,
			    uint32_t stamp_us)
{
	uint32_t i;

	for (i = 0; i < n && valid(&ops[i]); i++) {
		into[i] = ops[i];
		into[i].engine = stamp_us;
	}
	return i;
}

/*
 * The next batch's elements were last read by the poller: ask for the right to write them now,
 * while the caller does something else. PREFETCHW does nothing on a CPU that lacks it.
 */
static inline void prefetch_elements(const struct rte_ring *ring, const struct slu_op *next,
				     uint32_t n)
{
	const struct slu_op *elements = (const struct slu_op *)(ring + 1);
	uint32_t index = (uint32_t)(next - elements);

	for (uint32_t i = 0; i < n; i++)
		__asm__ volatile("prefetchw %0" : : "m"(elements[(index + i) & ring->mask]));
}

static inline void account(struct slu_queue *queue, uint32_t accepted)
{
	queue->outstanding += accepted;
	queue->accepted += accepted;
}

/* There is room in the ring. @return accepted, or why the first operation is not */
__attribute__((noinline)) static int enqueue(struct slu_queue *queue, const struct slu_op *ops,
					     uint32_t n)
{
	uint32_t stamp_us = (uint32_t)(clock_now_ns(queue->clock) / NS_PER_US);
	struct rte_ring_zc_data zc;
	uint32_t filled, room;

	n = rte_ring_enqueue_zc_burst_elem_start(queue->submissions, sizeof(*ops), n, &zc, &room);
	if (n == 0)
		return 0;
	filled = fill(zc.ptr1, ops, zc.n1, stamp_us);
	if (filled == zc.n1 && zc.n1 < n)
		filled += fill(zc.ptr2, ops + zc.n1, n - zc.n1, stamp_us);
	rte_ring_enqueue_zc_elem_finish(queue->submissions, filled);
	/* Pairs with barrier_heavy() where the poller announces that it will sleep. */
	barrier_light();
	if (__builtin_expect(atomic_load_explicit(&queue->poller->sleeping, memory_order_relaxed),
			     0))
		poller_wake(queue->poller);
	prefetch_elements(queue->submissions, (struct slu_op *)zc.ptr1 + filled,
			  filled < room ? filled : room);
	account(queue, filled);
	return filled > 0 ? (int)filled : why_invalid(&ops[0]);
}

/* @return as enqueue() */
static inline int start_inline(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	uint32_t count = count_valid(ops, n);

	if (__builtin_expect(count == 0, 0))
		return why_invalid(&ops[0]);
	account(queue, count);
	return (int)poller_start(queue->poller, queue, ops, count);
}

int slu_submit(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	uint32_t room = queue->depth - queue->outstanding;

	if (__builtin_expect(room < n, 0)) {
		queue->full++;
		n = room;
	}
	if (n == 0)
		return 0;
	return queue->is_inline ? start_inline(queue, ops, n) : enqueue(queue, ops, n);
}

/* Lines of the poller's core: fetch all at once rather than one after the other. */
static inline void prefetch_completions(const struct slu_completion *done, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 64 / sizeof(*done))
		rte_prefetch0(done + i);
}

/* In the pieces in which they were stored: wider reads would wait for the store buffer (inline). */
static inline void copy_completions(struct slu_completion *out, const struct slu_completion *done,
				    uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		_mm_storeu_si128((__m128i *)&out[i], _mm_loadu_si128((const __m128i *)&done[i]));
}

static uint32_t take_completions(struct rte_ring *ring, struct slu_completion *out, uint32_t n)
{
	struct rte_ring_zc_data zc;
	uint32_t taken = rte_ring_dequeue_zc_burst_elem_start(ring, sizeof(*out), n, &zc, NULL);

	if (taken == 0)
		return 0;
	prefetch_completions(zc.ptr1, zc.n1);
	copy_completions(out, zc.ptr1, zc.n1);
	if (zc.n1 < taken)
		copy_completions(out + zc.n1, zc.ptr2, taken - zc.n1);
	rte_ring_dequeue_zc_elem_finish(ring, taken);
	return taken;
}

static uint32_t reap_inline(struct slu_queue *queue, struct slu_completion *out, uint32_t n)
{
	if (queue->outstanding > queue->last - queue->first)
		poller_run_inline(queue->poller);
	return queue_take_done(queue, out, n);
}

int slu_reap(struct slu_queue *queue, struct slu_completion *out, uint32_t n)
{
	uint32_t taken = queue->is_inline ? reap_inline(queue, out, n)
					  : take_completions(queue->completions, out, n);

	queue->outstanding -= taken;
	return (int)taken;
}
