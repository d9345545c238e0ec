/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may still land at a target. A link that was lost with something on it is fenced: nothing of
 * ours is posted to that target any more until it has answered that the link is over there. It is
 * asked over the connection that the link belonged to, or, if that is lost as well, over every
 * other one to the same incarnation, which names the old one by its number: one of them may be
 * lost, and not known to be. Both ends prove it by its secret: the client that it may have it
 * ended, the target that it is the one that has.
 *
 * A target has one fence, at however many addresses it is reached. Which incarnation it is it says
 * itself, and what one says must not hold up what goes to another: so whoever names one that we
 * have a fence of is asked, before anything is posted to it, to prove by the secret of a connection
 * to that one that it has given it. The proof is of the connection on which it is asked, if that is
 * under TLS: who asks the other one in turn has nothing to answer with. So is the secret, of the
 * connection on which it was given: who says again what he was given on another has no fence but
 * his own.
 *
 * The number of links is raised by pollers; all else here belongs to the control thread, but for
 * the list of fences and their users, which the pool's lock guards.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/client_internal.h"

/* Targets without a connection of ours on which something is open; the oldest makes room. */
#define FORSAKEN_MAX 64u

struct target_fence {
	struct fence fence; /* first */
	struct client_pool *pool;
	char target[SLU_NAME_MAX + 1];
	uint64_t incarnation;
	uint64_t serial;                 /* the later it was made, the more */
	struct connection_secret secret; /* of a connection to it */
	uint32_t users;                  /* clients; under the pool's lock */
	LIST_HEAD(, client) clients;     /* that carry messages */
	TAILQ_HEAD(ticket_list, fence_ticket) raised;
	TAILQ_ENTRY(target_fence) link; /* under the pool's lock */
};

struct fence_ticket {
	struct control_task task;
	struct target_fence *fence;
	struct client *client;           /* NULL: its connection is lost */
	struct connection_secret secret; /* of that */
	uint64_t name;                   /* of the link */
	bool over;
	bool refused; /* and that was said */
	LIST_HEAD(, question) questions;
	TAILQ_ENTRY(fence_ticket) link;
};

/* That is not answered. */
struct question {
	struct fence_ticket *ticket;
	const struct client *by;
	LIST_ENTRY(question) link;
};

static void ticket_free(struct fence_ticket *ticket)
{
	secret_wipe(ticket->secret.bytes, SECRET_BYTES);
	free(ticket);
}

static void fence_free(struct target_fence *fence)
{
	struct fence_ticket *ticket;

	while ((ticket = TAILQ_FIRST(&fence->raised))) {
		TAILQ_REMOVE(&fence->raised, ticket, link);
		ticket_free(ticket);
	}
	secret_wipe(fence->secret.bytes, SECRET_BYTES);
	free(fence);
}

/* ---- whose fence: under the pool's lock ---- */

/* The first of that incarnation that was made later than @p serial. */
static struct target_fence *find(struct client_pool *pool, uint64_t incarnation, uint64_t serial)
{
	struct target_fence *fence;

	TAILQ_FOREACH (fence, &pool->fences, link)
		if (fence->incarnation == incarnation && fence->serial > serial)
			break;
	return fence;
}

static struct target_fence *create(struct client *client)
{
	struct client_pool *pool = client->pool;
	struct target_fence *fence = calloc(1, sizeof(*fence));

	if (!fence)
		return NULL;
	fence->pool = pool;
	strcpy(fence->target, client->welcome.target);
	fence->incarnation = client->welcome.incarnation;
	fence->serial = ++pool->last_fence;
	fence->secret = client->secret;
	LIST_INIT(&fence->clients);
	TAILQ_INIT(&fence->raised);
	TAILQ_INSERT_TAIL(&pool->fences, fence, link);
	return fence;
}

/* A target that was lost with something on its way is remembered: it may be reached again. */
static void forsake(struct client_pool *pool)
{
	struct target_fence *fence, *next, *oldest = NULL;
	uint32_t forsaken = 0;

	for (fence = TAILQ_FIRST(&pool->fences); fence; fence = next) {
		next = TAILQ_NEXT(fence, link);
		if (fence->users > 0)
			continue;
		if (TAILQ_EMPTY(&fence->raised)) {
			TAILQ_REMOVE(&pool->fences, fence, link);
			fence_free(fence);
			continue;
		}
		if (forsaken++ == 0)
			oldest = fence;
	}
	if (forsaken <= FORSAKEN_MAX)
		return;
	TAILQ_REMOVE(&pool->fences, oldest, link);
	fence_free(oldest);
}

