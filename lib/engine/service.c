/* SPDX-License-Identifier: Apache-2.0 */
/* What an application has a poller thread do for a segment: a service like those of transports. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/sized.h"
#include "engine/engine_internal.h"

struct segment_service {
	struct transport_service base; /* first */
	struct slu_segment *segment;
	struct poller *poller;
	struct slu_service does;
	int result; /* of beginning */
};

static uint32_t take_requests(const struct segment_service *service)
{
	struct slu_message messages[SLU_SERVICE_BURST];
	int n = slu_segment_receive(service->segment, messages, SLU_SERVICE_BURST);

	if (n > 0)
		service->does.requests(service->does.arg, service->segment, messages, (uint32_t)n);
	return (uint32_t)n;
}

static uint32_t take_notifications(const struct segment_service *service)
{
	struct slu_notification notes[SLU_SERVICE_BURST];
	int n = slu_segment_poll(service->segment, notes, SLU_SERVICE_BURST);

	if (n > 0)
		service->does.notifications(service->does.arg, service->segment, notes,
					    (uint32_t)n);
	return (uint32_t)n;
}

static uint32_t take_departures(const struct segment_service *service)
{
	struct slu_departure gone[SLU_SERVICE_BURST];
	int n = slu_segment_departures(service->segment, gone, SLU_SERVICE_BURST);

	if (n > 0)
		service->does.departures(service->does.arg, service->segment, gone, (uint32_t)n);
	return (uint32_t)n;
}

static uint32_t run(struct transport_service *base)
{
	const struct segment_service *service = (const struct segment_service *)base;
	const struct slu_service *does = &service->does;

	return (does->requests ? take_requests(service) : 0) +
	       (does->notifications ? take_notifications(service) : 0) +
	       (does->departures ? take_departures(service) : 0);
}

/* Where a wake-up is not to be had it is polled. */
static bool pending(struct transport_service *base)
{
	return slu_segment_arm(((struct segment_service *)base)->segment) != 0;
}

/* ---- beginning and ending ---- */

static void begin(struct poller *poller, void *arg)
{
	struct segment_service *service = arg;
	struct epoll_event event = {.events = EPOLLIN};

	if (epoll_ctl(poller->env.epoll_fd, EPOLL_CTL_ADD, service->base.fd, &event) < 0)
		service->result = -errno;
	else
		poller_serve(poller, &service->base);
}

static void end(struct poller *poller, void *arg)
{
	struct segment_service *service = arg;

	epoll_ctl(poller->env.epoll_fd, EPOLL_CTL_DEL, service->base.fd, NULL);
	poller_unserve(&service->base);
}

static const struct slu_service no_service = {0};
static const struct sized sized_service = {SIZED(slu_service, departures), .defaults = &no_service};

static int check(const struct slu_segment *segment, uint32_t poller,
		 const struct slu_service *service)
{
	if (poller >= segment->engine->poller_threads)
		return fail(-EINVAL, "poller %u of %u: open the engine with more", poller,
			    segment->engine->poller_threads);
	if (!service->requests && !service->notifications && !service->departures)
		return fail(-EINVAL, "a service that nothing is given to");
	return 0;
}

/* Under opening. */
static int start(struct slu_segment *segment, struct poller *poller, const struct slu_service *does)
{
	struct segment_service *service;
	int rc;

	if (segment->service)
		return fail(-EBUSY, "segment %s has a service already", segment->name);
	service = malloc(sizeof(*service));
	if (!service)
		return fail(-ENOMEM, "out of memory");
	*service = (struct segment_service){
		.base = {.run = run, .pending = pending, .fd = slu_segment_fd(segment)},
		.segment = segment,
		.poller = poller,
		.does = *does};
	poller_call(poller, begin, service);
	rc = service->result;
	if (rc < 0) {
		free(service);
		return fail(rc, "epoll_ctl: %s", strerror(-rc));
	}
	segment->service = service;
	return 0;
}

int slu_segment_serve(struct slu_segment *segment, uint32_t poller, const struct slu_service *given)
{
	struct slu_engine *engine = segment->engine;
	struct slu_service service;
	int rc = fork_check();

	if (rc == 0)
		rc = sized_take(&sized_service, given, &service);
	if (rc == 0)
		rc = check(segment, poller, &service);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&engine->opening);
	rc = start(segment, engine->pollers[poller], &service);
	pthread_mutex_unlock(&engine->opening);
	return rc;
}

/* It would wait for itself, or for one that waits for it. */
static bool is_on_poller(const struct slu_engine *engine)
{
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		if (engine->pollers[i]->is_thread &&
		    pthread_equal(pthread_self(), engine->pollers[i]->thread))
			return true;
	return false;
}

int slu_segment_unserve(struct slu_segment *segment)
{
	struct slu_engine *engine = segment->engine;
	struct segment_service *service;

	if (fork_is_child())
		return fork_refuse();
	if (is_on_poller(engine))
		return fail(-EDEADLK, "a service cannot end one: let another thread do it");
	pthread_mutex_lock(&engine->opening);
	service = segment->service;
	if (service)
		poller_call(service->poller, end, service);
	segment->service = NULL;
	pthread_mutex_unlock(&engine->opening);
	free(service);
	return 0;
}
