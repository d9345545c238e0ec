/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a connection, on the thread that wants one: socket, credentials or TLS, and the first
 * messages. Each step waits for no longer than the whole may take.
 */
#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/boot_id.h"
#include "control/client_internal.h"
#include "control/invitation.h"
#include "net/network.h"
#include "net/tls.h"

/* ---- waiting ---- */

static int wait_for(const struct stream *stream, short events, uint64_t until_ns)
{
	int rc = wait_ready(stream->fd, events, until_ns);

	if (rc == -ETIMEDOUT)
		return fail(rc, "the target did not answer in time");
	return rc < 0 ? fail(rc, "poll: %s", strerror(-rc)) : 0;
}

int handshake_refused(const json_t *message)
{
	const char *text = json_string_value(json_object_get(message, "text"));
	json_int_t error = json_integer_value(json_object_get(message, "error"));

	if (!text || error <= 0 || error > 4095)
		return fail(-EPROTO, "the target refused without a reason");
	return fail(-(int)error, "the target refused: %s", text);
}

/* @return 0 with the message of that type; or as slu_remote_open() */
static int receive(struct message_reader *reader, struct stream *stream, const char *type,
		   uint64_t until_ns, json_t **out)
{
	json_t *message;
	int rc;

	while ((rc = message_read(reader, stream, &message)) == 0) {
		rc = wait_for(stream, POLLIN, until_ns);
		if (rc < 0)
			return rc;
	}
	if (rc == -ECONNRESET)
		return fail(rc, "the target closed the connection during the handshake");
	if (rc < 0)
		return rc;
	if (strcmp(message_type(message), type) == 0) {
		*out = message;
		return 0;
	}
	if (strcmp(message_type(message), "refused") == 0)
		rc = handshake_refused(message);
	else
		rc = fail(-EPROTO, "the target said \"%.32s\" where \"%s\" was due",
			  message_type(message), type);
	json_decref(message);
	return rc;
}

/* Consumes @p message. A target that refuses us may have closed: what it said is still there. */
static int say(struct stream *stream, json_t *message, uint64_t until_ns)
{
	struct message_writer writer = {.limit_bytes = MESSAGE_MAX_BYTES + 4};
	int rc = message_send(&writer, stream, message, NULL, 0);

	while (rc == 0 && message_writer_busy(&writer)) {
		rc = wait_for(stream, POLLOUT, until_ns);
		if (rc == 0)
			rc = message_flush(&writer, stream);
	}
	message_writer_reset(&writer);
	if (rc == -EPIPE || rc == -ECONNRESET)
		return 0;
	return rc < 0 && rc != -ETIMEDOUT ? fail(rc, "cannot talk to the target: %s", strerror(-rc))
					  : rc;
}

static int shake(struct stream *stream, uint64_t until_ns)
{
	int rc;

	while ((rc = tls_handshake(stream)) == 0) {
		rc = wait_for(stream, stream->wants_write ? POLLOUT : POLLIN, until_ns);
		if (rc < 0)
			return rc;
	}
	return rc < 0 ? rc : 0;
}

/* ---- sockets ---- */

static int nobody_listens(const char *address, const char *segment)
{
	return fail(-ECONNREFUSED,
		    "no target listens at %s: start one with sluice-target --segment %s=SIZE",
		    address, segment);
}

static int connect_unix(struct client *client, const char *segment)
{
	const struct endpoint *endpoint = &client->endpoint;
	const char *address = client->welcome.address;
	char text[400];
	struct ucred peer;
	int rc;

	client->stream.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (client->stream.fd < 0)
		return fail(-errno, "socket: %s", strerror(errno));
	if (connect(client->stream.fd, (const struct sockaddr *)&endpoint->path,
		    endpoint->path_length) < 0) {
		if (errno == ECONNREFUSED || errno == ENOENT)
			return nobody_listens(address, segment);
		if (errno == EAGAIN)
			return fail(-ECONNREFUSED,
				    "the target at %s is overrun with connections; try again",
				    address);
		return fail(-errno, "cannot connect to %s: %s", address, strerror(errno));
	}
	rc = credentials_check(client->stream.fd, client->pool->options.trust, &peer);
	if (rc < 0) {
		snprintf(text, sizeof(text), "%s", slu_last_error());
		return fail(rc, "what listens at %s is no target that we trust: %s", address, text);
	}
	client->welcome.pid = peer.pid; /* in our own PID namespace, or 0 */
	return 0;
}

