/* SPDX-License-Identifier: Apache-2.0 */
/* The poller's part of the target's side: notifications and calls that come in, answers that go. */
#include "transport/verbs/verbs_served.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/work.h"
#include "transport/inbox.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_serve.h"

#define LINKS_MAX     65536u /* of one poller */
#define LINKS_PER_CQ  32u
#define CQ_ENTRIES    (2 * LINKS_PER_CQ * VERBS_RECEIVES) /* and what dead ones left */
#define TAKE          16
#define DEPTH         (SERVED_SENDS + SERVED_BINDS) /* of a queue pair's sends */
#define INLINE_WANT   128u
#define HELD_DEAD_MAX 4096u /* notifications of links that have gone */
#define LINKS_A_TURN  16u   /* that owe or bind */

/*
 * A window is bound by the device, in the order of its queue pair: behind messages that a client
 * does not take in it would never be.
 */
#define BIND_NS (NS_PER_SECOND / 4)

static_assert(DEPTH == 64, "served_link.says has a bit for each");

/** Receives of some links of one device come in by one completion queue. */
struct receive_queue {
	struct verbs_device *device;
	struct ibv_cq *cq;
	struct ibv_comp_channel *channel;
	_Atomic uint32_t links; /* that count on it */
	struct receive_queue *older;
};

/** A message that its inbox had no room for. */
struct held {
	struct inbox_lane *lane;
	uint32_t cookie; /* of its link */
	uint32_t client;
	uint32_t tag;    /* notification */
	uint32_t buffer; /* of the link: a call, or the receive that it took */
	bool is_call;
};

/** A lane with calls that were not answered. */
struct open_lane {
	struct inbox_lane *lane;
	uint32_t calls;
};

/* ---- sending ---- */

static char *receive_buffer(const struct served_link *link, uint32_t index)
{
	return link->messages + (size_t)index * VERBS_MESSAGE_BYTES;
}

static char *send_buffer(const struct served_link *link)
{
	return receive_buffer(link, VERBS_RECEIVES + link->messages_sent % SERVED_SENDS);
}

static void pay(struct served_link *link)
{
	link->taken = 0;
	if (link->owes)
		TAILQ_REMOVE(&link->service->owing, link, owing);
	link->owes = false;
}

void served_link_fail(struct served_link *link)
{
	if (atomic_load_explicit(&link->failed, memory_order_relaxed))
		return;
	atomic_store(&link->failed, true);
	pay(link);
	for (uint32_t i = 0; i < link->count; i++)
		verbs_queue_fail(link->queues[i]);
}

/* A completion also stands for those before it. */
static void take_back(struct served_link *link, uint32_t queue)
{
	struct verbs_done done[TAKE];
	uint32_t n;

	if (link->sent[queue] == link->back[queue])
		return;
	n = link->queues[queue]->ops->poll(link->queues[queue], done, TAKE);
	for (uint32_t i = 0; i < n; i++) {
		for (; queue == 0 && link->back[0] != done[i].id + 1; link->back[0]++)
			link->messages_back += link->says >> link->back[0] % DEPTH & 1;
		link->back[queue] = done[i].id + 1;
		if (done[i].status != IBV_WC_SUCCESS)
			served_link_fail(link);
	}
}

/* The last is signalled. */
static bool post(struct served_link *link, uint32_t queue, struct verbs_work *works, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		works[i].id = link->sent[queue] + i;
	works[n - 1].flags |= VERBS_SIGNALLED;
	if (atomic_load_explicit(&link->failed, memory_order_relaxed) ||
	    verbs_queue_post(link->queues[queue], works, n) != n)
		return false;
	for (uint32_t i = 0; queue == 0 && i < n; i++) {
		uint64_t bit = UINT64_C(1) << works[i].id % DEPTH;

		link->says = works[i].opcode == VERBS_SEND ? link->says | bit : link->says & ~bit;
		link->messages_sent += works[i].opcode == VERBS_SEND;
	}
	link->sent[queue] += n;
	return true;
}

