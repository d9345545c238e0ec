/* SPDX-License-Identifier: Apache-2.0 */
/* The client's hot side: requests out, responses in. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "transport/atomic_op.h"
#include "transport/tcp/tcp.h"

/* Polls without a look at sockets that were full and stayed so: a few microseconds. */
#define PAUSE_MAX 31u

static struct tcp_sent *sent_as(struct tcp_end *end, uint32_t sequence)
{
	return &end->window[sequence % TCP_WINDOW];
}

/* ---- calls ---- */

/* NULL: nobody waits for that answer, or not any more. */
static struct tcp_call *open_call(struct tcp_end *end, uint32_t slot)
{
	struct tcp_call *call = &end->slots[slot % TCP_CALLS];

	return call->request && call->slot == slot ? call : NULL;
}

static void end_call(struct tcp_end *end, struct tcp_call *call, int result, bool may_land)
{
	struct request *request = call->request;

	call->request = NULL;
	end->calls--;
	request_back(request, result, may_land);
}

/* NULL: as many as may be are open. */
static struct tcp_call *take_slot(struct tcp_end *end)
{
	struct tcp_call *call;

	if (end->calls == TCP_CALLS)
		return NULL;
	while (end->slots[end->next_slot % TCP_CALLS].request)
		end->next_slot++;
	call = &end->slots[end->next_slot % TCP_CALLS];
	call->slot = end->next_slot++;
	end->calls++;
	return call;
}

/* ---- the end of a link ---- */

static inline bool only_reads(const struct tcp_sent *sent)
{
	return sent->type == WIRE_READ || sent->type == WIRE_READ_RUNS;
}

static inline bool wants_data(const struct tcp_sent *sent)
{
	return only_reads(sent) || sent->type >= WIRE_FETCH_ADD;
}

static void lose(struct tcp_sent *sent, int error)
{
	struct request *request = sent->request;

	sent->request = NULL;
	if (request)
		request_back(request, error, !only_reads(sent));
}

static void end_end(struct tcp_end *end, int error)
{
	end->receiving = end->answering = false;
	channel_close(&end->channel);
	while (end->expected != end->head)
		lose(sent_as(end, end->expected++), error);
	for (uint32_t i = 0; i < TCP_CALLS; i++)
		if (end->slots[i].request)
			end_call(end, &end->slots[i], error, true);
}

/* Is it anything but a READ, and of @p request? NULL: of any. */
static bool has_written(const struct tcp_end *end, const struct request *request)
{
	for (uint32_t i = end->expected; i != end->head; i++) {
		const struct tcp_sent *sent = &end->window[i % TCP_WINDOW];
		const struct request *of = sent->type == WIRE_CALL
						   ? end->slots[sent->slot % TCP_CALLS].request
						   : sent->request;

		if (!only_reads(sent) && (!request || of == request))
			return true;
	}
	return false;
}

/* Before anything of it is given back the fence stands: what comes after is held by it. */
static void end_all(struct tcp_link *link, int error)
{
	bool written = false;

	for (uint32_t i = 0; i < link->count; i++)
		written |= has_written(link->ends[i], NULL);
	if (written) {
		link->peer->raise(link->ticket);
		link->ticket = NULL;
	}
	link->awaited = link->unsent = 0;
	for (uint32_t i = 0; i < link->count; i++)
		end_end(link->ends[i], error);
}

/* For good. */
static void fail_link(struct tcp_link *link, int error)
{
	bool was_up = atomic_load_explicit(&link->state, memory_order_relaxed) == TCP_LINK_UP;

	if (link->error)
		return;
	link->error = error;
	if (was_up)
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
	/* Pairs with the acquire in tcp_link_mend(). */
	atomic_store_explicit(&link->state, TCP_LINK_DOWN, memory_order_release);
	repair_ask(link->repair, &link->mending);
}

static void take_fresh(struct tcp_end *end)
{
	end->channel = end->fresh;
	end->fresh = (struct channel){.stream = {.fd = -1}};
	end->head = end->expected = 0;
	end->registered = false;
}

/* It has been mended. */
__attribute__((noinline)) static bool take_all_fresh(struct tcp_link *link)
{
	for (uint32_t i = 0; i < link->count; i++)
		take_fresh(link->ends[i]);
	link->succeeded = false;
	atomic_store_explicit(&link->state, TCP_LINK_UP, memory_order_relaxed);
	return true;
}