/* Anybody on the way could read along, and answer in the target's place. */
static int check_exposure(const struct client_pool_options *options, const union address *addresses,
			  int count, const char *text)
{
	if (options->tls || options->insecure)
		return 0;
	for (int i = 0; i < count; i++)
		if (!address_is_loopback(&addresses[i]))
			return fail(-EPERM,
				    "%s is beyond this host, and without TLS anybody on the way "
				    "could read and write: give --psk or --tls-cert, or --insecure",
				    text);
	return 0;
}

static int connect_tcp(struct client *client, uint64_t until_ns)
{
	const struct client_pool_options *options = &client->pool->options;
	union address addresses[ADDRESSES_MAX];
	int count = network->resolve(&client->endpoint.tcp, until_ns, addresses);
	int rc;

	if (count < 0)
		return count;
	rc = check_exposure(options, addresses, count, client->welcome.address);
	if (rc < 0)
		return rc;
	rc = address_connect(addresses, count, until_ns, &client->stream);
	if (rc < 0)
		return rc;
	client->reached = addresses[rc];
	if (!options->tls)
		return 0;
	rc = tls_start(options->tls, &client->stream, client->endpoint.tcp.host);
	return rc < 0 ? rc : shake(&client->stream, until_ns);
}

/* ---- greeting ---- */

static bool copy(char *to, size_t size, const char *from)
{
	if (strlen(from) >= size)
		return false;
	strcpy(to, from);
	return true;
}

/* Absent and null are the same: there is none. */
static bool parse_places(const json_t *message, struct client_welcome *welcome)
{
	const json_t *socket = json_object_get(message, "socket");
	json_t *tcp = json_object_get(message, "tcp");
	json_t *transports = json_object_get(message, "transports");
	const char *host;
	int port, tls, plain;

	if (json_is_string(socket) &&
	    !copy(welcome->socket, sizeof(welcome->socket), json_string_value(socket)))
		return false;
	if (transports && !json_is_null(transports) && !json_is_object(transports))
		return false;
	if (json_is_object(transports))
		welcome->transports = json_incref(transports);
	if (!json_is_object(tcp))
		return true;
	if (json_unpack(tcp, "{s:s, s:i, s:b, s:b}", "host", &host, "port", &port, "tls", &tls,
			"plain", &plain) < 0 ||
	    port <= 0 || port > UINT16_MAX ||
	    !copy(welcome->tcp.host, sizeof(welcome->tcp.host), host))
		return false;
	welcome->tcp.port = (uint16_t)port;
	welcome->tcp_tls = tls;
	welcome->tcp_plain = plain;
	return true;
}

static int parse_welcome(struct client *client, const json_t *message)
{
	struct client_welcome *welcome = &client->welcome;
	const char *name, *incarnation, *boot_id, *identity, *secret;
	int version;

	if (json_unpack((json_t *)(uintptr_t)message, "{s:i}", "version", &version) == 0 &&
	    (version < MESSAGE_VERSION_LOW || version > MESSAGE_VERSION_HIGH))
		return fail(-EPROTONOSUPPORT,
			    "the target chose protocol version %d, we speak %d to %d", version,
			    MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH);
	if (json_unpack((json_t *)(uintptr_t)message, "{s:i, s:s, s:s, s:s, s:s, s:s}", "version",
			&version, "name", &name, "incarnation", &incarnation, "boot_id", &boot_id,
			"identity", &identity, "secret", &secret) < 0 ||
	    sscanf(incarnation, "%16" SCNx64, &welcome->incarnation) != 1 ||
	    !copy(welcome->target, sizeof(welcome->target), name) ||
	    !copy(welcome->identity, sizeof(welcome->identity), identity) ||
	    !message_number(message, "connection", &client->secret.of.number) ||
	    !secret_parse(secret, client->secret.bytes, SECRET_BYTES) ||
	    !parse_places(message, welcome))
		return fail(-EPROTO, "the target's welcome is incomplete");
	welcome->version = version;
	client->peer.transports = welcome->transports;
	welcome->is_unix = client->endpoint.is_unix;
	welcome->encrypted = client->stream.ssl != NULL;
	welcome->same_host =
		client->pool->boot_id[0] && strcmp(boot_id, client->pool->boot_id) == 0;
	return 0;
}

