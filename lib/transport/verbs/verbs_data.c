/* SPDX-License-Identifier: Apache-2.0 */
/* The hot path of verbs: operations become work requests, completions become completions. */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "transport/mailbox.h"
#include "transport/verbs/verbs.h"

#define BURST        64u
#define BATCH        (BURST * 2 + 2) /* an operation can be cut at a slice of the segment's memory */
#define RECEIVE_TAKE 16

/* The most that one operation can need: a subject, and two parts of a transfer. */
#define OPERATION_WORKS 3u

/* A device that does not let go of a dead queue pair within this has it taken away. */
#define DRAIN_NS (2 * NS_PER_SECOND)

/* A link on which nothing but silence is waited for is probed so often; the clock is looked at once
 * in some turns. */
#define PROBE_NS    NS_PER_SECOND
#define PROBE_TURNS 1024u

/* Work requests for one queue pair, to be posted together. */
struct batch {
	struct verbs_end *end;
	uint32_t index; /* of the end */
	uint32_t count;
	struct verbs_work works[BATCH];
	struct verbs_message subject; /* stays until the batch is posted */
};

/* ---- requests ---- */

/* Nobody waits for it. */
static const struct verbs_request nobody = {.settled = true, .handed = true};

static uint32_t room(const struct verbs_end *end)
{
	return end->queue->depth - (end->head - end->tail);
}

static void free_slot(struct verbs_link *link, struct verbs_request *call)
{
	if (!call->handed || !call->answered || !call->sent)
		return;
	call->path = NULL;
	link->calls--;
}

/* Requests at the tail that nobody needs any more make room. */
static void release(struct verbs_end *end)
{
	while (end->tail != end->expected) {
		const struct verbs_request *oldest = &end->window[end->tail % VERBS_DEPTH];

		if (!oldest->handed || !oldest->answered)
			break;
		end->tail++;
	}
}

static void settle(struct verbs_request *request, int status)
{
	if (request->settled)
		return;
	request->settled = true;
	request->status = status;
	STAILQ_INSERT_TAIL(&request->path->ready, request, link);
}

/* What may have reached the segment's owner cannot be posted again. */
static int status_of(const struct verbs_request *request, int status)
{
	bool seen = request->opcode == SLU_CALL || request->opcode == SLU_WRITE_NOTIFY;

	return status == -ECANCELED && seen ? -ECONNRESET : status;
}

static void end_call(struct verbs_link *link, struct verbs_request *call, int status)
{
	call->answered = true;
	call->may_land |= status == -ECANCELED;
	settle(call, status_of(call, status));
	free_slot(link, call);
}

static struct verbs_request *open_slot(struct verbs_link *link, uint32_t slot)
{
	struct verbs_request *call = &link->slots[slot % VERBS_CALLS];

	return call->path && call->slot == slot && !call->answered ? call : NULL;
}

/* A target that refuses has spoken; else it is not known how far it came, or will come. */
static bool may_land(const struct verbs_request *request, int status)
{
	return status < 0 && status != -EACCES && status != -EREMOTEIO &&
	       request->opcode != SLU_READ;
}

/* The device is done with a work request. */
static void came_back(struct verbs_link *link, struct verbs_request *request, int status)
{
	request->answered = true;
	request->may_land = may_land(request, status);
	if (request->carries) {
		struct verbs_request *call = &link->slots[request->slot % VERBS_CALLS];

		call->sent = true;
		if (status < 0 && !call->answered) {
			call->may_land = may_land(call, status);
			end_call(link, call, status);
		} else {
			free_slot(link, call);
		}
	} else if (request->path) {
		settle(request, status_of(request, status));
	}
}

/* ---- the end of a link ---- */

/* Anything but READs that has not come back. */
static bool has_written(const struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->head; id++) {
			const struct verbs_request *request = &end->window[id % VERBS_DEPTH];

			if (request->carries || request->opcode != SLU_READ)
				return true;
		}
	}
	return false;
}

/*
 * Everything posted comes back by poll, with an error. Before it is reported the fence stands.
 *
 * @param last  the work request at fault, or NULL
 */
static void fail_link(struct verbs_link *link, int error, const struct verbs_request *last)
{
	if (link->error)
		return;
	if (link->ticket && ((last && (last->may_land || last->carries)) || has_written(link))) {
		link->peer->raise(link->ticket);
		link->ticket = NULL;
	}
	link->error = error;
	for (uint32_t i = 0; i < link->count; i++)
		verbs_queue_fail(link->ends[i]->queue);
}

