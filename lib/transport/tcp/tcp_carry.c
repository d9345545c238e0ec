/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask for over data connections, carried out in the memory of segments. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/work.h"
#include "message/body.h"
#include "transport/atomic_op.h"
#include "transport/tcp/tcp_served.h"

/* ---- responses ---- */

static void respond(struct tcp_connection *connection, uint8_t type, int status, uint32_t length,
		    uint32_t sequence)
{
	struct wire_response response = {
		.type = type, .status = (int16_t)status, .length = length, .sequence = sequence};

	memcpy(channel_stage(&connection->channel, sizeof(response)), &response, sizeof(response));
}

/* Those carried out so far, in one response. */
void tcp_respond_done(struct tcp_connection *connection)
{
	if (connection->done == 0)
		return;
	respond(connection, WIRE_DONE, 0, connection->done, connection->sequence - 1);
	connection->done = 0;
}

/* The request at hand is over. */
static void finish(struct tcp_connection *connection, int status)
{
	if (status < 0) {
		tcp_respond_done(connection);
		respond(connection, WIRE_DONE, status, 1, connection->sequence);
	} else {
		connection->done++;
	}
	connection->sequence++;
}

static void send_bytes(struct tcp_connection *connection, const struct grant *grant,
		       uint64_t offset, uint32_t length, uint32_t staged)
{
	const char *data = grant->export->addr + offset;

	if (length <= staged)
		memcpy(channel_stage(&connection->channel, length), data, length);
	else
		channel_refer(&connection->channel, data, length, grant);
}

static void respond_data(struct tcp_connection *connection, const struct grant *grant,
			 const struct wire_run *runs)
{
	const struct wire_request *request = &connection->request;

	tcp_respond_done(connection);
	respond(connection, WIRE_DATA, 0, request->length, connection->sequence++);
	if (request->type == WIRE_READ)
		send_bytes(connection, grant, request->offset, request->length,
			   CHANNEL_STAGE_BYTES);
	else
		for (uint32_t i = 0; i < request->tag; i++)
			send_bytes(connection, grant, runs[i].offset, runs[i].length,
				   RUN_STAGE_BYTES);
}

/* ---- requests ---- */

static int hostile(struct tcp_connection *connection, const char *what)
{
	log_peer(SLU_LOG_WARNING, "a data connection is closed: its client sent %s", what);
	connection->failed = true;
	return -EPROTO;
}

static bool has_runs(const struct wire_request *request)
{
	return request->type == WIRE_READ_RUNS || request->type == WIRE_WRITE_RUNS;
}

static bool is_atomic(const struct wire_request *request)
{
	return request->type == WIRE_FETCH_ADD || request->type == WIRE_COMPARE_SWAP;
}

static bool only_reads(const struct wire_request *request)
{
	return request->type == WIRE_READ || request->type == WIRE_READ_RUNS;
}

/* It is received into memory of its own, where an answer has room. */
static bool is_long_call(const struct wire_request *request)
{
	return request->type == WIRE_CALL &&
	       (request->length > SLU_MESSAGE_MAX || request->offset > SLU_MESSAGE_MAX);
}

static int check_form(struct tcp_connection *connection, const struct wire_request *request)
{
	bool is_call = request->type == WIRE_CALL;
	uint32_t limit = is_call ? SLU_CALL_MAX : (uint32_t)TRANSPORT_SLICE_MAX_BYTES;

	if (request->type < WIRE_READ || request->type > WIRE_COMPARE_SWAP ||
	    request->reserved[0] || request->reserved[1] || request->reserved[2])
		return hostile(connection, "an unknown request");
	if (request->length > limit || (is_call && request->offset > limit))
		return hostile(connection, "a request that is too long");
	if (request->sequence != connection->sequence)
		return hostile(connection, "a request out of sequence");
	if (is_atomic(request) && request->length != sizeof(struct wire_atomic))
		return hostile(connection, "an atomic request without its operands");
	if (has_runs(request) && (request->tag == 0 || request->tag > WIRE_RUNS_MAX))
		return hostile(connection, "a request of no runs, or of too many");
	return 0;
}

/* Else it could not be told where its bytes end. */
static int check_runs(struct tcp_connection *connection, const struct wire_run *runs)
{
	const struct wire_request *request = &connection->request;
	uint64_t sum = 0;
	bool empty = false;

	for (uint32_t i = 0; i < request->tag; i++) {
		empty |= runs[i].length == 0;
		sum += runs[i].length;
	}
	return empty || sum != request->length
		       ? hostile(connection, "runs that are not what their request says")
		       : 0;
}

