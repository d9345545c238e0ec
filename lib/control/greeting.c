/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first message on a connection: hello makes it a control connection, attach a data connection
 * that belongs to one. Until then nothing is promised to the other side.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "control/server_internal.h"
#include "net/tls.h"

static const struct listener *find_listener(const struct server *server, bool is_tcp)
{
	const struct listener *listener;

	LIST_FOREACH (listener, &server->listeners, link)
		if (listener->is_tcp == is_tcp && (is_tcp || listener->text[0] == '/'))
			return listener;
	return NULL;
}

/* Where data connections go, or JSON's null. */
static json_t *describe_tcp(const struct server *server)
{
	const struct listener *listener = find_listener(server, true);
	char host[ADDRESS_TEXT_MAX];
	char *colon;

	if (!listener)
		return json_null();
	strcpy(host, listener->text);
	colon = strrchr(host, ':');
	*colon = '\0';
	if (host[0] == '[')
		colon[-1] = '\0';
	return json_pack("{s:s, s:i, s:b, s:b}", "host", host + (host[0] == '['), "port",
			 address_port(&listener->address), "tls", server->options.tls != NULL,
			 "plain", server->options.tcp_plain);
}

static json_t *describe_socket(const struct server *server)
{
	const struct listener *listener = find_listener(server, false);

	return listener ? message_text(listener->text) : json_null();
}

/* NULL: nothing. What is too long is left out: the welcome must reach the client. */
static json_t *describe_transports(const struct connection *connection)
{
	const struct server_options *options = &connection->server->options;
	json_t *transports = NULL;
	size_t length;

	if (options->callbacks->describe)
		transports = options->callbacks->describe(options->arg, &connection->info);
	if (!transports)
		return NULL;
	length = json_dumpb(transports, NULL, 0, JSON_COMPACT);
	if (length > 0 && length <= MESSAGE_TRANSPORTS_MAX_BYTES)
		return transports;
	log_peer(SLU_LOG_WARNING,
		 "what a client has to be told of transports takes %zu bytes, %u are allowed: "
		 "it is told nothing and will not use them; use fewer devices",
		 length, MESSAGE_TRANSPORTS_MAX_BYTES);
	json_decref(transports);
	return NULL;
}

static int welcome(struct connection *connection)
{
	const struct server *server = connection->server;
	struct connection_name name = {.number = connection->info.connection};
	char incarnation[17], number[17], text[SECRET_TEXT];
	uint8_t secret[SECRET_BYTES];

	if (!tls_binding(&connection->stream, name.binding) ||
	    !connection_secret(server, &name, secret))
		return connection_refuse(connection, fail(-ENOMEM, "target is out of memory"));
	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, server->options.incarnation);
	snprintf(number, sizeof(number), "%016" PRIx64, connection->info.connection);
	secret_format(secret, sizeof(secret), text);
	secret_wipe(secret, sizeof(secret));
	return connection_send(
		connection,
		json_pack("{s:s, s:i, s:o, s:s, s:i, s:s, s:s, s:s, s:s, s:o, s:o, s:o*}", "type",
			  "welcome", "version", connection->version, "name",
			  message_text(server->options.name), "incarnation", incarnation, "pid",
			  (int)getpid(), "boot_id", server->boot_id, "identity",
			  connection->info.identity, "connection", number, "secret", text, "socket",
			  describe_socket(server), "tcp", describe_tcp(server), "transports",
			  describe_transports(connection)),
		NULL, 0);
}

/* What no key, certificate or user can be called: tls_identity_valid() has no colon, and users have
 * their own word before it. */
#define UNAUTHENTICATED "tcp:anonymous"

/* Over a Unix socket it was filled in when the connection was accepted. */
static int identify(struct connection *connection)
{
	if (connection->info.is_unix)
		return 0;
	if (connection->stream.ssl) {
		strcpy(connection->info.identity, tls_identity(&connection->stream));
		return connection_still_valid(connection);
	}
	if (connection->server->options.tls)
		return fail(-EPERM, "target %s requires TLS: give --psk or --tls-cert",
			    connection->server->options.name);
	strcpy(connection->info.identity, UNAUTHENTICATED);
	return 0;
}

/* Who may do nothing needs little. */
static int check_entitled(const struct connection *connection)
{
	const struct server_options *options = &connection->server->options;
	const struct peer_info *info = &connection->info;

	if (!options->callbacks->entitled || options->callbacks->entitled(options->arg, info) ||
	    budget_used(info->budget, SLU_LIMIT_CONNECTIONS) < SERVER_RIGHTLESS_CONNECTIONS_MAX)
		return 0;
	return fail(-EDQUOT,
		    "identity %s has %u connections to target %s and no right on any segment: the "
		    "target's configuration grants it under [identity %s]",
		    info->identity, SERVER_RIGHTLESS_CONNECTIONS_MAX, options->name,
		    info->identity);
}

/* Its identity is known. */
static int take_budget(struct connection *connection)
{
	struct budgets *budgets = connection->server->options.budgets;
	int rc;

	if (!budgets)
		return 0;
	connection->info.budget = budget_find(budgets, connection->info.identity);
	if (!connection->info.budget)
		return fail(-ENOMEM, "target is out of memory");
	rc = check_entitled(connection);
	if (rc == 0)
		rc = budget_take(connection->info.budget, SLU_LIMIT_CONNECTIONS, 1);
	if (rc < 0)
		return rc;
	rc = descriptors_stay(connection, connection->info.budget);
	if (rc < 0)
		budget_give(connection->info.budget, SLU_LIMIT_CONNECTIONS, 1);
	return rc;
}