static void end_calls(struct verbs_link *link)
{
	for (uint32_t i = 0; i < VERBS_CALLS; i++) {
		struct verbs_request *call = &link->slots[i];

		if (call->path && !call->answered)
			end_call(link, call, -ECANCELED);
	}
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

static void on_done(struct verbs_link *link, struct verbs_end *end, const struct verbs_done *done)
{
	struct verbs_request *last = &end->window[done->id % VERBS_DEPTH];
	int status = map_status((enum ibv_wc_status)done->status);

	/* Those before it have succeeded: a queue pair works in order. */
	link->succeeded |= end->expected != done->id || status == 0;
	while (end->expected != done->id)
		came_back(link, &end->window[end->expected++ % VERBS_DEPTH], 0);
	end->expected++;
	if (last->path)
		last->path->path.stats.signalled++;
	came_back(link, last, status);
	if (status < 0 && !link->error) {
		link->why = (enum ibv_wc_status)done->status;
		link->vendor_error = done->vendor_error;
		fail_link(link, -ECONNRESET, last);
	}
}

static void drive_end(struct verbs_link *link, struct verbs_end *end)
{
	struct verbs_done done[BURST];
	uint32_t n;

	if (end->expected == end->head)
		return;
	n = end->queue->ops->poll(end->queue, done, BURST);
	for (uint32_t i = 0; i < n; i++)
		on_done(link, end, &done[i]);
	release(end);
}

static bool all_back(const struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++)
		if (link->ends[i]->expected != link->ends[i]->head)
			return false;
	return true;
}

/* The device does not answer: without its queue pairs it cannot touch our memory any more. */
static void take_away(struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		struct verbs_end *end = link->ends[i];

		ibv_destroy_qp(end->queue->qp);
		end->queue->qp = NULL;
		while (end->expected != end->head)
			came_back(link, &end->window[end->expected++ % VERBS_DEPTH], -ECANCELED);
		release(end);
	}
}

/* A dead link is drained before anything that was posted on it is reported. */
static void finish_dead(struct verbs_link *link)
{
	if (!link->drained && link->refused)
		take_away(link);
	if (link->drained || !all_back(link))
		return;
	end_calls(link);
	link->drained = true;
}

void verbs_link_drain(struct verbs_link *link)
{
	uint64_t until = clock_monotonic_ns(NULL) + DRAIN_NS;

	fail_link(link, -ECANCELED, NULL);
	while (!link->drained) {
		for (uint32_t i = 0; i < link->count; i++)
			drive_end(link, link->ends[i]);
		if (!all_back(link) && clock_monotonic_ns(NULL) > until)
			take_away(link);
		finish_dead(link);
	}
}

/* ---- what the target sends ---- */

static char *receive_buffer(const struct verbs_link *link, uint64_t index)
{
	return link->messages + (VERBS_CALLS + index) * VERBS_MESSAGE_BYTES;
}

static int post_receive(struct verbs_link *link, uint64_t index)
{
	struct ibv_sge piece = {.addr = (uintptr_t)receive_buffer(link, index),
				.length = VERBS_MESSAGE_BYTES,
				.lkey = link->registration->slices[0].lkey};
	struct ibv_recv_wr request = {.wr_id = index, .sg_list = &piece, .num_sge = 1}, *bad;

	return ibv_post_recv(link->ends[0]->queue->qp, &request, &bad);
}

int verbs_link_receive_all(struct verbs_link *link)
{
	int error = 0;

	for (uint64_t i = 0; error == 0 && i < VERBS_CLIENT_RECEIVES; i++)
		error = post_receive(link, i);
	return error ? fail(-error, "cannot post a receive: %s", strerror(error)) : 0;
}

static void strange(struct verbs_link *link, const char *what)
{
	log_peer(SLU_LOG_ERROR, "an RDMA link ends: the target sent %s", what);
	fail_link(link, -EPROTO, NULL);
}

