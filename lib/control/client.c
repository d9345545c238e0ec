/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection and its sessions once the handshake is over: everything here runs on the control
 * thread, but for the few calls at the end of each part, which hand over to it and wait.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/work.h"
#include "control/client_internal.h"

#define RUN_MESSAGES 32   /* of one target, then whoever else is served by the control thread */
#define REPORT_MAX   128u /* sessions in one message of totals; a line is at most 75 bytes */

#define TIMER_INTERVAL_US 1000000u

/* An open that somebody waits for. Under the client's lock. */
struct opening {
	bool answered;
	int result;
	char text[256]; /* why not */
	struct client_grant grant;
};

/* ---- the table of sessions ---- */

static struct session_list *slot_of(const struct client *client, uint32_t id)
{
	return &client->slots[id & (client->slot_count - 1)];
}

static struct session *find(const struct client *client, json_int_t id)
{
	struct session *session;

	if (client->slot_count == 0 || id < 0 || id > UINT32_MAX)
		return NULL;
	LIST_FOREACH (session, slot_of(client, (uint32_t)id), link)
		if (session->id == (uint32_t)id)
			return session;
	return NULL;
}

static int grow(struct client *client)
{
	uint32_t old_count = client->slot_count;
	uint32_t count = old_count ? 2 * old_count : CLIENT_SLOTS;
	struct session_list *old = client->slots;
	struct session_list *slots = calloc(count, sizeof(*slots));
	struct session *session;

	if (!slots)
		return -ENOMEM;
	client->slots = slots;
	client->slot_count = count;
	for (uint32_t i = 0; i < old_count; i++)
		while ((session = LIST_FIRST(&old[i]))) {
			LIST_REMOVE(session, link);
			LIST_INSERT_HEAD(slot_of(client, session->id), session, link);
		}
	free(old);
	return 0;
}

static int insert(struct client *client, struct session *session)
{
	if (client->session_count >= client->slot_count && grow(client) < 0)
		return -ENOMEM;
	do
		session->id = client->next_session++;
	while (find(client, session->id));
	LIST_INSERT_HEAD(slot_of(client, session->id), session, link);
	client->session_count++;
	session->present = true;
	return 0;
}

static void take_out(struct session *session)
{
	LIST_REMOVE(session, link);
	session->client->session_count--;
	session->present = false;
}

/* ---- sending ---- */

static void update(struct client *client)
{
	if (message_writer_busy(&client->writer) || client->stream.wants_write)
		watch_start(&client->writing, 0);
	else
		watch_stop(&client->writing);
}

/* A connection that fails here is found broken when it is read. */
int client_say(struct client *client, json_t *message)
{
	int rc = message_send(&client->writer, &client->stream, message, NULL, 0);

	if (rc == 0)
		update(client);
	return rc;
}

static struct client_totals ask_totals(const struct session *session)
{
	struct client_totals totals = {0};

	session->callbacks->totals(session->arg, &totals);
	return totals;
}

static int say_close(struct session *session, struct client_totals totals)
{
	return client_say(session->client,
			  json_pack("{s:s, s:I, s:I, s:I, s:I}", "type", "close", "session",
				    (json_int_t)session->id, "operations",
				    (json_int_t)totals.operations, "bytes_read",
				    (json_int_t)totals.bytes_read, "bytes_written",
				    (json_int_t)totals.bytes_written));
}

/* @return NULL: nothing new; else the line for it, or NULL without memory: the next time then */
static json_t *report_line(struct session *session)
{
	struct client_totals now;

	if (session->opening)
		return NULL;
	now = ask_totals(session);
	if (memcmp(&now, &session->reported, sizeof(now)) == 0)
		return NULL;
	session->reported = now;
	return json_pack("[I, I, I, I]", (json_int_t)session->id, (json_int_t)now.operations,
			 (json_int_t)now.bytes_read, (json_int_t)now.bytes_written);
}

static int say_moved(struct client *client, json_t *totals)
{
	return client_say(client, json_pack("{s:s, s:o}", "type", "moved", "totals", totals));
}

