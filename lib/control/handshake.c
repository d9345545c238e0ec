/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making a connection: socket, credentials or TLS, and the first messages. A machine that goes on
 * when its stream is ready; whoever wants a connection drives it on his own thread, and waits no
 * longer than the whole may take.
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
#include "base/descriptor.h"
#include "control/boot_id.h"
#include "control/client_internal.h"
#include "control/invitation.h"
#include "net/network.h"
#include "net/tls.h"

/* ---- the machine ---- */

enum handshake_state {
	HANDSHAKE_CONNECTING,
	HANDSHAKE_SHAKING, /* TLS */
	HANDSHAKE_CONNECTED,
	HANDSHAKE_SAYING,
	HANDSHAKE_HEARING,
	HANDSHAKE_DONE,
};

struct handshake {
	struct client *client;
	struct stream *stream;
	struct message_reader *reader;
	struct message_writer writer;
	enum handshake_state state;
	short events; /* POLLIN or POLLOUT: what it waits for */
	uint64_t until_ns;
	struct dial dial;
	const char *host; /* for TLS; NULL: without */
	/* Once connected. @return as say() */
	int (*begin)(struct handshake *handshake);
	const char *due; /* the type of the next message */
	/* It has come. @return as say() */
	int (*heard)(struct handshake *handshake, const json_t *message);

	/* Of a data connection. */
	struct data_claim claim;
	const uint8_t *secret;
};

static int too_late(void)
{
	return fail(-ETIMEDOUT, "the target did not answer in time");
}

/* @return 0 wait for @p events */
static int wait_for(struct handshake *handshake, short events)
{
	handshake->events = events;
	return 0;
}

/* A target that refuses us may have closed: what it said is still there. @return as say() */
static int said(struct handshake *handshake, int rc)
{
	if (rc == 0 && message_writer_busy(&handshake->writer))
		return wait_for(handshake, POLLOUT);
	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET)
		return fail(rc, "cannot talk to the target: %s", strerror(-rc));
	handshake->state = HANDSHAKE_HEARING;
	return 1;
}

/* Consumes @p message. @return 1 go on; 0 wait; as slu_remote_open() */
static int say(struct handshake *handshake, json_t *message, const char *due)
{
	handshake->state = HANDSHAKE_SAYING;
	handshake->due = due;
	return said(handshake,
		    message_send(&handshake->writer, handshake->stream, message, NULL, 0));
}

int handshake_refused(const json_t *message)
{
	const char *text = json_string_value(json_object_get(message, "text"));
	json_int_t error = json_integer_value(json_object_get(message, "error"));

	if (!text || error <= 0 || error > 4095)
		return fail(-EPROTO, "the target refused without a reason");
	return fail(-(int)error, "the target refused: %s", text);
}

static int take(struct handshake *handshake, const json_t *message)
{
	if (strcmp(message_type(message), handshake->due) == 0)
		return handshake->heard(handshake, message);
	if (strcmp(message_type(message), "refused") == 0)
		return handshake_refused(message);
	return fail(-EPROTO, "the target said \"%.32s\" where \"%s\" was due",
		    message_type(message), handshake->due);
}

static int hear(struct handshake *handshake)
{
	json_t *message;
	int rc = message_read(handshake->reader, handshake->stream, &message);

	if (rc == 0)
		return wait_for(handshake, POLLIN);
	if (rc == -ECONNRESET)
		return fail(rc, "the target closed the connection during the handshake");
	if (rc < 0)
		return rc;
	rc = take(handshake, message);
	json_decref(message);
	return rc;
}

static int shake(struct handshake *handshake)
{
	int rc = tls_handshake(handshake->stream);

	if (rc == 0)
		return wait_for(handshake, handshake->stream->wants_write ? POLLOUT : POLLIN);
	handshake->state = HANDSHAKE_CONNECTED;
	return rc;
}

