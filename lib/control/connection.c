/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection at the target, from accept to its end.
 *
 * While an answer waits for a client that does not read, nothing more is read from it: so what is
 * queued stays small, whatever is asked. One client's messages are taken in short runs, and only so
 * many in a second: others are waiting.
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "control/server_internal.h"
#include "net/tls.h"

#define RUN_BYTES           16384u /* of messages of one connection, then the next one's turn */
#define MESSAGE_COST_BYTES  256u   /* that each message counts for, beside its own */
#define TLS_BEGINNING_BYTES 3

static void on_reading(void *arg);
static void on_writing(void *arg);

/* ---- who, and what is said of them ---- */

const char *connection_describe(const struct connection *connection, char *text)
{
	const char *identity =
		connection->info.identity[0] ? connection->info.identity : "a client";
	char address[ADDRESS_TEXT_MAX];

	if (connection->info.is_unix) {
		snprintf(text, CONNECTION_TEXT_MAX, "%s on this host", identity);
	} else {
		address_format(&connection->address, address);
		snprintf(text, CONNECTION_TEXT_MAX, "%s at %s", identity, address);
	}
	return text;
}

void connection_suspect(struct connection *connection)
{
	char who[CONNECTION_TEXT_MAX];

	log_peer(SLU_LOG_WARNING, "security: %s: %s", connection_describe(connection, who),
		 slu_last_error());
}

void connection_failed(struct connection *connection)
{
	connection_suspect(connection);
	if (connection->origin)
		origin_fail(connection->origin, SERVER_FAILURES_SECONDS * NS_PER_SECOND,
			    clock_monotonic_ns(NULL));
}

struct connection *connection_find(struct server *server, uint64_t number)
{
	struct connection *connection;

	LIST_FOREACH (connection, &server->by_number[number % CONNECTION_SLOTS], by_number)
		if (connection->info.connection == number)
			return connection;
	return NULL;
}

bool connection_secret(const struct server *server, const struct connection_name *name,
		       uint8_t secret[static SECRET_BYTES])
{
	static_assert(PROOF_BYTES == SECRET_BYTES, "a proof by the master is a secret");

	return secret_prove(server->master, name, sizeof(*name), secret);
}

/* ---- events ---- */

/* So that what is due for some is found without a look at all. */
static void enlist(struct connection *connection, struct connection_list *list)
{
	if (connection->timed)
		TAILQ_REMOVE(connection->timed, connection, timed_link);
	connection->timed = list;
	if (list)
		TAILQ_INSERT_TAIL(list, connection, timed_link);
}

static bool is_throttled(const struct connection *connection)
{
	return connection->timed == &connection->server->throttled;
}

/* Of a Unix socket's peer the kernel tells. */
static void hear(struct connection *connection)
{
	struct server *server = connection->server;

	if (connection->state != CONNECTION_OPEN)
		return;
	connection->since = server->seconds;
	enlist(connection, connection->info.is_unix ? NULL : &server->heard);
}

static void want(struct watch *watch, bool wanted)
{
	if (wanted)
		watch_start(watch, 0);
	else if (watch->started)
		watch_stop(watch);
}

static void update(struct connection *connection)
{
	bool busy = message_writer_busy(&connection->writer);
	bool closing = connection->state == CONNECTION_CLOSING;

	want(&connection->reading,
	     closing || (!busy && !is_throttled(connection) && !connection->held));
	want(&connection->writing, busy || connection->stream.wants_write);
	/* What TLS has read off the socket already, epoll does not know of. */
	if (connection->reading.started && !closing && stream_pending(&connection->stream))
		watch_trigger(&connection->reading);
}

void connection_resume(struct connection *connection)
{
	update(connection);
}

int connection_send(struct connection *connection, json_t *message, const int *fds,
		    uint32_t fd_count)
{
	int rc = message_send(&connection->writer, &connection->stream, message, fds, fd_count);

	if (rc != -EAGAIN)
		update(connection);
	return rc;
}

int connection_refuse(struct connection *connection, int error)
{
	connection_send(connection,
			json_pack("{s:s, s:i, s:o?}", "type", "refused", "error", -error, "text",
				  message_text(slu_last_error())),
			NULL, 0);
	return error;
}

/* ---- the end ---- */