static bool inside(const struct grant *grant, uint64_t offset, uint32_t length)
{
	uint64_t limit = grant->export->length;

	return length <= limit && offset <= limit - length;
}

static int check_word(const struct grant *grant, uint64_t offset)
{
	if (!inside(grant, offset, ATOMIC_BYTES))
		return -ERANGE;
	return (uintptr_t)(grant->export->addr + offset) % ATOMIC_BYTES ? -EINVAL : 0;
}

/* Of runs all or none. */
static int check_right(const struct grant *grant, const struct wire_request *request,
		       const struct wire_run *runs)
{
	uint32_t needed = only_reads(request)  ? SLU_RIGHT_READ
			  : is_atomic(request) ? SLU_RIGHT_READ | SLU_RIGHT_WRITE
					       : SLU_RIGHT_WRITE;

	if (request->type == WIRE_CALL)
		return grant->rights ? 0 : -EACCES;
	if ((grant->rights & needed) != needed)
		return -EACCES;
	if (is_atomic(request))
		return check_word(grant, request->offset);
	if (!has_runs(request))
		return inside(grant, request->offset, request->length) ? 0 : -ERANGE;
	for (uint32_t i = 0; i < request->tag; i++)
		if (!inside(grant, runs[i].offset, runs[i].length))
			return -ERANGE;
	return 0;
}

static struct inbox_lane *lane_of(const struct tcp_connection *connection,
				  const struct grant *grant)
{
	return serving_lane(&connection->service->serving, grant);
}

static int deliver_notification(const struct tcp_connection *connection)
{
	const struct grant *grant = connection->grant;

	return inbox_notify(lane_of(connection, grant), grant->sender, connection->request.tag)
		       ? 0
		       : -EAGAIN;
}

/* All of it has been read. */
static int deliver_call(struct tcp_connection *connection, const struct grant *grant)
{
	const struct wire_request *request = &connection->request;

	return serving_call(&connection->service->serving, &connection->served,
			    lane_of(connection, grant), grant->sender, request->tag,
			    channel_peek(&connection->channel, request->length), request->length)
		       ? 0
		       : -EAGAIN;
}

/* @return 0; -EAGAIN, -EDQUOT no memory for it now, or ever */
static int take_call_body(struct tcp_connection *connection)
{
	const struct wire_request *request = &connection->request;
	uint32_t room = (uint32_t)request->offset;

	if (!serving_may_call(&connection->service->serving, &connection->served))
		return -EAGAIN;
	if (room < request->length)
		room = request->length;
	return body_create(connection->budget, room, &connection->body);
}

/* @p status  of what has arrived @return as deliver_call() */
static int deliver_long_call(struct tcp_connection *connection, int status)
{
	const struct wire_request *request = &connection->request;
	struct body *body = connection->body;

	connection->body = NULL;
	if (status == 0 &&
	    !serving_call_long(&connection->service->serving, &connection->served,
			       lane_of(connection, connection->grant), connection->grant->sender,
			       request->tag, body, request->length))
		status = -EAGAIN;
	if (status < 0)
		body_destroy(body);
	return status;
}

static void body_arrived(struct tcp_connection *connection)
{
	int status = connection->status;

	connection->receiving = false;
	if (status == 0 && connection->request.type == WIRE_NOTIFY)
		status = deliver_notification(connection);
	if (connection->request.type == WIRE_CALL)
		status = deliver_long_call(connection, status);
	connection->grant = NULL;
	finish(connection, status);
}

/* All of it has been read. */
static void carry_out_atomic(struct tcp_connection *connection, const struct grant *grant)
{
	const struct wire_request *request = &connection->request;
	struct channel *channel = &connection->channel;
	const struct wire_atomic *operands = channel_peek(channel, sizeof(*operands));
	uint8_t opcode = request->type == WIRE_FETCH_ADD ? SLU_FETCH_ADD : SLU_COMPARE_SWAP;
	uint64_t before = atomic_op(grant->export->addr + request->offset, opcode,
				    operands->operand, operands->expected);

	tcp_respond_done(connection);
	respond(connection, WIRE_DATA, 0, ATOMIC_BYTES, connection->sequence++);
	memcpy(channel_stage(channel, ATOMIC_BYTES), &before, ATOMIC_BYTES);
}