/* An answer that comes too late, or is too long for its room, is thrown away. */
static void on_answer(struct verbs_link *link, const struct verbs_message *message)
{
	struct verbs_request *call = open_slot(link, message->slot);
	bool fits = call && message->length <= call->length;

	if (!call)
		return;
	if (fits) {
		memcpy(call->local, message + 1, message->length);
		call->answer_length = (uint16_t)message->length;
	}
	end_call(link, call, fits ? message->status : -EMSGSIZE);
}

static void on_message(struct verbs_link *link, const struct ibv_wc *completion)
{
	const struct verbs_message *at = (const void *)receive_buffer(link, completion->wr_id);
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

static void drive_receives(struct verbs_link *link)
{
	struct ibv_wc completions[RECEIVE_TAKE];
	int n;

	if (link->calls == 0 && link->credits == link->peer_receives)
		return;
	n = ibv_poll_cq(link->receive_cq, RECEIVE_TAKE, completions);
	for (int i = 0; i < n && !link->error; i++) {
		if (completions[i].status != IBV_WC_SUCCESS)
			continue; /* the queue pair dies: its sends say why */
		on_message(link, &completions[i]);
		if (!link->error && post_receive(link, completions[i].wr_id))
			fail_link(link, -EIO, NULL);
	}
}

/* A write of nothing needs no key, and is acknowledged like any other. */
static void post_probe(struct verbs_end *end)
{
	struct verbs_work work = {.opcode = VERBS_WRITE, .flags = VERBS_SIGNALLED, .id = end->head};

	end->window[end->head % VERBS_DEPTH] = nobody;
	if (end->queue->ops->post(end->queue, &work, 1) == 1)
		end->head++;
}

/* While we only wait for an answer or for credits nothing says that the other end has failed. */
static void probe_silent(struct verbs_link *link)
{
	struct verbs_end *end = link->ends[0];
	uint64_t now;

	if ((link->calls == 0 && link->credits > 1) || ++link->silent % PROBE_TURNS != 0)
		return;
	now = clock_monotonic_ns(NULL);
	if (now < link->probe_at_ns || end->expected != end->head || room(end) == 0)
		return;
	link->probe_at_ns = now + PROBE_NS;
	post_probe(end);
}

static void drive(struct verbs_link *link)
{
	link->turn = *link->now;
	if (link->drained)
		return;
	for (uint32_t i = 0; i < link->count; i++)
		drive_end(link, link->ends[i]);
	if (!link->error)
		drive_receives(link);
	if (!link->error)
		probe_silent(link);
	else
		finish_dead(link);
}

/* ---- posting ---- */

static void post_batch(struct verbs_path *verbs, struct batch *batch)
{
	struct verbs_queue *queue = batch->end->queue;

	if (batch->count == 0)
		return;
	batch->works[batch->count - 1].flags |= VERBS_SIGNALLED;
	batch->end->unsignalled = 0;
	/* There is room: the window is no larger than the queue. */
	if (queue->ops->post(queue, batch->works, batch->count) < batch->count) {
		verbs->link->why = IBV_WC_GENERAL_ERR;
		verbs->link->refused = true; /* what was not taken does not come back */
		fail_link(verbs->link, -EIO, NULL);
	}
	verbs->path.stats.doorbells++;
	batch->count = 0;
}

/* What the completion of the batch's next work request will end: to be filled in first. */
static struct verbs_request *next_request(const struct batch *batch)
{
	return &batch->end->window[batch->end->head % VERBS_DEPTH];
}

/* The next work request of the batch. */
static struct verbs_work *add_work(struct batch *batch, uint8_t opcode)
{
	struct verbs_end *end = batch->end;
	struct verbs_work *work = &batch->works[batch->count++];

	*work = (struct verbs_work){.opcode = opcode, .id = end->head++};
	if (++end->unsignalled == VERBS_SIGNAL_EACH) {
		work->flags = VERBS_SIGNALLED;
		end->unsignalled = 0;
	}
	return work;
}

static void set_local(const struct verbs_path *verbs, const struct slu_op *op, uint64_t skipped,
		      uint64_t length, struct verbs_work *work)
{
	const struct verbs_registration *registration = op->region->registered[verbs->link->device];
	uint64_t begin = op->local_offset + skipped;
	uint64_t to_slice = VERBS_SLICE_BYTES - (begin & (VERBS_SLICE_BYTES - 1));
	uint64_t first = length < to_slice ? length : to_slice;

	work->piece[0] =
		(struct verbs_piece){.addr = (uintptr_t)op->region->addr + begin,
				     .length = (uint32_t)first,
				     .lkey = registration->slices[begin >> VERBS_SLICE_SHIFT].lkey};
	work->pieces = 1;
	if (first == length)
		return;
	work->piece[1] = (struct verbs_piece){
		.addr = (uintptr_t)op->region->addr + begin + first,
		.length = (uint32_t)(length - first),
		.lkey = registration->slices[(begin >> VERBS_SLICE_SHIFT) + 1].lkey};
	work->pieces = 2;
}

static void set_remote(const struct verbs_path *verbs, uint32_t end, uint64_t offset,
		       struct verbs_work *work)
{
	work->remote = verbs->base + offset;
	work->rkey = verbs->keys[end * verbs->slices + (offset >> VERBS_SLICE_SHIFT)];
}

static void set_memory(const struct verbs_path *verbs, const struct batch *batch,
		       const struct slu_op *op, uint64_t skipped, uint64_t length,
		       struct verbs_work *work)
{
	if (length == 0) {
		set_remote(verbs, batch->index, 0, work);
		return;
	}
	set_remote(verbs, batch->index, op->remote_offset + skipped, work);
	if (op->opcode != SLU_READ && length <= batch->end->queue->inline_bytes) {
		work->flags |= VERBS_INLINE;
		work->pieces = 1;
		work->piece[0] = (struct verbs_piece){.addr = (uintptr_t)op->region->addr +
							      op->local_offset + skipped,
						      .length = (uint32_t)length};
	} else {
		set_local(verbs, op, skipped, length, work);
	}
}

static const uint8_t opcodes[] = {
	[SLU_READ] = VERBS_READ,
	[SLU_WRITE] = VERBS_WRITE,
	[SLU_WRITE_NOTIFY] = VERBS_WRITE_IMMEDIATE,
};

static void add_transfer(struct verbs_path *verbs, struct batch *batch, const struct slu_op *op)
{
	uint64_t to_slice = VERBS_SLICE_BYTES - (op->remote_offset & (VERBS_SLICE_BYTES - 1));
	uint64_t first = op->length <= to_slice ? 0 : to_slice; /* in a work request of its own */
	struct verbs_work *work;

	if (first > 0) {
		*next_request(batch) = nobody;
		work = add_work(batch, op->opcode == SLU_READ ? VERBS_READ : VERBS_WRITE);
		set_memory(verbs, batch, op, 0, first, work);
	}
	*next_request(batch) = (struct verbs_request){.user_data = op->user_data,
						      .path = verbs,
						      .length = (uint32_t)op->length,
						      .opcode = op->opcode};
	work = add_work(batch, opcodes[op->opcode]);
	work->immediate = op->tag;
	set_memory(verbs, batch, op, first, op->length - first, work);
	if (op->length > VERBS_SMALL_BYTES) {
		work->flags |= VERBS_SIGNALLED;
		batch->end->unsignalled = 0;
	}
}

/* ---- notifications and calls ---- */

static void add_message(struct batch *batch, const struct verbs_request *request, const void *at,
			uint32_t length, uint32_t lkey)
{
	struct verbs_work *work;

	*next_request(batch) = *request;
	work = add_work(batch, VERBS_SEND);
	work->pieces = 1;
	work->piece[0] =
		(struct verbs_piece){.addr = (uintptr_t)at, .length = length, .lkey = lkey};
	if (length <= batch->end->queue->inline_bytes)
		work->flags |= VERBS_INLINE;
}

/* Notifications name their segment once, as long as they are all for the same. */
static bool add_notification(struct verbs_path *verbs, struct batch *batch, const struct slu_op *op)
{
	struct verbs_link *link = verbs->link;
	uint64_t subject = (uint64_t)verbs->generation << 32 | verbs->handle;
	bool other = link->subject != subject;

	if (link->credits < 1u + other)
		return false;
	if (other) {
		post_batch(verbs, batch); /* one subject at a time */
		batch->subject = (struct verbs_message){.type = VERBS_SUBJECT,
							.handle = verbs->handle,
							.generation = verbs->generation};
		add_message(batch, &nobody, &batch->subject, sizeof(batch->subject), 0);
		link->subject = subject;
	}
	link->credits -= 1u + other;
	add_transfer(verbs, batch, op);
	return true;
}

/* Its number tells it from earlier users of the same place. */
static struct verbs_request *take_slot(struct verbs_link *link)
{
	if (link->calls == VERBS_CALLS)
		return NULL;
	while (link->slots[link->next_slot % VERBS_CALLS].path)
		link->next_slot++;
	link->calls++;
	link->slots[link->next_slot % VERBS_CALLS].slot = link->next_slot;
	return &link->slots[link->next_slot++ % VERBS_CALLS];
}

static bool add_call(struct verbs_path *verbs, struct batch *batch, const struct slu_op *op)
{
	struct verbs_link *link = verbs->link;
	struct verbs_request *call = link->credits > 0 ? take_slot(link) : NULL;
	struct verbs_request carrier = {.carries = true, .settled = true, .handed = true};
	struct verbs_message *message;

	if (!call)
		return false;
	*call = (struct verbs_request){.user_data = op->user_data,
				       .path = verbs,
				       .local = op->region->addr + op->remote_offset,
				       .length = op->tag,
				       .slot = call->slot,
				       .opcode = SLU_CALL};
	message = (void *)(link->messages + call->slot % VERBS_CALLS * VERBS_MESSAGE_BYTES);
	*message = (struct verbs_message){.type = VERBS_CALL,
					  .length = (uint32_t)op->length,
					  .handle = verbs->handle,
					  .generation = verbs->generation,
					  .slot = call->slot};
	memcpy(message + 1, op->region->addr + op->local_offset, op->length);
	carrier.slot = call->slot;
	link->credits--;
	add_message(batch, &carrier, message, (uint32_t)(sizeof(*message) + op->length),
		    link->registration->slices[0].lkey);
	return true;
}

/* @return false: no room for it now */
static bool add_operation(struct verbs_path *verbs, struct batch *small, struct batch *bulk,
			  const struct slu_op *op)
{
	bool is_bulk = op->length > VERBS_SMALL_BYTES && op->opcode != SLU_WRITE_NOTIFY;
	struct batch *batch = is_bulk ? bulk : small;

	if (room(batch->end) < OPERATION_WORKS)
		return false;
	switch (op->opcode) {
	case SLU_CALL:
		return add_call(verbs, batch, op);
	case SLU_WRITE_NOTIFY:
		return add_notification(verbs, batch, op);
	default:
		add_transfer(verbs, batch, op);
		return true;
	}
}

static uint32_t next_bulk(struct verbs_link *link)
{
	if (++link->next >= link->count)
		link->next = link->count > 1 ? 1 : 0;
	return link->next;
}

static uint32_t post_alive(struct verbs_path *verbs, const struct slu_op *ops, uint32_t n)
{
	struct verbs_link *link = verbs->link;
	struct batch small, bulk;
	uint32_t i = 0;

	if (link->credits <= 1 && link->turn != *link->now)
		drive(link); /* nothing of ours may be out for which it would be polled */
	small.end = link->ends[0];
	small.index = 0;
	bulk.index = next_bulk(link);
	bulk.end = link->ends[bulk.index];
	small.count = bulk.count = 0;
	while (i < n && i < BURST && !link->error && add_operation(verbs, &small, &bulk, &ops[i]))
		i++;
	post_batch(verbs, &small);
	post_batch(verbs, &bulk);
	return i;
}

/* ---- a dead remote, a dead link ---- */

/* Operations on a remote that is dead end here: there is nobody to post them to. */
static uint32_t refuse(struct verbs_path *verbs, const struct slu_op *ops, uint32_t n, int status)
{
	uint32_t i = 0;

	if (verbs->refused > 0)
		return 0;
	for (; i < n && i < VERBS_REFUSALS; i++) {
		/* It may have been on its way before, and lost with its link. */
		verbs->refusals[i] =
			(struct verbs_request){.user_data = ops[i].user_data,
					       .path = verbs,
					       .opcode = ops[i].opcode,
					       .may_land = ops[i].opcode != SLU_READ &&
							   remote_is_fenced(verbs->path.remote),
					       .answered = true};
		settle(&verbs->refusals[i], status);
	}
	verbs->refused = i;
	return i;
}

static void take_fresh(struct verbs_path *verbs)
{
	free(verbs->keys);
	verbs->link = verbs->fresh;
	verbs->base = verbs->fresh_base;
	verbs->keys = verbs->fresh_keys;
	verbs->fresh = NULL;
	verbs->fresh_keys = NULL;
	verbs->path.connections = verbs->link->count;
	atomic_store_explicit(&verbs->state, VERBS_PATH_UP, memory_order_relaxed);
}

/* A deadline that ended it, or an operation that was refused, says nothing of the way there. */
static bool was_lost(const struct verbs_link *link)
{
	return link->error != -ECANCELED &&
	       (link->error != -ECONNRESET || map_status(link->why) == -ECANCELED);
}

/* Its link is dead: when nothing of ours is on it any more, another is asked for. */
static void go_down(struct verbs_path *verbs)
{
	drive(verbs->link);
	if (!verbs->link->drained || verbs->path.posted > 0)
		return;
	if (verbs->link->succeeded)
		verbs->losses = 0;
	verbs->losses += was_lost(verbs->link);
	atomic_store_explicit(&verbs->state, VERBS_PATH_DOWN, memory_order_relaxed);
	repair_ask(verbs->env.transport->repair, &verbs->repair);
}

/* @return can it be posted on? */
static bool is_up(struct verbs_path *verbs)
{
	/* Pairs with the release in the repair thread: the fresh link is complete. */
	uint32_t state = atomic_load_explicit(&verbs->state, memory_order_acquire);

	if (state == VERBS_PATH_MENDED)
		take_fresh(verbs);
	else if (state == VERBS_PATH_DOWN)
		return false;
	if (!verbs->link->error)
		return true;
	go_down(verbs); /* from then on the link may be gone */
	return false;
}

static uint32_t verbs_post(struct path *path, const struct slu_op *ops, uint32_t n,
			   struct slu_completion *done)
{
	struct verbs_path *verbs = (struct verbs_path *)path;
	int dead = atomic_load_explicit(&path->remote->state, memory_order_relaxed);

	(void)done;
	if (__builtin_expect(dead != 0, 0))
		return refuse(verbs, ops, n, dead);
	if (__builtin_expect(!is_up(verbs) || remote_is_fenced(path->remote), 0))
		return 0;
	return post_alive(verbs, ops, n);
}

/* ---- completions ---- */

static void give_up(struct verbs_path *verbs, const uint64_t *user_data);
static void give_up_calls(struct verbs_link *link, const struct verbs_path *verbs,
			  const uint64_t *user_data);

/* Of a target that has gone nothing will be heard; one that closes a segment lets others go on. */
static void leave_dead(struct verbs_path *verbs, int state)
{
	if (state == -ECONNRESET)
		give_up(verbs, NULL);
	else
		give_up_calls(verbs->link, verbs, NULL);
}

static void count(struct path_stats *stats, const struct verbs_request *request)
{
	stats->failed += request->status != 0;
	if (request->status != 0 || request->opcode == SLU_CALL)
		return;
	if (request->opcode == SLU_READ) {
		stats->reads++;
		stats->bytes_read += request->length;
	} else {
		stats->writes++;
		stats->bytes_written += request->length;
	}
}

static enum slu_scope scope_of(int status, int state)
{
	if (status == 0)
		return SLU_SCOPE_NONE;
	if (status == -ECONNRESET || status == -ECANCELED)
		return state ? SLU_SCOPE_SESSION : SLU_SCOPE_PATH;
	return status == state ? SLU_SCOPE_SESSION : SLU_SCOPE_OPERATION;
}

static void hand_out(struct verbs_path *verbs, struct verbs_request *request, int state,
		     struct slu_completion *done)
{
	/* That the link has died, or a key is not good any more, is how we see it; the state knows
	 * why. */
	if (state && request->status < 0)
		request->status = state;
	*done = (struct slu_completion){.user_data = request->user_data,
					.status = request->status,
					.scope = (uint8_t)(scope_of(request->status, state) |
							   (request->may_land ? SLU_MAY_LAND : 0)),
					.transport = SLU_TRANSPORT_VERBS,
					.length = request->answer_length};
	count(&verbs->path.stats, request);
	request->handed = true;
	if (request >= verbs->refusals && request < verbs->refusals + VERBS_REFUSALS)
		verbs->refused--;
	else if (request->opcode == SLU_CALL)
		free_slot(verbs->link, request);
}

static bool is_down(const struct verbs_path *verbs)
{
	return atomic_load_explicit(&verbs->state, memory_order_relaxed) != VERBS_PATH_UP;
}

static uint32_t verbs_poll(struct path *path, struct slu_completion *done, uint32_t n)
{
	struct verbs_path *verbs = (struct verbs_path *)path;
	struct verbs_request *request;
	uint32_t taken = 0;
	int state;

	if (!is_down(verbs) && verbs->link->turn != *verbs->env.turn)
		drive(verbs->link);
	state = atomic_load_explicit(&path->remote->state, memory_order_relaxed);
	if (__builtin_expect(state != 0, 0) && !is_down(verbs))
		leave_dead(verbs, state);
	while (taken < n && (request = STAILQ_FIRST(&verbs->ready))) {
		STAILQ_REMOVE_HEAD(&verbs->ready, link);
		hand_out(verbs, request, state, &done[taken++]);
	}
	if (taken > 0 && !is_down(verbs))
		for (uint32_t i = 0; i < verbs->link->count; i++)
			release(verbs->link->ends[i]);
	return taken;
}

/* ---- giving up ---- */

static bool has_posted(const struct verbs_link *link, const struct verbs_path *verbs,
		       const uint64_t *user_data)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->head; id++) {
			const struct verbs_request *request = &end->window[id % VERBS_DEPTH];

			if (request->carries)
				request = &link->slots[request->slot % VERBS_CALLS];
			if (request->path == verbs &&
			    (!user_data || request->user_data == *user_data))
				return true;
		}
	}
	return false;
}