/* @return can it be posted on? */
static inline bool is_up(struct tcp_link *link)
{
	/* Pairs with the release in tcp_link_dial(). */
	uint32_t state = atomic_load_explicit(&link->state, memory_order_acquire);

	return __builtin_expect(state == TCP_LINK_UP, 1) ||
	       (state != TCP_LINK_DOWN && take_all_fresh(link));
}

/* ---- posting ---- */

static const uint8_t wire_types[] = {
	[SLU_READ] = WIRE_READ,
	[SLU_WRITE] = WIRE_WRITE,
	[SLU_WRITE_NOTIFY] = WIRE_NOTIFY,
	[SLU_FETCH_ADD] = WIRE_FETCH_ADD,
	[SLU_COMPARE_SWAP] = WIRE_COMPARE_SWAP,
	[OP_CALL] = WIRE_CALL,
};

static inline void send_part(const struct tcp_path *tcp, struct tcp_end *end,
			     const struct slu_op *op, struct op_part part, uint32_t stage_limit,
			     uint64_t offset, uint32_t tag)
{
	bool has_body = part.opcode != SLU_READ && part.length > 0;
	uint32_t staged = has_body && part.length <= stage_limit ? part.length : 0;
	const char *body = op->region->addr + op->local_offset + part.offset;
	struct wire_request *at = channel_stage(&end->channel, (uint32_t)sizeof(*at) + staged);

	*at = (struct wire_request){.type = wire_types[part.opcode],
				    .length = part.length,
				    .handle = tcp->handle,
				    .generation = tcp->generation,
				    .offset = offset,
				    .tag = tag,
				    .sequence = end->head};
	if (staged > 0)
		memcpy(at + 1, body, staged);
	else if (has_body)
		channel_refer(&end->channel, body, part.length, NULL);
}

/* Of what is bulk: each part the next one. */
static uint32_t next_bulk(struct tcp_link *link)
{
	if (++link->next >= link->count)
		link->next = 1;
	return link->next;
}

static inline bool has_room(const struct tcp_end *end, uint32_t staged)
{
	return end->head - end->expected < TCP_WINDOW &&
	       channel_room(&end->channel, (uint32_t)sizeof(struct wire_request) + staged, 2);
}

static inline void is_sent(struct tcp_link *link, uint32_t index)
{
	link->ends[index]->head++;
	link->awaited |= 1u << index;
	link->unsent |= 1u << index;
}

/*
 * What is short is taken along: it may be given up before it is sent. What is long is not given up
 * before the target has taken it, but with the connection.
 */
__attribute__((noinline)) static enum post_result
post_call(const struct tcp_path *tcp, struct request *request, struct op_part part)
{
	uint32_t room = request->op.tag;
	bool is_bulk = part.length > REQUEST_SMALL_BYTES || room > REQUEST_SMALL_BYTES;
	uint32_t index = is_bulk ? next_bulk(tcp->link) : 0;
	struct tcp_end *end = tcp->link->ends[index];
	struct tcp_call *call = has_room(end, SLU_MESSAGE_MAX) ? take_slot(end) : NULL;

	if (!call)
		return POST_FULL;
	call->request = request;
	*sent_as(end, end->head) = (struct tcp_sent){.slot = call->slot, .type = WIRE_CALL};
	send_part(tcp, end, &request->op, part, SLU_MESSAGE_MAX, room, call->slot);
	is_sent(tcp->link, index);
	return POST_DONE;
}

/* Its answer is data, but it is no READ. */
__attribute__((noinline)) static enum post_result post_atomic(const struct tcp_path *tcp,
							      struct request *request)
{
	const struct slu_op *op = &request->op;
	struct tcp_end *end = tcp->link->ends[0];
	struct wire_request *at;
	struct wire_atomic *operands;

