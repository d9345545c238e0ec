/* SPDX-License-Identifier: Apache-2.0 */
#include "visitor.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/invitation.h"

struct door door_tcp(const char *address, const char *source, struct tls *tls, int wait_ms)
{
	struct door door = {.address_bytes = sizeof(door.address.tcp),
			    .source = source,
			    .tls = tls,
			    .wait_ms = wait_ms};

	door.address.tcp.sin_family = AF_INET;
	door.address.tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	door.address.tcp.sin_port = htons((uint16_t)atoi(strrchr(address, ':') + 1));
	return door;
}

struct door door_unix(const char *segment, int wait_ms)
{
	struct door door = {.wait_ms = wait_ms};
	struct sockaddr_un *address = &door.address.unix_socket;
	int length;

	address->sun_family = AF_UNIX;
	length = snprintf(address->sun_path + 1, sizeof(address->sun_path) - 1, "sluice/%s",
			  segment);
	door.address_bytes =
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
	return door;
}

static void set_up(int fd, const struct door *door)
{
	struct sockaddr_in source = {.sin_family = AF_INET};
	struct linger reset = {.l_onoff = 1};
	int one = 1;

	if (door->address.any.sa_family != AF_INET)
		return;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (door->source && inet_pton(AF_INET, door->source, &source.sin_addr) == 1)
		bind(fd, (struct sockaddr *)&source, sizeof(source));
}

