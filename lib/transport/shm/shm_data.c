/* SPDX-License-Identifier: Apache-2.0 */
/* The copying itself; runs on the polling core, for any number of small and sliced operations. */
#include "transport/shm/shm.h"

/* @return true: non-temporal stores were used, a fence is due */
static inline bool move(struct copy_tracker *tracker, void *dst, const void *src, uint64_t length)
{
	if (length <= COPY_SMALL_BYTES) {
		copy_small(dst, src, length);
		return false;
	}
	if (length >= COPY_STREAM_MIN_BYTES && !copy_tracker_cached(tracker, dst, length)) {
		copy_streamed(dst, src, length);
		return true;
	}
	copy_cached(dst, src, length);
	return false;
}

static inline void complete(struct slu_completion *done, uint64_t user_data)
{
	*done = (struct slu_completion){.user_data = user_data, .transport = SLU_TRANSPORT_SHM};
}

/* The target has gone; its memory is still mapped, but nobody's. */
static uint32_t refuse(struct path *path, const struct slu_op *ops, uint32_t n,
		       struct slu_completion *done, int state)
{
	for (uint32_t i = 0; i < n; i++) {
		complete(&done[i], ops[i].user_data);
		done[i].status = state;
		done[i].scope = SLU_SCOPE_SESSION;
	}
	path->stats.failed += n;
	return n;
}

/* With the lane full, nothing is written. */
static bool write_notify(struct shm_path *shm, const struct slu_op *op)
{
	if (!notify_room(&shm->notify))
		return false;
	if (move(shm->tracker, shm->base + op->remote_offset, op->region->addr + op->local_offset,
		 op->length))
		copy_fence();
	notify_send(&shm->notify, op->tag);
	return true;
}

static uint32_t shm_post(struct path *path, const struct slu_op *ops, uint32_t n,
			 struct slu_completion *done)
{
	struct shm_path *shm = (struct shm_path *)path;
	struct copy_tracker *tracker = shm->tracker;
	char *base = shm->base;
	uint64_t reads = 0, bytes_read = 0, bytes_written = 0;
	bool streamed = false;
	uint32_t i;
	int state = atomic_load_explicit(&path->remote->state, memory_order_relaxed);

	if (__builtin_expect(state != 0, 0))
		return refuse(path, ops, n, done, state);
	for (i = 0; i < n; i++) {
		const struct slu_op *op = &ops[i];
		char *local = op->region->addr + op->local_offset;
		char *remote = base + op->remote_offset;
		uint64_t length = op->length;

		if (op->opcode == SLU_READ) {
			streamed |= move(tracker, local, remote, length);
			bytes_read += length;
			reads++;
		} else if (op->opcode == SLU_WRITE) {
			streamed |= move(tracker, remote, local, length);
			bytes_written += length;
		} else {
			if (!write_notify(shm, op))
				break;
			bytes_written += length;
		}
		complete(&done[i], op->user_data);
	}
	if (streamed)
		copy_fence();
	path->stats.reads += reads;
	path->stats.writes += i - reads;
	path->stats.bytes_read += bytes_read;
	path->stats.bytes_written += bytes_written;
	return i;
}

const struct transport_fast shm_fast = {.post = shm_post};