/* What others see of it. Once nothing is served to it, the end of its sessions can wait. */
static void retire(struct connection *connection)
{
	struct server *server = connection->server;

	enlist(connection, NULL);
	if (connection->state == CONNECTION_OPEN) {
		LIST_REMOVE(connection, by_number);
		TAILQ_REMOVE(&server->connections, connection, link);
		atomic_fetch_sub(&server->connection_count, 1);
		if (server->options.callbacks->gone)
			server->options.callbacks->gone(server->options.arg,
							connection->info.connection);
		budget_give(connection->info.budget, SLU_LIMIT_CONNECTIONS, 1);
		sessions_part(connection, !connection->said_bye);
	} else if (connection->origin) {
		strangers_remove(connection);
	} else {
		TAILQ_REMOVE(&server->closing, connection, link);
	}
}

static void release(struct connection *connection)
{
	watch_stop(&connection->reading);
	watch_stop(&connection->writing);
	message_reader_reset(&connection->reader);
	message_writer_reset(&connection->writer);
	budget_put(connection->info.budget);
	data_uninvite_all(&connection->invitations);
	free(connection);
}

void connection_close(struct connection *connection)
{
	retire(connection);
	in_flight_part(connection);
	watch_stop(&connection->reading); /* before its descriptor is another's */
	watch_stop(&connection->writing);
	stream_close(&connection->stream);
	release(connection);
}

struct stream connection_detach(struct connection *connection)
{
	struct stream stream = connection->stream;

	retire(connection);
	release(connection);
	return stream;
}

/* Closing at once, with input unread, would reset the connection and take our words back. */
void connection_close_politely(struct connection *connection)
{
	if (connection->info.is_unix) {
		connection_close(connection);
		return;
	}
	if (!connection->origin) {
		retire(connection);
		TAILQ_INSERT_TAIL(&connection->server->closing, connection, link);
	}
	connection->since = connection->server->seconds;
	connection->state = CONNECTION_CLOSING;
	connection->stream.wants_write = false;
	if (!message_writer_busy(&connection->writer))
		shutdown(connection->stream.fd, SHUT_WR);
	update(connection);
}

/* @return negative: the other side has heard us, or does not want to */
static int discard(struct connection *connection)
{
	char waste[4096];
	ssize_t got = recv(connection->stream.fd, waste, sizeof(waste), MSG_DONTWAIT);

	return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR)) ? 0 : -ECONNRESET;
}

/* ---- messages ---- */

static int answer_usage(struct connection *connection)
{
	return connection_send(connection,
			       json_pack("{s:s, s:I}", "type", "usage", "cpu_ns",
					 (json_int_t)clock_process_cpu_ns()),
			       NULL, 0);
}

static int say(struct connection *connection, const char *type)
{
	return connection_send(connection, json_pack("{s:s}", "type", type), NULL, 0);
}

static int out_of_turn(struct connection *connection, const char *type)
{
	return connection_refuse(connection, fail(-EPROTO, "unexpected message \"%.32s\"", type));
}

static int dispatch_first(struct connection *connection, const char *type, const json_t *message)
{
	if (strcmp(type, "hello") == 0)
		return greeting_hello(connection, message);
	if (strcmp(type, "attach") == 0)
		return greeting_attach(connection, message);
	if (strcmp(type, "bye") == 0)
		return -ESHUTDOWN;
	return out_of_turn(connection, type);
}

int connection_still_valid(const struct connection *connection)
{
	if (!connection->stream.ssl ||
	    tls_still_valid(connection->server->options.tls, &connection->stream))
		return 0;
	return fail(-EKEYREVOKED,
		    "the key or certificate of %s is not valid any more: target %s has read its "
		    "files again",
		    tls_identity(&connection->stream), connection->server->options.name);
}

int connection_disown(struct connection *connection, int error)
{
	connection_suspect(connection);
	sessions_tell_all(connection, error);
	connection->said_bye = true; /* we did it for the client */
	return error;
}

/* What gives something: only to whom would still be let in. */
static int dispatch_granting(struct connection *connection, const char *type, const json_t *message)
{
	int rc = connection_still_valid(connection);

	if (rc < 0)
		return connection_disown(connection, rc);
	if (strcmp(type, "open") == 0)
		return sessions_open(connection, message);
	if (strcmp(type, "path") == 0)
		return sessions_path(connection, message);
	return links_invite(connection, message);
}