static int report_moved(struct client *client)
{
	json_t *totals = NULL;
	struct session *session;
	int rc = 0;

	for (uint32_t i = 0; i < client->slot_count; i++)
		LIST_FOREACH (session, &client->slots[i], link) {
			json_t *line = report_line(session);

			if (!line)
				continue;
			if (!totals)
				totals = json_array();
			json_array_append_new(totals, line);
			if (json_array_size(totals) < REPORT_MAX)
				continue;
			rc = say_moved(client, totals);
			totals = NULL;
			if (rc < 0)
				return rc;
		}
	return totals ? say_moved(client, totals) : 0;
}

/* ---- the end of sessions ---- */

/* Takes the latest slu_last_error() along. */
static void answer(struct session *session, int result)
{
	struct client *client = session->client;
	struct opening *opening = session->opening;

	pthread_mutex_lock(&client->lock);
	session->opening = NULL;
	opening->result = result;
	if (result < 0)
		strncpy(opening->text, slu_last_error(), sizeof(opening->text) - 1);
	opening->answered = true;
	pthread_cond_broadcast(&client->answered);
	pthread_mutex_unlock(&client->lock);
}

static void lose(struct session *session, int error)
{
	bool announced = error != -ECONNRESET;

	session->error = error;
	if (session->opening) {
		take_out(session);
		answer(session, asks_explain(error));
		return;
	}
	asks_end(session->client, session, error);
	session->callbacks->lost(session->arg, error);
	if (announced)
		say_close(session, ask_totals(session));
	take_out(session);
}

static void lose_all(struct client *client, int error)
{
	struct session *session;

	for (uint32_t i = 0; i < client->slot_count; i++)
		while ((session = LIST_FIRST(&client->slots[i])))
			lose(session, error);
}

static void unwatch(struct client *client)
{
	watch_stop(&client->reading);
	watch_stop(&client->writing);
	watch_stop(&client->timer);
	client->watched = false;
	fence_client_over(client);
}

/* No callback comes any more; the target sees that we have left. */
static void finish(struct client *client)
{
	unwatch(client);
	stream_close(&client->stream);
	message_writer_reset(&client->writer);
}

/* What waits to be sent is waited for when the target said goodbye, and only then. */
static void end(struct client *client, int error)
{
	client->error = error;
	atomic_store(&client->peer.lost, true);
	client_retire(client);
	asks_end(client, NULL, error);
	fence_client_over(client);
	lose_all(client, error);
	if (error != -ECONNRESET)
		client_say(client, json_pack("{s:s}", "type", "bye"));
	if (error == -ECONNRESET || !message_writer_busy(&client->writer))
		finish(client);
	else
		watch_stop(&client->reading);
	pthread_mutex_lock(&client->lock);
	client->lost = true;
	pthread_cond_broadcast(&client->answered);
	pthread_mutex_unlock(&client->lock);
}

/* ---- what the target says ---- */

static int parse_opened(json_t *message, struct client_grant *grant)
{
	json_int_t length, page_bytes, rights;
	const char *transport;
	json_t *details;
	int id;

	if (json_unpack(message, "{s:s, s:I, s:I, s:I, s:i, s:o}", "transport", &transport,
			"length", &length, "rights", &rights, "page_bytes", &page_bytes, "node",
			&grant->node, "grant", &details) < 0 ||
	    length <= 0 || page_bytes < 0 || !json_is_object(details))
		return fail(-EPROTO, "the target's answer to open is incomplete");
	id = transport_parse(transport);
	if (id < 0)
		return fail(-EPROTO, "the target chose the transport \"%.16s\", which we have not",
			    transport);
	grant->transport = (enum slu_transport)id;
	grant->length = (uint64_t)length;
	grant->page_bytes = (uint64_t)page_bytes;
	return 0;
}

