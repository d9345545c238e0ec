/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/tcp/tcp_serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "transport/tcp/tcp_served.h"

/** A control connection with data connections. */
struct owner {
	struct served_owner base;                 /* first */
	struct tcp_connection_list connections[]; /* by poller, whose they are */
};

struct tcp_server {
	uint32_t pollers;
	uint32_t next_poller; /* counts data connections */
	transport_on_poller on_poller;
	void *arg;
	struct grants *grants;
	void *owners;
	struct tcp_service *services[SLU_POLLERS_MAX];
};

struct transport_service *tcp_server_service(void *server, uint32_t poller)
{
	return &((struct tcp_server *)server)->services[poller]->base;
}

/* ---- owners ---- */

static struct owner *owner_find(struct tcp_server *server, uint64_t connection)
{
	return (struct owner *)owners_find(&server->owners, connection);
}

/* @return NULL: out of memory */
static struct owner *owner_get(struct tcp_server *server, uint64_t connection)
{
	struct owner *owner = owner_find(server, connection);

	if (owner)
		return owner;
	owner = calloc(1, sizeof(*owner) + server->pollers * sizeof(owner->connections[0]));
	if (!owner)
		return NULL;
	owner->base.connection = connection;
	return (struct owner *)owners_add(&server->owners, &owner->base);
}

/* What the pollers that serve an owner are asked to do with its connections, one after the other.
 */
struct errand {
	struct tcp_connection_list *connections;
	void (*fn)(struct errand *errand, struct tcp_connection *connection);
	uint64_t link;
	const struct grant *grant;
	int reason;
};

static void run_errand(void *arg)
{
	struct errand *errand = arg;
	struct tcp_connection *connection = LIST_FIRST(errand->connections), *next;

	work_begin(WORK_TURN);
	for (; connection; connection = next) {
		next = LIST_NEXT(connection, of_owner);
		work_count(WORK_ITEMS, 1);
		errand->fn(errand, connection);
		if (connection->failed)
			tcp_service_drop(connection);
	}
}

/* When it returns, all of them have done it. @p owner may be NULL */
static void ask_pollers(struct tcp_server *server, struct owner *owner, struct errand *errand)
{
	struct poller_set left = owner ? owner->base.pollers : (struct poller_set){0};
	uint32_t poller;

	while ((poller = poller_set_take(&left)) < SLU_POLLERS_MAX) {
		errand->connections = &owner->connections[poller];
		server->on_poller(server->arg, poller, run_errand, errand);
	}
}

static void end_connection(struct errand *errand, struct tcp_connection *connection)
{
	(void)errand;
	connection->failed = true;
}

static void end_if_of_link(struct errand *errand, struct tcp_connection *connection)
{
	connection->failed |= connection->link == errand->link;
}

void tcp_server_fence(void *server, uint64_t connection, uint64_t link)
{
	struct errand errand = {.fn = end_if_of_link, .link = link};

	ask_pollers(server, owner_find(server, connection), &errand);
}

void tcp_server_gone(void *arg, uint64_t connection)
{
	struct tcp_server *server = arg;
	struct errand errand = {.fn = end_connection};
	struct owner *owner = owner_find(server, connection);

	if (!owner)
		return;
	ask_pollers(server, owner, &errand);
	owners_remove(&server->owners, &owner->base);
}

/* ---- life ---- */

