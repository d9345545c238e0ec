/* SPDX-License-Identifier: Apache-2.0 */
/* The hot path of verbs: operations become work requests, completions become completions. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "message/mailbox.h"
#include "transport/verbs/mlx5_queue.h"
#include "transport/verbs/verbs.h"

#define BURST        64u
#define RECEIVE_TAKE 16

/* The most that one part can need: a subject, and two pieces of a transfer. */
#define PART_WORKS 3u

/* A device that does not let go of a dead queue pair within this has it taken away. */
#define DRAIN_NS (2 * NS_PER_SECOND)

/* A link on which nothing but silence is waited for is probed so often; the clock is looked at once
 * in some turns. */
#define PROBE_NS    NS_PER_SECOND
#define PROBE_TURNS 1024u

/* ---- what comes back ---- */

static struct verbs_sent *sent_as(struct verbs_end *end, uint32_t id)
{
	return &end->window[id % VERBS_DEPTH];
}

/* NULL: nobody waits for it. */
static struct request *request_of(const struct verbs_link *link, const struct verbs_sent *sent)
{
	return sent->carries ? link->slots[sent->slot % VERBS_CALLS].request : sent->request;
}

/* Its message has left its buffer, or its answer has come: the last of the two frees the slot. */
static void free_slot(struct verbs_link *link, const struct verbs_call *call)
{
	if (!call->request && !call->buffer)
		link->calls--;
}

/* Whoever destroys a link gives back what it sent with: the buffers are its poller's. */
static void give_buffer(struct verbs_link *link, struct verbs_call *call)
{
	struct buffer *buffer = call->buffer;

	call->buffer = NULL;
	if (link->is_left) {
		buffer->next = link->left;
		link->left = buffer;
		return;
	}
	if (link->sending.out > 1)
		buffers_release(link->buffers, 1);
	sending_give(&link->sending, link->buffers, buffer);
}

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

static void end_call(struct verbs_link *link, struct verbs_call *call, int status, bool may_land)
{
	struct request *request = call->request;

	call->request = NULL;
	free_slot(link, call);
	request_back(request, status, may_land);
}

/* NULL: nobody waits for that answer, or not any more. */
static struct verbs_call *open_call(struct verbs_link *link, uint32_t slot)
{
	struct verbs_call *call = &link->slots[slot % VERBS_CALLS];

	return call->request && call->slot == slot ? call : NULL;
}

/* A target that refuses has spoken; else it is not known how far it came, or will come. */
static bool may_land(int status)
{
	return status != -EACCES && status != -EREMOTEIO;
}

/* A key that is not good any more is how we see that the remote is dead; its state knows why. */
static int status_of(const struct request *request, int status)
{
	return atomic_load_explicit(&request->path->remote->state, memory_order_relaxed) != 0
		       ? -ECANCELED
		       : status;
}

/* The device is done with a work request. */
static inline void went_well(struct verbs_link *link, const struct verbs_sent *sent)
{
	struct request *request = sent->request;

	if (__builtin_expect(request != NULL, 1)) {
		request_back(request, 0, false);
	} else if (sent->carries) {
		struct verbs_call *call = &link->slots[sent->slot % VERBS_CALLS];

		give_buffer(link, call);
		free_slot(link, call);
	}
}

static void went_wrong(struct verbs_link *link, struct verbs_sent *sent, int status)
{
	struct request *request = request_of(link, sent);

	if (sent->carries) {
		struct verbs_call *call = &link->slots[sent->slot % VERBS_CALLS];

		give_buffer(link, call);
		if (request)
			end_call(link, call, status_of(request, status), may_land(status));
		else
			free_slot(link, call);
	} else if (request) {
		request_back(request, status_of(request, status), !sent->reads && may_land(status));
	}
	sent->request = NULL;
	sent->carries = false;
}

/* ---- the end of a link ---- */

static bool is_written(const struct verbs_sent *sent)
{
	return sent->carries || (sent->request && !sent->reads);
}

