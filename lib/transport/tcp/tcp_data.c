/* SPDX-License-Identifier: Apache-2.0 */
/* The client's hot side: requests out, responses in. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "transport/tcp/tcp.h"

/* Read no more than this of one connection per turn. */
#define TURN_BYTES (UINT64_C(1) << 20)

/* ---- the life of a request ---- */

static void release(struct tcp_request *request)
{
	struct tcp_end *end = request->end;

	if (!request->announces && request->opcode == SLU_CALL) {
		request->path = NULL;
		end->calls--;
		return;
	}
	while (end->tail != end->head) {
		const struct tcp_request *oldest = &end->window[end->tail % TCP_WINDOW];

		if (!oldest->handed || !oldest->answered)
			break;
		end->tail++;
	}
}

static void settle(struct tcp_request *request, int status)
{
	if (request->settled)
		return;
	request->settled = true;
	request->status = status;
	STAILQ_INSERT_TAIL(&request->path->ready, request, link);
}

/* The target has had its last word on it. */
static void answered(struct tcp_request *request, int status)
{
	request->answered = true;
	settle(request, status);
	if (request->handed)
		release(request);
}

static struct tcp_request *open_slot(struct tcp_end *end, uint32_t slot)
{
	struct tcp_request *request = &end->slots[slot % TCP_CALLS];

	return request->path && request->slot == slot && !request->answered ? request : NULL;
}

/* The announcement of a call: what follows is the answer, or the call has failed. */
static void call_announced(struct tcp_request *announcement, int status)
{
	struct tcp_request *call = open_slot(announcement->end, announcement->slot);

	announcement->answered = true;
	release(announcement);
	if (status < 0 && call)
		answered(call, status);
}

/* ---- the end of a link ---- */

static bool concerns(const struct tcp_request *request, const struct tcp_path *tcp,
		     const uint64_t *user_data)
{
	return request->path == tcp && (!user_data || request->user_data == *user_data);
}

/*
 * The target has not answered, and will not: it is not known whether it was carried out. What the
 * owner of a segment could see twice is not repeated; the rest goes again, if the link is mended.
 */
static void lose(struct tcp_request *request, int error)
{
	if (error == -ECANCELED &&
	    (request->opcode == SLU_WRITE_NOTIFY || request->opcode == SLU_CALL))
		error = -ECONNRESET;
	request->may_land = request->opcode != SLU_READ;
	answered(request, error);
}

static void end_end(struct tcp_end *end, int error)
{
	for (uint32_t i = end->expected; i != end->head; i++) {
		struct tcp_request *request = &end->window[i % TCP_WINDOW];

		if (request->announces)
			call_announced(request, 0); /* its slot is next */
		else
			lose(request, error);
	}
	end->expected = end->head;
	if (end->receiving && end->receiving->opcode != SLU_CALL)
		lose(end->receiving, error);
	for (uint32_t i = 0; i < TCP_CALLS; i++)
		if (end->slots[i].path && !end->slots[i].answered)
			lose(&end->slots[i], error);
	end->receiving = NULL;
	channel_close(&end->channel);
}

/* Anything but READs that the target has not answered: does it concern @p tcp, or that operation
 * of it? NULL: any. */
static bool has_written(const struct tcp_end *end, const struct tcp_path *tcp,
			const uint64_t *user_data)
{
	for (uint32_t i = end->expected; i != end->head; i++) {
		const struct tcp_request *request = &end->window[i % TCP_WINDOW];

		if (request->announces)
			request = &end->slots[request->slot % TCP_CALLS];
		else if (request->opcode == SLU_READ)
			continue;
		if (!tcp || concerns(request, tcp, user_data))
			return true;
	}
	return false;
}

/* Before anything of it is reported the fence stands: what comes after is held back by it. */
static void end_all(struct tcp_link *link, int error)
{
	bool written = false;

	for (uint32_t i = 0; i < link->count; i++)
		written |= has_written(link->ends[i], NULL, NULL);
	if (written) {
		link->peer->raise(link->ticket);
		link->ticket = NULL;
	}
	for (uint32_t i = 0; i < link->count; i++)
		end_end(link->ends[i], error);
}

