/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client asks about its links: to invite data connections, and to say that what a link, or
 * an earlier connection, has brought is over. Such a fence is what lets a client go on after it has
 * lost a link with writes on it: what this host's kernel has received is delivered even after a
 * reset.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "control/server_internal.h"

/* The offer of a request; NULL: it is malformed. */
static const json_t *parse(const json_t *message, json_int_t *request)
{
	const json_t *number = json_object_get(message, "request");
	const json_t *offer = json_object_get(message, "offer");

	*request = json_integer_value(number);
	return json_is_integer(number) && *request >= 0 && json_is_object(offer) ? offer : NULL;
}

static int refuse(struct connection *connection, json_int_t request, int error)
{
	if (error == -EACCES)
		connection_suspect(connection);
	return connection_send(connection,
			       json_pack("{s:s, s:I, s:i, s:o?}", "type", "refused", "request",
					 request, "error", -error, "text",
					 message_text(slu_last_error())),
			       NULL, 0);
}

/* Consumes @p answer. */
static int answer_with(struct connection *connection, const char *type, json_int_t request,
		       json_t *answer)
{
	return connection_send(
		connection,
		json_pack("{s:s, s:I, s:o}", "type", type, "request", request, "answer", answer),
		NULL, 0);
}

/* Without a session there is nothing that a data connection could be good for. */
static int invite(struct connection *connection, const json_t *offer, char *secret)
{
	json_int_t count = json_integer_value(json_object_get(offer, "count"));
	uint64_t link;

	if (!message_number(offer, "link", &link) || count < 1 || count > (json_int_t)INVITED_MAX)
		return fail(-EPROTO, "invite without link or count");
	if (!connection->sessions || connection->sessions->count == 0)
		return fail(-EACCES, "data connections are for those who have opened a segment");
	return data_invite(&connection->invitations, link, (uint32_t)count,
			   clock_monotonic_ns(NULL), secret);
}

int links_invite(struct connection *connection, const json_t *message)
{
	char secret[SECRET_TEXT];
	json_int_t request;
	const json_t *offer = parse(message, &request);
	int rc;

	if (!offer)
		return connection_refuse(connection,
					 fail(-EPROTO, "invite without request or offer"));
	rc = invite(connection, offer, secret);
	if (rc < 0)
		return refuse(connection, request, rc);
	return answer_with(connection, "invite", request, json_pack("{s:s}", "secret", secret));
}

static int fence_link(struct connection *connection, uint64_t link)
{
	const struct server_options *options = &connection->server->options;

	data_uninvite(&connection->invitations, link);
	if (options->callbacks->fence)
		options->callbacks->fence(options->arg, connection->info.connection, link);
	return 0;
}

/* One that we do not know (any more) is over: its number is never given again. */
static int fence_connection(struct connection *connection, uint64_t number, const char *text)
{
	struct connection *other = connection_find(connection->server, number);
	uint8_t secret[SECRET_BYTES];

	if (!secret_parse(text, secret, sizeof(secret)) || other == connection)
		return fail(-EPROTO, "fence without the secret of another connection");
	if (!other)
		return 0;
	if (!secret_equal(other->secret, secret, sizeof(secret)))
		return fail(-EACCES, "fence with a secret that is not that connection's");
	connection_close(other);
	return 0;
}

static int fence(struct connection *connection, const json_t *offer)
{
	uint64_t number;

	if (message_number(offer, "link", &number))
		return fence_link(connection, number);
	if (message_number(offer, "connection", &number))
		return fence_connection(connection, number,
					json_string_value(json_object_get(offer, "secret")));
	return fail(-EPROTO, "fence without link or connection");
}

static int answer_fence(struct connection *connection, uint64_t request)
{
	return answer_with(connection, "fence", (json_int_t)request, json_object());
}

int links_fence(struct connection *connection, const json_t *message)
{
	const struct server_options *options = &connection->server->options;
	json_int_t request;
	const json_t *offer = parse(message, &request);
	int rc;

	if (!offer)
		return connection_refuse(connection,
					 fail(-EPROTO, "fence without request or offer"));
	rc = fence(connection, offer);
	if (rc == 0 && options->callbacks->settle)
		rc = options->callbacks->settle(options->arg, connection->info.connection,
						(uint64_t)request);
	if (rc < 0)
		return refuse(connection, request, rc);
	return rc == SERVER_LATER ? 0 : answer_fence(connection, (uint64_t)request);
}

void server_answer_fence(struct server *server, uint64_t number, uint64_t request)
{
	struct connection *connection = connection_find(server, number);

	if (connection && answer_fence(connection, request) < 0)
		connection_close(connection);
}
