/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hot calls. An operation is checked here, once, and then travels by its queue's ring to a
 * poller, or is started at once by the inline queue's own.
 */
#include <errno.h>
#include <immintrin.h>
#include <inttypes.h>

#include <rte_prefetch.h>
#include <rte_ring_elem.h>

#include "base/barrier.h"
#include "base/fork.h"
#include "base/log.h"
#include "engine/engine_internal.h"
#include "transport/atomic_op.h"

#define FLAGS      (SLU_VECTOR | SLU_ORDERED | SLU_SILENT)
#define CALL_FLAGS SLU_ORDERED

/* Calls are handed on as operations, so many at a time. */
#define CALLS_AT_ONCE 16u

static_assert(sizeof(struct slu_op) == 64, "one cache line per element of the submission ring");
static_assert(sizeof(struct slu_completion) == 32, "two to a cache line");
static_assert(sizeof(struct slu_call) == 64, "no hole that nobody looks at");

static inline bool inside(uint64_t offset, uint64_t length, uint64_t limit)
{
	return length <= limit && offset <= limit - length;
}

static inline bool permitted(const struct slu_remote *remote, uint8_t opcode)
{
	return atomic_load_explicit(&remote->permitted, memory_order_relaxed) >> opcode & 1;
}

static inline bool valid_copy(const struct slu_op *op)
{
	return op->remote && op->region && op_is_plain(op) && permitted(op->remote, op->opcode) &&
	       inside(op->remote_offset, op->length, op->remote->length) &&
	       inside(op->local_offset, op->length, op->region->length) &&
	       op->timeout_us <= SLU_TIMEOUT_MAX_US;
}

static int fail_unpermitted(const struct slu_remote *remote, uint8_t opcode)
{
	int state = atomic_load_explicit(&remote->state, memory_order_acquire);

	if (state == 0 && opcode_is_atomic(opcode) &&
	    !remote->transport->client->capabilities.atomics)
		return fail(
			-EOPNOTSUPP,
			"the segment's atomics are its CPUs', and what a device does over %s is "
			"not atomic with them: open the remote over shm or tcp",
			slu_transport_name(remote->transport->id));
	return state ? fail(state, "the remote is not to be used any more: %s", slu_strerror(state))
		     : fail(-EACCES, "the remote was not opened with the right to do that");
}

static bool is_zero(const uint8_t *bytes, size_t n)
{
	uint8_t any = 0;

	while (n-- > 0)
		any |= bytes[n];
	return any == 0;
}

static int check_atomic(const struct slu_op *op)
{
	if (op->flags & SLU_VECTOR)
		return fail(-EINVAL, "an operation that is atomic has no vector");
	if (op->remote_offset % ATOMIC_BYTES != 0)
		return fail(-EINVAL,
			    "what is atomic is aligned to %u bytes, offset %" PRIu64 " is not",
			    ATOMIC_BYTES, op->remote_offset);
	if (!inside(op->remote_offset, ATOMIC_BYTES, op->remote->length))
		return fail(-ERANGE, "%u bytes at %" PRIu64 " of a segment of %" PRIu64,
			    ATOMIC_BYTES, op->remote_offset, op->remote->length);
	if (!inside(op->local_offset, ATOMIC_BYTES, op->region->length))
		return fail(-ERANGE, "%u bytes at %" PRIu64 " of a region of %" PRIu64,
			    ATOMIC_BYTES, op->local_offset, op->region->length);
	return 0;
}

/* Of anything but a plain copy. @return 0, or why it is not right */
static int check_other(struct slu_queue *queue, const struct slu_op *op)
{
	if (!op->remote || !op->region)
		return fail(-EINVAL, "an operation without a %s", op->remote ? "region" : "remote");
	if (op->opcode > SLU_COMPARE_SWAP || op->flags & ~FLAGS || op->reserved[0] ||
	    op->reserved[1])
		return fail(-EINVAL,
			    "opcode %u with flags 0x%x: not known, or reserved bytes are not zero",
			    op->opcode, op->flags);
	if (op->timeout_us > SLU_TIMEOUT_MAX_US)
		return fail(-EINVAL, "timeout of %u us: at most %u are possible", op->timeout_us,
			    SLU_TIMEOUT_MAX_US);
	if (!permitted(op->remote, op->opcode))
		return fail_unpermitted(op->remote, op->opcode);
	if (opcode_is_atomic(op->opcode))
		return check_atomic(op);
	if (op->flags & SLU_VECTOR)
		return vector_check(op, op->remote->length, op->region->length, &queue->scratch);
	if (op->length > SLU_LENGTH_MAX)
		return fail(-EINVAL, "%" PRIu64 " bytes: at most %" PRIu64 " are possible",
			    op->length, SLU_LENGTH_MAX);
	if (!inside(op->remote_offset, op->length, op->remote->length))
		return fail(-ERANGE, "%" PRIu64 " bytes at %" PRIu64 " of a segment of %" PRIu64,
			    op->length, op->remote_offset, op->remote->length);
	if (!inside(op->local_offset, op->length, op->region->length))
		return fail(-ERANGE, "%" PRIu64 " bytes at %" PRIu64 " of a region of %" PRIu64,
			    op->length, op->local_offset, op->region->length);
	return 0;
}

