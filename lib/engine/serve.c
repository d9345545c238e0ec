/* SPDX-License-Identifier: Apache-2.0 */
/* Serving from our poller threads: the data connections of our clients, and their RDMA links. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"
#include "net/stream.h"

struct errand {
	void (*fn)(void *arg);
	void *arg;
};

static void run_errand(struct poller *poller, void *arg)
{
	struct errand *errand = arg;

	(void)poller;
	errand->fn(errand->arg);
}

static void on_poller(void *arg, uint32_t poller, void (*fn)(void *), void *fn_arg)
{
	struct slu_engine *engine = arg;
	struct errand errand = {.fn = fn, .arg = fn_arg};

	work_count(WORK_WAITS, 1);
	poller_call(engine->pollers[poller], run_errand, &errand);
}

static void begin_service(struct poller *poller, void *arg)
{
	poller_serve(poller, arg);
}

static void end_service(struct poller *poller, void *arg)
{
	(void)poller;
	poller_unserve(arg);
}

static int watch(struct poller *poller, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (epoll_ctl(poller->env.epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return fail(-errno, "epoll_ctl: %s", strerror(errno));
	return 0;
}

/* The next one that has pollers of ours serve, after @p id. */
static const struct transport *next_served(const struct slu_engine *engine, unsigned *id)
{
	while (++*id < TRANSPORTS)
		if (engine->env.servers[*id])
			return transport_find((enum slu_transport) * id);
	return NULL;
}

/* @p server: that of the next one that serves. */
#define FOR_EACH_SERVED(engine, transport, server)                                                 \
	for (unsigned served_id = 0; (transport = next_served(engine, &served_id)) &&              \
				     ((server) = (engine)->env.servers[served_id], true);)

static const struct transport_target *serving_of(unsigned id)
{
	const struct transport *transport = transport_find((enum slu_transport)id);

	return transport && transport->target->create ? transport->target : NULL;
}

static int start(struct slu_engine *engine, unsigned id, const struct serving_env *env)
{
	const struct transport_target *target = serving_of(id);
	int rc = target->create(env, &engine->env.servers[id]);

	for (uint32_t i = 0; engine->env.servers[id] && i < env->pollers; i++) {
		struct transport_service *service = target->service(engine->env.servers[id], i);

		poller_call(engine->pollers[i], begin_service, service);
		if (rc == 0)
			rc = watch(engine->pollers[i], service->fd);
	}
	return rc;
}

int serve_start(struct slu_engine *engine)
{
	struct buffers *buffers[SLU_POLLERS_MAX];
	struct serving_env env = {.transport = &engine->env,
				  .incarnation = engine->incarnation,
				  .pollers = engine->poller_threads,
				  .buffers = buffers,
				  .on_poller = on_poller,
				  .arg = engine};
	int rc = 0;

	for (uint32_t i = 0; i < env.pollers; i++)
		buffers[i] = engine->pollers[i]->env.buffers;
	for (unsigned id = 0; rc == 0 && id < TRANSPORTS; id++) {
		if (!serving_of(id))
			continue;
		rc = start(engine, id, &env);
		env.first_lane += env.pollers;
	}
	return rc;
}

uint32_t serve_lanes(const struct slu_engine *engine)
{
	uint32_t lanes = 0;

	for (unsigned id = 0; id < TRANSPORTS; id++)
		lanes += serving_of(id) ? engine->poller_threads : 0;
	return lanes;
}

void serve_stop(struct slu_engine *engine)
{
	const struct transport *transport;
	void *server;

	FOR_EACH_SERVED (engine, transport, server) {
		const struct transport_target *target = transport->target;

		if (target->stop)
			target->stop(server);
		for (uint32_t i = 0; i < engine->poller_threads; i++)
			poller_call(engine->pollers[i], end_service, target->service(server, i));
		engine->env.servers[transport->id] = NULL;
		target->destroy(server);
	}
}

int serve_export(struct slu_engine *engine, struct export *export)
{
	const struct transport *transport;
	void *server;
	int rc = 0;

	FOR_EACH_SERVED (engine, transport, server)
		if (rc == 0 && transport->target->export)
			rc = transport->target->export(server, export);
	return rc;
}

struct closing {
	struct slu_engine *engine;
	const struct export *export;
};

static int close_export(void *arg)
{
	const struct closing *closing = arg;
	const struct transport *transport;
	void *server;

	FOR_EACH_SERVED (closing->engine, transport, server)
		if (transport->target->close)
			transport->target->close(server, closing->export);
	return 0;
}

