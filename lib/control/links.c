/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client asks about its links: to invite data connections, to say that what a link, or an
 * earlier connection, has brought is over, and to prove that we are the target of an earlier one.
 * Such a fence is what lets a client go on after it has lost a link with writes on it: what this
 * host's kernel has received is delivered even after a reset.
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

/* By the secret of that connection. @return false: out of memory */
static bool prove(const struct server *server, const struct connection_name *name, const void *said,
		  size_t length, char proof[static PROOF_TEXT])
{
	uint8_t secret[SECRET_BYTES];
	bool proven = connection_secret(server, name, secret) &&
		      secret_prove_text(secret, said, length, proof);

	secret_wipe(secret, sizeof(secret));
	return proven;
}

/* One that we do not know (any more) is over: its number is never given again. */
static int fence_connection(struct connection *connection, const struct connection_name *name,
			    const char *proof)
{
	struct server *server = connection->server;
	struct connection *other = connection_find(server, name->number);
	char right[PROOF_TEXT];

	if (!proof || other == connection)
		return fail(-EPROTO, "fence without a proof of another connection");
	if (!prove(server, name, FENCE_END, strlen(FENCE_END), right))
		return fail(-ENOMEM, "target is out of memory");
	if (strlen(proof) != PROOF_TEXT - 1 ||
	    !secret_equal((const uint8_t *)proof, (const uint8_t *)right, PROOF_TEXT))
		return fail(-EACCES, "fence without the secret of that connection");
	if (other)
		connection_close(other);
	return 0;
}

/* @p over: the connection that is to end; left alone for a link */
static int fence(struct connection *connection, const json_t *offer, struct connection_name *over)
{
	uint64_t link;

	if (message_number(offer, "link", &link))
		return fence_link(connection, link);
	if (message_connection(offer, over))
		return fence_connection(connection, over,
					json_string_value(json_object_get(offer, "proof")));
	return fail(-EPROTO, "fence without link or connection");
}

static int answer_fence(struct connection *connection, const struct fence_ask *ask)
{
	char proof[PROOF_TEXT];
	json_t *answer = NULL;

	if (ask->over.number == 0)
		answer = json_object();
	else if (prove(connection->server, &ask->over, FENCE_OVER, strlen(FENCE_OVER), proof))
		answer = json_pack("{s:s}", "proof", proof);
	return answer_with(connection, "fence", (json_int_t)ask->request, answer);
}

int links_fence(struct connection *connection, const json_t *message)
{
	const struct server_options *options = &connection->server->options;
	struct fence_ask ask = {.connection = connection->info.connection};
	json_int_t request;
	const json_t *offer = parse(message, &request);
	int rc;

	if (!offer)
		return connection_refuse(connection,
					 fail(-EPROTO, "fence without request or offer"));
	ask.request = (uint64_t)request;
	rc = fence(connection, offer, &ask.over);
	if (rc == 0 && options->callbacks->settle)
		rc = options->callbacks->settle(options->arg, &ask);
	if (rc < 0)
		return refuse(connection, request, rc);
	return rc == SERVER_LATER ? 0 : answer_fence(connection, &ask);
}

void server_answer_fence(struct server *server, const struct fence_ask *ask)
{
	struct connection *connection = connection_find(server, ask->connection);

	if (connection && answer_fence(connection, ask) < 0)
		connection_close(connection);
}

int links_same(struct connection *connection, const json_t *message)
{
	struct connection_name name;
	struct same_claim claim;
	char proof[PROOF_TEXT];
	json_int_t request;
	const json_t *offer = parse(message, &request);

	if (!offer)
		return connection_refuse(connection,
					 fail(-EPROTO, "same without request or offer"));
	if (!message_connection(offer, &name) ||
	    !secret_parse(json_string_value(json_object_get(offer, "nonce")), claim.nonce,
			  sizeof(claim.nonce)))
		return refuse(connection, request,
			      fail(-EPROTO, "same without connection or nonce"));
	if (!tls_binding(&connection->stream, claim.binding) ||
	    !prove(connection->server, &name, &claim, sizeof(claim), proof))
		return refuse(connection, request, fail(-ENOMEM, "target is out of memory"));
	return answer_with(connection, "same", request, json_pack("{s:s}", "proof", proof));
}
