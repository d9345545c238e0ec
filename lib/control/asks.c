/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of a target on an open session (path) or of the connection itself (invite, fence,
 * same), from any thread, and answered on the control thread. Requests are numbered by the
 * connection, and no number is used twice: so a late answer is told from one to something that was
 * never asked.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/client_internal.h"

struct ask {
	struct client *client;
	struct session *session; /* NULL: of the connection itself */
	const char *type;
	json_t *offer;
	json_int_t request;
	uint32_t seconds_left; /* 0: the asker sees to it */
	/* Once, no longer in the list. The answer's only reference comes along; an error's text is
	 * slu_last_error(). */
	void (*done)(struct ask *ask, int error, json_t *answer);
	TAILQ_ENTRY(ask) link;
};

/* ---- control thread ---- */

static int is_over(const struct ask *ask)
{
	const struct client *client = ask->client;
	const struct session *session = ask->session;
	int rc = client->error;

	if (session && session->present)
		return 0;
	if (session)
		rc = session->error ? session->error : -ECONNRESET;
	return rc == 0 ? 0
		       : fail(rc, "the session with target %s is over: %s", client->welcome.target,
			      slu_strerror(rc));
}

static json_t *make_message(const struct ask *ask)
{
	json_t *message = json_pack("{s:s, s:I, s:O}", "type", ask->type, "request", ask->request,
				    "offer", ask->offer);

	if (message && ask->session)
		json_object_set_new(message, "session", json_integer(ask->session->id));
	return message;
}

static int send_ask(struct ask *ask)
{
	struct client *client = ask->client;
	int rc = is_over(ask);

	if (rc < 0)
		return rc;
	ask->request = client->next_request++;
	rc = client_say(client, make_message(ask));
	if (rc < 0 && rc != -EPIPE && rc != -ECONNRESET) /* of those two reading will tell */
		return fail(rc, "cannot ask target %s: %s", client->welcome.target,
			    slu_strerror(rc));
	TAILQ_INSERT_TAIL(&client->asks, ask, link);
	return 0;
}

static void begin(struct ask *ask)
{
	int rc = send_ask(ask);

	if (rc < 0)
		ask->done(ask, rc, NULL);
}

static void finish(struct ask *ask, int error, json_t *answer)
{
	TAILQ_REMOVE(&ask->client->asks, ask, link);
	ask->done(ask, error, answer);
}

/* @return 0 with NULL: given up by now */
static int find(const struct client *client, const json_t *message, struct ask **out)
{
	const json_t *number = json_object_get(message, "request");
	json_int_t request = json_integer_value(number);
	json_int_t id = json_integer_value(json_object_get(message, "session"));
	struct ask *ask;

	if (!json_is_integer(number) || request < 0 || request >= client->next_request)
		return fail(-EPROTO, "the target answered what it was not asked");
	TAILQ_FOREACH (ask, &client->asks, link)
		if (ask->request == request)
			break;
	if (ask && ask->session && ask->session->id != id)
		return fail(-EPROTO, "the target answered on another session");
	*out = ask;
	return 0;
}

/* The message goes before its answer is handed over: no reference is two threads'. */
int asks_answer(struct client *client, json_t **message)
{
	struct ask *ask;
	json_t *answer;
	int rc = find(client, *message, &ask);

	if (rc < 0 || !ask)
		return rc;
	if (strcmp(message_type(*message), ask->type) != 0)
		return fail(-EPROTO, "the target answered \"%.16s\" with \"%.16s\"", ask->type,
			    message_type(*message));
	answer = json_object_get(*message, "answer");
	if (!json_is_object(answer)) {
		finish(ask, fail(-EPROTO, "the target's answer is incomplete"), NULL);
		return 0;
	}
	json_incref(answer);
	json_decref(*message);
	*message = NULL;
	finish(ask, 0, answer);
	return 0;
}

int asks_refuse(struct client *client, const json_t *message)
{
	struct ask *ask;
	int rc = find(client, message, &ask);

	if (rc == 0 && ask)
		finish(ask, handshake_refused(message), NULL);
	return rc;
}

int asks_explain(int error)
{
	switch (error) {
	case -ECANCELED:
		return fail(error, "the session was closed");
	case -EKEYREVOKED:
		return fail(error, "a right that the session had is no longer granted, or our key "
				   "or certificate is not valid any more");
	case -EFAULT:
		return fail(error, "the target has lost the segment's memory");
	case -ESHUTDOWN:
		return fail(error, "the target is closing");
	default:
		return fail(error, "the target closed the connection");
	}
}

void asks_end(struct client *client, const struct session *session, int error)
{
	struct ask *ask, *next;

	for (ask = TAILQ_FIRST(&client->asks); ask; ask = next) {
		next = TAILQ_NEXT(ask, link);
		if (!session || ask->session == session)
			finish(ask, asks_explain(error), NULL);
	}
}

static int too_late(void)
{
	return fail(-ETIMEDOUT, "the target did not answer in time");
}