/* For good. */
static void fail_link(struct tcp_link *link, int error)
{
	if (link->error)
		return;
	link->error = error;
	if (atomic_load_explicit(&link->state, memory_order_relaxed) == TCP_LINK_UP)
		end_all(link, error);
}

/* @p lost: not by our own will */
static void take_down(struct tcp_link *link, bool lost)
{
	if (link->error || atomic_load_explicit(&link->state, memory_order_relaxed) != TCP_LINK_UP)
		return;
	if (link->succeeded)
		link->losses = 0;
	link->losses += lost;
	end_all(link, -ECANCELED);
	atomic_store_explicit(&link->state, TCP_LINK_DOWN, memory_order_relaxed);
	repair_ask(link->repair, &link->mending);
}

static bool is_empty(const struct tcp_link *link)
{
	for (uint32_t i = 0; i < link->count; i++)
		if (link->ends[i]->tail != link->ends[i]->head || link->ends[i]->calls > 0)
			return false;
	return true;
}

static void take_fresh(struct tcp_end *end)
{
	end->channel = end->fresh;
	end->fresh = (struct channel){.stream = {.fd = -1}};
	end->head = end->expected = end->tail = 0;
	end->registered = false;
}

/* @return can it be posted on? What was on it before has to be handed out first. */
static bool is_up(struct tcp_link *link)
{
	/* Pairs with the release in tcp_link_dial(). */
	uint32_t state = atomic_load_explicit(&link->state, memory_order_acquire);

	if (__builtin_expect(state == TCP_LINK_UP, 1))
		return true;
	if (state == TCP_LINK_DOWN || !is_empty(link))
		return false;
	for (uint32_t i = 0; i < link->count; i++)
		take_fresh(link->ends[i]);
	link->succeeded = false;
	atomic_store_explicit(&link->state, TCP_LINK_UP, memory_order_relaxed);
	return true;
}

/* ---- posting ---- */

static struct tcp_end *choose_end(struct tcp_link *link, const struct slu_op *op)
{
	if (op->length <= TCP_SMALL_BYTES)
		return link->ends[0];
	if (++link->next >= link->count)
		link->next = 1;
	return link->ends[link->next];
}

static const uint8_t wire_types[] = {
	[SLU_READ] = WIRE_READ,
	[SLU_WRITE] = WIRE_WRITE,
	[SLU_WRITE_NOTIFY] = WIRE_NOTIFY,
	[SLU_CALL] = WIRE_CALL,
};

/* A free slot for a call, or NULL. Its number tells it from earlier users of the same place. */
static struct tcp_request *take_slot(struct tcp_end *end)
{
	if (end->calls == TCP_CALLS)
		return NULL;
	while (end->slots[end->next_slot % TCP_CALLS].path)
		end->next_slot++;
	end->calls++;
	end->slots[end->next_slot % TCP_CALLS].slot = end->next_slot;
	return &end->slots[end->next_slot++ % TCP_CALLS];
}

static struct tcp_request *make_request(struct tcp_path *tcp, struct tcp_end *end,
					const struct slu_op *op)
{
	struct tcp_request *request = &end->window[end->head % TCP_WINDOW];
	struct tcp_request made = {.user_data = op->user_data,
				   .path = tcp,
				   .end = end,
				   .local = op->region->addr + op->local_offset,
				   .length = (uint32_t)op->length,
				   .opcode = op->opcode};

	if (op->opcode == SLU_CALL) {
		struct tcp_request *call = take_slot(end);
		uint32_t slot;

		if (!call)
			return NULL;
		slot = call->slot;
		*call = made;
		call->slot = slot;
		call->local = op->region->addr + op->remote_offset;
		call->length = op->tag;
		made = (struct tcp_request){.end = end,
					    .announces = true,
					    .slot = slot,
					    .settled = true,
					    .handed = true};
	}
	*request = made;
	return request;
}

/* The bytes of a call are always taken along: it may be given up before they are sent. */
static uint32_t stage_limit(const struct slu_op *op)
{
	return op->opcode == SLU_CALL ? SLU_MESSAGE_MAX : CHANNEL_STAGE_BYTES;
}