static int connect_first(struct handshake *handshake)
{
	int rc = dial_advance(&handshake->dial, handshake->stream);

	if (rc == 0)
		return wait_for(handshake, POLLOUT);
	handshake->state = handshake->host ? HANDSHAKE_SHAKING : HANDSHAKE_CONNECTED;
	if (rc == 1 && handshake->host)
		rc = tls_start(handshake->client->pool->options.tls, handshake->stream,
			       handshake->host);
	return rc < 0 ? rc : 1;
}

/* @return as say() */
static int step(struct handshake *handshake)
{
	switch (handshake->state) {
	case HANDSHAKE_CONNECTING:
		return connect_first(handshake);
	case HANDSHAKE_SHAKING:
		return shake(handshake);
	case HANDSHAKE_CONNECTED:
		return handshake->begin(handshake);
	case HANDSHAKE_SAYING:
		return said(handshake, message_flush(&handshake->writer, handshake->stream));
	default:
		return hear(handshake);
	}
}

/* @return 1 it is done; 0 wait for its events, but not beyond wake_of(); as slu_remote_open() */
static int advance(struct handshake *handshake)
{
	int rc = 1;

	while (rc > 0 && handshake->state != HANDSHAKE_DONE)
		rc = step(handshake);
	if (rc == 0 && clock_monotonic_ns(NULL) >= handshake->until_ns)
		rc = too_late();
	return rc;
}

static uint64_t wake_of(const struct handshake *handshake)
{
	return handshake->state == HANDSHAKE_CONNECTING ? handshake->dial.wake_ns
							: handshake->until_ns;
}

/* On this thread, to its end. @return 0; as slu_remote_open() */
static int drive(struct handshake *handshake)
{
	int rc;

	handshake->writer.limit_bytes = MESSAGE_MAX_BYTES + 4;
	handshake->dial.until_ns = handshake->until_ns;
	while ((rc = advance(handshake)) == 0)
		wait_ready(handshake->stream->fd, handshake->events, wake_of(handshake));
	message_writer_reset(&handshake->writer);
	return rc < 0 ? rc : 0;
}

/* ---- sockets ---- */

static int nobody_listens(const struct client *client, const char *segment)
{
	const char *path = client->endpoint.path.sun_path; /* empty: an abstract name */

	return fail(-ECONNREFUSED,
		    "no target listens at %s: start one with sluice-target --segment %s=SIZE%s%s",
		    client->welcome.address, segment, path[0] ? " --socket " : "", path);
}

/* What the kernel refuses. */
static int cannot_connect(const struct client *client, const char *segment, int error)
{
	const char *address = client->welcome.address;

	if (error == ECONNREFUSED || error == ENOENT)
		return nobody_listens(client, segment);
	if (error == EAGAIN)
		return fail(-ECONNREFUSED,
			    "the target at %s is overrun with connections; try again", address);
	if (error == EACCES)
		return fail(-error,
			    "cannot connect to %s: %s: start the target with --allow-user %u, and "
			    "let that user enter the folders of its path",
			    address, strerror(error), geteuid());
	return fail(-error, "cannot connect to %s: %s", address, strerror(error));
}