	if (!has_room(end, sizeof(*operands)))
		return POST_FULL;
	*sent_as(end, end->head) = (struct tcp_sent){
		.request = request, .length = ATOMIC_BYTES, .type = wire_types[op->opcode]};
	at = channel_stage(&end->channel, (uint32_t)(sizeof(*at) + sizeof(*operands)));
	*at = (struct wire_request){.type = wire_types[op->opcode],
				    .length = sizeof(*operands),
				    .handle = tcp->handle,
				    .generation = tcp->generation,
				    .offset = op->remote_offset,
				    .sequence = end->head};
	operands = (struct wire_atomic *)(at + 1);
	operands->operand = request->operand;
	memcpy(&operands->expected, op->region->addr + op->local_offset, ATOMIC_BYTES);
	is_sent(tcp->link, 0);
	return POST_DONE;
}

static inline enum post_result post_alive(const struct tcp_path *tcp, struct request *request,
					  struct op_part part)
{
	uint32_t index = request->lane == LANE_SMALL ? 0 : next_bulk(tcp->link);
	struct tcp_end *end = tcp->link->ends[index];

	if (__builtin_expect(part.opcode > SLU_WRITE_NOTIFY, 0))
		return part.opcode == OP_CALL ? post_call(tcp, request, part)
					      : post_atomic(tcp, request);
	if (__builtin_expect(!has_room(end, CHANNEL_STAGE_BYTES), 0))
		return POST_FULL;
	*sent_as(end, end->head) = (struct tcp_sent){.request = request,
						     .offset = part.offset,
						     .length = part.length,
						     .type = wire_types[part.opcode]};
	send_part(tcp, end, &request->op, part, CHANNEL_STAGE_BYTES,
		  request->op.remote_offset + part.offset, request->op.tag);
	is_sent(tcp->link, index);
	return POST_DONE;
}

/* Small pieces are copied beside the head. */
#define PIECE_STAGE_BYTES 128u

/* Those that lie together in the segment are one run. @return how many */
static uint32_t to_runs(const struct vector_piece *pieces, uint32_t n, struct wire_run *runs)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (i > 0 && pieces[i - 1].remote + pieces[i - 1].length == pieces[i].remote)
			runs[count - 1].length += pieces[i].length;
		else
			runs[count++] = (struct wire_run){pieces[i].remote, pieces[i].length};
	}
	return count;
}

static void send_pieces(struct channel *channel, const char *local,
			const struct vector_piece *pieces, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const char *from = local + pieces[i].local;
		uint32_t length = pieces[i].length;

		if (length <= PIECE_STAGE_BYTES)
			memcpy(channel_stage(channel, length), from, length);
		else
			channel_refer(channel, from, length, NULL);
	}
}

static void send_runs(const struct tcp_path *tcp, struct tcp_end *end, struct op_part part,
		      const struct vector_piece *pieces, uint32_t n)
{
	struct wire_run runs[VECTOR_PIECES];
	uint32_t count = to_runs(pieces, n, runs), bytes = count * (uint32_t)sizeof(runs[0]);
	struct wire_request *at = channel_stage(&end->channel, (uint32_t)sizeof(*at) + bytes);

	*at = (struct wire_request){.type = part.opcode == SLU_READ ? WIRE_READ_RUNS
								    : WIRE_WRITE_RUNS,
				    .length = part.length,
				    .handle = tcp->handle,
				    .generation = tcp->generation,
				    .tag = count,
				    .sequence = end->head};
	memcpy(at + 1, runs, bytes);
}

static enum post_result post_runs(const struct tcp_path *tcp, struct request *request,
				  struct op_part part, const struct vector_piece *pieces,
				  uint32_t n)
{
	uint32_t index = request->lane == LANE_SMALL ? 0 : next_bulk(tcp->link);
	struct tcp_end *end = tcp->link->ends[index];
	uint32_t staged = n * ((uint32_t)sizeof(struct wire_run) + PIECE_STAGE_BYTES);

	if (end->head - end->expected == TCP_WINDOW ||
	    !channel_room(&end->channel, (uint32_t)sizeof(struct wire_request) + staged, n + 1))
		return POST_FULL;
	*sent_as(end, end->head) = (struct tcp_sent){
		.request = request,
		.length = part.length,
		.type = part.opcode == SLU_READ ? WIRE_READ_RUNS : WIRE_WRITE_RUNS};
	end->begins[end->head % TCP_WINDOW] = request->at;
	send_runs(tcp, end, part, pieces, n);
	if (part.opcode != SLU_READ)
		send_pieces(&end->channel, request->op.region->addr, pieces, n);
	is_sent(tcp->link, index);
	return POST_DONE;
}

