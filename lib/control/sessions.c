/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sessions of one connection at the target, in a hash table by the number that the client gave
 * each. A session costs 32 bytes here: a target has very many.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "base/work.h"
#include "control/server_internal.h"

#define SLOTS_MIN 8u

/*
 * Of very many sessions only so many end in one event, and so many slots are looked at: others are
 * waiting. To end one may take a system call, or a word with the pollers while its connection
 * lives.
 */
#define PARTED_RUN 256u
#define SLOTS_RUN  1024u
#define END_COST   64 /* of a session whose connection lives, in slots */

/*
 * Linear hashing: a slot is added and one of the others split with each session that comes, so that
 * no single one pays for all. As many bits of the hash count as the last slot's number has.
 */
static struct server_session **slot_of(const struct server *server, const struct sessions *sessions,
				       uint32_t id)
{
	struct random mixed = {.state = server->session_hash ^ id};
	uint32_t hash = (uint32_t)random_next(&mixed);
	uint32_t mask = UINT32_MAX >> __builtin_clz(sessions->slot_count - 1);
	uint32_t slot = hash & mask;

	if (slot >= sessions->slot_count)
		slot &= mask >> 1;
	return &sessions->slots[slot];
}

static struct server_session **find(const struct connection *connection, uint32_t id)
{
	struct server_session **at;

	if (!connection->sessions)
		return NULL;
	at = slot_of(connection->server, connection->sessions, id);
	for (; *at && (*at)->id != id; at = &(*at)->next)
		work_count(WORK_ITEMS, 1);
	return *at ? at : NULL;
}

static void insert(const struct server *server, struct sessions *sessions,
		   struct server_session *session)
{
	struct server_session **at = slot_of(server, sessions, session->id);

	session->next = *at;
	*at = session;
}

