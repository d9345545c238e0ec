/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask for over data connections, carried out in the memory of segments. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/work.h"
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

static void respond_data(struct tcp_connection *connection, const struct grant *grant,
			 const char *data, uint32_t length)
{
	struct channel *channel = &connection->channel;

	tcp_respond_done(connection);
	respond(connection, WIRE_DATA, 0, length, connection->sequence++);
	if (length <= CHANNEL_STAGE_BYTES)
		memcpy(channel_stage(channel, length), data, length);
	else
		channel_refer(channel, data, length, grant);
}

/* ---- requests ---- */

static int hostile(struct tcp_connection *connection, const char *what)
{
	log_peer(SLU_LOG_WARNING, "a data connection is closed: its client sent %s", what);
	connection->failed = true;
	return -EPROTO;
}

static int check_form(struct tcp_connection *connection, const struct wire_request *request)
{
	uint32_t limit =
		request->type == WIRE_CALL ? SLU_MESSAGE_MAX : (uint32_t)TRANSPORT_SLICE_MAX_BYTES;

	if (request->type < WIRE_READ || request->type > WIRE_CALL || request->reserved[0] ||
	    request->reserved[1] || request->reserved[2])
		return hostile(connection, "an unknown request");
	if (request->length > limit)
		return hostile(connection, "a request that is too long");
	if (request->sequence != connection->sequence)
		return hostile(connection, "a request out of sequence");
	return 0;
}

static int check_right(const struct grant *grant, const struct wire_request *request)
{
	uint32_t needed = request->type == WIRE_READ   ? SLU_RIGHT_READ
			  : request->type == WIRE_CALL ? 0
						       : SLU_RIGHT_WRITE;
	uint64_t length = grant->export->length;

	if (request->type == WIRE_CALL)
		return grant->rights ? 0 : -EACCES;
	if (!(grant->rights & needed))
		return -EACCES;
	if (request->length > length || request->offset > length - request->length)
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

	return inbox_notify(lane_of(connection, grant), grant->client, connection->request.tag)
		       ? 0
		       : -EAGAIN;
}

/* All of it has been read. */
static int deliver_call(struct tcp_connection *connection, const struct grant *grant)
{
	const struct wire_request *request = &connection->request;

	return serving_call(&connection->service->serving, &connection->served,
			    lane_of(connection, grant), grant->client, request->tag,
			    channel_peek(&connection->channel, request->length), request->length)
		       ? 0
		       : -EAGAIN;
}

static void body_arrived(struct tcp_connection *connection)
{
	int status = connection->status;

	connection->receiving = false;
	if (status == 0 && connection->request.type == WIRE_NOTIFY)
		status = deliver_notification(connection);
	connection->grant = NULL;
	finish(connection, status);
}

/* Where the body goes; NULL: nowhere. */
static char *destination(const struct tcp_connection *connection)
{
	return connection->status < 0
		       ? NULL
		       : connection->grant->export->addr + connection->request.offset;
}

static void begin(struct tcp_connection *connection)
{
	const struct wire_request *request = &connection->request;
	struct grant *grant = NULL;
	int status = grants_find(connection->service->grants, connection->owner, request->handle,
				 request->generation, &grant);

	if (status == 0)
		status = check_right(grant, request);
	if (status == 0 && connection->deaths != 0 && tcp_is_dead(grant))
		status = -EFAULT;
	if (status == 0 && request->type == WIRE_NOTIFY &&
	    !inbox_notify_room(lane_of(connection, grant)))
		status = -EAGAIN;
	if (request->type == WIRE_READ) {
		if (status < 0 || request->length == 0)
			finish(connection, status);
		else
			respond_data(connection, grant, grant->export->addr + request->offset,
				     request->length);
		return;
	}
	if (request->type == WIRE_CALL) {
		finish(connection, status < 0 ? status : deliver_call(connection, grant));
		channel_consume(&connection->channel, request->length);
		return;
	}
	connection->grant = grant;
	connection->status = status;
	connection->receiving = true;
	if (channel_body(&connection->channel, destination(connection), request->length))
		body_arrived(connection);
}

/* @return was there something to do? */
static bool step(struct tcp_connection *connection)
{
	struct channel *channel = &connection->channel;
	const void *head;

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
	if (connection->request.type == WIRE_CALL &&
	    !channel_peek(channel,
			  (uint32_t)sizeof(connection->request) + connection->request.length))
		return false;
	channel_consume(channel, sizeof(connection->request));
	begin(connection);
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