/* Anything but READs that has not come back. */
static bool has_written(const struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->queue->posted; id++)
			if (is_written(&end->window[id % VERBS_DEPTH]))
				return true;
	}
	return false;
}

/*
 * Everything posted comes back by poll, with an error. Before anyone is told the fence stands.
 *
 * @param written  a write was lost with it, beside those that have not come back
 */
static void fail_link(struct verbs_link *link, int error, bool written)
{
	if (link->error)
		return;
	if (link->ticket && (written || has_written(link))) {
		link->peer->raise(link->ticket);
		link->ticket = NULL;
	}
	link->error = error;
	link->direct = false;
	link->dead_ns = clock_monotonic_ns(NULL);
	for (uint32_t i = 0; i < link->count; i++) {
		verbs_queue_fail(link->ends[i]->queue);
		/* What the device was not told of would not come back. */
		verbs_queue_ring(link->ends[i]->queue, true);
	}
	link->unrung = 0;
}

static void end_calls(struct verbs_link *link)
{
	for (uint32_t i = 0; i < VERBS_CALLS; i++)
		if (link->slots[i].request)
			end_call(link, &link->slots[i], -ECANCELED, true);
}

static int map_status(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RNR_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR:
	case IBV_WC_REM_ABORT_ERR:
	case IBV_WC_WR_FLUSH_ERR:
	case IBV_WC_LOC_QP_OP_ERR: /* Soft-RoCE: nothing can be sent, as when its link is down */
		return -ECANCELED; /* nobody is at fault: again, over another link */
	case IBV_WC_REM_ACCESS_ERR:
		return -EACCES;
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return -EFAULT;
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_OP_ERR:
		return -EREMOTEIO;
	default:
		return -EIO;
	}
}

/* ---- completions of the device ---- */

static void on_failure(struct verbs_link *link, struct verbs_end *end,
		       const struct verbs_done *done)
{
	int status = map_status((enum ibv_wc_status)done->status);
	bool written = is_written(sent_as(end, done->id));

	went_wrong(link, sent_as(end, end->expected++), status);
	if (link->error)
		return;
	link->why = (enum ibv_wc_status)done->status;
	link->vendor_error = done->vendor_error;
	fail_link(link, -ECONNRESET, written && may_land(status));
}

/* All before @p end_id have: a queue pair works in order. */
static inline void on_success(struct verbs_link *link, struct verbs_end *end, uint32_t end_id)
{
	const struct request *last = sent_as(end, end_id - 1)->request;

	if (end->expected == end_id)
		return;
	link->succeeded = true;
	if (last)
		counter_add(&last->path->stats.signalled, 1);
	do
		went_well(link, sent_as(end, end->expected++));
	while (end->expected != end_id);
}

__attribute__((noinline)) static uint32_t drive_queue(struct verbs_link *link,
						      struct verbs_end *end)
{
	struct verbs_done done[BURST];
	uint32_t n = end->queue->ops->poll(end->queue, done, BURST);

	for (uint32_t i = 0; i < n; i++) {
		on_success(link, end, done[i].id + (done[i].status == IBV_WC_SUCCESS));
		if (done[i].status != IBV_WC_SUCCESS)
			on_failure(link, end, &done[i]);
	}
	return n;
}

static inline uint32_t drive_direct(struct verbs_link *link, struct verbs_end *end)
{
	struct mlx5_queue *mlx5 = mlx5_of(end->queue);
	uint32_t n = 0, id;

	while (n < BURST && mlx5_next_success(mlx5, &id)) {
		on_success(link, end, id + 1);
		n++;
	}
	if (__builtin_expect(n > 0, 1))
		mlx5_taken(mlx5, n);
	else if (mlx5_next_entry(mlx5))
		n = drive_queue(link, end); /* something else */
	return n;
}