/* Nobody looks after them before there are many: what is idle costs nothing. */
static uint32_t messages_out(struct served_link *link)
{
	if (link->messages_sent - link->messages_back >= SERVED_SENDS - VERBS_CALLS)
		take_back(link, 0);
	return link->messages_sent - link->messages_back;
}

/* A client that takes answers in at the rate of its calls always leaves room for them. */
static void send_message(struct served_link *link, struct verbs_message *message, const void *data)
{
	struct verbs_work work = {.opcode = VERBS_SEND, .pieces = 1};
	char *at = send_buffer(link);

	if (messages_out(link) >= SERVED_SENDS) {
		served_link_fail(link);
		return;
	}
	message->taken = link->taken;
	memcpy(at, message, sizeof(*message));
	if (message->length > 0)
		memcpy(at + sizeof(*message), data, message->length);
	work.piece[0] = (struct verbs_piece){.addr = (uintptr_t)at,
					     .length = (uint32_t)sizeof(*message) + message->length,
					     .lkey = link->registration->slices[0].lkey};
	if (work.piece[0].length <= link->queues[0]->inline_bytes)
		work.flags = VERBS_INLINE;
	if (post(link, 0, &work, 1))
		pay(link);
	else
		served_link_fail(link);
}

/* They can wait, and add up: the rest of the buffers is for answers. */
static void send_credits(struct served_link *link)
{
	if (messages_out(link) < SERVED_SENDS - VERBS_CALLS)
		send_message(link, &(struct verbs_message){.type = VERBS_CREDITS}, NULL);
}

/* ---- windows ---- */

static bool post_binds(struct served_link *link, uint32_t queue, struct binding *binding)
{
	const struct window *windows = binding->windows + queue * binding->each;
	struct verbs_work works[SERVED_BINDS];
	uint32_t n = 0;

	for (uint32_t i = binding->posted[queue]; i < binding->each && n < SERVED_BINDS; i++)
		works[n++] = (struct verbs_work){.opcode = VERBS_BIND_WINDOW,
						 .window = windows[i].mw,
						 .bind_info = &windows[i].info,
						 .rkey = windows[i].key};
	if (!post(link, queue, works, n))
		return false;
	binding->posted[queue] += n;
	binding->latest[queue] = link->sent[queue];
	return true;
}

/* A burst when the one before is back. @return all are bound */
static bool bind_queue(struct served_link *link, uint32_t queue, struct binding *binding,
		       uint64_t now_ns)
{
	take_back(link, queue);
	if (binding->posted[queue] > 0 && (int32_t)(link->back[queue] - binding->latest[queue]) < 0)
		return false;
	if (binding->posted[queue] == binding->each)
		return true;
	link->bind_until_ns = now_ns + BIND_NS;
	if (!post_binds(link, queue, binding))
		served_link_fail(link);
	return false;
}

static void end_binding(struct verbs_service *service, struct served_link *link, int result)
{
	struct binding *binding = STAILQ_FIRST(&link->bindings);

	STAILQ_REMOVE_HEAD(&link->bindings, link);
	if (STAILQ_EMPTY(&link->bindings))
		TAILQ_REMOVE(&service->binding, link, binding);
	binding->bound(binding, result);
}

static void end_bindings(struct verbs_service *service, struct served_link *link)
{
	while (!STAILQ_EMPTY(&link->bindings))
		end_binding(service, link, -EIO);
}

static void bind_windows(struct verbs_service *service, struct served_link *link, uint64_t now_ns)
{
	struct binding *binding = STAILQ_FIRST(&link->bindings);
	bool all = true;

	for (uint32_t i = 0; i < link->count; i++)
		all &= bind_queue(link, i, binding, now_ns);
	if (!all && now_ns > link->bind_until_ns)
		served_link_fail(link);
	if (atomic_load_explicit(&link->failed, memory_order_relaxed))
		end_bindings(service, link);
	else if (all)
		end_binding(service, link, 0);
}