static int leave(void *arg)
{
	struct client *client = arg;
	struct client_pool *pool = client->pool;

	pthread_mutex_lock(&pool->lock);
	client->fence->users--;
	forsake(pool);
	pthread_mutex_unlock(&pool->lock);
	return 0;
}

void fence_leave(struct client *client)
{
	if (client->fence)
		control_call(client->pool->options.control, leave, client);
	client->fence = NULL;
}

void fences_destroy(struct client_pool *pool)
{
	struct target_fence *fence;

	while ((fence = TAILQ_FIRST(&pool->fences))) {
		TAILQ_REMOVE(&pool->fences, fence, link);
		fence_free(fence);
	}
}

/* ---- asking: control thread ---- */

/* Of a connection, with a proof or nonce. @return NULL: out of memory */
static json_t *make_named(const struct connection_name *name, const char *key, const char *text)
{
	char number[17], binding[2 * TLS_BINDING_BYTES + 1];

	snprintf(number, sizeof(number), "%016" PRIx64, name->number);
	secret_format(name->binding, sizeof(name->binding), binding);
	return json_pack("{s:s, s:s, s:s}", "connection", number, "binding", binding, key, text);
}

/* @return NULL: out of memory */
static json_t *make_offer(const struct fence_ticket *ticket, const struct client *by)
{
	char link[17], proof[PROOF_TEXT];

	snprintf(link, sizeof(link), "%016" PRIx64, ticket->name);
	if (by == ticket->client)
		return json_pack("{s:s}", "link", link);
	return secret_prove_text(ticket->secret.bytes, FENCE_END, strlen(FENCE_END), proof)
		       ? make_named(&ticket->secret.of, "proof", proof)
		       : NULL;
}

/* Of a link its own connection says so; of a connection only who had given it its secret can. */
static int check_over(const struct fence_ticket *ticket, const json_t *answer)
{
	if (ticket->client || secret_is_proven(ticket->secret.bytes, FENCE_OVER, strlen(FENCE_OVER),
					       json_string_value(json_object_get(answer, "proof"))))
		return 0;
	return fail(-EPROTO, "what it proves it by is wrong");
}

static void say_refused(struct fence_ticket *ticket)
{
	if (ticket->refused)
		return;
	ticket->refused = true;
	log_peer(SLU_LOG_WARNING,
		 "target %s does not confirm that a lost link is over, and is sent nothing until "
		 "it does: %s",
		 ticket->fence->target, slu_last_error());
}

static void end_fence(struct fence_ticket *ticket)
{
	ticket->over = true;
	TAILQ_REMOVE(&ticket->fence->raised, ticket, link);
	atomic_fetch_sub(&ticket->fence->fence.pending, 1);
	transport_changed();
}

/* Refused, not proven, or its connection was lost: it is asked again. The first proof counts. */
static void on_answer(void *arg, int error, const json_t *answer)
{
	struct question *question = arg;
	struct fence_ticket *ticket = question->ticket;
	bool lost = error == -ECANCELED || question->by->error; /* or closed by ourselves */

	LIST_REMOVE(question, link);
	free(question);
	if (!ticket->over && error == 0)
		error = check_over(ticket, answer);
	if (!ticket->over && error == 0)
		end_fence(ticket);
	else if (!ticket->over && !lost)
		say_refused(ticket);
	if (ticket->over && LIST_EMPTY(&ticket->questions))
		ticket_free(ticket);
}

static bool is_asked(const struct fence_ticket *ticket, const struct client *by)
{
	const struct question *question;

	LIST_FOREACH (question, &ticket->questions, link)
		if (question->by == by)
			return true;
	return false;
}

/* It is not answered meanwhile, but refused perhaps. */
static void ask(struct fence_ticket *ticket, struct client *by)
{
	struct question *question;

	if ((ticket->client && ticket->client != by) || is_asked(ticket, by))
		return;
	question = malloc(sizeof(*question));
	if (!question) {
		fail(-ENOMEM, "out of memory");
		say_refused(ticket);
		return;
	}
	*question = (struct question){.ticket = ticket, .by = by};
	LIST_INSERT_HEAD(&ticket->questions, question, link);
	if (client_ask_async(by, "fence", make_offer(ticket, by), on_answer, question) == 0)
		return;
	LIST_REMOVE(question, link);
	free(question);
	say_refused(ticket);
}