static bool carries(const struct transport *transport, const struct slu_call *call)
{
	uint32_t limit = transport->client->capabilities.call_bytes;

	return call->request_length <= limit && call->answer_room <= limit;
}

/* Both ends of a call lie in the region. @return 0, or why it is not right */
static int check_call(const struct slu_call *call)
{
	uint64_t limit = call->region ? call->region->length : 0;

	if (!call->remote || !call->region)
		return fail(-EINVAL, "a call without a %s", call->remote ? "region" : "remote");
	if (call->flags & ~CALL_FLAGS || !is_zero(call->reserved, sizeof(call->reserved)))
		return fail(-EINVAL,
			    "a call with flags 0x%x: not known, or reserved bytes are not zero",
			    call->flags);
	if (call->request_length > SLU_CALL_MAX || call->answer_room > SLU_CALL_MAX)
		return fail(-EINVAL, "a call of %u bytes with room for %u: at most %u are possible",
			    call->request_length, call->answer_room, SLU_CALL_MAX);
	if (call->timeout_us > SLU_TIMEOUT_MAX_US)
		return fail(-EINVAL, "timeout of %u us: at most %u are possible", call->timeout_us,
			    SLU_TIMEOUT_MAX_US);
	if (!permitted(call->remote, OP_CALL))
		return fail_unpermitted(call->remote, OP_CALL);
	if (!carries(call->remote->transport, call))
		return fail(-EOPNOTSUPP,
			    "a call of %u bytes with room for %u: over %s at most %u are possible",
			    call->request_length, call->answer_room,
			    slu_transport_name(call->remote->transport->id),
			    call->remote->transport->client->capabilities.call_bytes);
	if (!inside(call->request_offset, call->request_length, limit) ||
	    !inside(call->answer_offset, call->answer_room, limit))
		return fail(-ERANGE,
			    "a call's request or answer is outside its region of %" PRIu64 " bytes",
			    limit);
	return 0;
}

/* Others among the copies. @return how many of @p ops are valid, of which @p count are */
__attribute__((noinline)) static uint32_t
count_all_valid(struct slu_queue *queue, const struct slu_op *ops, uint32_t n, uint32_t count)
{
	while (count < n && (valid_copy(&ops[count]) || check_other(queue, &ops[count]) == 0))
		count++;
	return count;
}

static inline uint32_t count_valid(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	uint32_t count = 0;

	while (valid_copy(&ops[count]))
		if (++count == n)
			return n;
	return count_all_valid(queue, ops, n, count);
}