/* @return 1 the connection is not ours any more; negative, it ends */
static int dispatch(struct connection *connection, const json_t *message)
{
	const char *type = message_type(message);

	if (connection->state == CONNECTION_NEW)
		return dispatch_first(connection, type, message);
	if (connection->state == CONNECTION_PROVING)
		return strcmp(type, "proof") == 0 ? greeting_proof(connection, message)
						  : out_of_turn(connection, type);
	if (strcmp(type, "open") == 0 || strcmp(type, "path") == 0 || strcmp(type, "invite") == 0)
		return dispatch_granting(connection, type, message);
	if (strcmp(type, "fence") == 0)
		return links_fence(connection, message);
	if (strcmp(type, "same") == 0)
		return links_same(connection, message);
	if (strcmp(type, "close") == 0)
		return sessions_close(connection, message);
	if (strcmp(type, "moved") == 0)
		return sessions_moved(connection, message);
	if (strcmp(type, "usage") == 0)
		return answer_usage(connection);
	if (strcmp(type, "ping") == 0)
		return say(connection, "pong");
	if (strcmp(type, "pong") == 0)
		return 0;
	if (strcmp(type, "bye") == 0) {
		connection->said_bye = true;
		return -ESHUTDOWN;
	}
	return out_of_turn(connection, type);
}

/* What an identity says in a second is limited, on however many connections it says it. */
static bool spend(struct connection *connection, uint32_t bytes)
{
	return budget_spend(connection->info.budget, SLU_LIMIT_CONTROL_BYTES, bytes,
			    clock_monotonic_ns(NULL));
}

/* One connection says only so much in a second as well. */
static bool has_said_enough(struct connection *connection)
{
	const struct server *server = connection->server;

	if (connection->counted != server->seconds) {
		connection->counted = server->seconds;
		connection->messages = 0;
	}
	return connection->messages >= server->options.limits.messages_per_second ||
	       !spend(connection, 0);
}

static bool may_take(struct connection *connection)
{
	if (message_writer_busy(&connection->writer))
		return false;
	if (has_said_enough(connection)) {
		enlist(connection, &connection->server->throttled);
		return false;
	}
	if (is_throttled(connection))
		hear(connection);
	return !in_flight_holds(connection);
}

/* For these every poller is waited for that serves the client: one each time. */
static bool asks_pollers(const json_t *message)
{
	const char *type = message_type(message);

	return strcmp(type, "fence") == 0 || strcmp(type, "close") == 0;
}

static int take_messages(struct connection *connection)
{
	json_t *message;
	bool waited;
	int rc = 0;

	for (uint32_t bytes = 0; bytes < RUN_BYTES && may_take(connection);) {
		rc = message_read(&connection->reader, &connection->stream, &message);
		if (rc <= 0)
			return rc;
		bytes += MESSAGE_COST_BYTES + connection->reader.body_bytes;
		spend(connection, MESSAGE_COST_BYTES + connection->reader.body_bytes);
		connection->messages++;
		work_count(WORK_ITEMS, 1);
		waited = asks_pollers(message);
		rc = dispatch(connection, message);
		json_decref(message);
		if (rc != 0 || waited)
			return rc;
	}
	return 0;
}

/* ---- before the first message ---- */

/* A TLS record of a handshake: type 22, version 3.x. As a message's length it would be too long. */
static bool begins_tls(const uint8_t bytes[TLS_BEGINNING_BYTES])
{
	return bytes[0] == 0x16 && bytes[1] == 3 && bytes[2] >= 1 && bytes[2] <= 4;
}

static void low_water(int fd, int bytes)
{
	setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes));
}

static int begin_tls(struct connection *connection)
{
	const struct server_options *options = &connection->server->options;
	int rc;

	if (!options->tls) {
		rc = fail(
			-EPERM,
			"client speaks TLS, target %s does not: start it with --psk or --tls-cert",
			options->name);
		connection_failed(connection);
		return connection_refuse(connection, rc);
	}
	rc = tls_start(options->tls, &connection->stream, NULL);
	if (rc == 0)
		connection->state = CONNECTION_SHAKING;
	return rc;
}