/* A dead link takes its remotes with it. */
static enum post_result tcp_post(struct path *path, struct request *request, struct op_part part)
{
	struct tcp_path *tcp = (struct tcp_path *)path;

	if (__builtin_expect(!tcp->link->error && is_up(tcp->link), 1))
		return post_alive(tcp, request, part);
	if (tcp->link->error)
		remote_fail(path->remote, tcp->link->error);
	return POST_HELD;
}

static enum post_result tcp_post_vector(struct path *path, struct request *request,
					struct op_part part, const struct vector_piece *pieces,
					uint32_t n)
{
	struct tcp_path *tcp = (struct tcp_path *)path;

	if (!tcp->link->error && is_up(tcp->link))
		return post_runs(tcp, request, part, pieces, n);
	return tcp_post(path, request, part); /* it says what is the matter */
}

/* What is small shares the poller with bulk, and shall not wait for much of it. */
static uint64_t turn_bytes(const struct tcp_link *link)
{
	return link->awaited & 1 ? CHANNEL_TURN_SHARED : CHANNEL_TURN_ALONE;
}

static inline bool flush_end(struct tcp_link *link, uint32_t index)
{
	struct channel *channel = &link->ends[index]->channel;

	if (__builtin_expect(channel_send(channel, turn_bytes(link)) < 0, 0)) {
		take_down(link, true);
		return false;
	}
	if (!channel_unsent(channel))
		link->unsent &= ~(1u << index);
	return true;
}

static void tcp_flush(struct transport_link *of)
{
	struct tcp_link *link = (struct tcp_link *)of;

	if (__builtin_expect(link->unsent == 1, 1)) {
		flush_end(link, 0);
		return;
	}
	for (uint32_t left = link->unsent; left != 0; left &= left - 1)
		if (!flush_end(link, (uint32_t)__builtin_ctz(left)))
			return;
}

static bool is_stuck(const struct tcp_link *link)
{
	for (uint32_t left = link->unsent; left != 0; left &= left - 1)
		if (!link->ends[__builtin_ctz(left)]->channel.stuck)
			return false;
	return link->unsent != 0;
}

/*
 * What the sockets had no room for. A peer that takes nothing in is asked less and less often: to
 * hear that there is no room costs a microsecond or two, which others on the poller would wait.
 */
static void flush_again(struct tcp_link *link)
{
	if (link->unsent == 0 || link->paused++ < link->pause)
		return;
	tcp_flush(&link->link);
	link->paused = 0;
	link->pause = is_stuck(link) ? link->pause * 2 + 1 : 0;
	if (link->pause > PAUSE_MAX)
		link->pause = PAUSE_MAX;
}

/* ---- responses ---- */

static int strange(const char *what)
{
	return fail(-EPROTO, "the target broke the data protocol: %s", what);
}

static int remote_state(const struct tcp_call *call)
{
	return atomic_load_explicit(&call->request->path->remote->state, memory_order_relaxed);
}

/* The target has had its last word on it. One that outlived its remote until then is over. */
static inline void answered(struct tcp_end *end, int status)
{
	struct tcp_sent *sent = sent_as(end, end->expected++);
	struct request *request = sent->request;

	end->owner->succeeded = true;
	if (sent->type == WIRE_CALL) { /* what follows is the answer, or it has failed */
		struct tcp_call *call = open_call(end, sent->slot);
		int state = call ? remote_state(call) : 0;

		if (call && (status < 0 || state < 0))
			end_call(end, call, status < 0 ? status : state, status == 0);
	} else if (request) {
		sent->request = NULL;
		request_back(request, status < 0 ? status : (int64_t)sent->length, false);
	}
}

static int on_done(struct tcp_end *end, const struct wire_response *response)
{
	uint32_t count = response->status ? 1 : response->length;

	if (count > end->head - end->expected || response->sequence != end->expected + count - 1)
		return strange("it acknowledged what was not asked");
	while (count-- > 0) {
		const struct tcp_sent *sent = sent_as(end, end->expected);

		if (wants_data(sent) && response->status == 0 && sent->length > 0)
			return strange("a read without its data");
		answered(end, response->status);
	}
	return 0;
}

