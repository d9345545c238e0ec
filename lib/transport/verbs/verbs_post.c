/* SPDX-License-Identifier: Apache-2.0 */
/* Operations become work requests. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "transport/verbs/mlx5_queue.h"
#include "transport/verbs/verbs_link.h"

/* The most that one part can need: a subject, and two pieces of a transfer. */
#define PART_WORKS 3u

/* ---- posting ---- */

/* Counted for the path of the last. */
static inline void count_doorbell(const struct verbs_link *link, const struct verbs_sent *sent)
{
	const struct request *request = request_of(link, sent);

	if (request)
		counter_add(&request->path->stats.doorbells, 1);
}

/* What was added goes with one doorbell, and its last one says when all of it is done. */
static inline void ring(struct verbs_link *link, uint32_t index)
{
	struct verbs_end *end = link->ends[index];

	link->unrung &= ~(1u << index);
	count_doorbell(link, sent_as(end, end->queue->posted - 1));
	if (__builtin_expect(verbs_queue_ring(end->queue, true) < 0, 0)) {
		link->why = IBV_WC_GENERAL_ERR;
		link->refused = true; /* what was not taken does not come back */
		verbs_link_fail(link, -EIO, false);
	}
}

void verbs_flush(struct transport_link *of)
{
	struct verbs_link *link = (struct verbs_link *)of;

	if (__builtin_expect(link->unrung == 1, 1)) {
		ring(link, 0);
		return;
	}
	while (link->unrung != 0)
		ring(link, (uint32_t)__builtin_ctz(link->unrung));
	if (++link->next >= link->count)
		link->next = 1;
}

/*
 * Room was made sure of.
 *
 * @param sent    what its completion will end, at once if it is long
 * @param direct  the queue is driven directly, as is known when this is compiled
 */
__attribute__((always_inline)) static inline void add(struct verbs_link *link, uint32_t index,
						      struct verbs_work *work,
						      struct verbs_sent sent, bool is_long,
						      bool direct)
{
	struct verbs_end *end = link->ends[index];

	work->id = end->queue->posted;
	*sent_as(end, work->id) = sent;
	if (is_long || work->id % VERBS_SIGNAL_EACH == VERBS_SIGNAL_EACH - 1)
		work->flags |= VERBS_SIGNALLED;
	link->out |= 1u << index;
	link->unrung |= 1u << index;
	if (direct)
		mlx5_add(mlx5_of(end->queue), work);
	else
		end->queue->ops->add(end->queue, work);
}

/* Bytes that do not lie in the slice of the first; in whole slices of memory, at most in the next.
 */
static inline uint64_t beyond_slice(uint64_t begin, uint64_t length)
{
	uint64_t end = (begin & (VERBS_SLICE_BYTES - 1)) + length;

	return __builtin_expect(end > VERBS_SLICE_BYTES, 0) ? end - VERBS_SLICE_BYTES : 0;
}

/* Of the caller's memory, with the link's device. */
static inline const struct verbs_registration *registration_of(const struct verbs_path *verbs,
							       const struct slu_op *op)
{
	const struct verbs_region *region = op->region->private[SLU_TRANSPORT_VERBS];

	return region->registered[verbs->link->device];
}

static inline void set_local(const struct verbs_path *verbs, const struct slu_op *op,
			     uint64_t skipped, uint64_t length, struct verbs_work *work)
{
	const struct verbs_registration *registration = registration_of(verbs, op);
	uint64_t begin = op->local_offset + skipped;
	uint64_t beyond = beyond_slice(begin, length);
	uint64_t slice = begin >> VERBS_SLICE_SHIFT;

	work->pieces = 1;
	work->piece[0] = (struct verbs_piece){.addr = (uintptr_t)op->region->addr + begin,
					      .length = (uint32_t)(length - beyond),
					      .lkey = registration->slices[slice].lkey};
	if (__builtin_expect(beyond == 0, 1))
		return;
	work->piece[1] =
		(struct verbs_piece){.addr = (uintptr_t)op->region->addr + begin + length - beyond,
				     .length = (uint32_t)beyond,
				     .lkey = registration->slices[slice + 1].lkey};
	work->pieces = 2;
}