static int connect_unix(struct client *client, const char *segment)
{
	const struct endpoint *endpoint = &client->endpoint;
	const char *address = client->welcome.address;
	char text[400];
	struct ucred peer;
	int rc;

	client->stream.fd =
		descriptor_note(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (client->stream.fd < 0)
		return fail(-errno, "socket: %s", strerror(errno));
	if (connect(client->stream.fd, (const struct sockaddr *)&endpoint->path,
		    endpoint->path_length) < 0)
		return cannot_connect(client, segment, errno);
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

static int connect_tcp(struct client *client, struct handshake *handshake)
{
	const struct client_pool_options *options = &client->pool->options;
	struct dial *dial = &handshake->dial;

	dial->count = network->resolve(&client->endpoint.tcp, handshake->until_ns, dial->addresses);
	if (dial->count < 0)
		return dial->count;
	if (options->tls)
		handshake->host = client->endpoint.tcp.host;
	return check_exposure(options, dial->addresses, dial->count, client->welcome.address);
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

static int parse_welcome(struct handshake *handshake, const json_t *message)
{
	struct client *client = handshake->client;
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
	handshake->state = HANDSHAKE_DONE;
	return 1;
}

static int greet(struct handshake *handshake)
{
	struct client *client = handshake->client;

	client->reached = handshake->dial.addresses[handshake->dial.next];
	return say(handshake,
		   json_pack("{s:s, s:[i,i], s:o}", "type", "hello", "versions",
			     MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH, "name",
			     message_text(client->pool->options.name)),
		   "welcome");
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
	struct handshake handshake = {.client = client,
				      .stream = &client->stream,
				      .reader = &client->reader,
				      .until_ns = until_ns,
				      .begin = greet,
				      .heard = parse_welcome};
	int rc;

	endpoint_format(&client->endpoint, client->welcome.address);
	if (client->endpoint.is_unix) {
		rc = connect_unix(client, segment);
		handshake.state = HANDSHAKE_CONNECTED;
	} else {
		rc = connect_tcp(client, &handshake);
	}
	if (rc == 0)
		rc = drive(&handshake);
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

/* @param host  out: for TLS; NULL: without */
static int data_host(const struct client *client, const union address *address,
		     char text[INET6_ADDRSTRLEN], const char **host)
{
	*host = NULL;
	if (!client->peer.encrypted)
		return 0;
	if (!client->pool->options.tls)
		return fail(-EPERM,
			    "the TCP port of target %s requires TLS: give --psk or --tls-cert",
			    client->welcome.target);
	*host = client->endpoint.is_unix ? text : client->endpoint.tcp.host;
	text[0] = '\0';
	getnameinfo(&address->any, sizeof(*address), text, INET6_ADDRSTRLEN, NULL, 0,
		    NI_NUMERICHOST);
	return 0;
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

static int attach(struct handshake *handshake)
{
	char number[17], name[17];

	snprintf(number, sizeof(number), "%016" PRIx64, handshake->claim.connection);
	snprintf(name, sizeof(name), "%016" PRIx64, handshake->claim.link);
	return say(
		handshake,
		json_pack("{s:s, s:s, s:s}", "type", "attach", "connection", number, "link", name),
		"challenge");
}

static int attached(struct handshake *handshake, const json_t *message)
{
	(void)message;
	handshake->state = HANDSHAKE_DONE;
	return 1;
}

static int challenged(struct handshake *handshake, const json_t *message)
{
	struct data_claim *claim = &handshake->claim;
	char proof[PROOF_TEXT];

	if (!secret_parse(json_string_value(json_object_get(message, "nonce")), claim->nonce,
			  sizeof(claim->nonce)))
		return fail(-EPROTO, "the target's challenge is incomplete");
	if (!secret_prove_text(handshake->secret, claim, sizeof(*claim), proof))
		return fail(-ENOMEM, "out of memory");
	handshake->heard = attached;
	return say(handshake, json_pack("{s:s, s:s}", "type", "proof", "proof", proof), "attached");
}

static int dial_one(struct client *client, const union address *address, uint64_t link,
		    const uint8_t secret[static SECRET_BYTES], uint64_t until_ns,
		    struct stream *out)
{
	struct message_reader reader = {0};
	struct stream stream = {.fd = -1};
	struct handshake handshake = {
		.client = client,
		.stream = &stream,
		.reader = &reader,
		.until_ns = until_ns,
		.dial = {.addresses = {*address}, .count = 1},
		.begin = attach,
		.heard = challenged,
		.claim = {.connection = client->secret.of.number, .link = link},
		.secret = secret};
	char text[INET6_ADDRSTRLEN];
	int rc = data_host(client, address, text, &handshake.host);

	if (rc == 0)
		rc = drive(&handshake);
	message_reader_reset(&reader);
	if (rc < 0)
		stream_close(&stream);
	else
		*out = stream;
	return rc;
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