/* Their slots are closed: a late answer finds nobody. */
static void give_up_calls(struct verbs_link *link, const struct verbs_path *verbs,
			  const uint64_t *user_data)
{
	for (uint32_t i = 0; i < VERBS_CALLS; i++) {
		struct verbs_request *call = &link->slots[i];

		if (call->path == verbs && !call->answered &&
		    (!user_data || call->user_data == *user_data))
			end_call(link, call, -ECANCELED);
	}
}

/*
 * What the device has can be taken back from it only together with all else on its queue pairs:
 * they end, and the neighbours are posted again on others.
 */
static void give_up(struct verbs_path *verbs, const uint64_t *user_data)
{
	struct verbs_link *link = verbs->link;

	if (is_down(verbs) || link->drained)
		return;
	drive(link);
	if (has_posted(link, verbs, user_data)) {
		link->why = link->error ? link->why : IBV_WC_RESP_TIMEOUT_ERR;
		verbs_link_drain(link);
	}
	give_up_calls(link, verbs, user_data);
}

static void verbs_flush(struct path *path)
{
	give_up((struct verbs_path *)path, NULL);
}

static void verbs_cancel(struct path *path, uint64_t user_data)
{
	give_up((struct verbs_path *)path, &user_data);
}

/* ---- before the first operation ---- */

