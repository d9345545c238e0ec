/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sessions of one connection at the target, in a hash table by the number that the client gave
 * each. A session costs 32 bytes here: a target has very many.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/server_internal.h"

#define SLOTS_MIN 8u

/* Numbers in one closing message, of at most 11 bytes each, so that it stays within the limit. */
#define TELL_MAX 1200u

static struct server_session **find(const struct connection *connection, uint32_t id)
{
	struct server_session **at;

	if (connection->slot_count == 0)
		return NULL;
	at = &connection->slots[id & (connection->slot_count - 1)];
	while (*at && (*at)->id != id)
		at = &(*at)->next;
	return *at ? at : NULL;
}

static void insert(struct connection *connection, struct server_session *session)
{
	struct server_session **at = &connection->slots[session->id & (connection->slot_count - 1)];

	session->next = *at;
	*at = session;
}

static int grow(struct connection *connection)
{
	uint32_t old_count = connection->slot_count;
	struct server_session **old = connection->slots;
	uint32_t count = old_count ? 2 * old_count : SLOTS_MIN;
	struct server_session **slots = calloc(count, sizeof(struct server_session *));

	if (!slots)
		return -ENOMEM;
	connection->slots = slots;
	connection->slot_count = count;
	for (uint32_t i = 0; i < old_count; i++) {
		struct server_session *next;

		for (struct server_session *session = old[i]; session; session = next) {
			next = session->next;
			insert(connection, session);
		}
	}
	free(old);
	return 0;
}

static struct server_session *create(struct connection *connection, uint32_t id)
{
	struct server_session *session;

	if (connection->session_count == connection->slot_count && grow(connection) < 0)
		return NULL;
	session = calloc(1, sizeof(*session));
	if (!session)
		return NULL;
	session->id = id;
	insert(connection, session);
	connection->session_count++;
	atomic_fetch_add(&connection->server->session_count, 1);
	return session;
}

static void destroy(struct connection *connection, struct server_session **at)
{
	struct server_session *session = *at;

	*at = session->next;
	if (--connection->session_count == 0)
		data_uninvite_all(&connection->invitations); /* there is nothing to attach for */
	atomic_fetch_sub(&connection->server->session_count, 1);
	free(session);
}

/* The engine may count sessions in its callback: this one is over by then. */
static void end(struct connection *connection, struct server_session **at, bool lost)
{
	void *client = (*at)->client;

	destroy(connection, at);
	connection->server->options.callbacks->close(client, lost);
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
	if (connection->session_count >= SERVER_SESSIONS_MAX)
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
	destroy(connection, find(connection, (uint32_t)id));
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
		end(connection, at, false);
	return 0;
}

static bool everyone(void *client, void *arg)
{
	(void)client;
	(void)arg;
	return true;
}

static void end_where(struct connection *connection, session_which which, void *arg, bool lost)
{
	for (uint32_t i = 0; i < connection->slot_count; i++) {
		struct server_session **at = &connection->slots[i];

		while (*at) {
			if (which((*at)->client, arg))
				end(connection, at, lost);
			else
				at = &(*at)->next;
		}
	}
}

void sessions_end(struct connection *connection, bool lost)
{
	end_where(connection, everyone, NULL, lost);
	free(connection->slots);
	connection->slots = NULL;
	connection->slot_count = 0;
}

void sessions_drop(struct connection *connection, session_which which, void *arg)
{
	end_where(connection, which, arg, false);
}

/* ---- telling ---- */

/* Consumes @p ids. */
static int tell(struct connection *connection, json_t *ids, int error)
{
	return connection_send(
		connection,
		json_pack("{s:s, s:i, s:o}", "type", "closing", "error", -error, "sessions", ids),
		NULL, 0);
}

/* @p ids is full, or will not become fuller. */
static int tell_some(struct connection *connection, json_t **ids, size_t least, int error)
{
	json_t *told = *ids;

	if (told && json_array_size(told) < least)
		return 0;
	*ids = NULL;
	return told ? tell(connection, told, error) : -ENOMEM;
}

static int tell_where(struct connection *connection, session_which which, void *arg, int error)
{
	json_t *ids = json_array();
	int rc = 0;

	for (uint32_t i = 0; i < connection->slot_count; i++)
		for (const struct server_session *session = connection->slots[i];
		     session && rc == 0; session = session->next) {
			if (!which(session->client, arg))
				continue;
			if (!ids)
				ids = json_array();
			json_array_append_new(ids, json_integer((json_int_t)session->id));
			rc = tell_some(connection, &ids, TELL_MAX, error);
		}
	if (rc == 0 && json_array_size(ids) > 0)
		return tell(connection, ids, error);
	json_decref(ids);
	return rc;
}

int sessions_tell(struct connection *connection, session_which which, void *arg, int error)
{
	if (which)
		return tell_where(connection, which, arg, error);
	return connection_send(
		connection, json_pack("{s:s, s:i}", "type", "closing", "error", -error), NULL, 0);
}