static void ask_by(struct client *by)
{
	struct fence_ticket *ticket;

	TAILQ_FOREACH (ticket, &by->fence->raised, link)
		ask(ticket, by);
}

void fence_client_over(struct client *client)
{
	struct fence_ticket *ticket;
	struct client *other;

	if (!client->fences)
		return;
	client->fences = false;
	LIST_REMOVE(client, by_target);
	TAILQ_FOREACH (ticket, &client->fence->raised, link)
		if (ticket->client == client)
			ticket->client = NULL;
	LIST_FOREACH (other, &client->fence->clients, by_target)
		ask_by(other);
}

void fence_retry(struct client *client)
{
	if (client->fences)
		ask_by(client);
}

/* ---- joining: who has greeted ---- */

/* @return 1 it is the target of its fence; 0 it is another one; negative: it is not known */
static int is_same(struct client *client, uint64_t until_ns)
{
	const struct connection_secret *secret = &client->fence->secret;
	struct same_claim claim;
	json_t *offer, *answer;
	char nonce[2 * SAME_NONCE_BYTES + 1], right[PROOF_TEXT];
	const char *proof;
	int rc = secret_make(claim.nonce, sizeof(claim.nonce));

	if (rc < 0)
		return rc;
	memcpy(claim.binding, client->secret.of.binding, sizeof(claim.binding));
	secret_format(claim.nonce, sizeof(claim.nonce), nonce);
	offer = make_named(&secret->of, "nonce", nonce);
	if (!offer || !secret_prove_text(secret->bytes, &claim, sizeof(claim), right))
		rc = fail(-ENOMEM, "out of memory");
	else
		rc = client_ask(client, "same", offer, until_ns, &answer);
	json_decref(offer);
	if (rc < 0)
		return rc;
	proof = json_string_value(json_object_get(answer, "proof"));
	rc = proof && strcmp(proof, right) == 0;
	json_decref(answer);
	return rc;
}

static int join(void *arg)
{
	struct client *client = arg;

	if (!client->watched || client->error)
		return 0;
	LIST_INSERT_HEAD(&client->fence->clients, client, by_target);
	client->fences = true;
	ask_by(client);
	return 0;
}

/* Of two that come at the same time to one target, the second finds the fence of the first. */
int fence_join(struct client *client, uint64_t until_ns)
{
	struct client_pool *pool = client->pool;
	uint64_t serial = 0;
	int same = 0;

	while (same == 0) {
		fence_leave(client); /* of another target, who is called the same */
		pthread_mutex_lock(&pool->lock);
		client->fence = find(pool, client->welcome.incarnation, serial);
		same = !client->fence;
		if (same)
			client->fence = create(client);
		if (client->fence)
			client->fence->users++;
		pthread_mutex_unlock(&pool->lock);
		if (!client->fence)
			return fail(-ENOMEM, "out of memory");
		serial = client->fence->serial;
		if (!same)
			same = is_same(client, until_ns);
	}
	if (same < 0)
		return same;
	client->peer.fence = &client->fence->fence;
	control_call(pool->options.control, join, client);
	return 0;
}

/* ---- what transports see: any thread ---- */

static struct client *client_of(struct transport_peer *peer)
{
	return (struct client *)((char *)peer - offsetof(struct client, peer));
}

static void take_raised(struct control_task *task)
{
	struct fence_ticket *ticket =
		(struct fence_ticket *)((char *)task - offsetof(struct fence_ticket, task));
	struct client *client;

	if (!ticket->client->fences)
		ticket->client = NULL;
	TAILQ_INSERT_TAIL(&ticket->fence->raised, ticket, link);
	LIST_FOREACH (client, &ticket->fence->clients, by_target)
		ask(ticket, client);
}

struct fence_ticket *fence_ticket(struct transport_peer *peer, uint64_t name)
{
	struct client *client = client_of(peer);
	struct fence_ticket *ticket = calloc(1, sizeof(*ticket));

	if (!ticket)
		return NULL;
	ticket->task.run = take_raised;
	ticket->fence = client->fence;
	ticket->client = client;
	ticket->secret = client->secret;
	ticket->name = name;
	return ticket;
}

void fence_raise(struct fence_ticket *ticket)
{
	struct client_pool *pool = ticket->fence->pool;

	atomic_fetch_add(&ticket->fence->fence.pending, 1);
	control_post(pool->options.control, &ticket->task);
}

void fence_forgo(struct fence_ticket *ticket)
{
	if (ticket)
		ticket_free(ticket);
}