/* Copy into the ring. @return how many are valid */
static inline uint32_t fill(struct slu_queue *queue, struct slu_op *into, const struct slu_op *ops,
			    uint32_t n, uint32_t stamp_us, bool checked)
{
	uint32_t i;

	for (i = 0; i < n; i++) {
		if (!checked && !valid_copy(&ops[i]) && check_other(queue, &ops[i]) < 0)
			break;
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

/* There is room in the ring: the elements are claimed first, the rest given back. */
__attribute__((always_inline)) static inline uint32_t
enqueue(struct slu_queue *queue, const struct slu_op *ops, uint32_t n, bool checked)
{
	uint32_t stamp_us = (uint32_t)(clock_now_ns(queue->clock) / NS_PER_US);
	struct rte_ring_zc_data zc;
	uint32_t filled, room;

	n = rte_ring_enqueue_zc_burst_elem_start(queue->submissions, sizeof(*ops), n, &zc, &room);
	if (n == 0)
		return 0;
	filled = fill(queue, zc.ptr1, ops, zc.n1, stamp_us, checked);
	if (filled == zc.n1 && zc.n1 < n)
		filled += fill(queue, zc.ptr2, ops + zc.n1, n - zc.n1, stamp_us, checked);
	rte_ring_enqueue_zc_elem_finish(queue->submissions, filled);
	/* Pairs with barrier_heavy() where the poller announces that it will sleep. */
	barrier_light();
	if (__builtin_expect(atomic_load_explicit(&queue->poller->sleeping, memory_order_relaxed),
			     0))
		poller_wake(queue->poller);
	prefetch_elements(queue->submissions, (struct slu_op *)zc.ptr1 + filled,
			  filled < room ? filled : room);
	account(queue, filled);
	return filled;
}

/* @return accepted, or why the first operation is not */
__attribute__((noinline)) static int submit_ring(struct slu_queue *queue, const struct slu_op *ops,
						 uint32_t n)
{
	uint32_t accepted = enqueue(queue, ops, n, false);

	return accepted > 0 ? (int)accepted : check_other(queue, &ops[0]);
}

/* Of operations that were checked. @return accepted */
static inline uint32_t start_inline(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	account(queue, n);
	return poller_start(queue->poller, queue, ops, n);
}

/* @return as submit_ring() */
static inline int submit_inline(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	uint32_t count = count_valid(queue, ops, n);

	if (__builtin_expect(count == 0, 0))
		return check_other(queue, &ops[0]);
	return (int)start_inline(queue, ops, count);
}

/* @return how many of @p n fit */
static inline uint32_t room_for(struct slu_queue *queue, uint32_t n)
{
	if (__builtin_expect(queue->depth - queue->outstanding >= n, 1))
		return n;
	queue_take_silent(queue);
	if (queue->depth - queue->outstanding >= n)
		return n;
	queue->full++;
	return queue->depth - queue->outstanding;
}

int slu_submit(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	n = room_for(queue, n);
	if (n == 0)
		return fork_check();
	return queue->is_inline ? submit_inline(queue, ops, n) : submit_ring(queue, ops, n);
}

static struct slu_op op_of_call(const struct slu_call *call)
{
	return (struct slu_op){.user_data = call->user_data,
			       .remote = call->remote,
			       .remote_offset = call->answer_offset,
			       .region = call->region,
			       .local_offset = call->request_offset,
			       .length = call->request_length,
			       .tag = call->answer_room,
			       .timeout_us = call->timeout_us,
			       .opcode = OP_CALL,
			       .flags = call->flags};
}

int slu_submit_calls(struct slu_queue *queue, const struct slu_call *calls, uint32_t n)
{
	uint32_t accepted = 0;
	int rc = 0;

	n = room_for(queue, n);
	if (n == 0)
		return fork_check();
	while (rc == 0 && accepted < n) {
		struct slu_op ops[CALLS_AT_ONCE];
		uint32_t count = 0;

		while (count < CALLS_AT_ONCE && accepted + count < n &&
		       (rc = check_call(&calls[accepted + count])) == 0) {
			ops[count] = op_of_call(&calls[accepted + count]);
			count++;
		}
		if (count > 0)
			accepted += queue->is_inline ? start_inline(queue, ops, count)
						     : enqueue(queue, ops, count, true);
	}
	return accepted > 0 ? (int)accepted : rc;
}

/* Lines of the poller's core: fetch all at once rather than one after the other. */
static inline void prefetch_completions(const struct slu_completion *done, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 64 / sizeof(*done))
		rte_prefetch0(done + i);
}

static inline void copy_completions(struct slu_completion *out, const struct slu_completion *done,
				    uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		completion_copy(&out[i], &done[i]);
}

/* The ring of a child has nothing, see poller/queue.c. */
static int reap_ring(struct slu_queue *queue, struct slu_completion *out, uint32_t n)
{
	struct rte_ring_zc_data zc;
	uint32_t taken = rte_ring_dequeue_zc_burst_elem_start(queue->completions, sizeof(*out), n,
							      &zc, NULL);

	if (taken == 0)
		return fork_check();
	prefetch_completions(zc.ptr1, zc.n1);
	copy_completions(out, zc.ptr1, zc.n1);
	if (zc.n1 < taken)
		copy_completions(out + zc.n1, zc.ptr2, taken - zc.n1);
	rte_ring_dequeue_zc_elem_finish(queue->completions, taken);
	queue->outstanding -= taken;
	return (int)taken;
}

static int reap_inline(struct slu_queue *queue, struct slu_completion *out, uint32_t n)
{
	uint32_t taken;

	if (queue->outstanding > queue->last - queue->first)
		poller_run_inline(queue->poller);
	taken = queue_take_done(queue, out, n);
	queue->outstanding -= taken;
	return (int)taken;
}

int slu_reap(struct slu_queue *queue, struct slu_completion *out, uint32_t n)
{
	return queue->is_inline ? reap_inline(queue, out, n) : reap_ring(queue, out, n);
}