/* The low-water mark wakes us only when all of the beginning is there, or the end. */
static int peek(struct connection *connection)
{
	uint8_t bytes[TLS_BEGINNING_BYTES];
	int fd = connection->stream.fd;
	ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got != sizeof(bytes))
		return -ECONNRESET;
	low_water(fd, 1);
	connection->state = CONNECTION_NEW;
	return begins_tls(bytes) ? begin_tls(connection) : 0;
}

static int shake(struct connection *connection)
{
	int rc = tls_handshake(&connection->stream);

	connection->info.tls = true;
	if (rc == 1)
		connection->state = CONNECTION_NEW;
	else if (rc < 0 && rc != -ECONNRESET)
		connection_failed(connection);
	if (rc < 0 && tls_shaken(&connection->stream))
		connection_refuse(connection, rc);
	return rc < 0 ? rc : 0;
}

static int advance(struct connection *connection)
{
	int rc = 0;

	if (connection->state == CONNECTION_CLOSING)
		return discard(connection);
	if (connection->state == CONNECTION_PEEKED)
		rc = peek(connection);
	if (rc == 0 && connection->state == CONNECTION_SHAKING)
		rc = shake(connection);
	if (rc == 0 &&
	    (connection->state == CONNECTION_NEW || connection->state == CONNECTION_PROVING ||
	     connection->state == CONNECTION_OPEN))
		rc = take_messages(connection);
	return rc;
}

static void leave(struct connection *connection, int rc)
{
	char who[CONNECTION_TEXT_MAX];

	if (rc == -EPROTO)
		connection_suspect(connection);
	else if (rc != -ESHUTDOWN && rc != -ECONNRESET && rc != -EPIPE &&
		 connection->state == CONNECTION_OPEN)
		log_peer(SLU_LOG_WARNING, "%s is disconnected: %s",
			 connection_describe(connection, who), slu_last_error());
	if (connection->state == CONNECTION_CLOSING || rc == -ECONNRESET || rc == -EPIPE)
		connection_close(connection);
	else
		connection_close_politely(connection);
}

static void on_reading(void *arg)
{
	struct connection *connection = arg;
	int rc;

	work_begin(WORK_EVENT);
	hear(connection);
	rc = advance(connection);
	if (rc < 0)
		leave(connection, rc);
	else if (rc == 0)
		update(connection);
}

static int flush(struct connection *connection)
{
	int rc = message_flush(&connection->writer, &connection->stream);

	if (rc == 0 && connection->state == CONNECTION_CLOSING &&
	    !message_writer_busy(&connection->writer))
		shutdown(connection->stream.fd, SHUT_WR);
	return rc;
}

static void on_writing(void *arg)
{
	struct connection *connection = arg;
	int rc;

	work_begin(WORK_EVENT);
	rc = flush(connection);
	if (rc == 0)
		rc = advance(connection);
	if (rc < 0)
		leave(connection, rc);
	else if (rc == 0)
		update(connection);
}

/* ---- the beginning ---- */

/* Looked up when the server was made: asking for names may take long. */
static void name_user(struct connection *connection, uid_t uid)
{
	const struct server *server = connection->server;
	struct peer_info *info = &connection->info;

	info->uid = uid;
	info->owner = uid == geteuid() || uid == 0;
	for (uint32_t i = 0; i < server->identity_count; i++)
		if (server->identities[i].uid == uid) {
			strcpy(info->identity, server->identities[i].name);
			return;
		}
	snprintf(info->identity, sizeof(info->identity), "user:%u", uid);
}

/* A stranger is told why before the door closes. */
static int check_user(struct connection *connection)
{
	struct ucred peer;
	int rc = credentials_check(connection->stream.fd, connection->server->options.trust, &peer);

	if (rc < 0) {
		connection_suspect(connection);
		return connection_refuse(connection, rc);
	}
	origin_prove(connection->origin, clock_monotonic_ns(NULL));
	name_user(connection, peer.uid);
	return 0;
}

static struct connection *create(struct server *server, const struct stream *stream)
{
	struct loop *loop = control_loop(server->options.control);
	struct connection *connection = calloc(1, sizeof(*connection));
	int fd = stream->fd;