void asks_age(struct client *client)
{
	struct ask *ask, *next;

	for (ask = TAILQ_FIRST(&client->asks); ask; ask = next) {
		next = TAILQ_NEXT(ask, link);
		if (ask->seconds_left > 0 && --ask->seconds_left == 0)
			finish(ask, too_late(), NULL);
	}
}

/* ---- who waits ---- */

/* Under the client's lock, but for the ask. */
struct waiting {
	struct ask ask; /* first */
	bool answered;
	int result;
	char text[256]; /* why not */
	json_t *answer;
};

static void wake(struct ask *ask, int error, json_t *answer)
{
	struct waiting *waiting = (struct waiting *)ask;
	struct client *client = ask->client;

	pthread_mutex_lock(&client->lock);
	waiting->result = error;
	waiting->answer = answer;
	if (error < 0)
		strncpy(waiting->text, slu_last_error(), sizeof(waiting->text) - 1);
	waiting->answered = true;
	pthread_cond_broadcast(&client->answered);
	pthread_mutex_unlock(&client->lock);
}

static int begin_waiting(void *arg)
{
	begin(&((struct waiting *)arg)->ask);
	return 0;
}

static int give_up(void *arg)
{
	struct waiting *waiting = arg;

	if (waiting->answered)
		return 0;
	TAILQ_REMOVE(&waiting->ask.client->asks, &waiting->ask, link);
	return -ETIMEDOUT;
}

static int no_object(void)
{
	return fail(-EINVAL, "what a path is asked for with must be a JSON object");
}

static int wait_for(struct waiting *waiting, uint64_t until_ns, json_t **answer)
{
	struct client *client = waiting->ask.client;
	bool answered;

	control_call(client->pool->options.control, begin_waiting, waiting);
	pthread_mutex_lock(&client->lock);
	while (!waiting->answered && condition_wait(&client->answered, &client->lock, until_ns))
		;
	answered = waiting->answered;
	pthread_mutex_unlock(&client->lock);
	if (!answered &&
	    control_call(client->pool->options.control, give_up, waiting) == -ETIMEDOUT)
		return too_late();
	if (waiting->result < 0)
		return fail(waiting->result, "%s", waiting->text);
	*answer = waiting->answer;
	return 0;
}

int session_ask(struct session *session, const json_t *offer, uint64_t until_ns, json_t **answer)
{
	struct waiting waiting = {.ask = {.client = session->client,
					  .session = session,
					  .type = "path",
					  .offer = (json_t *)(uintptr_t)offer,
					  .done = wake}};

	if (!json_is_object(offer))
		return no_object();
	return wait_for(&waiting, until_ns, answer);
}

int client_ask(struct client *client, const char *type, const json_t *offer, uint64_t until_ns,
	       json_t **answer)
{
	struct waiting waiting = {.ask = {.client = client,
					  .type = type,
					  .offer = (json_t *)(uintptr_t)offer,
					  .done = wake}};

	return wait_for(&waiting, until_ns, answer);
}

/* ---- who does not wait ---- */

struct posted {
	struct ask ask; /* first */
	struct control_task task;
	void (*answered)(void *arg, int error, const json_t *answer);
	void *arg;
};

static void call_back(struct ask *ask, int error, json_t *answer)
{
	struct posted *posted = (struct posted *)ask;

	posted->answered(posted->arg, error, answer);
	json_decref(answer);
	json_decref(ask->offer);
	free(posted);
}

static void begin_posted(struct control_task *task)
{
	begin(&((struct posted *)((char *)task - offsetof(struct posted, task)))->ask);
}

static struct posted *make_posted(struct client *client, const char *type, json_t *offer,
				  void (*answered)(void *arg, int error, const json_t *answer),
				  void *arg)
{
	struct posted *posted = calloc(1, sizeof(*posted));

	if (!posted) {
		json_decref(offer);
		return NULL;
	}
	posted->ask =
		(struct ask){.client = client, .type = type, .offer = offer, .done = call_back};
	posted->answered = answered;
	posted->arg = arg;
	return posted;
}

int session_ask_async(struct session *session, json_t *offer,
		      void (*answered)(void *arg, int error, const json_t *answer), void *arg)
{
	struct posted *posted;

	if (!json_is_object(offer)) {
		json_decref(offer);
		return no_object();
	}
	posted = make_posted(session->client, "path", offer, answered, arg);
	if (!posted)
		return fail(-ENOMEM, "out of memory");
	posted->ask.session = session;
	posted->ask.seconds_left = SESSION_ASK_SECONDS;
	posted->task.run = begin_posted;
	control_post(session->client->pool->options.control, &posted->task);
	return 0;
}

int client_ask_async(struct client *client, const char *type, json_t *offer,
		     void (*answered)(void *arg, int error, const json_t *answer), void *arg)
{
	struct posted *posted = offer ? make_posted(client, type, offer, answered, arg) : NULL;

	if (!posted)
		return fail(-ENOMEM, "out of memory");
	begin(&posted->ask);
	return 0;
}