int door_knock(const struct door *door)
{
	int fd = socket(door->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	set_up(fd, door);
	if (connect(fd, &door->address.any, door->address_bytes) == 0)
		return fd;
	close(fd);
	return -1;
}

/* @return can the stream be used as wanted within the time that it has? */
static bool wait_for(const struct visitor *visitor, bool writing)
{
	struct pollfd event = {.fd = visitor->stream.fd, .events = writing ? POLLOUT : POLLIN};

	return poll(&event, 1, visitor->wait_ms) == 1;
}

static bool shake_hands(struct visitor *visitor, struct tls *tls)
{
	int rc = tls_start(tls, &visitor->stream, "127.0.0.1");

	while (rc == 0) {
		rc = tls_handshake(&visitor->stream);
		if (rc == 0 && !wait_for(visitor, visitor->stream.wants_write))
			return false;
	}
	return rc == 1;
}

bool visitor_connect(struct visitor *visitor, const struct door *door)
{
	*visitor = (struct visitor){.wait_ms = door->wait_ms, .stream.fd = door_knock(door)};
	visitor->writer.limit_bytes = MESSAGE_MAX_BYTES;
	visitor->over_tcp = door->address.any.sa_family == AF_INET;
	if (visitor->stream.fd < 0)
		return false;
	visitor->connected = true;
	fcntl(visitor->stream.fd, F_SETFL, O_NONBLOCK);
	if (!door->tls || shake_hands(visitor, door->tls))
		return true;
	visitor_leave(visitor);
	return false;
}

bool visitor_say(struct visitor *visitor, json_t *message)
{
	int rc;

	if (!visitor->connected) {
		json_decref(message);
		return false;
	}
	rc = message_send(&visitor->writer, &visitor->stream, message, NULL, 0);
	while (rc == 0 && message_writer_busy(&visitor->writer)) {
		if (!wait_for(visitor, true))
			return false;
		rc = message_flush(&visitor->writer, &visitor->stream);
	}
	return rc == 0;
}

/* Answers a ping, and frees it. */
static bool was_ping(struct visitor *visitor, json_t *message)
{
	if (strcmp(message_type(message), "ping") != 0)
		return false;
	json_decref(message);
	visitor_say(visitor, json_pack("{s:s}", "type", "pong"));
	return true;
}

json_t *visitor_hear(struct visitor *visitor)
{
	json_t *message;
	int rc = visitor->connected ? 0 : -1;

	while (rc == 0 || rc == 1) {
		rc = message_read(&visitor->reader, &visitor->stream, &message);
		if (rc == 1 && !was_ping(visitor, message))
			return message;
		if (rc == 0 && !wait_for(visitor, false))
			return NULL;
	}
	return NULL;
}

bool visitor_hears(struct visitor *visitor, const char *type)
{
	json_t *message = visitor_hear(visitor);
	bool right = message && strcmp(message_type(message), type) == 0;

	json_decref(message);
	return right;
}

bool visitor_tend(struct visitor *visitor)
{
	json_t *message;
	int rc = visitor->connected ? 1 : -1;

	while (rc == 1) {
		rc = message_read(&visitor->reader, &visitor->stream, &message);
		if (rc == 1 && !was_ping(visitor, message))
			json_decref(message);
	}
	return rc == 0;
}

bool visitor_enter(struct visitor *visitor, const struct door *door)
{
	json_t *welcome;

	if (!visitor_connect(visitor, door) ||
	    !visitor_say(visitor,
			 json_pack("{s:s, s:[i, i], s:s}", "type", "hello", "versions",
				   MESSAGE_VERSION_LOW, MESSAGE_VERSION_HIGH, "name", "visitor")))
		return false;
	welcome = visitor_hear(visitor);
	if (welcome && strcmp(message_type(welcome), "welcome") == 0 &&
	    message_number(welcome, "connection", &visitor->number)) {
		json_decref(welcome);
		return true;
	}
	json_decref(welcome);
	visitor_leave(visitor);
	return false;
}

bool visitor_ask_open(struct visitor *visitor, unsigned session, const char *segment,
		      unsigned rights)
{
	return visitor_say(visitor,
			   json_pack("{s:s, s:i, s:s, s:i, s:[s]}", "type", "open", "session",
				     (int)session, "segment", segment, "rights", (int)rights,
				     "transports", visitor->over_tcp ? "tcp" : "shm"));
}

bool visitor_close_session(struct visitor *visitor, unsigned session)
{
	return visitor_say(visitor, json_pack("{s:s, s:i, s:i, s:i, s:i}", "type", "close",
					      "session", (int)session, "operations", 0,
					      "bytes_read", 0, "bytes_written", 0));
}

void visitor_leave(struct visitor *visitor)
{
	if (!visitor->connected)
		return;
	message_reader_reset(&visitor->reader);
	message_writer_reset(&visitor->writer);
	stream_close(&visitor->stream);
	visitor->connected = false;
}

/* The text at @p key of the next message, if it is of that type and has one. */
static bool hear_bytes(struct visitor *visitor, const char *type, const char *in, const char *key,
		       uint8_t *bytes, size_t count)
{
	json_t *message = visitor_hear(visitor);
	const json_t *from = message && in ? json_object_get(message, in) : message;
	bool right = message && strcmp(message_type(message), type) == 0 &&
		     secret_parse(json_string_value(json_object_get(from, key)), bytes, count);

	json_decref(message);
	return right;
}

static json_t *number_text(uint64_t number)
{
	return json_sprintf("%016" PRIx64, number);
}

static bool is_invited(struct visitor *owner, uint64_t link, uint8_t *secret)
{
	return visitor_say(owner, json_pack("{s:s, s:i, s:{s:o, s:i}}", "type", "invite", "request",
					    1, "offer", "link", number_text(link), "count", 1)) &&
	       hear_bytes(owner, "invite", "answer", "secret", secret, SECRET_BYTES);
}

static bool is_attached(struct visitor *data, uint64_t owner, uint64_t link, const uint8_t *secret)
{
	struct data_claim claim = {.connection = owner, .link = link};
	char proof[PROOF_TEXT];

	return visitor_say(data, json_pack("{s:s, s:o, s:o}", "type", "attach", "connection",
					   number_text(owner), "link", number_text(link))) &&
	       hear_bytes(data, "challenge", NULL, "nonce", claim.nonce, sizeof(claim.nonce)) &&
	       secret_prove_text(secret, &claim, sizeof(claim), proof) &&
	       visitor_say(data, json_pack("{s:s, s:s}", "type", "proof", "proof", proof)) &&
	       visitor_hears(data, "attached");
}

int visitor_attach(struct visitor *owner, const struct door *door)
{
	const uint64_t link = 1;
	uint8_t secret[SECRET_BYTES];
	struct door plain = *door;
	struct visitor data;
	int fd;

	plain.tls = NULL;
	if (!is_invited(owner, link, secret) || !visitor_connect(&data, &plain))
		return -1;
	if (!is_attached(&data, owner->number, link, secret)) {
		visitor_leave(&data);
		return -1;
	}
	fd = data.stream.fd;
	fcntl(fd, F_SETFL, 0);
	message_reader_reset(&data.reader);
	message_writer_reset(&data.writer);
	return fd;
}