static int greet(struct client *client, uint64_t until_ns)
{
	json_t *message;
	int rc = say(&client->stream,
		     json_pack("{s:s, s:[i,i], s:o}", "type", "hello", "versions",
			       MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH, "name",
			       message_text(client->pool->options.name)),
		     until_ns);

	if (rc == 0)
		rc = receive(&client->reader, &client->stream, "welcome", until_ns, &message);
	if (rc < 0)
		return rc;
	rc = parse_welcome(client, message);
	json_decref(message);
	return rc;
}

/*
 * Data connections go under TLS where the target's port wants it, unless both agree to plain. Where
 * this connection is under TLS the port has it: that is not for the target to deny.
 */
static bool data_is_encrypted(const struct client *client)
{
	const struct client_welcome *welcome = &client->welcome;

	return (welcome->tcp_tls || welcome->encrypted) &&
	       !(welcome->tcp_plain && client->pool->options.tcp_plain);
}

int handshake_connect(struct client *client, const char *segment, uint64_t until_ns)
{
	int rc;

	endpoint_format(&client->endpoint, client->welcome.address);
	rc = client->endpoint.is_unix ? connect_unix(client, segment)
				      : connect_tcp(client, until_ns);
	if (rc == 0)
		rc = greet(client, until_ns);
	if (rc < 0)
		return rc;
	client->peer.encrypted = data_is_encrypted(client);
	return tls_binding(&client->stream, client->secret.of.binding)
		       ? 0
		       : fail(-ENOMEM, "out of memory");
}

/* ---- data connections ---- */

static void set_port(union address *address, uint16_t port)
{
	if (address->any.sa_family == AF_INET)
		address->v4.sin_port = htons(port);
	else
		address->v6.sin6_port = htons(port);
}

/* A target that listens everywhere is reached by loopback from its own host. */
static void any_to_loopback(union address *address)
{
	if (!address_is_any(address))
		return;
	if (address->any.sa_family == AF_INET)
		address->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		address->v6.sin6_addr = in6addr_loopback;
}

static int data_address(const struct client *client, uint64_t until_ns, union address *address)
{
	const struct client_welcome *welcome = &client->welcome;
	union address found[ADDRESSES_MAX];
	int rc;

	if (welcome->tcp.port == 0)
		return fail(-EOPNOTSUPP,
			    "target %s does not listen on TCP: start it with --listen ADDRESS:PORT",
			    welcome->target);
	if (!client->endpoint.is_unix) {
		*address = client->reached;
		set_port(address, welcome->tcp.port);
		return 0;
	}
	rc = network->resolve(&welcome->tcp, until_ns, found);
	if (rc < 0)
		return rc;
	*address = found[0];
	any_to_loopback(address);
	return 0;
}

static int secure(struct client *client, struct stream *stream, const union address *address,
		  uint64_t until_ns)
{
	struct tls *tls = client->pool->options.tls;
	char host[INET6_ADDRSTRLEN] = "";
	int rc;

	if (!client->peer.encrypted)
		return 0;
	if (!tls)
		return fail(-EPERM,
			    "the TCP port of target %s requires TLS: give --psk or --tls-cert",
			    client->welcome.target);
	getnameinfo(&address->any, sizeof(*address), host, sizeof(host), NULL, 0, NI_NUMERICHOST);
	rc = tls_start(tls, stream, client->endpoint.is_unix ? host : client->endpoint.tcp.host);
	return rc < 0 ? rc : shake(stream, until_ns);
}

