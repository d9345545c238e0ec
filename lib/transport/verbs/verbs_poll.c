/* SPDX-License-Identifier: Apache-2.0 */
/* Completions of the device become completions of operations. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "message/mailbox.h"
#include "transport/verbs/mlx5_queue.h"
#include "transport/verbs/verbs_link.h"

#define BURST        64u
#define RECEIVE_TAKE 16

/* A link on which nothing but silence is waited for is probed so often; the clock is looked at once
 * in some turns. */
#define PROBE_NS    NS_PER_SECOND
#define PROBE_TURNS 1024u

/* ---- completions of the device ---- */

/* The device is done with a work request. */
static inline void went_well(struct verbs_link *link, const struct verbs_sent *sent)
{
	struct request *request = sent->request;

	if (__builtin_expect(request != NULL, 1)) {
		request_back(request, sent->bytes, false);
	} else if (sent->carries) {
		struct verbs_call *call = &link->slots[sent->slot % VERBS_CALLS];

		verbs_give_buffer(link, call);
		free_slot(link, call);
	}
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
			verbs_link_on_failure(link, end, &done[i]);
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

/* ---- what the target sends ---- */

/* NULL: nobody waits for that answer, or not any more. */
static struct verbs_call *open_call(struct verbs_link *link, uint32_t slot)
{
	struct verbs_call *call = &link->slots[slot % VERBS_CALLS];

	return call->request && call->slot == slot ? call : NULL;
}

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
	verbs_link_fail(link, -EPROTO, false);
}

/* An answer that comes too late, or is too long for its room, is thrown away. */
static void on_answer(struct verbs_link *link, const struct verbs_message *message)
{
	struct verbs_call *call = open_call(link, message->slot);
	const struct slu_op *op = call ? &call->request->op : NULL;
	bool fits = call && message->length <= op->tag;
	int result = !fits                 ? -EMSGSIZE
		     : message->status < 0 ? message->status
					   : (int)message->length;

	if (!call)
		return;
	if (fits)
		memcpy(op->region->addr + op->remote_offset, message + 1, message->length);
	verbs_end_call(link, call, result, false);
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
			verbs_link_fail(link, -EIO, false);
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
		done += verbs_link_finish(link);
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

void verbs_link_drain(struct verbs_link *link)
{
	link->is_left = true;
	verbs_link_fail(link, -ECANCELED, false);
	while (!link->drained && !verbs_link_finish(link))
		drive_ends(link);
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

const struct link_ops verbs_link_ops = {
	.flush = verbs_flush, .poll = verbs_poll, .sleep = verbs_sleep};
