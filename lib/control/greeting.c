/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first message on a connection: hello makes it a control connection, attach a data connection
 * that belongs to one. Until then nothing is promised to the other side.
 */
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "control/server_internal.h"
#include "net/tls.h"

/* The number of the connection, then its secret: the number finds it, the secret proves it. */
#define TOKEN_TEXT_BYTES (16 + 2 * SECRET_BYTES)

static void hex(char *text, const uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		sprintf(text + 2 * i, "%02x", bytes[i]);
}

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

	if (options->callbacks->describe && connection->version >= MESSAGE_VERSION_PATH)
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
	char incarnation[17], token[TOKEN_TEXT_BYTES + 1];

	if (getrandom(connection->secret, SECRET_BYTES, GRND_NONBLOCK) != SECRET_BYTES)
		return connection_refuse(connection,
					 fail(-EAGAIN, "the target has no randomness yet"));
	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, server->options.incarnation);
	snprintf(token, sizeof(token), "%016" PRIx64, connection->info.connection);
	hex(token + 16, connection->secret, SECRET_BYTES);
	return connection_send(connection,
			       json_pack("{s:s, s:i, s:o, s:s, s:i, s:s, s:s, s:s, s:o, s:o, s:o*}",
					 "type", "welcome", "version", connection->version, "name",
					 message_text(server->options.name), "incarnation",
					 incarnation, "pid", (int)getpid(), "boot_id",
					 server->boot_id, "identity", connection->info.identity,
					 "token", token, "socket", describe_socket(server), "tcp",
					 describe_tcp(server), "transports",
					 describe_transports(connection)),
			       NULL, 0);
}

/* Over a Unix socket it was filled in when the connection was accepted. */
static int identify(struct connection *connection)
{
	if (connection->info.is_unix)
		return 0;
	if (connection->stream.ssl) {
		strcpy(connection->info.identity, tls_identity(&connection->stream));
		return 0;
	}
	if (connection->server->options.tls)
		return fail(-EPERM, "target %s requires TLS: give --psk or --tls-cert",
			    connection->server->options.name);
	strcpy(connection->info.identity, "anonymous");
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

static bool parse_token(const char *text, uint64_t *number, uint8_t secret[SECRET_BYTES])
{
	char digits[17] = "";

	if (!text || strlen(text) != TOKEN_TEXT_BYTES ||
	    strspn(text, "0123456789abcdef") != TOKEN_TEXT_BYTES)
		return false;
	memcpy(digits, text, 16);
	*number = strtoull(digits, NULL, 16);
	for (size_t i = 0; i < SECRET_BYTES; i++) {
		char byte[3] = {text[16 + 2 * i], text[17 + 2 * i], '\0'};

		secret[i] = (uint8_t)strtoul(byte, NULL, 16);
	}
	return true;
}

/* Whose token is it? A connection that has ended takes its token along. */
static struct connection *find_owner(struct server *server, const char *token)
{
	struct connection *owner;
	uint8_t secret[SECRET_BYTES];
	uint64_t number;

	if (!parse_token(token, &number, secret))
		return NULL;
	owner = connection_find(server, number);
	return owner && CRYPTO_memcmp(owner->secret, secret, SECRET_BYTES) == 0 ? owner : NULL;
}

static int check_attach(const struct connection *connection, const struct connection *owner)
{
	const struct server_options *options = &connection->server->options;

	if (!owner)
		return fail(-EACCES, "a data connection with a token that is not valid (any more)");
	if (!connection->stream.ssl && options->tls && !options->tcp_plain)
		return fail(-EPERM,
			    "target %s requires TLS for data connections: give --psk or --tls-cert",
			    options->name);
	if (connection->stream.ssl && owner->stream.ssl &&
	    strcmp(tls_identity(&connection->stream), owner->info.identity) != 0)
		return fail(-EACCES, "a data connection of %s with the token of %s",
			    tls_identity(&connection->stream), owner->info.identity);
	if (!options->callbacks->attach || connection->info.is_unix)
		return fail(-EOPNOTSUPP, "target %s takes no data connections here", options->name);
	return 0;
}

int greeting_attach(struct connection *connection, const json_t *message)
{
	const struct server_options *options = &connection->server->options;
	const char *token = json_string_value(json_object_get(message, "token"));
	struct connection *owner = find_owner(connection->server, token);
	int rc = check_attach(connection, owner);
	struct stream stream;
	uint64_t number;

	if (rc < 0) {
		if (rc != -EOPNOTSUPP)
			connection_failed(connection);
		return connection_refuse(connection, rc);
	}
	origin_prove(connection->origin, clock_monotonic_ns(NULL));
	rc = descriptors_stay(connection, owner->info.budget);
	if (rc < 0)
		return connection_refuse(connection, rc);
	rc = connection_send(connection, json_pack("{s:s}", "type", "attached"), NULL, 0);
	if (rc < 0 || message_writer_busy(&connection->writer))
		return rc < 0 ? rc : -EAGAIN;
	number = owner->info.connection;
	stream = connection_detach(connection);
	options->callbacks->attach(options->arg, &stream, number);
	return 1;
}