static void body_arrived(struct tcp_end *end)
{
	if (end->receiving) {
		end->receiving = false;
		answered(end, 0);
		return;
	}
	end->answering = false;
	if (end->answers)
		end_call(end, open_call(end, end->answer_slot), end->answer_result, false);
}

static char *destination(const struct tcp_sent *sent)
{
	const struct slu_op *op = &sent->request->op;

	return op->region->addr + op->local_offset + sent->offset;
}

/* Of WIRE_READ_RUNS. @return is all of it there? */
__attribute__((noinline)) static bool take_runs(struct tcp_end *end, const struct tcp_sent *sent)
{
	struct vector_piece pieces[VECTOR_PIECES];
	const struct request *request = sent->request;
	struct vector_place place;
	uint32_t n;

	if (!request)
		return channel_body(&end->channel, NULL, sent->length);
	place = end->begins[end->expected % TCP_WINDOW];
	n = vector_take(&request->op, request->vector, &place, sent->length, pieces, VECTOR_PIECES);
	for (uint32_t i = 0; i < n; i++)
		end->places[i] = (struct iovec){request->op.region->addr + pieces[i].local,
						pieces[i].length};
	if (vector_bytes(pieces, n) != sent->length) /* the list is another one than it was */
		return channel_body(&end->channel, NULL, sent->length);
	return channel_body_to(&end->channel, end->places, n, sent->length);
}

static inline bool take_data(struct tcp_end *end, const struct tcp_sent *sent)
{
	if (__builtin_expect(sent->type == WIRE_READ_RUNS, 0))
		return take_runs(end, sent);
	return channel_body(&end->channel, sent->request ? destination(sent) : NULL, sent->length);
}

static int on_data(struct tcp_end *end, const struct wire_response *response)
{
	const struct tcp_sent *sent = sent_as(end, end->expected);

	if (end->expected == end->head || response->sequence != end->expected ||
	    !wants_data(sent) || response->length != sent->length || response->status)
		return strange("data that was not asked for");
	if (take_data(end, sent))
		answered(end, 0);
	else
		end->receiving = true;
	return 0;
}

/* An answer that comes too late, or is too long for its room, is read and thrown away. */
static int on_answer(struct tcp_end *end, const struct wire_response *response)
{
	struct tcp_call *call = open_call(end, response->sequence);
	struct request *request = call ? call->request : NULL;
	bool fits = request && response->length <= request->op.tag;
	char *into = fits ? request->op.region->addr + request->op.remote_offset : NULL;

	if (response->length > SLU_CALL_MAX)
		return strange("an answer that cannot be");
	end->answering = true;
	end->answers = request;
	end->answer_slot = response->sequence;
	end->answer_result = !fits                  ? -EMSGSIZE
			     : response->status < 0 ? response->status
						    : (int32_t)response->length;
	if (channel_body(&end->channel, into, response->length))
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

	if (end->channel.body_left > 0)
		return 0;
	if (end->receiving || end->answering) {
		body_arrived(end);
		return 1;
	}
	at = channel_peek(&end->channel, sizeof(response));
	if (!at)
		return 0;
	memcpy(&response, at, sizeof(response));
	channel_consume(&end->channel, sizeof(response));
	return on_response(end, &response) < 0 ? -EPROTO : 1;
}

/* @return bytes; negative: the connection is over */
static int64_t drive_end(struct tcp_end *end)
{
	int64_t bytes = 0;
	int rc;

	do {
		ssize_t got = channel_receive(&end->channel);

		if (got < 0)
			return got;
		bytes += got;
		do {
			rc = next_response(end);
		} while (rc > 0);
		if (rc < 0)
			return rc;
	} while (!end->channel.drained && bytes < (int64_t)turn_bytes(end->owner));
	return bytes;
}

static bool awaits(const struct tcp_end *end)
{
	return end->expected != end->head || end->calls > 0;
}

static inline int64_t drive(struct tcp_link *link, uint32_t index)
{
	struct tcp_end *end = link->ends[index];
	int64_t rc = drive_end(end);

	if (!awaits(end))
		link->awaited &= ~(1u << index);
	return rc;
}

__attribute__((noinline)) static int64_t drive_all(struct tcp_link *link)
{
	int64_t bytes = 0, rc = 0;

	for (uint32_t left = link->awaited; left != 0 && rc >= 0; left &= left - 1) {
		rc = drive(link, (uint32_t)__builtin_ctz(left));
		bytes += rc;
	}
	return rc < 0 ? rc : bytes;
}