/* Of the queue pair with that index. */
static void set_remote(const struct verbs_path *verbs, uint32_t index, uint64_t offset,
		       struct verbs_work *work)
{
	work->remote = verbs->base + offset;
	work->rkey = verbs->keys[index * verbs->slices + (offset >> VERBS_SLICE_SHIFT)];
}

static inline void set_memory(const struct verbs_path *verbs, uint32_t index,
			      const struct slu_op *op, uint64_t skipped, uint64_t length,
			      struct verbs_work *work)
{
	if (__builtin_expect(length == 0, 0)) {
		set_remote(verbs, index, 0, work);
		work->pieces = 0;
		return;
	}
	set_remote(verbs, index, op->remote_offset + skipped, work);
	if (op->opcode != SLU_READ && length <= verbs->link->ends[index]->queue->inline_bytes) {
		work->flags |= VERBS_INLINE;
		work->pieces = 1;
		work->piece[0].addr = (uintptr_t)op->region->addr + op->local_offset + skipped;
		work->piece[0].length = (uint32_t)length;
	} else {
		set_local(verbs, op, skipped, length, work);
	}
}

static void add_transfer(struct verbs_path *verbs, uint32_t index, struct request *request,
			 uint8_t opcode, uint64_t skipped, uint64_t length, bool ends,
			 uint32_t bytes)
{
	const struct slu_op *op = &request->op;
	struct verbs_work work = {.opcode = opcode, .immediate = op->tag};

	set_memory(verbs, index, op, skipped, length, &work);
	add(verbs->link, index, &work,
	    (struct verbs_sent){.request = ends ? request : NULL,
				.bytes = bytes,
				.reads = op->opcode == SLU_READ},
	    length > REQUEST_SMALL_BYTES, false);
}

static const uint8_t opcodes[] = {
	[SLU_READ] = VERBS_READ,
	[SLU_WRITE] = VERBS_WRITE,
	[SLU_WRITE_NOTIFY] = VERBS_WRITE_IMMEDIATE,
};

/* What lies in another slice of the segment than the rest is a work request of its own. */
static enum post_result post_transfer(struct verbs_path *verbs, uint32_t index,
				      struct request *request, struct op_part part)
{
	uint64_t beyond = beyond_slice(request->op.remote_offset + part.offset, part.length);
	uint64_t first = part.length - beyond;

	if (beyond > 0)
		add_transfer(verbs, index, request,
			     request->op.opcode == SLU_READ ? VERBS_READ : VERBS_WRITE, part.offset,
			     first, false, 0);
	else
		first = 0;
	add_transfer(verbs, index, request, opcodes[part.opcode], part.offset + first,
		     part.length - first, true, part.length);
	return POST_DONE;
}

/* ---- notifications and calls ---- */

/* @return NULL: as many are out as may be */
static struct buffer *take_buffer(struct verbs_link *link)
{
	uint32_t out = link->sending.out;
	bool may = out == 0 || buffers_may(link->buffers, out - 1);
	struct buffer *buffer = may ? sending_take(&link->sending, link->buffers) : NULL;

	if (!buffer)
		counter_add(&link->buffers->refused, 1);
	else if (out > 0)
		buffers_promise(link->buffers);
	return buffer;
}

static void add_message(struct verbs_link *link, struct verbs_sent sent, const void *at,
			uint32_t length, uint32_t lkey)
{
	struct verbs_work work = {
		.opcode = VERBS_SEND,
		.flags = length <= link->ends[0]->queue->inline_bytes ? VERBS_INLINE : 0,
		.pieces = 1,
		.piece[0] = {.addr = (uintptr_t)at, .length = length, .lkey = lkey}};

	add(link, 0, &work, sent, false, false);
}

/* Notifications name their segment once, as long as they are all for the same. */
static enum post_result post_notification(struct verbs_path *verbs, struct request *request,
					  struct op_part part)
{
	struct verbs_link *link = verbs->link;
	uint64_t subject = (uint64_t)verbs->generation << 32 | verbs->handle;
	bool other = link->subject != subject;

