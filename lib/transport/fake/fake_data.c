/* SPDX-License-Identifier: Apache-2.0 */
/* Operations wait until they are due, then take place at once; so different delays reorder them. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "transport/atomic_op.h"
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

static enum post_result fake_post(struct path *path, struct request *request, struct op_part part)
{
	struct fake_path *fake = (struct fake_path *)path;

	if (fake->count >= fake->behaviour.capacity)
		return POST_FULL;
	if (fake->posted_total++ == fake->behaviour.die_after)
		remote_fail(fake->path.remote, -ECONNRESET);
	fake->parts[fake->count++] =
		(struct fake_part){.request = request, .part = part, .due_ns = due(fake)};
	return POST_DONE;
}

static enum post_result fake_post_vector(struct path *path, struct request *request,
					 struct op_part part, const struct vector_piece *pieces,
					 uint32_t n)
{
	struct fake_path *fake = (struct fake_path *)path;
	enum post_result result = fake_post(path, request, part);

	(void)pieces;
	if (result != POST_DONE)
		return result;
	fake->parts[fake->count - 1].is_vector = n > 0;
	fake->parts[fake->count - 1].at = request->at;
	return POST_DONE;
}

static void perform_pieces(struct fake_path *fake, const struct fake_part *part)
{
	struct vector_piece pieces[VECTOR_PIECES];
	const struct request *request = part->request;
	struct vector_place at = part->at;
	uint32_t n = vector_take(&request->op, request->vector, &at, part->part.length, pieces,
				 VECTOR_PIECES);

	for (uint32_t i = 0; i < n; i++) {
		char *local = request->op.region->addr + pieces[i].local;
		char *remote = fake->base + pieces[i].remote;

		if (part->part.opcode == SLU_READ)
			memcpy(local, remote, pieces[i].length);
		else
			memcpy(remote, local, pieces[i].length);
	}
}

/* Have the segment's pages been taken away, so that nothing that was copied is good? */
static bool is_lost(const struct fake_path *fake)
{
	return guard_deaths() != 0 && region_is_dead(fake->region);
}

/* @return 0, -EFAULT, or -EAGAIN: no room for the notification yet */
static int perform(struct fake_path *fake, const struct fake_part *of)
{
	const struct slu_op *op = &of->request->op;
	struct op_part part = of->part;
	char *local = op->region->addr + op->local_offset + part.offset;
	char *remote = fake->base + op->remote_offset + part.offset;
	bool notifies = part.opcode == SLU_WRITE_NOTIFY;

	if (notifies && !notify_room(&fake->notify))
		return -EAGAIN;
	if (of->is_vector)
		perform_pieces(fake, of);
	else if (opcode_is_atomic(part.opcode))
		atomic_op_with(remote, part.opcode, of->request->operand, local);
	else if (part.opcode == SLU_READ)
		memcpy(local, remote, part.length);
	else
		memcpy(remote, local, part.length);
	if (is_lost(fake)) {
		remote_fail(fake->path.remote, -EFAULT);
		return -EFAULT;
	}
	if (notifies) {
		notify_send(&fake->notify, fake->session, op->tag);
		client_stored(fake->waker);
	}
	return 0;
}

/* @return -EAGAIN: it goes on */
static int outcome(struct fake_path *fake, const struct fake_part *part, uint64_t now)
{
	int state = atomic_load_explicit(&fake->path.remote->state, memory_order_relaxed);

	if (state != 0)
		return state;
	return part->due_ns <= now ? perform(fake, part) : -EAGAIN;
}

static void give_back(struct fake_path *fake, uint32_t index, int status)
{
	struct request *request = fake->parts[index].request;
	uint32_t length = fake->parts[index].part.length;

	fake->parts[index] = fake->parts[--fake->count];
	request_back(request, status < 0 ? status : (int64_t)length, false);
}

static uint32_t fake_poll(struct transport_link *link)
{
	struct fake_path *fake =
		(struct fake_path *)((char *)link - offsetof(struct fake_path, link));
	uint64_t now = clock_now_ns(fake->clock);
	uint32_t finished = 0;

	for (uint32_t i = 0; i < fake->count;) {
		int status = outcome(fake, &fake->parts[i], now);

		if (status == -EAGAIN) {
			i++;
			continue;
		}
		give_back(fake, i, status);
		finished++;
	}
	return finished;
}

/* Nothing runs behind our back here: to end it is to perform none of it any more. */
static void fake_cancel(struct path *path, struct request *request)
{
	struct fake_path *fake = (struct fake_path *)path;
	uint32_t out = request->out;

	for (uint32_t i = 0; out > 0;) {
		if (fake->parts[i].request != request) {
			i++;
			continue;
		}
		out--;
		give_back(fake, i, -ECANCELED);
	}
}

const struct transport_fast fake_fast = {
	.post = fake_post, .post_vector = fake_post_vector, .cancel = fake_cancel};

const struct link_ops fake_link_ops = {.poll = fake_poll};