/* It cannot go on with this connection, or, by a target that does not keep the protocol, with any.
 */
__attribute__((noinline)) static void give_up_link(struct tcp_link *link, int64_t why)
{
	if (why == -EPROTO) {
		log_peer(SLU_LOG_ERROR, "a data connection ends: %s", slu_last_error());
		fail_link(link, -ECONNRESET);
	} else {
		take_down(link, true);
	}
}

static uint32_t tcp_poll(struct transport_link *of)
{
	struct tcp_link *link = (struct tcp_link *)of;
	int64_t bytes;

	if (__builtin_expect(link->error || !is_up(link), 0))
		return 1; /* for those that are stalled on it */
	flush_again(link);
	bytes = __builtin_expect(link->awaited == 1, 1) ? drive(link, 0) : drive_all(link);
	if (__builtin_expect(bytes < 0, 0))
		give_up_link(link, bytes);
	return bytes != 0;
}

/* ---- giving up ---- */

/* A READ: what arrives for it goes nowhere. */
static void give_up_reads(struct tcp_end *end, const struct request *request)
{
	for (uint32_t i = end->expected; i != end->head; i++) {
		struct tcp_sent *sent = sent_as(end, i);

		if (sent->request != request)
			continue;
		if (end->receiving && i == end->expected)
			channel_body_nowhere(&end->channel);
		lose(sent, -ECANCELED);
	}
}

/* A call that the owner has: its slot is closed, a late answer finds nobody. */
static void give_up_call(struct tcp_end *end, struct tcp_call *call, int status)
{
	if (end->answering && end->answers == call->request) {
		end->answers = NULL;
		channel_body_nowhere(&end->channel);
	}
	end_call(end, call, status, true);
}

/* Of that path? One whose bytes are taken from the caller's memory ends when the target has them.
 */
static bool may_give_up(const struct tcp_end *end, const struct tcp_call *call,
			const struct path *path)
{
	const struct request *request = call->request;

	return request->path == path &&
	       (request->op.length <= SLU_MESSAGE_MAX || !has_written(end, request));
}

/* Those of @p path, or the one. */
static void give_up_calls(struct tcp_link *link, const struct path *path,
			  const struct request *request, int status)
{
	for (uint32_t i = 0; i < link->count; i++)
		for (uint32_t k = 0; k < TCP_CALLS; k++) {
			struct tcp_call *call = &link->ends[i]->slots[k];

			if (call->request && (request ? call->request == request
						      : may_give_up(link->ends[i], call, path)))
				give_up_call(link->ends[i], call, status);
		}
}

static void tcp_cancel(struct path *path, struct request *request)
{
	struct tcp_link *link = ((struct tcp_path *)path)->link;

	for (uint32_t i = 0; i < link->count; i++)
		if (has_written(link->ends[i], request)) {
			take_down(link, false);
			return;
		}
	if (request->op.opcode == OP_CALL) {
		give_up_calls(link, NULL, request, -ECANCELED);
		return;
	}
	for (uint32_t i = 0; i < link->count; i++)
		give_up_reads(link->ends[i], request);
}

/*
 * With the connection that ended, all of the target's are over. One that closes a segment, or takes
 * a right back, refuses what is under way, but for calls that the owner has.
 */
static void tcp_dead(struct path *path, int state)
{
	struct tcp_link *link = ((struct tcp_path *)path)->link;

	if (state == -ECONNRESET)
		fail_link(link, state);
	else if (!link->error)
		give_up_calls(link, path, NULL, state);
}

static bool tcp_sleep(struct transport_link *of)
{
	struct tcp_link *link = (struct tcp_link *)of;

	if (link->error || !is_up(link))
		return true;
	link->pause = 0;
	for (uint32_t left = link->awaited; left != 0; left &= left - 1)
		if (stream_pending(&link->ends[__builtin_ctz(left)]->channel.stream))
			return false;
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
	.post_vector = tcp_post_vector,
	.cancel = tcp_cancel,
	.dead = tcp_dead,
};

const struct link_ops tcp_link_ops = {.flush = tcp_flush, .poll = tcp_poll, .sleep = tcp_sleep};