static inline uint32_t drive_end(struct verbs_link *link, uint32_t index)
{
	struct verbs_end *end = link->ends[index];
	uint32_t n = __builtin_expect(end->queue->direct, 1) ? drive_direct(link, end)
							     : drive_queue(link, end);

	if (end->expected == end->queue->posted)
		link->out &= ~(1u << index);
	return n;
}

static uint32_t drive_ends(struct verbs_link *link)
{
	uint32_t done = 0;

	if (__builtin_expect(link->out == 1, 1))
		return drive_end(link, 0);
	for (uint32_t left = link->out; left != 0; left &= left - 1)
		done += drive_end(link, (uint32_t)__builtin_ctz(left));
	return done;
}

/* The device does not answer: without its queue pairs it cannot touch our memory any more. */
static void take_away(struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		struct verbs_end *end = link->ends[i];

		ibv_destroy_qp(end->queue->qp);
		end->queue->qp = NULL;
		while (end->expected != end->queue->posted)
			went_wrong(link, sent_as(end, end->expected++), -ECANCELED);
	}
	link->out = link->unrung = 0;
}

/* A dead link is drained, in bounded time, before it is replaced. @return is it now? */
static bool finish_dead(struct verbs_link *link)
{
	if (link->out != 0 &&
	    (link->refused || clock_monotonic_ns(NULL) - link->dead_ns > DRAIN_NS))
		take_away(link);
	if (link->out != 0)
		return false;
	end_calls(link);
	link->drained = true;
	return true;
}

void verbs_link_drain(struct verbs_link *link)
{
	link->is_left = true;
	fail_link(link, -ECANCELED, false);
	while (!link->drained && !finish_dead(link))
		drive_ends(link);
}

/* ---- what the target sends ---- */

static int post_receive(struct verbs_link *link, struct buffer *buffer)
{
	return verbs_receive(link->ends[0]->queue->qp, NULL, buffer, link->device);
}

int verbs_link_receive_all(struct verbs_link *link)
{
	int error = 0;

	for (struct buffer *buffer = link->receiving; buffer && error == 0; buffer = buffer->next)
		error = post_receive(link, buffer);
	return error ? fail(-error, "cannot post a receive: %s", strerror(error)) : 0;
}

static void strange(struct verbs_link *link, const char *what)
{
	log_peer(SLU_LOG_ERROR, "an RDMA link ends: the target sent %s", what);
	fail_link(link, -EPROTO, false);
}

/* An answer that comes too late, or is too long for its room, is thrown away. */
static void on_answer(struct verbs_link *link, const struct verbs_message *message)
{
	struct verbs_call *call = open_call(link, message->slot);
	const struct slu_op *op = call ? &call->request->op : NULL;
	bool fits = call && message->length <= op->tag;

	if (!call)
		return;
	if (fits) {
		memcpy(op->region->addr + op->remote_offset, message + 1, message->length);
		call->request->answer_length = (uint16_t)message->length;
	}
	end_call(link, call, fits ? message->status : -EMSGSIZE, false);
}

static void on_message(struct verbs_link *link, const struct ibv_wc *completion,
		       const struct buffer *buffer)
{
	const struct verbs_message *at = (const void *)buffer->bytes;
	struct verbs_message message;

	if (completion->opcode != IBV_WC_RECV || completion->byte_len < sizeof(message)) {
		strange(link, "something that is no message");
		return;
	}
	message = *at;
	if ((message.type != VERBS_ANSWER && message.type != VERBS_CREDITS) ||
	    !mailbox_status_allowed(message.status) ||
	    message.length != completion->byte_len - sizeof(message) ||
	    message.taken > link->peer_receives - link->credits) {
		strange(link, "a message that cannot be");
		return;
	}
	link->credits += message.taken;
	if (message.type == VERBS_ANSWER)
		on_answer(link, at);
}