/* @return were there any? */
static bool bind_some(struct verbs_service *service)
{
	struct served_link *link = TAILQ_FIRST(&service->binding);
	uint64_t now_ns = link ? clock_monotonic_ns(NULL) : 0;

	if (!link)
		return false;
	for (uint32_t i = 0; link && i < LINKS_A_TURN; i++) {
		work_count(WORK_ITEMS, 1);
		TAILQ_REMOVE(&service->binding, link, binding);
		TAILQ_INSERT_TAIL(&service->binding, link, binding);
		bind_windows(service, link, now_ns);
		link = TAILQ_FIRST(&service->binding);
	}
	return true;
}

void verbs_service_bind(struct verbs_service *service, struct served_link *link,
			struct binding *binding)
{
	if (STAILQ_EMPTY(&link->bindings))
		TAILQ_INSERT_TAIL(&service->binding, link, binding);
	STAILQ_INSERT_TAIL(&link->bindings, binding, link);
}

/* ---- receiving ---- */

static int post_receive(struct served_link *link, uint32_t index)
{
	struct ibv_sge piece = {.addr = (uintptr_t)receive_buffer(link, index),
				.length = VERBS_MESSAGE_BYTES,
				.lkey = link->registration->slices[0].lkey};
	struct ibv_recv_wr request = {.wr_id = (uint64_t)link->cookie << 32 | index,
				      .sg_list = &piece,
				      .num_sge = 1},
			   *bad;

	return ibv_post_recv(link->queues[0]->qp, &request, &bad);
}

/* It has been dealt with: the receive that it took is there for another. */
static void put_back(struct served_link *link, uint32_t index)
{
	if (post_receive(link, index)) {
		served_link_fail(link);
		return;
	}
	if (atomic_load_explicit(&link->failed, memory_order_relaxed))
		return;
	if (!link->owes)
		TAILQ_INSERT_TAIL(&link->service->owing, link, owing);
	link->owes = true;
	if (++link->taken >= VERBS_CREDITS_EACH)
		send_credits(link);
}

static void hold(struct verbs_service *service, struct served_link *link, const struct held *held)
{
	link->held++;
	service->held[service->held_count++] = *held;
}

static struct inbox_lane *lane_of(const struct verbs_service *service, const struct grant *grant)
{
	return inbox_lane(grant->export->inbox, service->lane);
}

static struct grant *find_grant(const struct verbs_service *service, const struct served_link *link,
				uint64_t subject)
{
	struct grant *grant;

	if (grants_find(service->grants, link->connection, (uint32_t)subject,
			(uint32_t)(subject >> 32), &grant) < 0)
		return NULL;
	return grant;
}

/*
 * What one client can have us hold beside is part of what an inbox has room for: a client is held
 * back after as many notifications as on other transports.
 */
static bool notify(struct inbox_lane *lane, uint32_t client, uint32_t tag)
{
	return inbox_notify_space(lane) > VERBS_RECEIVES && inbox_notify(lane, client, tag);
}

/* The right may have been withdrawn by now: then nobody is to be told. */
static void on_notification(struct verbs_service *service, struct served_link *link, uint32_t tag,
			    uint32_t buffer)
{
	const struct grant *grant = find_grant(service, link, link->subject);
	struct inbox_lane *lane = grant ? lane_of(service, grant) : NULL;

	if (!lane || !(grant->rights & SLU_RIGHT_WRITE) || notify(lane, grant->client, tag))
		put_back(link, buffer);
	else
		hold(service, link,
		     &(struct held){.lane = lane,
				    .cookie = link->cookie,
				    .client = grant->client,
				    .tag = tag,
				    .buffer = buffer});
}

static struct open_lane *find_lane(struct verbs_service *service, struct inbox_lane *lane)
{
	uint32_t i = 0;

	while (i < service->lanes_count && service->lanes[i].lane != lane)
		i++;
	if (i == SLU_SEGMENTS_MAX)
		return NULL;
	if (i == service->lanes_count)
		service->lanes[service->lanes_count++] = (struct open_lane){.lane = lane};
	return &service->lanes[i];
}