/* Takes the message along: its reference must not be two threads' at the same time. */
static int on_opened(struct client *client, json_t **message)
{
	json_int_t id = json_integer_value(json_object_get(*message, "session"));
	struct session *session = find(client, id);
	struct client_grant *grant;
	int rc;

	if (!session) /* given up by now: the target has been told */
		return 0;
	if (!session->opening)
		return fail(-EPROTO, "the target opened a session twice");
	grant = &session->opening->grant;
	rc = parse_opened(*message, grant);
	if (rc < 0) {
		say_close(session, (struct client_totals){0});
		take_out(session);
		answer(session, rc);
		return 0;
	}
	grant->opened = *message;
	*message = NULL;
	grant->fd_count = client->reader.fd_count;
	memcpy(grant->fds, client->reader.fds, sizeof(grant->fds));
	client->reader.fd_count = 0;
	answer(session, 0);
	return 0;
}

static int on_refused(struct client *client, const json_t *message)
{
	const json_t *id = json_object_get(message, "session");
	struct session *session = find(client, json_integer_value(id));
	int rc;

	if (json_object_get(message, "request"))
		return asks_refuse(client, message);
	rc = handshake_refused(message);
	if (!id)
		return rc;
	if (!session || !session->opening)
		return 0;
	session->error = rc;
	take_out(session);
	answer(session, rc);
	return 0;
}

/* @return 0, or why the connection ends */
static int on_closing(struct client *client, const json_t *message)
{
	json_int_t error = json_integer_value(json_object_get(message, "error"));
	const json_t *ids = json_object_get(message, "sessions");
	bool is_known = error == EKEYREVOKED || (error == EFAULT && json_is_array(ids));
	int reason = is_known ? -(int)error : -ESHUTDOWN;
	json_t *id;
	size_t i;

	if (!json_is_array(ids))
		return reason;
	json_array_foreach (ids, i, id) {
		struct session *session = find(client, json_integer_value(id));

		if (session)
			lose(session, reason);
	}
	return 0;
}

static void on_usage(struct client *client, const json_t *message)
{
	pthread_mutex_lock(&client->lock);
	client->cpu_ns = (uint64_t)json_integer_value(json_object_get(message, "cpu_ns"));
	client->usages++;
	pthread_cond_broadcast(&client->answered);
	pthread_mutex_unlock(&client->lock);
}

static int dispatch(struct client *client, json_t **taken)
{
	const json_t *message = *taken;
	const char *type = message_type(message);

	if (strcmp(type, "opened") == 0)
		return on_opened(client, taken);
	if (strcmp(type, "refused") == 0)
		return on_refused(client, message);
	if (strcmp(type, "path") == 0 || strcmp(type, "invite") == 0 ||
	    strcmp(type, "fence") == 0 || strcmp(type, "same") == 0)
		return asks_answer(client, taken);
	if (strcmp(type, "closing") == 0)
		return on_closing(client, message);
	if (strcmp(type, "ping") == 0)
		return client_say(client, json_pack("{s:s}", "type", "pong"));
	if (strcmp(type, "pong") == 0)
		return 0;
	if (strcmp(type, "usage") != 0)
		return fail(-EPROTO, "the target said \"%.32s\" out of turn", type);
	on_usage(client, message);
	return 0;
}

static bool is_silent_end(int rc)
{
	return rc == -ECONNRESET || rc == -EPIPE || rc == -ESHUTDOWN || rc == -EKEYREVOKED;
}

static void leave(struct client *client, int rc)
{
	if (!is_silent_end(rc))
		log_peer(SLU_LOG_ERROR, "the connection to %s ends: %s", client->welcome.address,
			 slu_last_error());
	end(client, rc == -ESHUTDOWN || rc == -EKEYREVOKED ? rc : -ECONNRESET);
}

/* Not all that comes: a target that never stops would have the control thread for itself. */
static int take_messages(struct client *client)
{
	json_t *message;
	int rc = 0;

	for (int i = 0; i < RUN_MESSAGES && rc == 0; i++) {
		rc = message_read(&client->reader, &client->stream, &message);
		if (rc <= 0)
			break;
		rc = dispatch(client, &message);
		json_decref(message);
	}
	return rc;
}