/* Ask to be let connect: the answer goes over the session, and nothing of it over the wire. */
static int ask_invitation(struct client *client, uint64_t link, uint32_t count, uint64_t until_ns,
			  uint8_t secret[static SECRET_BYTES])
{
	char name[17];
	json_t *offer, *answer;
	int rc;

	snprintf(name, sizeof(name), "%016" PRIx64, link);
	offer = json_pack("{s:s, s:i}", "link", name, "count", (int)count);
	if (!offer)
		return fail(-ENOMEM, "out of memory");
	rc = client_ask(client, "invite", offer, until_ns, &answer);
	json_decref(offer);
	if (rc < 0)
		return rc;
	if (!secret_parse(json_string_value(json_object_get(answer, "secret")), secret,
			  SECRET_BYTES))
		rc = fail(-EPROTO, "the target's invitation is incomplete");
	json_decref(answer);
	return rc;
}

static int say_attach(struct client *client, struct stream *stream, uint64_t link,
		      uint64_t until_ns)
{
	char number[17], name[17];

	snprintf(number, sizeof(number), "%016" PRIx64, client->secret.of.number);
	snprintf(name, sizeof(name), "%016" PRIx64, link);
	return say(
		stream,
		json_pack("{s:s, s:s, s:s}", "type", "attach", "connection", number, "link", name),
		until_ns);
}

static int say_proof(struct stream *stream, const struct data_claim *claim,
		     const uint8_t secret[static SECRET_BYTES], uint64_t until_ns)
{
	char proof[PROOF_TEXT];

	if (!secret_prove_text(secret, claim, sizeof(*claim), proof))
		return fail(-ENOMEM, "out of memory");
	return say(stream, json_pack("{s:s, s:s}", "type", "proof", "proof", proof), until_ns);
}

static int attach(struct client *client, struct stream *stream, uint64_t link,
		  const uint8_t secret[static SECRET_BYTES], uint64_t until_ns)
{
	struct data_claim claim = {.connection = client->secret.of.number, .link = link};
	struct message_reader reader = {0};
	json_t *message;
	int rc = say_attach(client, stream, link, until_ns);

	if (rc == 0)
		rc = receive(&reader, stream, "challenge", until_ns, &message);
	if (rc == 0) {
		if (!secret_parse(json_string_value(json_object_get(message, "nonce")), claim.nonce,
				  sizeof(claim.nonce)))
			rc = fail(-EPROTO, "the target's challenge is incomplete");
		json_decref(message);
	}
	if (rc == 0)
		rc = say_proof(stream, &claim, secret, until_ns);
	if (rc == 0)
		rc = receive(&reader, stream, "attached", until_ns, &message);
	if (rc == 0)
		json_decref(message);
	message_reader_reset(&reader);
	return rc;
}

static int dial_one(struct client *client, const union address *address, uint64_t link,
		    const uint8_t secret[static SECRET_BYTES], uint64_t until_ns,
		    struct stream *out)
{
	struct stream stream;
	int rc = address_connect(address, 1, until_ns, &stream);

	if (rc < 0)
		return rc;
	rc = secure(client, &stream, address, until_ns);
	if (rc == 0)
		rc = attach(client, &stream, link, secret, until_ns);
	if (rc < 0) {
		stream_close(&stream);
		return rc;
	}
	*out = stream;
	return 0;
}

int handshake_dial(struct transport_peer *peer, uint64_t link, uint32_t count, uint64_t until_ns,
		   struct stream *streams)
{
	struct client *client = (struct client *)((char *)peer - offsetof(struct client, peer));
	uint8_t secret[SECRET_BYTES];
	union address address;
	uint32_t open = 0;
	int rc;

	rc = data_address(client, until_ns, &address);
	if (rc == 0)
		rc = ask_invitation(client, link, count, until_ns, secret);
	for (; rc == 0 && open < count; open += rc == 0)
		rc = dial_one(client, &address, link, secret, until_ns, &streams[open]);
	secret_wipe(secret, sizeof(secret));
	while (rc < 0 && open > 0)
		stream_close(&streams[--open]);
	return rc;
}
