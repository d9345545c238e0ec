/* SPDX-License-Identifier: Apache-2.0 */
/* The poller's part of the target's side: its links, and the turns in which it looks at them. */
#include "transport/verbs/verbs_served.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_queue.h"

/* ---- a link ---- */

static int make_queue(struct verbs_device *device, struct served_link *link, uint32_t index)
{
	struct verbs_queue_options options = {.depth = SERVED_SENDS + SERVED_BINDS,
					      .inline_bytes = SERVED_INLINE,
					      .binds = device->windows};
	int rc;

	receives_choose(link, index, &options);
	rc = verbs_queue_create(device, &options, &link->queues[index]);
	if (rc < 0)
		return rc;
	link->count++;
	if (link->queues[index]->inline_bytes < sizeof(struct verbs_message))
		return fail(-EOPNOTSUPP, "%s takes only %u bytes inline", device->name,
			    link->queues[index]->inline_bytes);
	return verbs_queue_initialise(link->queues[index], device,
				      IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
}

int served_link_make(struct served_link *link, uint32_t queues)
{
	int rc = receives_join(link);

	if (rc == 0)
		rc = buffers_lend(link->service->serving.buffers, 1, VERBS_CALLS - 1,
				  &link->sending.own);
	for (uint32_t i = 0; rc == 0 && i < queues; i++)
		rc = make_queue(link->device, link, i);
	return rc;
}

/* Those that it has still in its hands, one of which, at most, was lent. */
static void return_sending(struct served_link *link)
{
	uint32_t shared = link->sending.out > 0 ? link->sending.out - 1 : 0;
	struct buffer *first = link->sending.own;

	if (first)
		first->next = NULL;
	for (uint32_t i = 0; i < SERVED_SENDS; i++)
		if (link->out[i]) {
			link->out[i]->next = first;
			first = link->out[i];
		}
	if (first)
		buffers_return(link->service->serving.buffers, first, 1, shared);
}

void served_link_close(struct served_link *link)
{
	verbs_cm_destroy(link->cm);
	for (uint32_t i = 0; i < link->count; i++) {
		verbs_queue_fail(link->queues[i]);
		verbs_queue_destroy(link->queues[i]);
	}
	receives_leave(link);
	return_sending(link);
	budget_give(link->budget, SLU_LIMIT_LINKS, 1);
	budget_put(link->budget);
}

void served_link_fail(struct served_link *link)
{
	if (served_link_has_failed(link))
		return;
	atomic_store(&link->failed, true);
	served_link_owe_none(link);
	for (uint32_t i = 0; i < link->count; i++)
		verbs_queue_fail(link->queues[i]);
}

int verbs_service_adopt(struct verbs_service *service, struct served_link *link)
{
	int rc = serving_add(&service->serving, &link->served);

	if (rc == 0 && receives_begin(link)) {
		receives_end(link);
		serving_remove(&service->serving, &link->served, 0);
		rc = -ENOMEM;
	}
	return rc;
}

void verbs_service_drop(struct verbs_service *service, struct served_link *link)
{
	if (serving_find(&service->serving, link->served.cookie) != &link->served)
		return;
	served_link_fail(link); /* nothing more is acknowledged of which nobody would know */
	receives_empty(link);
	receives_end(link);
	served_link_owe_none(link);
	serving_remove(&service->serving, &link->served, served_link_answer_none(link));
	verbs_drop_held(service, link);
}

void verbs_service_forget(struct verbs_service *service, const struct export *export)
{
	const struct inbox_lane *lane = inbox_lane(export->inbox, service->serving.lane);

	serving_forget(&service->serving, lane);
	verbs_forget_held(service, lane);
}

/* ---- the service ---- */

static bool send_answer(struct served *served, uint32_t slot, const struct inbox_answer *answer)
{
	return served_link_answer((struct served_link *)served, slot, answer);
}

static uint32_t run(struct transport_service *base)
{
	struct verbs_service *service = (struct verbs_service *)base;
	uint32_t work = 0;

	work_begin(WORK_TURN);
	if (verbs_tasks_pending(&service->tasks))
		work += verbs_tasks_run(&service->tasks);
	if (!LIST_EMPTY(&service->held))
		work += verbs_retry_held(service);
	if (service->serving.lanes_count > 0)
		work += serving_answer(&service->serving, send_answer);
	if (service->serving.count == 0)
		return work;
	work += receives_take(service);
	work += verbs_bind_some(service);
	if (work > 0)
		return work;
	work = verbs_tell_rest(service);
	verbs_take_back_some(service);
	return work;
}

/* Messages need no looking after: a client that does not take them in keeps nobody awake. */
static bool pending(struct transport_service *base)
{
	struct verbs_service *service = (struct verbs_service *)base;

	work_begin(WORK_TURN);
	return !verbs_tasks_rest(&service->tasks) || !TAILQ_EMPTY(&service->binding) ||
	       serving_has_answers(&service->serving) || !receives_arm(service);
}

/* By owners that do not poll, and by clients to whom nothing more can be said. */
static bool held_up(struct transport_service *base)
{
	struct verbs_service *service = (struct verbs_service *)base;

	return !LIST_EMPTY(&service->held) || !TAILQ_EMPTY(&service->owing) ||
	       !TAILQ_EMPTY(&service->answering);
}

int verbs_service_create(const struct grants *grants, uint32_t poller, uint32_t lane,
			 struct buffers *buffers, struct verbs_service **out)
{
	struct verbs_service *service = calloc(1, sizeof(*service));
	struct epoll_event event = {.events = EPOLLIN};
	int rc;

	if (!service)
		return fail(-ENOMEM, "out of memory");
	service->base.run = run;
	service->base.pending = pending;
	service->base.held_up = held_up;
	service->grants = grants;
	service->index = poller;
	pthread_mutex_init(&service->lock, NULL);
	TAILQ_INIT(&service->binding);
	TAILQ_INIT(&service->owing);
	TAILQ_INIT(&service->answering);
	service->by_number = calloc(SERVED_NUMBERS, sizeof(service->by_number[0]));
	service->base.fd = service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	rc = verbs_tasks_init(&service->tasks);
	if (rc == 0)
		rc = serving_init(&service->serving, lane, buffers);
	if (rc < 0 || !service->by_number || service->epoll_fd < 0 ||
	    epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, service->tasks.eventfd, &event) < 0) {
		verbs_service_destroy(service);
		return fail(-ENOMEM, "cannot make a service: %s", strerror(errno));
	}
	*out = service;
	return 0;
}

void verbs_service_destroy(struct verbs_service *service)
{
	if (!service)
		return;
	receives_destroy(service);
	if (service->epoll_fd >= 0)
		close(service->epoll_fd);
	verbs_tasks_fini(&service->tasks);
	pthread_mutex_destroy(&service->lock);
	free(service->by_number);
	serving_fini(&service->serving);
	free(service);
}