static void send_request(struct tcp_path *tcp, struct tcp_end *end, const struct slu_op *op,
			 const struct tcp_request *request)
{
	bool has_body = op->opcode != SLU_READ && op->length > 0;
	bool staged = has_body && op->length <= stage_limit(op);
	const char *body = op->region->addr + op->local_offset;
	char *at = channel_stage(&end->channel, (uint32_t)sizeof(struct wire_request) +
							(staged ? (uint32_t)op->length : 0));
	struct wire_request head = {.type = wire_types[op->opcode],
				    .length = (uint32_t)op->length,
				    .handle = tcp->handle,
				    .generation = tcp->generation,
				    .offset = op->opcode == SLU_CALL ? 0 : op->remote_offset,
				    .tag = op->opcode == SLU_CALL ? request->slot : op->tag,
				    .sequence = end->head};

	memcpy(at, &head, sizeof(head));
	if (staged)
		memcpy(at + sizeof(head), body, op->length);
	else if (has_body)
		channel_refer(&end->channel, body, (uint32_t)op->length, NULL);
}

static bool post_one(struct tcp_path *tcp, struct tcp_end *end, const struct slu_op *op, int error)
{
	struct tcp_request *request;

	if (end->head - end->tail == TCP_WINDOW)
		return false;
	if (!error && !channel_room(&end->channel,
				    (uint32_t)sizeof(struct wire_request) + stage_limit(op), 2))
		return false;
	request = make_request(tcp, end, op);
	if (!request)
		return false;
	if (!error)
		send_request(tcp, end, op, request);
	end->head++;
	if (!error)
		return true;
	end->expected = end->head;
	/* It may have been on its way before, and lost with its link. */
	request->may_land = op->opcode != SLU_READ && remote_is_fenced(tcp->path.remote);
	if (op->opcode == SLU_CALL)
		call_announced(request, error);
	else
		answered(request, error);
	return true;
}

/* A dead link takes its remotes with it; what is posted then fails at once. */
static int why_dead(struct tcp_path *tcp)
{
	if (tcp->link->error)
		remote_fail(tcp->path.remote, tcp->link->error);
	return atomic_load_explicit(&tcp->path.remote->state, memory_order_relaxed);
}

static void send_all(struct tcp_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		int rc = 0;

		if (channel_unsent(&link->ends[i]->channel))
			rc = channel_send(&link->ends[i]->channel);
		if (rc < 0) {
			take_down(link, true);
			return;
		}
	}
}

static uint32_t tcp_post(struct path *path, const struct slu_op *ops, uint32_t n,
			 struct slu_completion *done)
{
	struct tcp_path *tcp = (struct tcp_path *)path;
	int error = why_dead(tcp);
	bool held = !is_up(tcp->link) || remote_is_fenced(path->remote);
	uint32_t i = 0;

	(void)done;
	if (held && !error)
		return 0;
	if (!held && !tcp->link->error)
		error = 0; /* the link lives: let the target say what it refuses */
	while (i < n && post_one(tcp, choose_end(tcp->link, &ops[i]), &ops[i], error))
		i++;
	if (!error)
		send_all(tcp->link);
	return i;
}

/* ---- responses ---- */

static int strange(const char *what)
{
	return fail(-EPROTO, "the target broke the data protocol: %s", what);
}

static int on_done(struct tcp_end *end, const struct wire_response *response)
{
	uint32_t count = response->status ? 1 : response->length;

	if (count > end->head - end->expected || response->sequence != end->expected + count - 1)
		return strange("it acknowledged what was not asked");
	for (uint32_t i = 0; i < count; i++) {
		struct tcp_request *request = &end->window[end->expected % TCP_WINDOW];

		if (request->opcode == SLU_READ && !request->announces && response->status == 0 &&
		    request->length > 0)
			return strange("a read without its data");
		end->expected++;
		end->owner->succeeded = true;
		if (request->announces)
			call_announced(request, response->status);
		else
			answered(request, response->status);
	}
	return 0;
}

static void body_arrived(struct tcp_end *end)
{
	struct tcp_request *request = end->receiving;

	end->receiving = NULL;
	if (request)
		answered(request, request->opcode == SLU_CALL ? request->status : 0);
}