static void on_reading(void *arg)
{
	struct client *client = arg;
	int rc;

	work_begin(WORK_EVENT);
	client->silent_seconds = 0;
	rc = take_messages(client);
	if (rc < 0) {
		leave(client, rc);
		return;
	}
	update(client);
	/* What TLS has read off the socket already, epoll does not know of. */
	if (stream_pending(&client->stream))
		watch_trigger(&client->reading);
}

static void on_writing(void *arg)
{
	struct client *client = arg;
	int rc = message_flush(&client->writer, &client->stream);

	if (client->error && (rc < 0 || !message_writer_busy(&client->writer)))
		finish(client);
	else if (client->error)
		return;
	else if (rc < 0)
		leave(client, rc);
	else
		on_reading(arg);
}

/* ---- once a second ---- */

/* Of a Unix socket's peer the kernel tells. */
static int check_silence(struct client *client)
{
	if (client->endpoint.is_unix)
		return 0;
	client->silent_seconds++;
	if (client->silent_seconds > CLIENT_SILENCE_SECONDS)
		return fail(-ETIMEDOUT, "nothing was heard for %d s", CLIENT_SILENCE_SECONDS);
	if (client->silent_seconds != CLIENT_PING_SECONDS)
		return 0;
	return client_say(client, json_pack("{s:s}", "type", "ping"));
}

static void on_timer(void *arg)
{
	struct client *client = arg;
	int rc;

	work_begin(WORK_EVENT);
	if (client->error)
		return;
	asks_age(client);
	fence_retry(client);
	rc = message_writer_busy(&client->writer) ? 0 : report_moved(client);
	if (rc >= 0)
		rc = check_silence(client);
	if (rc == -ETIMEDOUT || rc == -EAGAIN)
		leave(client, rc);
}

static int start_watching(void *arg)
{
	struct client *client = arg;
	struct loop *loop = control_loop(client->pool->options.control);
	int fd = client->stream.fd;

	watch_init(&client->reading, loop, fd, WATCH_READ, on_reading, client);
	watch_init(&client->writing, loop, fd, WATCH_WRITE, on_writing, client);
	watch_init(&client->timer, loop, -1, WATCH_EVERY, on_timer, client);
	if (watch_start(&client->reading, 0) == 0 &&
	    watch_start(&client->timer, TIMER_INTERVAL_US) == 0) {
		if (stream_pending(&client->stream))
			watch_trigger(&client->reading);
		client->watched = true;
		return 0;
	}
	unwatch(client);
	return -ENOMEM;
}

int client_watch(struct client *client)
{
	int rc = control_call(client->pool->options.control, start_watching, client);

	return rc < 0 ? fail(rc, "out of memory") : 0;
}

static int end_watching(void *arg)
{
	struct client *client = arg;

	if (!client->watched)
		return 0;
	asks_end(client, NULL, -ECANCELED);
	if (!client->error)
		client_say(client, json_pack("{s:s}", "type", "bye"));
	unwatch(client);
	return 0;
}

void client_end(struct client *client)
{
	control_call(client->pool->options.control, end_watching, client);
}

/* ---- sessions: their callers ---- */

static json_t *names_of(const struct session_request *request)
{
	json_t *names = json_array();

	for (uint32_t i = 0; i < request->transport_count; i++)
		json_array_append_new(names,
				      json_string(slu_transport_name(request->transports[i])));
	return names;
}

struct open_call {
	struct session *session;
	const struct session_request *request;
};

static int begin_open(void *arg)
{
	const struct open_call *call = arg;
	const struct session_request *request = call->request;
	struct session *session = call->session;
	struct client *client = session->client;
	int rc;

	if (client->error)
		return client->error;
	rc = insert(client, session);
	if (rc < 0)
		return rc;
	rc = client_say(client,
			json_pack("{s:s, s:I, s:s, s:I, s:o}", "type", "open", "session",
				  (json_int_t)session->id, "segment", request->segment, "rights",
				  (json_int_t)request->rights, "transports", names_of(request)));
	if (rc == -EPIPE || rc == -ECONNRESET) /* reading will tell, and lose it */
		return 0;
	if (rc < 0)
		take_out(session);
	return rc;
}

