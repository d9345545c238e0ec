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
#include "transport/tcp/tcp_serve.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_serve.h"

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

static int start_tcp(struct slu_engine *engine)
{
	int rc = tcp_server_create(engine->poller_threads, on_poller, engine,
				   &engine->env.tcp_server);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < engine->poller_threads; i++) {
		struct transport_service *service = tcp_server_service(engine->env.tcp_server, i);

		poller_call(engine->pollers[i], begin_service, service);
		if (rc == 0)
			rc = watch(engine->pollers[i], tcp_service_fd(service));
	}
	return rc;
}

static int start_verbs(struct slu_engine *engine)
{
	struct verbs_host *host = engine->env.verbs;
	int rc;

	if (host->devices->count == 0)
		return 0;
	rc = verbs_server_create(host, engine->incarnation, engine->poller_threads, &host->server);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < engine->poller_threads; i++) {
		struct transport_service *service = verbs_server_service(host->server, i);

		poller_call(engine->pollers[i], begin_service, service);
		if (rc == 0)
			rc = watch(engine->pollers[i], verbs_service_fd(service));
	}
	return rc;
}

int serve_start(struct slu_engine *engine)
{
	int rc = start_tcp(engine);

	return rc < 0 ? rc : start_verbs(engine);
}

static void stop_tcp(struct slu_engine *engine)
{
	struct tcp_server *server = engine->env.tcp_server;

	if (!server)
		return;
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		poller_call(engine->pollers[i], end_service, tcp_server_service(server, i));
	engine->env.tcp_server = NULL;
	tcp_server_destroy(server);
}

static void stop_verbs(struct slu_engine *engine)
{
	struct verbs_server *server = engine->env.verbs ? engine->env.verbs->server : NULL;

	if (!server)
		return;
	verbs_server_stop(server);
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		poller_call(engine->pollers[i], end_service, verbs_server_service(server, i));
	engine->env.verbs->server = NULL;
	verbs_server_destroy(server);
}

void serve_stop(struct slu_engine *engine)
{
	stop_verbs(engine);
	stop_tcp(engine);
}

/* RDMA does not encrypt: where the session does, both ends have to say that it need not. */
bool serve_has_verbs(const struct slu_engine *engine, const struct peer_info *peer)
{
	return engine->env.verbs->server && (!peer->tls || engine->rdma_plain || engine->tcp_plain);
}

/* What a client is told with its welcome. */
json_t *serve_describe(void *arg, const struct peer_info *peer)
{
	struct slu_engine *engine = arg;

	if (!serve_has_verbs(engine, peer))
		return NULL;
	return json_pack("{s:o}", "verbs", verbs_describe_devices(engine->env.verbs->devices));
}

void serve_attach(void *arg, struct stream *stream, const struct peer_info *peer, uint64_t link)
{
	struct slu_engine *engine = arg;

	tcp_server_attach(engine->env.tcp_server, stream, peer->connection, link, peer->budget);
}

void serve_fence(void *arg, uint64_t connection, uint64_t link)
{
	struct slu_engine *engine = arg;

	if (engine->env.verbs->server)
		verbs_server_fence(engine->env.verbs->server, connection, link);
	if (engine->env.tcp_server)
		tcp_server_fence(engine->env.tcp_server, connection, link);
}

/* A client's fence that is answered when what it ended is over. */
struct late_fence {
	struct verbs_ending marker; /* first */
	struct control_task task;
	struct slu_engine *engine;
	uint64_t connection; /* 0: it has gone */
	uint64_t request, over;
	LIST_ENTRY(late_fence) link;
};

static void answer_fence(struct control_task *task)
{
	struct late_fence *fence =
		(struct late_fence *)((char *)task - offsetof(struct late_fence, task));

	LIST_REMOVE(fence, link);
	if (fence->connection)
		server_answer_fence(fence->engine->server, fence->connection, fence->request,
				    fence->over);
	free(fence);
}

static void on_settled(struct verbs_task *task)
{
	struct late_fence *fence =
		(struct late_fence *)((char *)task - offsetof(struct late_fence, marker.task));

	control_post(fence->engine->control, &fence->task);
}

int serve_settle(void *arg, uint64_t connection, uint64_t request, uint64_t over)
{
	struct slu_engine *engine = arg;
	struct late_fence *fence;

	if (!engine->env.verbs->server)
		return 0;
	fence = calloc(1, sizeof(*fence));
	if (!fence)
		return fail(-ENOMEM, "target is out of memory");
	fence->engine = engine;
	fence->connection = connection;
	fence->request = request;
	fence->over = over;
	fence->task.run = answer_fence;
	fence->marker.task.run = on_settled;
	LIST_INSERT_HEAD(&engine->late_fences, fence, link);
	verbs_server_after(engine->env.verbs->server, &fence->marker);
	return SERVER_LATER;
}

void serve_wait(struct slu_engine *engine)
{
	if (engine->env.verbs->server)
		verbs_server_settle(engine->env.verbs->server);
}

/* Without its connection the server itself may have gone when a fence would be answered. */
static void forget_fences(struct slu_engine *engine, uint64_t connection)
{
	struct late_fence *fence;

	LIST_FOREACH (fence, &engine->late_fences, link)
		if (fence->connection == connection)
			fence->connection = 0;
}

void serve_gone(void *arg, uint64_t connection)
{
	struct slu_engine *engine = arg;

	forget_fences(engine, connection);
	if (engine->env.verbs->server)
		verbs_server_gone(engine->env.verbs->server, connection);
	if (engine->env.tcp_server)
		tcp_server_gone(engine->env.tcp_server, connection);
}