static int on_data(struct tcp_end *end, const struct wire_response *response)
{
	struct tcp_request *request = &end->window[end->expected % TCP_WINDOW];

	if (end->expected == end->head || response->sequence != end->expected ||
	    request->opcode != SLU_READ || response->length != request->length || response->status)
		return strange("data that was not asked for");
	end->expected++;
	end->owner->succeeded = true;
	end->receiving = request;
	if (channel_body(&end->channel, request->local, response->length))
		body_arrived(end);
	return 0;
}

/* An answer that comes too late, or is too long for its room, is read and thrown away. */
static int on_answer(struct tcp_end *end, const struct wire_response *response)
{
	struct tcp_request *call = open_slot(end, response->sequence);
	bool fits = call && response->length <= call->length;

	if (response->length > SLU_MESSAGE_MAX)
		return strange("an answer that cannot be");
	end->receiving = call;
	if (call) {
		call->status = fits ? response->status : -EMSGSIZE;
		call->answer_length = fits ? (uint16_t)response->length : 0;
	}
	if (channel_body(&end->channel, fits ? call->local : NULL, response->length))
		body_arrived(end);
	return 0;
}

static int on_response(struct tcp_end *end, const struct wire_response *response)
{
	if (response->status > 0 || response->reserved)
		return strange("a response that cannot be");
	switch (response->type) {
	case WIRE_DONE:
		return on_done(end, response);
	case WIRE_DATA:
		return on_data(end, response);
	case WIRE_ANSWER:
		return on_answer(end, response);
	default:
		return strange("an unknown response");
	}
}

/* @return 1 one was dealt with; 0 more must be read; -EPROTO */
static int next_response(struct tcp_end *end)
{
	const struct wire_response *at;
	struct wire_response response;

	if (end->receiving) {
		if (end->channel.body_left > 0)
			return 0;
		body_arrived(end);
		return 1;
	}
	if (end->channel.body_left > 0)
		return 0;
	at = channel_peek(&end->channel, sizeof(response));
	if (!at)
		return 0;
	memcpy(&response, at, sizeof(response));
	channel_consume(&end->channel, sizeof(response));
	return on_response(end, &response) < 0 ? -EPROTO : 1;
}

static int drive_end(struct tcp_end *end)
{
	uint64_t bytes = 0;
	int rc;

	do {
		ssize_t got = channel_receive(&end->channel);

		if (got <= 0)
			return (int)got;
		bytes += (uint64_t)got;
		while ((rc = next_response(end)) > 0)
			;
		if (rc < 0)
			return rc;
	} while (!end->channel.drained && bytes < TURN_BYTES);
	return 0;
}

static bool in_use(const struct tcp_end *end)
{
	return end->tail != end->head || end->calls > 0;
}

static void drive(struct tcp_link *link)
{
	int rc = 0;

	link->turn = *link->now;
	if (link->error || !is_up(link))
		return;
	send_all(link);
	for (uint32_t i = 0; rc >= 0 && i < link->count; i++)
		rc = link->ends[i]->channel.stream.fd >= 0 && in_use(link->ends[i])
			     ? drive_end(link->ends[i])
			     : 0;
	if (rc == -EPROTO) {
		log_peer(SLU_LOG_ERROR, "a data connection ends: %s", slu_last_error());
		fail_link(link, -ECONNRESET); /* another one would not do better */
	} else if (rc < 0) {
		take_down(link, true);
	}
}

/* ---- giving up ---- */

/* A READ: what arrives for it goes nowhere. */
static void give_up(struct tcp_request *request)
{
	if (request->settled)
		return;
	if (request->end->receiving == request)
		request->end->channel.body = NULL;
	request->local = NULL;
	settle(request, -ECANCELED);
}

/* A call that the owner has: its slot is closed, a late answer finds nobody. */
static void give_up_call(struct tcp_request *call, int status)
{
	if (call->settled)
		return;
	if (call->end->receiving == call) {
		call->end->receiving = NULL;
		call->end->channel.body = NULL;
	}
	call->answered = true;
	call->may_land = true;
	settle(call, status);
}