/* @return false: no room */
static bool deliver_call(struct verbs_service *service, struct served_link *link,
			 struct inbox_lane *lane, uint32_t client, uint32_t buffer)
{
	const struct verbs_message *message = (const void *)receive_buffer(link, buffer);
	uint64_t cookie = (uint64_t)link->cookie << 32 | message->slot;
	struct open_lane *open = find_lane(service, lane);

	if (!open || !inbox_call(lane, client, cookie, message + 1, message->length))
		return false;
	open->calls++;
	return true;
}

static void refuse_call(struct served_link *link, uint32_t slot, int status)
{
	struct verbs_message answer = {
		.type = VERBS_ANSWER, .status = (int16_t)status, .slot = slot};

	send_message(link, &answer, NULL);
}

static void on_call(struct verbs_service *service, struct served_link *link, uint32_t buffer)
{
	const struct verbs_message *message = (const void *)receive_buffer(link, buffer);
	const struct grant *grant =
		find_grant(service, link, (uint64_t)message->generation << 32 | message->handle);
	struct inbox_lane *lane = grant ? lane_of(service, grant) : NULL;

	if (!lane) {
		refuse_call(link, message->slot, -EKEYREVOKED);
		put_back(link, buffer);
	} else if (deliver_call(service, link, lane, grant->client, buffer)) {
		put_back(link, buffer);
	} else {
		hold(service, link,
		     &(struct held){.lane = lane,
				    .cookie = link->cookie,
				    .client = grant->client,
				    .buffer = buffer,
				    .is_call = true});
	}
}

static void hostile(struct served_link *link, const char *what)
{
	log_peer(SLU_LOG_WARNING, "an RDMA link is closed: its client sent %s", what);
	link->expelled = true;
	served_link_fail(link);
}

static void on_message(struct verbs_service *service, struct served_link *link,
		       const struct ibv_wc *completion)
{
	uint32_t buffer = (uint32_t)completion->wr_id;
	const struct verbs_message *message = (const void *)receive_buffer(link, buffer);

	if (completion->byte_len < sizeof(*message) || message->reserved ||
	    message->length != completion->byte_len - sizeof(*message)) {
		hostile(link, "a message that cannot be");
	} else if (message->type == VERBS_SUBJECT && message->length == 0) {
		link->subject = (uint64_t)message->generation << 32 | message->handle;
		put_back(link, buffer);
	} else if (message->type == VERBS_CALL) {
		on_call(service, link, buffer);
	} else {
		hostile(link, "an unknown message");
	}
}

