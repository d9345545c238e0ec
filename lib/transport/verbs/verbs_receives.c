/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where receives come in. Where a device can share them a poller has one queue of receives, with
 * one completion queue, for all its links over that device: each link has a share, of which its
 * client is told, and there are as many receives as the shares add up to. Where it can't, or there
 * are very many links, a link has receives of its own, and a completion queue with 31 others.
 */
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

#define SHARED_MAX 16384u
#define SHARE_MIN  4u

struct receive_queue {
	struct verbs_device *device;
	struct ibv_cq *cq;
	struct ibv_comp_channel *channel;
	_Atomic uint32_t links; /* that count on it */
	struct receive_queue *older;

	struct ibv_srq *srq;   /* NULL: each link has its own */
	uint32_t depth;        /* how many may be posted there */
	uint32_t promised;     /* to links; under the service's lock */
	_Atomic uint32_t lent; /* likewise; there until the poller's buffers go */
};

static struct receive_queue *first_queue(const struct verbs_service *service)
{
	/* Pairs with the release in find_queue(). */
	return atomic_load_explicit(&service->queues, memory_order_acquire);
}

/* ---- life ---- */

static void queue_destroy(struct receive_queue *queue)
{
	if (queue->srq)
		ibv_destroy_srq(queue->srq);
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

static uint32_t least(uint32_t a, int b)
{
	return b < 0 || a < (uint32_t)b ? a : (uint32_t)b;
}

/* @param entries  of its completion queue */
static int queue_create(struct verbs_service *service, struct verbs_device *device,
			uint32_t entries, struct receive_queue **out)
{
	struct receive_queue *queue = calloc(1, sizeof(*queue));
	struct epoll_event event = {.events = EPOLLIN};

	if (!queue)
		return fail(-ENOMEM, "target is out of memory");
	queue->device = device;
	queue->depth = least(entries, device->attr.max_cqe);
	queue->channel = ibv_create_comp_channel(device->context);
	if (queue->channel)
		queue->cq =
			ibv_create_cq(device->context, (int)queue->depth, NULL, queue->channel, 0);
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

/* The poller goes through the list meanwhile, and finds all but the newest there. */
static void enter(struct verbs_service *service, struct receive_queue *queue)
{
	queue->older = first_queue(service);
	/* Pairs with the acquire in first_queue(). */
	atomic_store_explicit(&service->queues, queue, memory_order_release);
}

/* ---- shared ones; under the lock ---- */

static struct receive_queue *create_shared(struct verbs_service *service,
					   struct verbs_device *device)
{
	uint32_t depth = least(SHARED_MAX, device->attr.max_srq_wr);
	struct ibv_srq_init_attr attr = {.attr = {.max_sge = 1}};
	struct receive_queue *queue;

	if (device->attr.max_srq <= 0 || queue_create(service, device, depth, &queue) < 0)
		return NULL;
	attr.attr.max_wr = queue->depth;
	queue->srq = ibv_create_srq(device->pd, &attr);
	if (!queue->srq) {
		queue_destroy(queue);
		return NULL;
	}
	enter(service, queue);
	return queue;
}

static struct receive_queue *find_shared(struct verbs_service *service, struct verbs_device *device)
{
	struct receive_queue *queue = first_queue(service);

	while (queue && (queue->device != device || !queue->srq))
		queue = queue->older;
	return queue ? queue : create_shared(service, device);
}

/* @param to  whose own it is; NULL: they are shared */
static int post(const struct receive_queue *queue, const struct served_link *to,
		struct buffer *buffer)
{
	return verbs_receive(to ? to->queues[0]->qp : NULL, queue->srq, buffer,
			     queue->device->index);
}

/* @param posted  out: how many were. What is posted is not looked at any more. */
static int post_chain(const struct receive_queue *queue, const struct served_link *to,
		      struct buffer **buffer, uint32_t *posted)
{
	for (*posted = 0; *buffer; ++*posted) {
		struct buffer *next = (*buffer)->next;
		int error = post(queue, to, *buffer);

		if (error)
			return error;
		*buffer = next;
	}
	return 0;
}

static int post_more(struct receive_queue *queue, struct buffers *buffers, uint32_t n)
{
	struct buffer *left;
	uint32_t posted;
	int error, rc = buffers_lend(buffers, n, 0, &left);

	if (rc < 0)
		return rc;
	error = post_chain(queue, NULL, &left, &posted);
	queue->lent += posted;
	if (!error)
		return 0;
	buffers_return(buffers, left, n - posted, 0);
	return fail(-error, "cannot post a receive: %s", strerror(error));
}

/* The more links there are the smaller, so that very many find some. */
static uint32_t share_of(const struct receive_queue *queue)
{
	uint32_t share = queue->depth / 8 / (atomic_load(&queue->links) + 1);

	return share > VERBS_RECEIVES ? VERBS_RECEIVES : share < SHARE_MIN ? SHARE_MIN : share;
}

/* @return 1 it has a share; 0 there is none left, or it can't be; -ENOMEM, -errno */
static int join_shared(struct served_link *link)
{
	struct receive_queue *queue = find_shared(link->service, link->device);
	uint32_t share = queue ? share_of(queue) : 0;
	int rc = 0;

	if (!queue || queue->promised + share > queue->depth)
		return 0;
	if (queue->lent < queue->promised + share)
		rc = post_more(queue, link->service->serving.buffers,
			       queue->promised + share - queue->lent);
	if (rc < 0)
		return rc;
	queue->promised += share;
	link->receives = queue;
	link->share = share;
	return 1;
}

/* ---- own ones; likewise ---- */

static int join_own(struct served_link *link)
{
	struct verbs_service *service = link->service;
	struct receive_queue *queue = first_queue(service);
	int rc = buffers_lend(service->serving.buffers, VERBS_RECEIVES, 0, &link->receiving);

	while (queue && (queue->device != link->device || queue->srq ||
			 atomic_load(&queue->links) >= LINKS_PER_CQ))
		queue = queue->older;
	if (rc == 0 && !queue) {
		rc = queue_create(service, link->device, CQ_ENTRIES, &queue);
		if (rc == 0)
			enter(service, queue);
	}
	if (rc < 0)
		return rc;
	link->receives = queue;
	link->share = VERBS_RECEIVES;
	return 0;
}

int receives_join(struct served_link *link)
{
	struct verbs_service *service = link->service;
	int rc;

	pthread_mutex_lock(&service->lock);
	rc = join_shared(link);
	if (rc == 0)
		rc = join_own(link);
	if (rc >= 0)
		atomic_fetch_add(&link->receives->links, 1);
	pthread_mutex_unlock(&service->lock);
	return rc < 0 ? rc : 0;
}

void receives_leave(struct served_link *link)
{
	if (link->receiving)
		buffers_return(link->service->serving.buffers, link->receiving, VERBS_RECEIVES, 0);
	if (!link->receives)
		return;
	pthread_mutex_lock(&link->service->lock);
	if (link->receives->srq)
		link->receives->promised -= link->share;
	atomic_fetch_sub(&link->receives->links, 1);
	pthread_mutex_unlock(&link->service->lock);
}

void receives_choose(const struct served_link *link, uint32_t index,
		     struct verbs_queue_options *options)
{
	options->receive_cq = link->receives->cq;
	if (index > 0)
		return;
	options->srq = link->receives->srq;
	options->receives = link->receiving ? link->share : 0;
}

/* ---- the poller's ---- */

int receives_begin(struct served_link *link)
{
	uint32_t number = link->queues[0]->qp->qp_num, posted;
	struct buffer *left = link->receiving;

	LIST_INSERT_HEAD(&link->service->by_number[number % SERVED_NUMBERS], link, by_number);
	return post_chain(link->receives, link, &left, &posted);
}

void receives_end(struct served_link *link)
{
	LIST_REMOVE(link, by_number);
}

int receives_post(struct served_link *link, struct buffer *buffer)
{
	return post(link->receives, link->receiving ? link : NULL, buffer);
}

void receives_give_up(struct served_link *link, struct buffer *buffer)
{
	if (!link->receiving)
		post(link->receives, NULL, buffer);
}

/* @return NULL: it has been dropped */
static struct served_link *link_of(const struct verbs_service *service,
				   const struct receive_queue *queue, const struct ibv_wc *of)
{
	struct served_link *link;

	LIST_FOREACH (link, &service->by_number[of->qp_num % SERVED_NUMBERS], by_number)
		if (link->receives == queue && link->queues[0]->qp->qp_num == of->qp_num)
			break;
	return link;
}

static uint32_t take_from(struct verbs_service *service, struct receive_queue *queue)
{
	struct ibv_wc completions[TAKE];
	int n = ibv_poll_cq(queue->cq, TAKE, completions);

	work_count(WORK_ITEMS, 1);
	for (int i = 0; i < n; i++) {
		struct served_link *link = link_of(service, queue, &completions[i]);
		struct buffer *buffer = (void *)(uintptr_t)completions[i].wr_id;

		if (link)
			verbs_hear(link, &completions[i], buffer);
		else if (queue->srq)
			post(queue, NULL, buffer);
	}
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
	uint32_t left = (queue->srq ? queue->lent : queue->depth) / TAKE + 1;

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