int tcp_server_create(const struct serving_env *env, void **out)
{
	struct tcp_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return fail(-ENOMEM, "out of memory");
	server->pollers = env->pollers;
	server->on_poller = env->on_poller;
	server->arg = env->arg;
	rc = grants_create(&server->grants);
	for (uint32_t i = 0; rc == 0 && i < env->pollers; i++)
		rc = tcp_service_create(server->grants, env->first_lane + i, env->buffers[i],
					&server->services[i]);
	if (rc < 0) {
		tcp_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

static void run_here(void *arg, uint32_t poller, void (*fn)(void *), void *fn_arg)
{
	(void)arg;
	(void)poller;
	fn(fn_arg);
}

void tcp_server_destroy(void *arg)
{
	struct tcp_server *server = arg;
	struct served_owner *owner;

	if (!server)
		return;
	server->on_poller = run_here;
	while ((owner = owners_any(server->owners)))
		tcp_server_gone(server, owner->connection);
	for (uint32_t i = 0; i < server->pollers; i++)
		tcp_service_destroy(server->services[i]);
	grants_destroy(server->grants);
	free(server);
}

/* ---- data connections ---- */

struct adopt_call {
	struct tcp_service *service;
	struct tcp_connection *connection;
	struct tcp_connection_list *of_owner;
	int result;
};

static void adopt_on_poller(void *arg)
{
	struct adopt_call *call = arg;

	call->result = tcp_service_adopt(call->service, call->connection, call->of_owner);
}

/*
 * In turn, but each round begins one further on: clients connect in pairs, for small operations and
 * for bulk, and else every bulk connection could come to the same poller.
 */
static uint32_t next_poller(struct tcp_server *server)
{
	uint32_t n = server->next_poller++;

	return (n + n / server->pollers) % server->pollers;
}

static int attach(struct tcp_server *server, struct tcp_connection *connection)
{
	struct owner *owner = owner_get(server, connection->owner);
	uint32_t poller = next_poller(server);
	struct adopt_call call = {.service = server->services[poller], .connection = connection};

	if (!owner)
		return -ENOMEM;
	call.of_owner = &owner->connections[poller];
	poller_set_add(&owner->base.pollers, poller);
	server->on_poller(server->arg, poller, adopt_on_poller, &call);
	return call.result;
}

void tcp_server_attach(void *server, const struct stream *stream, uint64_t owner, uint64_t link,
		       struct budget *budget)
{
	struct stream refused = *stream;
	struct tcp_connection *connection;
	int rc = tcp_connection_create(stream, budget, &connection);

	if (rc < 0) {
		stream_close(&refused);
		budget_give(budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
	} else {
		connection->owner = owner;
		connection->link = link;
		rc = attach(server, connection);
		if (rc < 0)
			tcp_connection_close(connection);
	}
	if (rc < 0)
		log_peer(SLU_LOG_ERROR, "a data connection is refused: %s", strerror(-rc));
}

/* ---- grants ---- */

int tcp_server_grant(void *server, const struct grant *grant, json_t *description,
		     struct grant **out)
{
	return grants_add(((struct tcp_server *)server)->grants, grant, description, out);
}

/*
 * What arrives for it goes nowhere. What is half sent from its memory can't be taken back, and a
 * copy of it would be memory that a client has at our expense by not reading: the connection ends.
 * A client of good faith has nothing under way when it closes, and connects again when not.
 */
static void forget(struct errand *errand, struct tcp_connection *connection)
{
	if (connection->receiving && connection->grant == errand->grant) {
		connection->grant = NULL;
		connection->status = errand->reason;
		channel_body_nowhere(&connection->channel);
	}
	connection->failed |= channel_refers(&connection->channel, errand->grant);
}

void tcp_server_revoke(void *arg, struct grant *grant, int reason)
{
	struct errand errand = {.fn = forget, .grant = grant, .reason = reason};
	struct tcp_server *server = arg;

	if (!grant)
		return;
	grants_end(server->grants, grant, reason);
	ask_pollers(server, owner_find(server, grant->connection), &errand);
	grants_free(server->grants, grant);
}

struct close_call {
	struct serving *serving;
	const struct export *export;
};

static void close_lane_on_poller(void *arg)
{
	const struct close_call *call = arg;

	serving_forget(call->serving, inbox_lane(call->export->inbox, call->serving->lane));
}

void tcp_server_close(void *arg, const struct export *export)
{
	struct tcp_server *server = arg;

	for (uint32_t i = 0; i < server->pollers; i++) {
		struct close_call call = {.serving = &server->services[i]->serving,
					  .export = export};

		server->on_poller(server->arg, i, close_lane_on_poller, &call);
	}
}