	if (!connection)
		return NULL;
	connection->server = server;
	connection->stream = *stream;
	connection->state = CONNECTION_NEW;
	connection->writer.limit_bytes = SERVER_OUTPUT_MAX_BYTES;
	watch_init(&connection->reading, loop, fd, WATCH_READ, on_reading, connection);
	watch_init(&connection->writing, loop, fd, WATCH_WRITE, on_writing, connection);
	return connection;
}

void connection_accept(struct listener *listener, const struct stream *accepted,
		       const union address *address)
{
	struct server *server = listener->server;
	struct origin *origin = strangers_admit(listener, accepted, address);
	struct stream stream = *accepted;
	struct connection *connection;

	if (!origin) {
		strangers_turn_away(&stream);
		return;
	}
	descriptors_spare(server, &stream);
	connection = create(server, &stream);
	if (!connection) {
		log_peer(SLU_LOG_ERROR, "a client is refused: out of memory");
		stream_close(&stream);
		return;
	}
	connection->info.is_unix = !listener->is_tcp;
	strangers_add(connection, origin);
	if (listener->is_tcp) {
		connection->address = *address;
		connection->state = CONNECTION_PEEKED;
		low_water(stream.fd, TLS_BEGINNING_BYTES);
	} else if (check_user(connection) < 0) {
		connection_close(connection);
		return;
	}
	update(connection);
	if (!connection->reading.started) {
		log_peer(SLU_LOG_ERROR, "a client is refused: out of memory");
		connection_close(connection);
	}
}

void connection_opened(struct connection *connection)
{
	struct server *server = connection->server;
	uint64_t number = connection->info.connection;

	origin_prove(connection->origin, clock_monotonic_ns(NULL));
	strangers_remove(connection);
	connection->state = CONNECTION_OPEN;
	connection->walked = server->last_walk;
	TAILQ_INSERT_TAIL(&server->connections, connection, link);
	LIST_INSERT_HEAD(&server->by_number[number % CONNECTION_SLOTS], connection, by_number);
	atomic_fetch_add(&server->connection_count, 1);
	hear(connection);
}

/* ---- once a second ---- */

#define SILENT_RUN 1024u /* are dealt with, then others have their turns */

static bool is_silent(const struct connection *connection, uint32_t seconds)
{
	return connection && connection->server->seconds - connection->since >= seconds;
}

static void end_silent(struct connection *connection)
{
	uint32_t seconds = connection->server->options.limits.silence_seconds;
	char who[CONNECTION_TEXT_MAX];

	fail(-ETIMEDOUT, "nothing was heard of it for %u s", seconds);
	log_peer(SLU_LOG_WARNING, "%s is disconnected: %s", connection_describe(connection, who),
		 slu_last_error());
	connection_close(connection);
}

static void ping(struct connection *connection)
{
	int rc;

	enlist(connection, &connection->server->pinged);
	rc = say(connection, "ping");
	if (rc < 0)
		leave(connection, rc);
}

void connection_silence(struct control_task *task)
{
	struct server *server = (struct server *)((char *)task - offsetof(struct server, silence));
	const struct server_limits *limits = &server->options.limits;
	uint32_t left = SILENT_RUN;

	for (; left > 0; left--) {
		if (is_silent(TAILQ_FIRST(&server->heard), limits->ping_seconds))
			ping(TAILQ_FIRST(&server->heard));
		else if (is_silent(TAILQ_FIRST(&server->pinged), limits->silence_seconds + 1))
			end_silent(TAILQ_FIRST(&server->pinged));
		else
			break;
		work_count(WORK_ITEMS, 1);
	}
	server->looks = left == 0;
	if (server->looks)
		control_post(server->options.control, task);
}

/* It may have spoken: it was not listened to. */
static void release_throttled(struct server *server)
{
	struct connection *connection;

	while ((connection = TAILQ_FIRST(&server->throttled))) {
		work_count(WORK_ITEMS, 1);
		if (connection->state == CONNECTION_OPEN)
			hear(connection);
		else
			enlist(connection, NULL);
		update(connection);
	}
}

void connection_sweep(struct server *server)
{
	server->seconds++;
	descriptors_look(server);
	server->descriptors_warned = false;
	strangers_sweep(server);
	in_flight_sweep(server);
	release_throttled(server);
	if (!server->looks)
		connection_silence(&server->silence);
}