static uint32_t drive_receives(struct verbs_link *link)
{
	struct ibv_wc completions[RECEIVE_TAKE];
	int n = ibv_poll_cq(link->receive_cq, RECEIVE_TAKE, completions);

	for (int i = 0; i < n && !link->error; i++) {
		struct buffer *buffer = (void *)(uintptr_t)completions[i].wr_id;

		if (completions[i].status != IBV_WC_SUCCESS)
			continue; /* the queue pair dies: its sends say why */
		on_message(link, &completions[i], buffer);
		if (!link->error && post_receive(link, buffer))
			fail_link(link, -EIO, false);
	}
	return n > 0 ? (uint32_t)n : 0;
}

/* A write of nothing needs no key, and is acknowledged like any other. */
static void post_probe(struct verbs_link *link, uint32_t index)
{
	struct verbs_end *end = link->ends[index];
	uint32_t id = end->queue->posted;
	struct verbs_work work = {.opcode = VERBS_WRITE, .flags = VERBS_SIGNALLED, .id = id};

	*sent_as(end, id) = (struct verbs_sent){0};
	if (verbs_queue_post(end->queue, &work, 1) < 1)
		return;
	link->out |= 1u << index;
}

/* While we only wait for an answer or for credits nothing says that the other end has failed. */
static void probe_silent(struct verbs_link *link)
{
	uint64_t now;

	if ((link->calls == 0 && link->credits > 1) || ++link->silent % PROBE_TURNS != 0)
		return;
	now = clock_monotonic_ns(NULL);
	if (now < link->probe_at_ns || link->out & 1)
		return;
	link->probe_at_ns = now + PROBE_NS;
	post_probe(link, 0);
}

static uint32_t wait_for_messages(struct verbs_link *link)
{
	uint32_t done = link->error ? 0 : drive_receives(link);

	if (!link->error)
		probe_silent(link);
	return done;
}

/* Something is to come from the target, or the link is dead. */
__attribute__((noinline)) static uint32_t drive_all(struct verbs_link *link)
{
	uint32_t done;

	if (link->drained)
		return 1; /* for those that are stalled on it */
	/* What was answered is acknowledged as well by then, and leaves its buffer at once. */
	done = wait_for_messages(link) + drive_ends(link);
	if (link->error)
		done += finish_dead(link);
	return done;
}

/* @return how much was done */
static uint32_t drive(struct verbs_link *link)
{
	if (link->calls > 0 || link->credits < link->peer_receives || link->error)
		return drive_all(link);
	return drive_ends(link);
}

static uint32_t verbs_poll(struct transport_link *link)
{
	return drive((struct verbs_link *)link);
}

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
		fail_link(link, -EIO, false);
	}
}

static void verbs_flush(struct transport_link *of)
{
	struct verbs_link *link = (struct verbs_link *)of;

	if (__builtin_expect(link->unrung == 1, 1)) {
		ring(link, 0);
		return;
	}
	while (link->unrung != 0)
		ring(link, (uint32_t)__builtin_ctz(link->unrung));
	if (link->count > 1 && ++link->next >= link->count)
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
			 uint8_t opcode, uint64_t skipped, uint64_t length, bool ends)
{
	const struct slu_op *op = &request->op;
	struct verbs_work work = {.opcode = opcode, .immediate = op->tag};

	set_memory(verbs, index, op, skipped, length, &work);
	add(verbs->link, index, &work,
	    (struct verbs_sent){.request = ends ? request : NULL, .reads = op->opcode == SLU_READ},
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
			     first, false);
	else
		first = 0;
	add_transfer(verbs, index, request, opcodes[part.opcode], part.offset + first,
		     part.length - first, true);
	return POST_DONE;
}

/* ---- notifications and calls ---- */

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
	case SLU_CALL:
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
	    (struct verbs_sent){.request = request, .reads = opcode == VERBS_READ},
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

/* A deadline that ended it, or an operation that was refused, says nothing of the way there. */
static bool was_lost(const struct verbs_link *link)
{
	return link->error != -ECANCELED &&
	       (link->error != -ECONNRESET || map_status(link->why) == -ECANCELED);
}

