/* SPDX-License-Identifier: Apache-2.0 */
/* The copying itself; runs on the polling core, for any number of small and sliced operations. */
#include "transport/atomic_op.h"
#include "transport/shm/shm.h"

#include <errno.h>

static void copy_long(struct copy_tracker *tracker, void *dst, const void *src, uint64_t length)
{
	if (length >= COPY_STREAM_MIN_BYTES && !copy_tracker_cached(tracker, dst, length)) {
		copy_streamed(dst, src, length);
		tracker->unfenced = true;
	} else {
		copy_cached(dst, src, length);
	}
}

/*
 * Two stores of 16 bytes: the completion is read again at once, in such halves, and of several
 * smaller stores the read would wait until they have all left the store buffer.
 */
static inline void complete(struct slu_completion *done, uint64_t user_data, uint64_t bytes)
{
	const struct slu_completion good = {.transport = SLU_TRANSPORT_SHM};
	__m128i whole = _mm_loadu_si128((const __m128i *)&good);

	whole = _mm_or_si128(whole, _mm_cvtsi64_si128((long long)user_data));
	_mm_storeu_si128((__m128i *)done, whole);
	_mm_storeu_si128((__m128i *)done + 1, _mm_cvtsi64_si128((long long)bytes));
}

static_assert(offsetof(struct slu_completion, bytes) == 16, "see complete()");

/* The target has gone; its memory is still mapped, but nobody's. */
static uint32_t refuse(const struct slu_op *ops, uint32_t n, struct slu_completion *done, int state,
		       struct path_stats *stats)
{
	for (uint32_t i = 0; i < n; i++) {
		complete(&done[i], ops[i].user_data, 0);
		done[i].status = state;
		done[i].scope = SLU_SCOPE_SESSION;
	}
	counter_add(&stats->failed, n);
	return n;
}

/*
 * Pages were taken away from a mapping of this process, now or at some time. Was it the segment's,
 * or a region's of one of these operations? Then what was copied may be emptiness.
 */
static __attribute__((noinline)) uint32_t look_for_losses(struct shm_path *shm,
							  const struct slu_op *ops, uint32_t n,
							  struct slu_completion *done,
							  struct path_stats *stats)
{
	if (guard_is_dead(shm->guard)) {
		remote_fail(shm->path.remote, -EFAULT);
		return refuse(ops, n, done, -EFAULT, stats);
	}
	for (uint32_t i = 0; i < n; i++) {
		if (!region_is_dead(ops[i].region))
			continue;
		done[i].status = -EFAULT;
		done[i].scope = SLU_SCOPE_OPERATION;
		done[i].bytes = 0;
		counter_add(&stats->failed, 1);
	}
	return n;
}

static uint32_t shm_copy(struct path *path, const struct slu_op *ops, uint32_t n,
			 struct slu_completion *done, struct path_stats *stats)
{
	struct shm_path *shm = (struct shm_path *)path;
	uint64_t reads = 0, bytes_read = 0, bytes = 0;
	bool notified = false;
	uint32_t i;
	int state = atomic_load_explicit(&path->remote->state, memory_order_relaxed);

	if (__builtin_expect(state != 0, 0))
		return refuse(ops, n, done, state, stats);
	if (__builtin_expect(remote_is_fenced(path->remote), 0))
		return 0;
	for (i = 0; i < n; i++) {
		const struct slu_op *op = &ops[i];
		char *local = op->region->addr + op->local_offset;
		char *remote = shm->base + op->remote_offset;
		bool read = op->opcode == SLU_READ;
		bool notify = op->opcode == SLU_WRITE_NOTIFY;

		if (notify && !notify_room(&shm->lane->notify))
			break; /* before anything is written */
		if (op->length <= COPY_SMALL_BYTES)
			copy_small(read ? local : remote, read ? remote : local, op->length);
		else
			copy_long(shm->tracker, read ? local : remote, read ? remote : local,
				  op->length);
		if (notify) {
			copy_settle(shm->tracker);
			notify_send(&shm->lane->notify, shm->session, op->tag);
			notified = true;
		}
		complete(&done[i], op->user_data, op->length);
		reads += read;
		bytes += op->length;
		bytes_read += read ? op->length : 0;
	}
	if (notified)
		client_stored(shm->waker);
	counter_add(&stats->reads, reads);
	counter_add(&stats->writes, i - reads);
	counter_add(&stats->bytes_read, bytes_read);
	counter_add(&stats->bytes_written, bytes - bytes_read);
	if (__builtin_expect(guard_deaths() != 0, 0))
		return look_for_losses(shm, ops, i, done, stats);
	return i;
}

static inline void copy_any(struct copy_tracker *tracker, void *dst, const void *src,
			    uint64_t length)
{
	if (length <= COPY_SMALL_BYTES)
		copy_small(dst, src, length);
	else
		copy_long(tracker, dst, src, length);
}

/* What was copied may be emptiness. */
static __attribute__((noinline)) int look_for_loss(struct shm_path *shm, const struct slu_op *op)
{
	if (!guard_is_dead(shm->guard))
		return region_is_dead(op->region) ? -EFAULT : 0;
	remote_fail(shm->path.remote, -EFAULT);
	return -EFAULT;
}

static int shm_copy_vector(struct path *path, const struct slu_op *op,
			   const struct vector_piece *pieces, uint32_t n)
{
	struct shm_path *shm = (struct shm_path *)path;
	int state = atomic_load_explicit(&path->remote->state, memory_order_relaxed);
	char *local = op->region->addr;

	if (state != 0)
		return state;
	if (remote_is_fenced(path->remote))
		return -EAGAIN;
	if (op->opcode == SLU_READ)
		for (uint32_t i = 0; i < n; i++)
			copy_any(shm->tracker, local + pieces[i].local,
				 shm->base + pieces[i].remote, pieces[i].length);
	else
		for (uint32_t i = 0; i < n; i++)
			copy_any(shm->tracker, shm->base + pieces[i].remote,
				 local + pieces[i].local, pieces[i].length);
	return __builtin_expect(guard_deaths() != 0, 0) ? look_for_loss(shm, op) : 0;
}

static int shm_atomic(struct path *path, const struct slu_op *op, uint64_t operand)
{
	struct shm_path *shm = (struct shm_path *)path;
	int state = atomic_load_explicit(&path->remote->state, memory_order_relaxed);

	if (state != 0)
		return state;
	if (remote_is_fenced(path->remote))
		return -EAGAIN;
	atomic_op_with(shm->base + op->remote_offset, op->opcode, operand,
		       op->region->addr + op->local_offset);
	return __builtin_expect(guard_deaths() != 0, 0) ? look_for_loss(shm, op) : 0;
}

const struct transport_fast shm_fast = {
	.copy = shm_copy, .copy_vector = shm_copy_vector, .atomic = shm_atomic};