static void give_up_calls(struct tcp_link *link, const struct tcp_path *tcp,
			  const uint64_t *user_data, int status)
{
	for (uint32_t i = 0; i < link->count; i++)
		for (uint32_t k = 0; k < TCP_CALLS; k++)
			if (concerns(&link->ends[i]->slots[k], tcp, user_data))
				give_up_call(&link->ends[i]->slots[k], status);
}

/* All that @p tcp has on this link, or the one operation with that user_data. */
static void give_up_on(struct tcp_path *tcp, const uint64_t *user_data)
{
	struct tcp_link *link = tcp->link;
	bool written = false;

	if (link->error || atomic_load_explicit(&link->state, memory_order_relaxed) != TCP_LINK_UP)
		return; /* it was ended with its link */
	drive(link);    /* what the target has answered need not be given up */
	for (uint32_t i = 0; i < link->count; i++)
		written |= has_written(link->ends[i], tcp, user_data);
	if (written) {
		take_down(link, false);
		return;
	}
	for (uint32_t i = 0; i < link->count; i++) {
		struct tcp_end *end = link->ends[i];

		for (uint32_t k = end->tail; k != end->head; k++)
			if (concerns(&end->window[k % TCP_WINDOW], tcp, user_data))
				give_up(&end->window[k % TCP_WINDOW]);
	}
	give_up_calls(link, tcp, user_data, -ECANCELED);
}

/* ---- completions ---- */

static void count(struct path_stats *stats, const struct tcp_request *request)
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

static void hand_out(struct tcp_path *tcp, struct tcp_request *request, int state,
		     struct slu_completion *done)
{
	/* That the link has died is how we see it; the state knows why. */
	if (state && (request->status == -ECONNRESET || request->status == -ECANCELED))
		request->status = state;
	*done = (struct slu_completion){.user_data = request->user_data,
					.status = request->status,
					.scope = (uint8_t)(scope_of(request->status, state) |
							   (request->may_land ? SLU_MAY_LAND : 0)),
					.transport = SLU_TRANSPORT_TCP,
					.length = request->answer_length};
	count(&tcp->path.stats, request);
	request->handed = true;
	if (request->answered)
		release(request);
}

/*
 * With the connection that ended, all of the target's are over. One that closes a segment, or takes
 * a right back, refuses what is under way, but for calls that the owner has.
 */
static void leave_dead(struct tcp_path *tcp, int state)
{
	if (state == -ECONNRESET)
		fail_link(tcp->link, state);
	else if (!tcp->link->error)
		give_up_calls(tcp->link, tcp, NULL, state);
}

static uint32_t tcp_poll(struct path *path, struct slu_completion *done, uint32_t n)
{
	struct tcp_path *tcp = (struct tcp_path *)path;
	struct tcp_request *request;
	uint32_t taken = 0;
	int state;

	if (tcp->link->turn != *tcp->link->now)
		drive(tcp->link);
	state = why_dead(tcp);
	if (__builtin_expect(state != 0, 0))
		leave_dead(tcp, state);
	while (taken < n && (request = STAILQ_FIRST(&tcp->ready))) {
		STAILQ_REMOVE_HEAD(&tcp->ready, link);
		hand_out(tcp, request, state, &done[taken++]);
	}
	return taken;
}

static void tcp_flush(struct path *path)
{
	give_up_on((struct tcp_path *)path, NULL);
}

static void tcp_cancel(struct path *path, uint64_t user_data)
{
	give_up_on((struct tcp_path *)path, &user_data);
}

static bool tcp_sleep(struct path *path)
{
	struct tcp_link *link = ((struct tcp_path *)path)->link;

	if (link->error || !is_up(link))
		return true;
	for (uint32_t i = 0; i < link->count; i++) {
		struct tcp_end *end = link->ends[i];
		struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT};

		if (channel_unsent(&end->channel) || end->channel.stream.wants_write)
			event.events |= EPOLLOUT;
		epoll_ctl(link->epoll_fd, end->registered ? EPOLL_CTL_MOD : EPOLL_CTL_ADD,
			  end->channel.stream.fd, &event);
		end->registered = true;
	}
	return true;
}

const struct transport_fast tcp_fast = {
	.post = tcp_post,
	.poll = tcp_poll,
	.flush = tcp_flush,
	.cancel = tcp_cancel,
	.sleep = tcp_sleep,
};