/* Its link is dead, and nothing is on it any more: another is asked for. The link may be gone then.
 */
static void go_down(struct verbs_path *verbs)
{
	if (verbs->link->succeeded)
		verbs->losses = 0;
	verbs->losses += was_lost(verbs->link);
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

/* ---- giving up ---- */

static bool is_down(const struct verbs_path *verbs)
{
	return atomic_load_explicit(&verbs->state, memory_order_relaxed) != VERBS_PATH_UP;
}

/* Of @p path, or the one. */
static bool concerns(const struct request *of, const struct path *path,
		     const struct request *request)
{
	return of && (request ? of == request : of->path == path);
}

static bool has_posted(const struct verbs_link *link, const struct path *path,
		       const struct request *request)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->queue->posted; id++) {
			const struct verbs_sent *sent = &end->window[id % VERBS_DEPTH];

			if (concerns(request_of(link, sent), path, request))
				return true;
		}
	}
	return false;
}

/*
 * What the device has can be taken back from it only together with all else on its queue pairs:
 * they end, and the neighbours are posted again on others. Calls that the owner has are let go of:
 * a late answer finds nobody.
 */
static void give_up(struct verbs_path *verbs, const struct request *request, bool also_posted)
{
	struct verbs_link *link = verbs->link;

	if (is_down(verbs) || link->drained)
		return;
	if (also_posted && !link->error && has_posted(link, &verbs->path, request)) {
		link->why = IBV_WC_RESP_TIMEOUT_ERR;
		fail_link(link, -ECANCELED, false);
	}
	for (uint32_t i = 0; i < VERBS_CALLS; i++)
		if (concerns(link->slots[i].request, &verbs->path, request))
			end_call(link, &link->slots[i], -ECANCELED, true);
}

static void verbs_cancel(struct path *path, struct request *request)
{
	give_up((struct verbs_path *)path, request, true);
}

/* Of a target that has gone nothing will be heard; one that closes a segment lets others go on. */
static void verbs_dead(struct path *path, int state)
{
	give_up((struct verbs_path *)path, NULL, state == -ECONNRESET);
}

/* ---- before the first operation ---- */

int verbs_link_probe(struct verbs_link *link, uint64_t until_ns)
{
	for (uint32_t i = 0; i < link->count; i++)
		post_probe(link, i);
	while (link->out != 0 && !link->error && clock_monotonic_ns(NULL) < until_ns) {
		drive(link);
		sched_yield();
	}
	link->succeeded = false;
	if (link->out == 0 && !link->error)
		return 0;
	return fail(-ECONNRESET, "RDMA does not get through: %s",
		    link->error ? ibv_wc_status_str(link->why)
				: "nothing was acknowledged in time");
}

/* ---- sleeping ---- */

static void take_events(struct verbs_link *link)
{
	struct ibv_cq *cq;
	void *context;

	while (ibv_get_cq_event(link->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

static void arm(struct verbs_link *link)
{
	for (uint32_t left = link->out; left != 0; left &= left - 1) {
		struct verbs_queue *queue = link->ends[__builtin_ctz(left)]->queue;

		queue->ops->arm(queue);
	}
	ibv_req_notify_cq(link->receive_cq, 0);
}

static bool verbs_sleep(struct transport_link *of)
{
	struct verbs_link *link = (struct verbs_link *)of;
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};

	if (link->error)
		return false;
	take_events(link);
	arm(link);
	epoll_ctl(link->epoll_fd, link->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
		  link->channel->fd, &event);
	link->registered = true;
	return drive(link) == 0; /* what came before it was armed tells nobody */
}

const struct transport_fast verbs_fast = {
	.post = verbs_post,
	.cancel = verbs_cancel,
	.dead = verbs_dead,
};

const struct link_ops verbs_link_ops = {
	.flush = verbs_flush, .poll = verbs_poll, .sleep = verbs_sleep};