	if (link->credits < 1u + other)
		return POST_FULL;
	if (other) {
		if (link->unrung & 1)
			ring(link, 0); /* one subject at a time */
		if (link->error)
			return POST_FULL;
		link->message = (struct verbs_message){.type = VERBS_SUBJECT,
						       .handle = verbs->handle,
						       .generation = verbs->generation};
		add_message(link, (struct verbs_sent){0}, &link->message, sizeof(link->message), 0);
		link->subject = subject;
	}
	link->credits -= 1u + other;
	return post_transfer(verbs, 0, request, part);
}

/* Its number tells it from earlier users of the same place. */
static struct verbs_call *take_slot(struct verbs_link *link)
{
	struct verbs_call *call;

	do
		call = &link->slots[link->next_slot++ % VERBS_CALLS];
	while (call->request || call->buffer);
	call->slot = link->next_slot - 1;
	link->calls++;
	return call;
}

static enum post_result post_call(struct verbs_path *verbs, struct request *request)
{
	const struct slu_op *op = &request->op;
	struct verbs_link *link = verbs->link;
	struct buffer *buffer = NULL;
	struct verbs_message *message;
	struct verbs_call *call;

	if (link->credits > 0 && link->calls < VERBS_CALLS)
		buffer = take_buffer(link);
	if (!buffer)
		return POST_FULL;
	call = take_slot(link);
	call->request = request;
	call->buffer = buffer;
	message = (void *)buffer->bytes;
	*message = (struct verbs_message){.type = VERBS_CALL,
					  .length = (uint32_t)op->length,
					  .handle = verbs->handle,
					  .generation = verbs->generation,
					  .slot = call->slot};
	memcpy(message + 1, op->region->addr + op->local_offset, op->length);
	link->credits--;
	add_message(link, (struct verbs_sent){.slot = call->slot, .carries = true}, message,
		    (uint32_t)(sizeof(*message) + op->length),
		    verbs_buffer_key(buffer, link->device));
	return POST_DONE;
}

/* Bulk takes turns with the queue pairs that it has, from flush to flush. */
static inline uint32_t index_for(const struct verbs_link *link, enum request_lane lane)
{
	return lane == LANE_BULK ? link->next : 0;
}

static enum post_result post_alive(struct verbs_path *verbs, struct request *request,
				   struct op_part part)
{
	uint32_t index = part.opcode <= SLU_WRITE ? index_for(verbs->link, request->lane) : 0;

	if (verbs_queue_room(verbs->link->ends[index]->queue) < PART_WORKS)
		return POST_FULL;
	switch (part.opcode) {
	case OP_CALL:
		return post_call(verbs, request);
	case SLU_WRITE_NOTIFY:
		return post_notification(verbs, request, part);
	default:
		return post_transfer(verbs, index, request, part);
	}
}

/* What nearly all are: bytes, in one slice of the segment and one of the region. */
static inline bool is_plain(const struct request *request, struct op_part part)
{
	uint64_t remote = request->op.remote_offset + part.offset;
	uint64_t local = request->op.local_offset + part.offset;
	uint64_t last = (uint64_t)part.length - 1;
	uint64_t changes = (remote ^ (remote + last)) | (local ^ (local + last));

	return part.opcode <= SLU_WRITE && part.length > 0 && changes >> VERBS_SLICE_SHIFT == 0;
}

