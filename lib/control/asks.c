/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked on open sessions, from any thread, and answered on the control thread. Requests are
 * numbered by the connection, and no number is used twice: so a late answer is told from one to
 * something that was never asked.
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/client_internal.h"

struct ask {
	struct session *session;
	json_t *offer;
	json_int_t request;
	uint32_t seconds_left; /* 0: the asker sees to it */
	/* Once, no longer in the list. The answer's only reference comes along; an error's text is
	 * slu_last_error(). */
	void (*done)(struct ask *ask, int error, json_t *answer);
	TAILQ_ENTRY(ask) link;
};

/* ---- control thread ---- */

static int send_ask(struct ask *ask)
{
	const struct session *session = ask->session;
	struct client *client = session->client;
	int rc;

	if (!session->present) {
		rc = session->error ? session->error : -ECONNRESET;
		return fail(rc, "the session with target %s is over: %s", client->welcome.target,
			    slu_strerror(rc));
	}
	if (client->welcome.version < MESSAGE_VERSION_PATH)
		return fail(-EPROTONOSUPPORT,
			    "target %s speaks protocol version %d, to be asked for a path it must "
			    "speak %d: upgrade it",
			    client->welcome.target, client->welcome.version, MESSAGE_VERSION_PATH);
	ask->request = client->next_request++;
	rc = client_say(client, json_pack("{s:s, s:I, s:I, s:O}", "type", "path", "session",
					  (json_int_t)session->id, "request", ask->request, "offer",
					  ask->offer));
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
	TAILQ_REMOVE(&ask->session->client->asks, ask, link);
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
	if (ask && ask->session->id != id)
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
	answer = json_object_get(*message, "answer");
	if (!json_is_object(answer)) {
		finish(ask, fail(-EPROTO, "the target's answer to path is incomplete"), NULL);
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

static int explain(int error)
{
	switch (error) {
	case -ECANCELED:
		return fail(error, "the session was closed");
	case -EKEYREVOKED:
		return fail(error, "a right that the session had is no longer granted");
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
			finish(ask, explain(error), NULL);
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
	struct client *client = ask->session->client;

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
	TAILQ_REMOVE(&waiting->ask.session->client->asks, &waiting->ask, link);
	return -ETIMEDOUT;
}

static int no_object(void)
{
	return fail(-EINVAL, "what a path is asked for with must be a JSON object");
}

int session_ask(struct session *session, const json_t *offer, uint64_t timeout_us, json_t **answer)
{
	uint64_t until_ns = clock_deadline_ns(timeout_us);
	struct client *client = session->client;
	struct waiting waiting = {
		.ask = {.session = session, .offer = (json_t *)(uintptr_t)offer, .done = wake}};
	bool answered;

	if (!json_is_object(offer))
		return no_object();
	control_call(client->pool->options.control, begin_waiting, &waiting);
	pthread_mutex_lock(&client->lock);
	while (!waiting.answered &&
	       client_condition_wait(&client->answered, &client->lock, until_ns))
		;
	answered = waiting.answered;
	pthread_mutex_unlock(&client->lock);
	if (!answered &&
	    control_call(client->pool->options.control, give_up, &waiting) == -ETIMEDOUT)
		return too_late();
	if (waiting.result < 0)
		return fail(waiting.result, "%s", waiting.text);
	*answer = waiting.answer;
	return 0;
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

int session_ask_async(struct session *session, json_t *offer,
		      void (*answered)(void *arg, int error, const json_t *answer), void *arg)
{
	struct posted *posted = json_is_object(offer) ? calloc(1, sizeof(*posted)) : NULL;

	if (!posted) {
		int rc = json_is_object(offer) ? fail(-ENOMEM, "out of memory") : no_object();

		json_decref(offer);
		return rc;
	}
	posted->ask = (struct ask){.session = session,
				   .offer = offer,
				   .seconds_left = SESSION_ASK_SECONDS,
				   .done = call_back};
	posted->task.run = begin_posted;
	posted->answered = answered;
	posted->arg = arg;
	control_post(session->client->pool->options.control, &posted->task);
	return 0;
}