/* Too late: whatever the target answers now, it is told that nobody wants it. */
static int give_up(void *arg)
{
	struct session *session = arg;

	if (!session->opening)
		return 0;
	session->opening = NULL;
	if (session->present) {
		say_close(session, (struct client_totals){0});
		take_out(session);
	}
	return -ETIMEDOUT;
}

static int wait_opened(struct session *session, struct opening *opening, uint64_t until_ns)
{
	struct client *client = session->client;
	bool answered;

	pthread_mutex_lock(&client->lock);
	while (!opening->answered && condition_wait(&client->answered, &client->lock, until_ns))
		;
	answered = opening->answered;
	pthread_mutex_unlock(&client->lock);
	if (!answered &&
	    control_call(client->pool->options.control, give_up, session) == -ETIMEDOUT)
		return fail(-ETIMEDOUT, "the target did not answer in time");
	return opening->result < 0 ? fail(opening->result, "%s", opening->text) : 0;
}

static struct session *session_create(struct client *client, const struct session_request *request)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	session->client = client;
	session->callbacks = request->callbacks;
	session->arg = request->arg;
	pthread_mutex_lock(&client->pool->lock);
	client->references++;
	pthread_mutex_unlock(&client->pool->lock);
	return session;
}

static void session_destroy(struct session *session)
{
	struct client *client = session->client;

	free(session);
	client_release(client);
}

int session_open(struct client *client, const struct session_request *request, struct session **out,
		 struct client_grant *grant)
{
	struct session *session = session_create(client, request);
	struct open_call call = {.session = session, .request = request};
	struct opening opening = {0};
	int rc;

	if (!session)
		return fail(-ENOMEM, "out of memory");
	session->opening = &opening;
	rc = control_call(client->pool->options.control, begin_open, &call);
	rc = rc < 0 ? fail(rc, "cannot ask target %s: %s", client->welcome.target, slu_strerror(rc))
		    : wait_opened(session, &opening, request->until_ns);
	if (rc < 0) {
		session_destroy(session);
		return rc;
	}
	*grant = opening.grant;
	*out = session;
	return 0;
}

static int end_session(void *arg)
{
	struct session *session = arg;
	struct client *client = session->client;

	asks_end(client, session, -ECANCELED);
	if (!session->present)
		return 0;
	if (say_close(session, ask_totals(session)) == -EAGAIN) {
		take_out(session);
		leave(client, -EAGAIN);
		return 0;
	}
	take_out(session);
	return 0;
}

void session_close(struct session *session)
{
	if (!session)
		return;
	control_call(session->client->pool->options.control, end_session, session);
	session_destroy(session);
}

static int ask_usage(void *arg)
{
	const struct session *session = arg;

	if (!session->present)
		return session->error ? session->error : -ECONNRESET;
	return client_say(session->client, json_pack("{s:s}", "type", "usage"));
}

int session_usage(struct session *session, uint64_t timeout_us, uint64_t *cpu_ns)
{
	uint64_t until_ns = clock_deadline_ns(timeout_us);
	struct client *client = session->client;
	bool waiting = true;
	uint64_t before;
	int rc;

	pthread_mutex_lock(&client->lock);
	before = client->usages;
	pthread_mutex_unlock(&client->lock);
	rc = control_call(client->pool->options.control, ask_usage, session);
	if (rc < 0)
		return fail(rc, "cannot ask the target: %s", slu_strerror(rc));
	pthread_mutex_lock(&client->lock);
	while (waiting && client->usages == before && !client->lost)
		waiting = condition_wait(&client->answered, &client->lock, until_ns);
	if (client->usages != before)
		*cpu_ns = client->cpu_ns;
	else
		rc = client->lost ? client->error : -ETIMEDOUT;
	pthread_mutex_unlock(&client->lock);
	return rc < 0 ? fail(rc, "the target did not answer: %s", slu_strerror(rc)) : 0;
}

void client_grant_free(struct client_grant *grant)
{
	for (uint32_t i = 0; i < grant->fd_count; i++)
		close(grant->fds[i]);
	grant->fd_count = 0;
	json_decref(grant->opened);
	grant->opened = NULL;
}