void serve_unexport(struct slu_engine *engine, const struct export *export)
{
	struct closing closing = {engine, export};
	const struct transport *transport;
	void *server;

	control_call(engine->control, close_export, &closing);
	FOR_EACH_SERVED (engine, transport, server)
		if (transport->target->unexport)
			transport->target->unexport(server, export);
}

/* What does not encrypt where the session does is good only if both ends say that it need not. */
bool serve_has(const struct slu_engine *engine, const struct peer_info *peer,
	       const struct transport *transport)
{
	return engine->env.servers[transport->id] &&
	       (!transport->target->in_the_clear || !peer->tls || engine->plain);
}

/* What a client is told with its welcome. */
json_t *serve_describe(void *arg, const struct peer_info *peer)
{
	const struct slu_engine *engine = arg;
	json_t *said = NULL;

	for (unsigned id = 0; id < TRANSPORTS; id++) {
		const struct transport *transport = transport_find((enum slu_transport)id);

		if (!transport || !serve_has(engine, peer, transport) ||
		    !transport->target->describe)
			continue;
		if (!said)
			said = json_object();
		json_object_set_new(said, slu_transport_name(transport->id),
				    transport->target->describe(engine->env.servers[id]));
	}
	return said;
}

void serve_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link)
{
	struct slu_engine *engine = arg;
	const struct transport *transport;
	void *server;

	FOR_EACH_SERVED (engine, transport, server)
		if (transport->target->attach)
			transport->target->attach(server, stream, peer->connection, link,
						  peer->budget);
}

void serve_fence(void *arg, uint64_t connection, uint64_t link)
{
	struct slu_engine *engine = arg;
	const struct transport *transport;
	void *server;

	FOR_EACH_SERVED (engine, transport, server)
		transport->target->fence(server, connection, link);
}

/* A client's fence that is answered when what it ended is over, on each transport. */
struct late_fence {
	struct control_task task;
	struct slu_engine *engine;
	struct fence_ask ask;  /* of no connection: it was answered */
	_Atomic uint32_t left; /* that have not told, and one until all were asked */
	LIST_ENTRY(late_fence) link;
};

static void answer_fence(struct control_task *task)
{
	struct late_fence *fence =
		(struct late_fence *)((char *)task - offsetof(struct late_fence, task));

	LIST_REMOVE(fence, link);
	if (fence->ask.connection)
		server_answer_fence(fence->engine->server, &fence->ask);
	free(fence);
}

static void on_settled(void *arg)
{
	struct late_fence *fence = arg;

	if (atomic_fetch_sub(&fence->left, 1) == 1)
		control_post(fence->engine->control, &fence->task);
}

/* @return how many will tell; -ENOMEM */
static int ask_all(struct late_fence *fence)
{
	const struct transport *transport;
	int asked = 0;
	void *server;

	FOR_EACH_SERVED (fence->engine, transport, server) {
		if (!transport->target->after)
			continue;
		atomic_fetch_add(&fence->left, 1);
		if (transport->target->after(server, on_settled, fence) < 0) {
			atomic_fetch_sub(&fence->left, 1);
			return -ENOMEM;
		}
		asked++;
	}
	return asked;
}

int serve_settle(void *arg, const struct fence_ask *ask)
{
	struct late_fence *fence = calloc(1, sizeof(*fence));
	struct slu_engine *engine = arg;
	int asked;

	if (!fence)
		return fail(-ENOMEM, "target is out of memory");
	fence->engine = engine;
	fence->ask = *ask;
	fence->left = 1;
	fence->task.run = answer_fence;
	LIST_INSERT_HEAD(&engine->late_fences, fence, link);
	asked = ask_all(fence);
	if (asked <= 0)
		fence->ask.connection = 0; /* it is answered at once */
	on_settled(fence);
	return asked > 0 ? SERVER_LATER : asked;
}

void serve_wait(struct slu_engine *engine)
{
	const struct transport *transport;
	void *server;

	FOR_EACH_SERVED (engine, transport, server)
		if (transport->target->settle)
			transport->target->settle(server);
}

/* Without its connection the server itself may have gone when a fence would be answered. */
static void forget_fences(struct slu_engine *engine, uint64_t connection)
{
	struct late_fence *fence;

	LIST_FOREACH (fence, &engine->late_fences, link)
		if (fence->ask.connection == connection)
			fence->ask.connection = 0;
}

void serve_gone(void *arg, uint64_t connection)
{
	struct slu_engine *engine = arg;
	const struct transport *transport;
	void *server;

	forget_fences(engine, connection);
	FOR_EACH_SERVED (engine, transport, server)
		transport->target->gone(server, connection);
}
