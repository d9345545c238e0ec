/* SPDX-License-Identifier: Apache-2.0 */
/* Serving over TCP: the data connections of our clients, on our poller threads. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "engine/engine_internal.h"
#include "net/stream.h"
#include "transport/tcp/tcp_serve.h"

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

static int watch_service(struct poller *poller, struct transport_service *service)
{
	struct epoll_event event = {.events = EPOLLIN};

	if (epoll_ctl(poller->env.epoll_fd, EPOLL_CTL_ADD, tcp_service_fd(service), &event) < 0)
		return fail(-errno, "epoll_ctl: %s", strerror(errno));
	return 0;
}

int serve_start(struct slu_engine *engine)
{
	int rc = tcp_server_create(engine->poller_threads, on_poller, engine,
				   &engine->env.tcp_server);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < engine->poller_threads; i++) {
		struct transport_service *service = tcp_server_service(engine->env.tcp_server, i);

		poller_call(engine->pollers[i], begin_service, service);
		if (rc == 0)
			rc = watch_service(engine->pollers[i], service);
	}
	return rc;
}

void serve_stop(struct slu_engine *engine)
{
	struct tcp_server *server = engine->env.tcp_server;

	if (!server)
		return;
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		poller_call(engine->pollers[i], end_service, tcp_server_service(server, i));
	engine->env.tcp_server = NULL;
	tcp_server_destroy(server);
}

void serve_attach(void *arg, struct stream *stream, uint64_t connection)
{
	struct slu_engine *engine = arg;

	tcp_server_attach(engine->env.tcp_server, stream, connection);
}

void serve_gone(void *arg, uint64_t connection)
{
	struct slu_engine *engine = arg;

	if (engine->env.tcp_server)
		tcp_server_gone(engine->env.tcp_server, connection);
}