/* Also of a link that has failed since: the client was told that its notifications arrived. */
static void on_receive(struct verbs_service *service, const struct ibv_wc *completion)
{
	uint32_t cookie = (uint32_t)(completion->wr_id >> 32);
	struct served_link *link = service->by_cookie[cookie % LINKS_MAX];

	if (!link || link->cookie != cookie || link->expelled)
		return; /* it has been dropped */
	if (completion->status != IBV_WC_SUCCESS)
		served_link_fail(link);
	else if (completion->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
		on_notification(service, link, ntohl(completion->imm_data),
				(uint32_t)completion->wr_id);
	else
		on_message(service, link, completion);
}

/* ---- what had no room ---- */

/* @return NULL: it has gone */
static struct served_link *link_of(const struct verbs_service *service, const struct held *held)
{
	struct served_link *link = service->by_cookie[held->cookie % LINKS_MAX];

	return link && link->cookie == held->cookie ? link : NULL;
}

/* @return was it dealt with? */
static bool retry(struct verbs_service *service, const struct held *held)
{
	struct served_link *link = link_of(service, held);

	if (held->is_call && !link)
		return true;
	if (held->is_call ? !deliver_call(service, link, held->lane, held->client, held->buffer)
			  : !notify(held->lane, held->client, held->tag))
		return false;
	if (link) {
		link->held--;
		put_back(link, held->buffer);
	}
	return true;
}

static uint32_t retry_held(struct verbs_service *service)
{
	uint32_t kept = 0, before = service->held_count;

	for (uint32_t i = 0; i < before; i++)
		if (!retry(service, &service->held[i]))
			service->held[kept++] = service->held[i];
	service->held_count = kept;
	return before - kept;
}

/* ---- answers ---- */

static void send_answer(struct verbs_service *service, const struct inbox_answer *answer)
{
	uint32_t cookie = (uint32_t)(answer->cookie >> 32);
	struct served_link *link = service->by_cookie[cookie % LINKS_MAX];
	struct verbs_message message = {.type = VERBS_ANSWER,
					.status = (int16_t)answer->status,
					.length = answer->length,
					.slot = (uint32_t)answer->cookie};

	if (link && link->cookie == cookie && !link->failed)
		send_message(link, &message, answer->data);
}

static uint32_t take_answers(struct verbs_service *service)
{
	struct inbox_answer answer;
	uint32_t work = 0;

	for (uint32_t i = 0; i < service->lanes_count;) {
		struct open_lane *open = &service->lanes[i];

		while (open->calls > 0 && inbox_answer(open->lane, &answer)) {
			send_answer(service, &answer);
			inbox_answer_done(open->lane);
			open->calls--;
			work++;
		}
		if (open->calls > 0)
			i++;
		else
			*open = service->lanes[--service->lanes_count];
	}
	return work;
}

/* ---- the service ---- */

static uint32_t take_from(struct verbs_service *service, struct receive_queue *queue)
{
	struct ibv_wc completions[TAKE];
	int n = ibv_poll_cq(queue->cq, TAKE, completions);

	work_count(WORK_ITEMS, 1);
	for (int i = 0; i < n; i++)
		on_receive(service, &completions[i]);
	return n > 0 ? (uint32_t)n : 0;
}

static struct receive_queue *first_queue(const struct verbs_service *service)
{
	/* Pairs with the release in find_queue(). */
	return atomic_load_explicit(&service->queues, memory_order_acquire);
}

static uint32_t take_receives(struct verbs_service *service)
{
	struct receive_queue *queue;
	uint32_t work = 0;

	for (queue = first_queue(service); queue; queue = queue->older)
		if (atomic_load_explicit(&queue->links, memory_order_relaxed))
			work += take_from(service, queue);
	return work;
}

static bool is_adopted(const struct verbs_service *service, const struct served_link *link)
{
	return service->by_cookie[link->cookie % LINKS_MAX] == link;
}

/* Neighbours may go on sending. */
static void empty(struct verbs_service *service, struct receive_queue *queue)
{
	uint32_t left = CQ_ENTRIES / TAKE;

	while (left-- > 0 && take_from(service, queue) > 0)
		;
}

void verbs_service_catch_up(struct verbs_service *service)
{
	struct receive_queue *queue;

	for (queue = first_queue(service); queue; queue = queue->older)
		empty(service, queue);
}

/* In a pause a client is told the rest of what was taken, so that it knows exactly. */
static void tell_rest(struct verbs_service *service)
{
	struct served_link *link;

	for (uint32_t i = 0; i < LINKS_A_TURN && (link = TAILQ_FIRST(&service->owing)); i++) {
		work_count(WORK_ITEMS, 1);
		TAILQ_REMOVE(&service->owing, link, owing);
		TAILQ_INSERT_TAIL(&service->owing, link, owing);
		send_credits(link);
	}
}

static uint32_t run(struct transport_service *base)
{
	struct verbs_service *service = (struct verbs_service *)base;
	uint32_t work = 0;

	work_begin(WORK_TURN);
	if (verbs_tasks_pending(&service->tasks))
		work += verbs_tasks_run(&service->tasks);
	if (service->held_count > 0)
		work += retry_held(service);
	if (service->lanes_count > 0)
		work += take_answers(service); /* also to clients that have gone */
	if (service->link_count == 0)
		return work;
	work += take_receives(service);
	if (bind_some(service))
		work++;
	if (work == 0)
		tell_rest(service);
	return work;
}

static void take_events(struct receive_queue *queue)
{
	struct ibv_cq *cq;
	void *context;

	while (ibv_get_cq_event(queue->channel, &cq, &context) == 0)
		ibv_ack_cq_events(cq, 1);
}

/*
 * Messages need no looking after: a client that does not take them in keeps nobody awake. What came
 * before the queues were armed tells nobody: look once more.
 */
static bool pending(struct transport_service *base)
{
	struct verbs_service *service = (struct verbs_service *)base;
	struct receive_queue *queue;
	uint32_t work = 0;

	if (verbs_tasks_pending(&service->tasks) || service->held_count > 0 ||
	    !TAILQ_EMPTY(&service->owing) || !TAILQ_EMPTY(&service->binding))
		return true;
	for (uint32_t i = 0; i < service->lanes_count; i++)
		if (inbox_answers_pending(service->lanes[i].lane))
			return true;
	for (queue = first_queue(service); queue; queue = queue->older) {
		take_events(queue);
		ibv_req_notify_cq(queue->cq, 0);
		work += take_from(service, queue); /* what a dead link has left would wake us too */
	}
	return work > 0;
}

/* ---- life ---- */

int verbs_service_create(const struct grants *grants, uint32_t poller, uint32_t lane,
			 struct verbs_service **out)
{
	struct verbs_service *service = calloc(1, sizeof(*service));
	struct epoll_event event = {.events = EPOLLIN};
	int rc;

	if (!service)
		return fail(-ENOMEM, "out of memory");
	service->base.run = run;
	service->base.pending = pending;
	service->grants = grants;
	service->index = poller;
	service->lane = lane;
	pthread_mutex_init(&service->lock, NULL);
	TAILQ_INIT(&service->binding);
	TAILQ_INIT(&service->owing);
	service->base.fd = service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	service->by_cookie = calloc(LINKS_MAX, sizeof(struct served_link *));
	service->lanes = calloc(SLU_SEGMENTS_MAX, sizeof(struct open_lane));
	rc = verbs_tasks_init(&service->tasks);
	if (rc < 0 || service->epoll_fd < 0 || !service->by_cookie || !service->lanes ||
	    epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, service->tasks.eventfd, &event) < 0) {
		verbs_service_destroy(service);
		return fail(-ENOMEM, "cannot make a service: %s", strerror(errno));
	}
	*out = service;
	return 0;
}