/* @return is all of the body there? */
static bool take_body(struct tcp_connection *connection, const struct wire_run *runs)
{
	const struct wire_request *request = &connection->request;
	struct channel *channel = &connection->channel;
	char *addr;

	if (connection->status < 0)
		return channel_body(channel, NULL, request->length);
	if (request->type == WIRE_CALL)
		return channel_body(channel, (char *)connection->body->data, request->length);
	addr = connection->grant->export->addr;
	if (!has_runs(request))
		return channel_body(channel, addr + request->offset, request->length);
	for (uint32_t i = 0; i < request->tag; i++)
		connection->places[i] = (struct iovec){addr + runs[i].offset, runs[i].length};
	return channel_body_to(channel, connection->places, request->tag, request->length);
}

/* @p runs  of a request that has them: where they were read, until more is */
static void begin(struct tcp_connection *connection, const struct wire_run *runs)
{
	const struct wire_request *request = &connection->request;
	struct grant *grant = NULL;
	int status = grants_find(connection->service->grants, connection->owner, request->handle,
				 request->generation, &grant);

	if (status == 0)
		status = check_right(grant, request, runs);
	if (status == 0 && connection->deaths != 0 && tcp_is_dead(grant))
		status = -EFAULT;
	if (status == 0 && request->type == WIRE_NOTIFY &&
	    !inbox_notify_room(lane_of(connection, grant)))
		status = -EAGAIN;
	if (only_reads(request)) {
		if (status < 0 || request->length == 0)
			finish(connection, status);
		else
			respond_data(connection, grant, runs);
		return;
	}
	if (is_atomic(request)) {
		if (status < 0)
			finish(connection, status);
		else
			carry_out_atomic(connection, grant);
		channel_consume(&connection->channel, request->length);
		return;
	}
	if (status == 0 && is_long_call(request)) {
		status = take_call_body(connection);
	} else if (request->type == WIRE_CALL && !is_long_call(request)) {
		finish(connection, status < 0 ? status : deliver_call(connection, grant));
		channel_consume(&connection->channel, request->length);
		return;
	}
	connection->grant = grant;
	connection->status = status;
	connection->receiving = true;
	if (take_body(connection, runs))
		body_arrived(connection);
}

/* What must have been read before it is begun, beside its head. */
static uint32_t follows(const struct wire_request *request)
{
	if (request->type == WIRE_CALL)
		return is_long_call(request) ? 0 : request->length;
	if (is_atomic(request))
		return request->length;
	return has_runs(request) ? request->tag * (uint32_t)sizeof(struct wire_run) : 0;
}

/* @return was there something to do? */
static bool step(struct tcp_connection *connection)
{
	struct channel *channel = &connection->channel;
	const struct wire_request *head;
	const struct wire_run *runs = NULL;
	uint32_t more;

	if (!channel_room(channel, RESPONSE_BYTES, RESPONSE_PIECES))
		return false;
	if (connection->receiving) {
		if (channel->body_left > 0)
			return false;
		body_arrived(connection);
		return true;
	}
	head = channel_peek(channel, sizeof(connection->request));
	if (!head)
		return false;
	memcpy(&connection->request, head, sizeof(connection->request));
	if (check_form(connection, &connection->request) < 0)
		return false;
	more = follows(&connection->request);
	if (more > 0) {
		head = channel_peek(channel, (uint32_t)sizeof(*head) + more);
		if (!head)
			return false;
		runs = (const struct wire_run *)(head + 1);
	}
	channel_consume(channel, sizeof(*head));
	if (has_runs(&connection->request)) {
		if (check_runs(connection, runs) < 0)
			return false;
		channel_consume(channel, more);
	}
	begin(connection, runs);
	return true;
}

uint32_t tcp_carry_out(struct tcp_connection *connection)
{
	struct channel *channel = &connection->channel;
	uint64_t bytes = 0;
	uint32_t work = 0;
	ssize_t got;

	for (;;) {
		while (step(connection))
			work++;
		if (connection->failed || !channel_room(channel, RESPONSE_BYTES, RESPONSE_PIECES) ||
		    (bytes > 0 && channel->drained) || bytes >= tcp_turn_bytes(connection->service))
			return work;
		got = channel_receive(channel);
		if (got <= 0) {
			connection->failed |= got < 0;
			return work;
		}
		bytes += (uint64_t)got;
		connection->service->moved += (uint64_t)got;
		work_count(WORK_BYTES, (uint64_t)got);
		work++;
	}
}