int greeting_hello(struct connection *connection, const json_t *message)
{
	struct server *server = connection->server;
	int low, high, rc;

	if (json_unpack((json_t *)(uintptr_t)message, "{s:[i,i]}", "versions", &low, &high) < 0)
		return connection_refuse(connection, fail(-EPROTO, "hello without versions"));
	if (high < MESSAGE_VERSION_LOW || low > MESSAGE_VERSION_HIGH)
		return connection_refuse(connection,
					 fail(-EPROTONOSUPPORT,
					      "client speaks protocol versions %d to %d, target %s "
					      "speaks %d to %d: upgrade the older side",
					      low, high, server->options.name, MESSAGE_VERSION_LOW,
					      MESSAGE_VERSION_HIGH));
	rc = identify(connection);
	if (rc < 0) {
		connection_failed(connection);
		return connection_refuse(connection, rc);
	}
	if (atomic_load(&server->connection_count) >= server->options.limits.connections)
		return connection_refuse(connection, fail(-ENOSPC,
							  "target %s has its limit of %u "
							  "connections",
							  server->options.name,
							  server->options.limits.connections));
	rc = take_budget(connection);
	if (rc < 0)
		return connection_refuse(connection, rc);
	connection->info.connection = ++server->last_connection;
	connection->version = high < MESSAGE_VERSION_HIGH ? high : MESSAGE_VERSION_HIGH;
	rc = welcome(connection);
	if (rc == 0)
		connection_opened(connection);
	else
		budget_give(connection->info.budget, SLU_LIMIT_CONNECTIONS, 1);
	return rc;
}

/* ---- data connections ---- */

/* Where nobody was invited, it does not matter why. Links have numbers that nobody guesses. */
static struct data_invitation *
find_invitation(struct server *server, const struct data_claim *claim, struct connection **owner)
{
	*owner = connection_find(server, claim->connection);
	return *owner ? data_invitation_find(&(*owner)->invitations, claim->link,
					     clock_monotonic_ns(NULL))
		      : NULL;
}

static int not_invited(void)
{
	return fail(-EACCES, "a data connection to which nobody was invited, or not any more");
}

static int check_attach(const struct connection *connection, const struct connection *owner)
{
	const struct server_options *options = &connection->server->options;
	int rc = connection_still_valid(connection);

	if (rc == 0)
		rc = connection_still_valid(owner);
	if (rc < 0)
		return rc;
	if (!connection->stream.ssl && options->tls && !options->tcp_plain)
		return fail(-EPERM,
			    "target %s requires TLS for data connections: give --psk or --tls-cert",
			    options->name);
	if (connection->stream.ssl && owner->stream.ssl &&
	    strcmp(tls_identity(&connection->stream), owner->info.identity) != 0)
		return fail(-EACCES, "a data connection of %s with the invitation of %s",
			    tls_identity(&connection->stream), owner->info.identity);
	if (!options->callbacks->attach || connection->info.is_unix)
		return fail(-EOPNOTSUPP, "target %s takes no data connections here", options->name);
	return 0;
}

static int refuse_attach(struct connection *connection, int error)
{
	if (error != -EOPNOTSUPP)
		connection_failed(connection);
	return connection_refuse(connection, error);
}

int greeting_attach(struct connection *connection, const json_t *message)
{
	struct data_claim *claim = &connection->claim;
	char nonce[2 * INVITATION_NONCE_BYTES + 1];
	struct connection *owner = NULL;
	int rc = 0;

	if (!message_number(message, "connection", &claim->connection) ||
	    !message_number(message, "link", &claim->link))
		rc = fail(-EPROTO, "attach without connection or link");
	else if (!find_invitation(connection->server, claim, &owner))
		rc = not_invited();
	if (rc == 0)
		rc = check_attach(connection, owner);
	if (rc == 0)
		rc = secret_make(claim->nonce, sizeof(claim->nonce));
	if (rc < 0)
		return refuse_attach(connection, rc);
	secret_format(claim->nonce, sizeof(claim->nonce), nonce);
	connection->state = CONNECTION_PROVING;
	return connection_send(
		connection, json_pack("{s:s, s:s}", "type", "challenge", "nonce", nonce), NULL, 0);
}

int greeting_proof(struct connection *connection, const json_t *message)
{
	const struct server_options *options = &connection->server->options;
	const struct data_claim claim = connection->claim;
	const char *proof = json_string_value(json_object_get(message, "proof"));
	struct connection *owner;
	struct data_invitation *invitation = find_invitation(connection->server, &claim, &owner);
	struct stream stream;
	int rc;

	if (!invitation || !data_invitation_use(invitation, &claim, proof))
		return refuse_attach(connection, not_invited());
	rc = check_attach(connection, owner); /* time has passed since it asked */
	if (rc < 0)
		return refuse_attach(connection, rc);
	origin_prove(connection->origin, clock_monotonic_ns(NULL));
	rc = descriptors_stay(connection, owner->info.budget);
	if (rc == 0)
		rc = budget_take(owner->info.budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
	if (rc < 0)
		return connection_refuse(connection, rc);
	rc = connection_send(connection, json_pack("{s:s}", "type", "attached"), NULL, 0);
	if (rc < 0 || message_writer_busy(&connection->writer)) {
		budget_give(owner->info.budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
		return rc < 0 ? rc : -EAGAIN;
	}
	stream = connection_detach(connection);
	options->callbacks->attach(options->arg, &stream, &owner->info, claim.link);
	return 1;
}