/* Lane and kind of device are known when it is compiled. */
__attribute__((always_inline)) static inline void
add_plain(struct verbs_path *verbs, struct request *request, struct op_part part, uint8_t opcode,
	  uint8_t flags, enum request_lane lane, bool direct)
{
	const struct slu_op *op = &request->op;
	uint32_t index = index_for(verbs->link, lane);
	uint64_t remote = op->remote_offset + part.offset;
	uint64_t local = op->local_offset + part.offset;
	const struct verbs_registration *registration = registration_of(verbs, op);
	struct verbs_work work = {
		.opcode = opcode,
		.flags = flags,
		.pieces = 1,
		.remote = verbs->base + remote,
		.rkey = verbs->keys[index * verbs->slices + (remote >> VERBS_SLICE_SHIFT)],
		.piece[0] = {.addr = (uintptr_t)op->region->addr + local,
			     .length = part.length,
			     .lkey = registration->slices[local >> VERBS_SLICE_SHIFT].lkey}};

	add(verbs->link, index, &work,
	    (struct verbs_sent){
		    .request = request, .bytes = part.length, .reads = opcode == VERBS_READ},
	    lane == LANE_BULK, direct);
}

__attribute__((always_inline)) static inline enum post_result
post_plain(struct verbs_path *verbs, struct request *request, struct op_part part,
	   enum request_lane lane, bool direct)
{
	const struct verbs_queue *queue = verbs->link->ends[index_for(verbs->link, lane)]->queue;

	if (__builtin_expect(verbs_queue_room(queue) == 0, 0))
		return POST_FULL;
	if (part.opcode == SLU_READ)
		add_plain(verbs, request, part, VERBS_READ, 0, lane, direct);
	else if (part.length <= queue->inline_bytes)
		add_plain(verbs, request, part, VERBS_WRITE, VERBS_INLINE, lane, direct);
	else
		add_plain(verbs, request, part, VERBS_WRITE, 0, lane, direct);
	return POST_DONE;
}

__attribute__((noinline)) static enum post_result
post_bulk(struct verbs_path *verbs, struct request *request, struct op_part part)
{
	return post_plain(verbs, request, part, LANE_BULK, true);
}

/* ---- a dead link ---- */

static void take_fresh(struct verbs_path *verbs)
{
	free(verbs->keys);
	verbs->link = verbs->fresh;
	verbs->path.link = &verbs->link->link;
	verbs->base = verbs->fresh_base;
	verbs->keys = verbs->fresh_keys;
	verbs->fresh = NULL;
	verbs->fresh_keys = NULL;
	atomic_store_explicit(&verbs->state, VERBS_PATH_UP, memory_order_relaxed);
}

/* Its link is dead, and nothing is on it any more: another is asked for. The link may be gone then.
 */
static void go_down(struct verbs_path *verbs)
{
	if (verbs->link->succeeded)
		verbs->losses = 0;
	verbs->losses += verbs_link_was_lost(verbs->link);
	verbs->path.link = NULL;
	/* Pairs with the acquire in verbs_repair_attempt(). */
	atomic_store_explicit(&verbs->state, VERBS_PATH_DOWN, memory_order_release);
	repair_ask(verbs->env.transport->repair, &verbs->repair);
}

static enum post_result post_unless_dead(struct verbs_path *verbs, struct request *request,
					 struct op_part part)
{
	if (!verbs->link->error)
		return post_alive(verbs, request, part);
	if (!verbs->link->drained)
		return POST_FULL;
	go_down(verbs);
	return POST_HELD;
}

/* Whatever state the path and its link are in, and however the device is driven. */
__attribute__((noinline)) static enum post_result post_otherwise(struct verbs_path *verbs,
								 struct request *request,
								 struct op_part part,
								 enum verbs_path_state state)
{
	if (state == VERBS_PATH_UP && !verbs->link->error && is_plain(request, part))
		return post_plain(verbs, request, part, request->lane, false);
	if (state == VERBS_PATH_DOWN)
		return POST_HELD;
	if (state == VERBS_PATH_MENDED)
		take_fresh(verbs);
	return post_unless_dead(verbs, request, part);
}

static enum post_result verbs_post(struct path *path, struct request *request, struct op_part part)
{
	struct verbs_path *verbs = (struct verbs_path *)path;
	/* Pairs with the release in verbs_repair_attempt(): the fresh link is complete. */
	uint32_t state = atomic_load_explicit(&verbs->state, memory_order_acquire);
	bool plain = state == VERBS_PATH_UP && verbs->link->direct && is_plain(request, part);