static int make_room(struct sessions *sessions)
{
	uint32_t room = sessions->slot_room ? 2 * sessions->slot_room : SLOTS_MIN;
	struct server_session **slots = realloc(sessions->slots, room * sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	sessions->slots = slots;
	sessions->slot_room = room;
	return 0;
}

static int add_slot(const struct server *server, struct sessions *sessions)
{
	uint32_t half = (UINT32_MAX >> __builtin_clz(sessions->slot_count) >> 1) + 1;
	struct server_session *session, *next;

	if (sessions->slot_count == sessions->slot_room && make_room(sessions) < 0)
		return -ENOMEM;
	session = sessions->slots[sessions->slot_count - half];
	sessions->slots[sessions->slot_count - half] = NULL;
	sessions->slots[sessions->slot_count++] = NULL;
	for (; session; session = next) {
		next = session->next;
		insert(server, sessions, session);
	}
	return 0;
}

static struct sessions *sessions_create(void)
{
	struct sessions *sessions = calloc(1, sizeof(*sessions));

	if (!sessions || make_room(sessions) < 0) {
		free(sessions);
		return NULL;
	}
	sessions->slot_count = 2;
	sessions->slots[0] = sessions->slots[1] = NULL;
	return sessions;
}

static void sessions_destroy(struct sessions *sessions)
{
	free(sessions->slots);
	free(sessions);
}

static struct server_session *create(struct connection *connection, uint32_t id)
{
	struct server_session *session;

	if (!connection->sessions)
		connection->sessions = sessions_create();
	if (!connection->sessions ||
	    (connection->sessions->count == connection->sessions->slot_count &&
	     add_slot(connection->server, connection->sessions) < 0))
		return NULL;
	session = calloc(1, sizeof(*session));
	if (!session)
		return NULL;
	session->id = id;
	insert(connection->server, connection->sessions, session);
	connection->sessions->count++;
	atomic_fetch_add(&connection->server->session_count, 1);
	return session;
}

static void destroy(struct server *server, struct sessions *sessions, struct server_session **at)
{
	struct server_session *session = *at;

	*at = session->next;
	sessions->count--;
	atomic_fetch_sub(&server->session_count, 1);
	free(session);
}

/* The engine may count sessions in its callback: this one is over by then. */
static void end(struct server *server, struct sessions *sessions, struct server_session **at,
		bool lost)
{
	void *client = (*at)->client;

	work_count(WORK_ITEMS, 1);
	destroy(server, sessions, at);
	server->options.callbacks->close(client, lost);
}

/* Of one that has a connection. Without any there is nothing to attach for. */
static void take_out(struct connection *connection, uint32_t id)
{
	destroy(connection->server, connection->sessions, find(connection, id));
	if (connection->sessions->count == 0)
		data_uninvite_all(&connection->invitations);
}

static void end_one(struct connection *connection, struct server_session **at)
{
	end(connection->server, connection->sessions, at, false);
	if (connection->sessions->count == 0)
		data_uninvite_all(&connection->invitations);
}

/* ---- open ---- */

static int refuse(struct connection *connection, uint32_t id, int error)
{
	return connection_send(connection,
			       json_pack("{s:s, s:I, s:i, s:o?}", "type", "refused", "session",
					 (json_int_t)id, "error", -error, "text",
					 message_text(slu_last_error())),
			       NULL, 0);
}

static void close_granted(const int *fds, uint32_t close_mask)
{
	for (uint32_t i = 0; i < MESSAGE_FDS_MAX; i++)
		if (close_mask & 1u << i)
			close(fds[i]);
}

static int cannot_send(int error)
{
	if (error == -ETOOMANYREFS)
		return fail(error, "too many descriptors of the target's user are on their way to "
				   "processes that do not receive them: end those, or raise the "
				   "target's ulimit -n, which is what Linux allows");
	return fail(error, "the answer cannot be sent: %s", strerror(-error));
}

static int grant(struct connection *connection, struct server_session *session, const char *segment,
		 uint32_t rights, const json_t *transports)
{
	const struct server_options *options = &connection->server->options;
	json_t *opened =
		json_pack("{s:s, s:I}", "type", "opened", "session", (json_int_t)session->id);
	int fds[MESSAGE_FDS_MAX];
	uint32_t close_mask = 0;
	int count, rc;

	if (!opened)
		return fail(-ENOMEM, "target is out of memory");
	rc = descriptors_pass(connection);
	if (rc == 0)
		rc = in_flight_expect(connection);
	if (rc < 0) {
		json_decref(opened);
		return rc;
	}
	count = options->callbacks->open(options->arg, &connection->info, segment, rights,
					 transports, opened, fds, &close_mask, &session->client);
	if (count < 0) {
		in_flight_passed(connection, 0);
		json_decref(opened);
		return count;
	}
	rc = connection_send(connection, opened, fds, (uint32_t)count);
	in_flight_passed(connection, rc == 0 ? (uint32_t)count : 0);
	close_granted(fds, close_mask);
	if (rc == 0)
		return 0;
	options->callbacks->close(session->client, true);
	return cannot_send(rc);
}

static int check_new(struct connection *connection, uint32_t id)
{
	if (connection->server->draining)
		return fail(-ESHUTDOWN, "target %s is closing", connection->server->options.name);
	if (find(connection, id))
		return fail(-EPROTO, "session %u is open already", id);
	if (connection->sessions && connection->sessions->count >= SERVER_SESSIONS_MAX)
		return fail(-ENOSPC, "%u sessions are open on this connection",
			    SERVER_SESSIONS_MAX);
	return 0;
}

int sessions_open(struct connection *connection, const json_t *message)
{
	json_int_t id, rights;
	struct server_session *session;
	const char *segment;
	json_t *transports;
	int rc;

	if (json_unpack((json_t *)(uintptr_t)message, "{s:I, s:s, s:I, s:o}", "session", &id,
			"segment", &segment, "rights", &rights, "transports", &transports) < 0 ||
	    id < 0 || id > UINT32_MAX || rights < 0 || rights > UINT32_MAX)
		return connection_refuse(
			connection,
			fail(-EPROTO, "open without session, segment, rights or transports"));
	rc = check_new(connection, (uint32_t)id);
	if (rc < 0)
		return refuse(connection, (uint32_t)id, rc);
	session = create(connection, (uint32_t)id);
	if (!session)
		return refuse(connection, (uint32_t)id, fail(-ENOMEM, "target is out of memory"));
	rc = grant(connection, session, segment, (uint32_t)rights, transports);
	if (rc == 0)
		return 0;
	take_out(connection, (uint32_t)id);
	if (rc == -EACCES)
		connection_suspect(connection);
	return refuse(connection, (uint32_t)id, rc);
}

/* ---- paths ---- */

static int refuse_path(struct connection *connection, const struct path_ask *ask, int error)
{
	if (error == -EACCES)
		connection_suspect(connection);
	return connection_send(connection,
			       json_pack("{s:s, s:I, s:I, s:i, s:o?}", "type", "refused", "session",
					 (json_int_t)ask->session, "request",
					 (json_int_t)ask->request, "error", -error, "text",
					 message_text(slu_last_error())),
			       NULL, 0);
}

/* Consumes @p answer. An answer that is too long is refused in place of it. */
static int answer_path(struct connection *connection, const struct path_ask *ask, json_t *answer)
{
	int rc = connection_send(connection,
				 json_pack("{s:s, s:I, s:I, s:o}", "type", "path", "session",
					   (json_int_t)ask->session, "request",
					   (json_int_t)ask->request, "answer", answer),
				 NULL, 0);

	if (rc == 0)
		return 0;
	return refuse_path(connection, ask,
			   fail(rc, "the answer cannot be sent: %s", strerror(-rc)));
}

/* @return SERVER_LATER; 0: @p answer is complete; -errno */
static int make_path(struct connection *connection, const struct path_ask *ask, const json_t *offer,
		     json_t *answer)
{
	const struct server_options *options = &connection->server->options;
	struct server_session **at = find(connection, ask->session);

	if (!at)
		return fail(-ENOENT, "session %u is not open on this connection", ask->session);
	if (!options->callbacks->path)
		return fail(-EOPNOTSUPP, "target %s is asked for no paths", options->name);
	if (!answer)
		return fail(-ENOMEM, "target is out of memory");
	return options->callbacks->path((*at)->client, ask, offer, answer);
}

int sessions_path(struct connection *connection, const json_t *message)
{
	json_int_t id, request;
	json_t *offer, *answer;
	struct path_ask ask;
	int rc;

	if (json_unpack((json_t *)(uintptr_t)message, "{s:I, s:I, s:o}", "session", &id, "request",
			&request, "offer", &offer) < 0 ||
	    id < 0 || id > UINT32_MAX || request < 0 || !json_is_object(offer))
		return connection_refuse(connection,
					 fail(-EPROTO, "path without session, request or offer"));
	ask = (struct path_ask){.connection = connection->info.connection,
				.session = (uint32_t)id,
				.request = (uint64_t)request};
	answer = json_object();
	rc = make_path(connection, &ask, offer, answer);
	if (rc == 0)
		return answer_path(connection, &ask, answer);
	json_decref(answer);
	return rc == SERVER_LATER ? 0 : refuse_path(connection, &ask, rc);
}

void server_answer_path(struct server *server, const struct path_ask *ask, int error,
			json_t *answer)
{
	struct connection *connection = connection_find(server, ask->connection);
	int rc;

	if (!connection) {
		json_decref(answer);
		return;
	}
	rc = error < 0 ? refuse_path(connection, ask, error) : answer_path(connection, ask, answer);
	if (rc < 0)
		connection_close(connection);
}

/* ---- totals and the end ---- */

static void report(struct connection *connection, json_int_t id, json_int_t operations,
		   json_int_t bytes_read, json_int_t bytes_written)
{
	struct server_session **at =
		id >= 0 && id <= UINT32_MAX ? find(connection, (uint32_t)id) : NULL;

	/* One that was just revoked may still be spoken of. */
	if (at && operations >= 0 && bytes_read >= 0 && bytes_written >= 0)
		connection->server->options.callbacks->moved((*at)->client, (uint64_t)operations,
							     (uint64_t)bytes_read,
							     (uint64_t)bytes_written);
}

int sessions_moved(struct connection *connection, const json_t *message)
{
	json_t *totals = json_object_get(message, "totals");
	json_t *line;
	size_t i;

	if (!json_is_array(totals))
		return connection_refuse(connection, fail(-EPROTO, "moved without its numbers"));
	json_array_foreach (totals, i, line) {
		json_int_t id, operations, bytes_read, bytes_written;

		if (json_unpack(line, "[I, I, I, I]", &id, &operations, &bytes_read,
				&bytes_written) < 0)
			return connection_refuse(connection,
						 fail(-EPROTO, "moved without its numbers"));
		report(connection, id, operations, bytes_read, bytes_written);
	}
	return 0;
}

int sessions_close(struct connection *connection, const json_t *message)
{
	json_int_t id, operations, bytes_read, bytes_written;
	struct server_session **at;

	if (json_unpack((json_t *)(uintptr_t)message, "{s:I, s:I, s:I, s:I}", "session", &id,
			"operations", &operations, "bytes_read", &bytes_read, "bytes_written",
			&bytes_written) < 0 ||
	    id < 0 || id > UINT32_MAX)
		return connection_refuse(connection,
					 fail(-EPROTO, "close without session or numbers"));
	report(connection, id, operations, bytes_read, bytes_written);
	at = find(connection, (uint32_t)id);
	if (at)
		end_one(connection, at);
	return 0;
}

/* ---- the end ---- */

/* @return false: its sessions are all over */
static bool end_some(struct server *server, struct sessions *sessions)
{
	uint32_t ended = 0, looked = 0;

	while (sessions->count > 0 && ended < PARTED_RUN && looked++ < SLOTS_RUN) {
		struct server_session **at = &sessions->slots[sessions->next_slot];

		work_count(WORK_ITEMS, 1);
		if (*at) {
			end(server, sessions, at, sessions->lost);
			ended++;
		} else {
			sessions->next_slot = (sessions->next_slot + 1) % sessions->slot_count;
		}
	}
	return sessions->count > 0;
}

bool sessions_end_parted(struct server *server)
{
	struct sessions *sessions = TAILQ_FIRST(&server->parted);

	if (!sessions)
		return false;
	TAILQ_REMOVE(&server->parted, sessions, link);
	if (end_some(server, sessions))
		TAILQ_INSERT_TAIL(&server->parted, sessions, link);
	else
		sessions_destroy(sessions);
	return !TAILQ_EMPTY(&server->parted);
}

static void on_ending(struct control_task *task)
{
	struct server *server = (struct server *)((char *)task - offsetof(struct server, ending));

	server->ends = sessions_end_parted(server);
	if (server->ends)
		control_post(server->options.control, &server->ending);
}

void sessions_init(struct server *server)
{
	TAILQ_INIT(&server->parted);
	server->ending.run = on_ending;
	server->session_hash = random_word();
}

void sessions_part(struct connection *connection, bool lost)
{
	struct server *server = connection->server;
	struct sessions *sessions = connection->sessions;

	if (!sessions)
		return;
	connection->sessions = NULL;
	sessions->lost = lost;
	sessions->next_slot = 0;
	if (!end_some(server, sessions)) {
		sessions_destroy(sessions);
		return;
	}
	TAILQ_INSERT_TAIL(&server->parted, sessions, link);
	if (!server->ends)
		control_post(server->options.control, &server->ending);
	server->ends = true;
}

/* ---- walks ---- */

/* Consumes @p ids. */
static int tell(struct connection *connection, json_t *ids, int error)
{
	return connection_send(
		connection,
		json_pack("{s:s, s:i, s:o}", "type", "closing", "error", -error, "sessions", ids),
		NULL, 0);
}

int sessions_tell_all(struct connection *connection, int error)
{
	return connection_send(
		connection, json_pack("{s:s, s:i}", "type", "closing", "error", -error), NULL, 0);
}

/* @return 0; -ENOMEM */
static int collect(const struct server_session *session, struct sessions_walk *walk, json_t *ids)
{
	for (; session; session = session->next) {
		work_count(WORK_ITEMS, 1);
		walk->left--;
		if (!walk->which(session->client, walk->arg))
			continue;
		walk->left -= END_COST;
		if (json_array_append_new(ids, json_integer((json_int_t)session->id)) < 0)
			return fail(-ENOMEM, "target is out of memory");
	}
	return 0;
}

static void end_collected(struct connection *connection, const json_t *ids)
{
	json_t *id;
	size_t i;

	json_array_foreach ((json_t *)(uintptr_t)ids, i, id) {
		struct server_session **at = find(connection, (uint32_t)json_integer_value(id));

		end_one(connection, at);
	}
}

/* What cannot be told for want of memory ends the connection, which tells as well. */
int sessions_walk(struct connection *connection, struct sessions_walk *walk)
{
	struct sessions *sessions = connection->sessions;
	json_t *ids;
	int rc = 0;

	if (!sessions)
		return 0;
	ids = json_array();
	if (!ids)
		return fail(-ENOMEM, "target is out of memory");
	for (; rc == 0 && sessions->next_slot < sessions->slot_count && walk->left > 0;
	     walk->left--)
		rc = collect(sessions->slots[sessions->next_slot++], walk, ids);
	if (rc == 0 && walk->tells && json_array_size(ids) > 0)
		rc = tell(connection, json_incref(ids), walk->error);
	if (walk->ends)
		end_collected(connection, ids);
	json_decref(ids);
	if (rc == 0 && sessions->next_slot < sessions->slot_count)
		return 1;
	sessions->next_slot = 0;
	return rc;
}
