/* SPDX-License-Identifier: Apache-2.0 */
/* Operations wait until they are due, then take place at once; so different delays reorder them. */
#include <errno.h>
#include <string.h>

#include "transport/fake/fake.h"

static uint64_t due(struct fake_path *fake)
{
	const struct fake_behaviour *behaviour = &fake->behaviour;
	uint64_t spread = behaviour->delay_max_ns - behaviour->delay_min_ns;
	uint64_t delay = behaviour->delay_min_ns + random_below(&fake->random, spread + 1);

	if (random_chance(&fake->random, behaviour->loss))
		return UINT64_MAX;
	return clock_now_ns(fake->clock) + delay;
}

static uint32_t fake_post(struct path *path, const struct slu_op *ops, uint32_t n,
			  struct slu_completion *done)
{
	struct fake_path *fake = (struct fake_path *)path;
	uint32_t i;

	(void)done;
	for (i = 0; i < n && fake->count < fake->behaviour.capacity; i++) {
		struct fake_flight *flight = &fake->flights[fake->count++];

		if (fake->posted_total++ == fake->behaviour.die_after)
			remote_fail(path->remote, -ECONNRESET);
		flight->op = ops[i];
		flight->due_ns = due(fake);
	}
	return i;
}

/* @return 0, or -EAGAIN: no room for the notification yet */
static int perform(struct fake_path *fake, const struct slu_op *op)
{
	char *local = op->region->addr + op->local_offset;
	char *remote = fake->base + op->remote_offset;

	if (op->opcode == SLU_READ) {
		memcpy(local, remote, op->length);
		fake->path.stats.reads++;
		fake->path.stats.bytes_read += op->length;
		return 0;
	}
	if (op->opcode == SLU_WRITE_NOTIFY && !notify_room(&fake->notify))
		return -EAGAIN;
	memcpy(remote, local, op->length);
	fake->path.stats.writes++;
	fake->path.stats.bytes_written += op->length;
	if (op->opcode == SLU_WRITE_NOTIFY) {
		notify_send(&fake->notify, op->tag);
		client_stored(fake->waker);
	}
	return 0;
}

static int outcome(struct fake_path *fake, const struct fake_flight *flight, uint64_t now)
{
	int state = atomic_load_explicit(&fake->path.remote->state, memory_order_relaxed);

	if (state != 0)
		return state;
	if (flight->due_ns <= now)
		return perform(fake, &flight->op);
	return fake->flushed ? -ECANCELED : -EAGAIN;
}

static uint32_t fake_poll(struct path *path, struct slu_completion *done, uint32_t n)
{
	struct fake_path *fake = (struct fake_path *)path;
	uint64_t now = clock_now_ns(fake->clock);
	uint32_t finished = 0;

	for (uint32_t i = 0; i < fake->count && finished < n;) {
		struct fake_flight *flight = &fake->flights[i];
		int status = outcome(fake, flight, now);

		if (status == -EAGAIN && !fake->flushed) {
			i++;
			continue;
		}
		if (status == -EAGAIN)
			status = -ECANCELED;
		done[finished++] = (struct slu_completion){.user_data = flight->op.user_data,
							   .status = status,
							   .scope = status == 0 ? SLU_SCOPE_NONE
										: SLU_SCOPE_PATH,
							   .transport = SLU_TRANSPORT_FAKE};
		path->stats.failed += status != 0;
		*flight = fake->flights[--fake->count];
	}
	if (fake->count == 0)
		fake->flushed = false;
	return finished;
}

/* Nothing runs behind our back here: to end all is to perform none of it any more. */
static void fake_flush(struct path *path)
{
	struct fake_path *fake = (struct fake_path *)path;

	fake->flushed = fake->count > 0;
	for (uint32_t i = 0; i < fake->count; i++)
		fake->flights[i].due_ns = UINT64_MAX;
}

const struct transport_fast fake_fast = {
	.post = fake_post,
	.poll = fake_poll,
	.flush = fake_flush,
};