	if (__builtin_expect(plain && request->lane == LANE_SMALL, 1))
		return post_plain(verbs, request, part, LANE_SMALL, true);
	if (plain)
		return post_bulk(verbs, request, part);
	return post_otherwise(verbs, request, part, state);
}

/* ---- vectors ---- */

/* The most work requests that a piece can need: its ends may lie in three slices. */
#define PIECE_WORKS 3u

/* So much of a piece lies in one slice of the segment and one of the region. */
static uint32_t in_slices(const struct vector_piece *piece)
{
	uint64_t left = VERBS_SLICE_BYTES - (piece->remote & (VERBS_SLICE_BYTES - 1));
	uint64_t of_local = VERBS_SLICE_BYTES - (piece->local & (VERBS_SLICE_BYTES - 1));

	if (of_local < left)
		left = of_local;
	return left < piece->length ? (uint32_t)left : piece->length;
}

__attribute__((always_inline)) static inline void add_piece(struct verbs_path *verbs,
							    uint32_t index, const struct slu_op *op,
							    const struct vector_piece *piece,
							    struct verbs_sent sent, bool direct)
{
	const struct verbs_queue *queue = verbs->link->ends[index]->queue;
	bool reads = op->opcode == SLU_READ;
	struct verbs_work work = {
		.opcode = reads ? VERBS_READ : VERBS_WRITE,
		.flags = !reads && piece->length <= queue->inline_bytes ? VERBS_INLINE : 0,
		.pieces = 1,
		.piece[0] = {.addr = (uintptr_t)op->region->addr + piece->local,
			     .length = piece->length,
			     .lkey = registration_of(verbs, op)
					     ->slices[piece->local >> VERBS_SLICE_SHIFT]
					     .lkey}};

	set_remote(verbs, index, piece->remote, &work);
	add(verbs->link, index, &work, sent, false, direct);
}

/* A work request for each address in the segment; with the last one the part is over. */
__attribute__((always_inline)) static inline void
add_pieces(struct verbs_path *verbs, uint32_t index, struct request *request, struct op_part part,
	   const struct vector_piece *pieces, uint32_t n, bool direct)
{
	const struct verbs_sent of_others = {.reads = part.opcode == SLU_READ};
	const struct verbs_sent last = {
		.request = request, .bytes = part.length, .reads = part.opcode == SLU_READ};

	for (uint32_t i = 0; i < n; i++) {
		struct vector_piece piece = pieces[i];

		for (;;) {
			struct vector_piece now = {piece.remote, piece.local, in_slices(&piece)};
			bool ends = i == n - 1 && now.length == piece.length;

			add_piece(verbs, index, &request->op, &now, ends ? last : of_others,
				  direct);
			if (now.length == piece.length)
				break;
			piece.remote += now.length;
			piece.local += now.length;
			piece.length -= now.length;
		}
	}
}

static enum post_result verbs_post_vector(struct path *path, struct request *request,
					  struct op_part part, const struct vector_piece *pieces,
					  uint32_t n)
{
	struct verbs_path *verbs = (struct verbs_path *)path;
	/* Pairs with the release in verbs_repair_attempt(): the fresh link is complete. */
	uint32_t state = atomic_load_explicit(&verbs->state, memory_order_acquire);
	uint32_t index;

	if (state == VERBS_PATH_DOWN)
		return POST_HELD;
	if (state == VERBS_PATH_MENDED)
		take_fresh(verbs);
	if (verbs->link->error)
		return post_unless_dead(verbs, request, part);
	index = index_for(verbs->link, request->lane);
	if (verbs_queue_room(verbs->link->ends[index]->queue) < n * PIECE_WORKS)
		return POST_FULL;
	if (verbs->link->direct)
		add_pieces(verbs, index, request, part, pieces, n, true);
	else
		add_pieces(verbs, index, request, part, pieces, n, false);
	return POST_DONE;
}

const struct transport_fast verbs_fast = {
	.post = verbs_post,
	.post_vector = verbs_post_vector,
	.cancel = verbs_cancel,
	.dead = verbs_dead,
};
