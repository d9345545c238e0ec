/* SPDX-License-Identifier: Apache-2.0 */
/* Where receives come in: by one completion queue for some links of one device. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "base/work.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_served.h"

#define LINKS_PER_CQ 32u
#define CQ_ENTRIES   (2 * LINKS_PER_CQ * VERBS_RECEIVES) /* and what dead ones left */
#define TAKE         16

struct receive_queue {
	struct verbs_device *device;
	struct ibv_cq *cq;
	struct ibv_comp_channel *channel;
	_Atomic uint32_t links; /* that count on it */
	struct receive_queue *older;
};

static struct receive_queue *first_queue(const struct verbs_service *service)
{
	/* Pairs with the release in find_queue(). */
	return atomic_load_explicit(&service->queues, memory_order_acquire);
}

/* ---- life ---- */

static void queue_destroy(struct receive_queue *queue)
{
	if (queue->cq)
		ibv_destroy_cq(queue->cq);
	if (queue->channel)
		ibv_destroy_comp_channel(queue->channel);
	free(queue);
}

void receives_destroy(struct verbs_service *service)
{
	struct receive_queue *queue, *older;

	for (queue = first_queue(service); queue; queue = older) {
		older = queue->older;
		queue_destroy(queue);
	}
}

static int queue_create(struct verbs_service *service, struct verbs_device *device,
			struct receive_queue **out)
{
	struct receive_queue *queue = calloc(1, sizeof(*queue));
	struct epoll_event event = {.events = EPOLLIN};
	int entries = (int)CQ_ENTRIES;

	if (!queue)
		return fail(-ENOMEM, "target is out of memory");
	queue->device = device;
	if (entries > device->attr.max_cqe)
		entries = device->attr.max_cqe;
	queue->channel = ibv_create_comp_channel(device->context);
	if (queue->channel)
		queue->cq = ibv_create_cq(device->context, entries, NULL, queue->channel, 0);
	if (!queue->cq || fcntl(queue->channel->fd, F_SETFL, O_NONBLOCK) < 0 ||
	    epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, queue->channel->fd, &event) < 0) {
		int error = errno;

		queue_destroy(queue);
		return fail(-error, "%s has no completion queue for us: %s", device->name,
			    strerror(error));
	}
	*out = queue;
	return 0;
}

/* Under the lock. The poller goes through the list meanwhile, and finds all but the newest there.
 */
static int find_queue(struct verbs_service *service, struct verbs_device *device,
		      struct receive_queue **out)
{
	struct receive_queue *queue;
	int rc;

	for (queue = first_queue(service); queue; queue = queue->older)
		if (queue->device == device && atomic_load(&queue->links) < LINKS_PER_CQ) {
			*out = queue;
			return 0;
		}
	rc = queue_create(service, device, &queue);
	if (rc < 0)
		return rc;
	queue->older = first_queue(service);
	/* Pairs with the acquire in first_queue(). */
	atomic_store_explicit(&service->queues, queue, memory_order_release);
	*out = queue;
	return 0;
}

int receives_join(struct served_link *link)
{
	struct verbs_service *service = link->service;
	int rc;

	pthread_mutex_lock(&service->lock);
	rc = find_queue(service, link->device, &link->receives);
	if (rc == 0)
		atomic_fetch_add(&link->receives->links, 1);
	pthread_mutex_unlock(&service->lock);
	return rc;
}

void receives_leave(struct served_link *link)
{
	if (link->receives)
		atomic_fetch_sub(&link->receives->links, 1);
}

void receives_choose(const struct served_link *link, uint32_t index,
		     struct verbs_queue_options *options)
{
	options->receive_cq = link->receives->cq;
	options->receives = index == 0 ? VERBS_RECEIVES : 0;
}

/* ---- the poller's ---- */

char *receives_message(const struct served_link *link, uint32_t index)
{
	return link->messages + (size_t)(SERVED_SENDS + index) * VERBS_MESSAGE_BYTES;
}

int receives_post(struct served_link *link, uint32_t index)
{
	struct ibv_sge piece = {.addr = (uintptr_t)receives_message(link, index),
				.length = VERBS_MESSAGE_BYTES,
				.lkey = link->registration->slices[0].lkey};
	struct ibv_recv_wr request = {.wr_id = (uint64_t)link->served.cookie << 32 | index,
				      .sg_list = &piece,
				      .num_sge = 1},
			   *bad;

	return ibv_post_recv(link->queues[0]->qp, &request, &bad);
}

static uint32_t take_from(struct verbs_service *service, struct receive_queue *queue)
{
	struct ibv_wc completions[TAKE];
	int n = ibv_poll_cq(queue->cq, TAKE, completions);

	work_count(WORK_ITEMS, 1);
	for (int i = 0; i < n; i++)
		verbs_hear(service, &completions[i]);
	return n > 0 ? (uint32_t)n : 0;
}

uint32_t receives_take(struct verbs_service *service)
{
	struct receive_queue *queue;
	uint32_t work = 0;

	for (queue = first_queue(service); queue; queue = queue->older)
		if (atomic_load_explicit(&queue->links, memory_order_relaxed))
			work += take_from(service, queue);
	return work;
}

/* Neighbours may go on sending. */
static void empty(struct verbs_service *service, struct receive_queue *queue)
{
	uint32_t left = CQ_ENTRIES / TAKE;

	while (left-- > 0 && take_from(service, queue) > 0)
		;
}

void receives_empty(struct served_link *link)
{
	empty(link->service, link->receives);
}

void receives_catch_up(struct verbs_service *service)
{
	struct receive_queue *queue;

	for (queue = first_queue(service); queue; queue = queue->older)
		empty(service, queue);
}

static void take_events(struct receive_queue *queue)
{
	struct ibv_cq *cq;
	void *context;

	while (ibv_get_cq_event(queue->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

/* What came before the queues were armed tells nobody: look once more. */
bool receives_arm(struct verbs_service *service)
{
	struct receive_queue *queue;
	uint32_t work = 0;

	for (queue = first_queue(service); queue; queue = queue->older) {
		take_events(queue);
		ibv_req_notify_cq(queue->cq, 0);
		work += take_from(service, queue); /* what a dead link has left would wake us too */
	}
	return work == 0;
}