int verbs_link_probe(struct verbs_link *link, uint64_t until_ns)
{
	for (uint32_t i = 0; i < link->count; i++)
		post_probe(link->ends[i]);
	while (!all_back(link) && !link->error && clock_monotonic_ns(NULL) < until_ns) {
		drive(link);
		sched_yield();
	}
	link->turn = UINT64_MAX;
	link->succeeded = false;
	if (all_back(link) && !link->error)
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
	for (uint32_t i = 0; i < link->count; i++)
		if (link->ends[i]->expected != link->ends[i]->head)
			link->ends[i]->queue->ops->arm(link->ends[i]->queue);
	ibv_req_notify_cq(link->receive_cq, 0);
}

static bool verbs_sleep(struct path *path)
{
	struct verbs_path *verbs = (struct verbs_path *)path;
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};
	struct verbs_link *link = verbs->link;

	if (is_down(verbs) || link->error)
		return false;
	if (link->slept != *link->now) { /* another path may have seen to it */
		link->slept = *link->now;
		take_events(link);
		arm(link);
		epoll_ctl(link->epoll_fd, link->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
			  link->channel->fd, &event);
		link->registered = true;
		drive(link); /* what came before it was armed tells nobody */
	}
	return STAILQ_EMPTY(&verbs->ready) && !link->error;
}

const struct transport_fast verbs_fast = {
	.post = verbs_post,
	.poll = verbs_poll,
	.flush = verbs_flush,
	.cancel = verbs_cancel,
	.sleep = verbs_sleep,
};