static void receive_queue_destroy(struct receive_queue *queue)
{
	if (queue->cq)
		ibv_destroy_cq(queue->cq);
	if (queue->channel)
		ibv_destroy_comp_channel(queue->channel);
	free(queue);
}

void verbs_service_destroy(struct verbs_service *service)
{
	struct receive_queue *queue, *older;

	if (!service)
		return;
	for (queue = first_queue(service); queue; queue = older) {
		older = queue->older;
		receive_queue_destroy(queue);
	}
	if (service->epoll_fd >= 0)
		close(service->epoll_fd);
	verbs_tasks_fini(&service->tasks);
	pthread_mutex_destroy(&service->lock);
	free(service->by_cookie);
	free(service->lanes);
	free(service->held);
	free(service);
}

static int receive_queue_create(struct verbs_service *service, struct verbs_device *device,
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

		receive_queue_destroy(queue);
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
	rc = receive_queue_create(service, device, &queue);
	if (rc < 0)
		return rc;
	queue->older = first_queue(service);
	/* Pairs with the acquire in first_queue(). */
	atomic_store_explicit(&service->queues, queue, memory_order_release);
	*out = queue;
	return 0;
}

static int join_queue(struct served_link *link)
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

static int make_queue(struct verbs_device *device, struct served_link *link, uint32_t index)
{
	const struct verbs_queue_options options = {.depth = DEPTH,
						    .receives = index == 0 ? VERBS_RECEIVES : 0,
						    .inline_bytes = INLINE_WANT,
						    .binds = device->windows,
						    .receive_cq = link->receives->cq};
	int rc = verbs_queue_create(device, &options, &link->queues[index]);

	if (rc < 0)
		return rc;
	link->count++;
	return verbs_queue_initialise(link->queues[index], device,
				      IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
}

static int make_messages(struct served_link *link)
{
	size_t bytes = (size_t)(VERBS_RECEIVES + SERVED_SENDS) * VERBS_MESSAGE_BYTES;

	link->messages = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
	if (!link->messages)
		return fail(-ENOMEM, "target is out of memory");
	return verbs_register(link->device, link->messages, bytes, IBV_ACCESS_LOCAL_WRITE,
			      &link->registration);
}

int served_link_make(struct served_link *link, uint32_t queues)
{
	int rc = join_queue(link);

	if (rc == 0)
		rc = make_messages(link);
	for (uint32_t i = 0; rc == 0 && i < queues; i++)
		rc = make_queue(link->device, link, i);
	return rc;
}

void served_link_close(struct served_link *link)
{
	verbs_cm_destroy(link->cm);
	for (uint32_t i = 0; i < link->count; i++) {
		verbs_queue_fail(link->queues[i]);
		verbs_queue_destroy(link->queues[i]);
	}
	if (link->receives)
		atomic_fetch_sub(&link->receives->links, 1);
	verbs_deregister(link->registration);
	budget_give(link->budget, SLU_LIMIT_LINKS, 1);
	budget_put(link->budget);
	free(link->messages);
}

/* Room for all that the links can have us hold, and for some of those that have gone. */
static int make_room(struct verbs_service *service)
{
	uint32_t needed = (service->link_count + 1) * VERBS_RECEIVES + HELD_DEAD_MAX;
	struct held *larger;

	if (needed <= service->held_room)
		return 0;
	larger = realloc(service->held, 2 * needed * sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	service->held = larger;
	service->held_room = 2 * needed;
	return 0;
}

int verbs_service_adopt(struct verbs_service *service, struct served_link *link)
{
	if (service->link_count == LINKS_MAX / 2)
		return -ENOSPC;
	if (make_room(service) < 0)
		return -ENOMEM;
	while (service->by_cookie[service->next_cookie % LINKS_MAX])
		service->next_cookie++;
	link->cookie = service->next_cookie++;
	for (uint32_t i = 0; i < VERBS_RECEIVES; i++)
		if (post_receive(link, i))
			return -ENOMEM;
	service->by_cookie[link->cookie % LINKS_MAX] = link;
	service->link_count++;
	return 0;
}

/* The oldest notifications of links that have gone make room, once there are very many. */
static void bound_held(struct verbs_service *service)
{
	uint32_t dead = 0, kept = 0;

	for (uint32_t i = service->held_count; i-- > 0;) {
		if (!link_of(service, &service->held[i]) && ++dead > HELD_DEAD_MAX)
			service->held[i].lane = NULL;
	}
	for (uint32_t i = 0; i < service->held_count; i++)
		if (service->held[i].lane)
			service->held[kept++] = service->held[i];
	service->held_count = kept;
}

void verbs_service_drop(struct verbs_service *service, struct served_link *link)
{
	if (!is_adopted(service, link))
		return;
	served_link_fail(link); /* nothing more is acknowledged of which nobody would know */
	empty(service, link->receives);
	pay(link);
	service->by_cookie[link->cookie % LINKS_MAX] = NULL;
	service->link_count--;
	if (link->held > 0)
		bound_held(service);
}

/* The receive that it took is for others again. */
static void let_go(struct verbs_service *service, const struct held *held)
{
	struct served_link *link = link_of(service, held);

	if (!link)
		return;
	link->held--;
	if (held->is_call) {
		const struct verbs_message *message =
			(const void *)receive_buffer(link, held->buffer);

		refuse_call(link, message->slot, -ESHUTDOWN);
	}
	put_back(link, held->buffer);
}

void verbs_service_forget(struct verbs_service *service, const struct export *export)
{
	const struct inbox_lane *lane = inbox_lane(export->inbox, service->lane);
	uint32_t kept = 0;

	for (uint32_t i = 0; i < service->lanes_count; i++)
		if (service->lanes[i].lane == lane)
			service->lanes[i--] = service->lanes[--service->lanes_count];
	for (uint32_t i = 0; i < service->held_count; i++)
		if (service->held[i].lane != lane)
			service->held[kept++] = service->held[i];
		else
			let_go(service, &service->held[i]);
	service->held_count = kept;
}
