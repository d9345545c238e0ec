/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients send: notifications and calls, for the inboxes of segments. What finds no room there
 * waits here, with the receive that it took, so a client is held back that its segment's owner does
 * not listen to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "message/sender.h"
#include "transport/verbs/verbs_served.h"

#define HELD_DEAD_MAX 4096u /* notifications of links that have gone */

/** A message that its inbox had no room for. */
struct held {
	uint32_t cookie; /* of its link */
	struct sender *sender;
	uint32_t tag;          /* notification */
	struct buffer *buffer; /* the receive that it took */
	STAILQ_ENTRY(held) next;
};

STAILQ_HEAD(held_list, held);

/** Those of one kind for one lane, the first one first: if it has no room none has. */
struct held_lane {
	struct inbox_lane *lane;
	bool calls;
	struct held_list messages;
	LIST_ENTRY(held_lane) link;
};

/* ---- what had no room ---- */

static struct held_lane *find_held(const struct verbs_service *service,
				   const struct inbox_lane *lane, bool calls)
{
	struct held_lane *of;

	LIST_FOREACH (of, &service->held, link)
		if (of->lane == lane && of->calls == calls)
			break;
	return of;
}

static struct held_lane *get_held(struct verbs_service *service, struct inbox_lane *lane,
				  bool calls)
{
	struct held_lane *of = find_held(service, lane, calls);

	if (of)
		return of;
	of = calloc(1, sizeof(*of));
	if (!of)
		return NULL;
	of->lane = lane;
	of->calls = calls;
	STAILQ_INIT(&of->messages);
	LIST_INSERT_HEAD(&service->held, of, link);
	return of;
}

static void hold(struct served_link *link, struct inbox_lane *lane, bool is_call,
		 const struct held *message)
{
	struct held *held = link->held < link->share ? malloc(sizeof(*held)) : NULL;
	struct held_lane *of = held ? get_held(link->service, lane, is_call) : NULL;

	if (!of) { /* or it has sent more than it may, and others are to have receives as well */
		free(held);
		served_link_fail(link);
		receives_give_up(link, message->buffer);
		return;
	}
	*held = *message;
	sender_get(held->sender);
	STAILQ_INSERT_TAIL(&of->messages, held, next);
	link->held++;
}

/* It has been dealt with: the receive that it took is there for another. */
static void put_back(struct served_link *link, struct buffer *buffer)
{
	if (receives_post(link, buffer))
		served_link_fail(link);
	else if (!served_link_has_failed(link))
		served_link_owe(link);
}

static const struct verbs_message *message_of(const struct buffer *buffer)
{
	return (const void *)buffer->bytes;
}

/* @return NULL: it has gone */
static struct served_link *link_of(const struct verbs_service *service, const struct held *held)
{
	return (struct served_link *)serving_find(&service->serving, held->cookie);
}

static void held_free(struct held *held)
{
	sender_put(held->sender);
	free(held);
}

/* The first one of its lane. */
static void release(struct verbs_service *service, struct held_lane *of)
{
	struct held *held = STAILQ_FIRST(&of->messages);
	struct served_link *link = link_of(service, held);

	STAILQ_REMOVE_HEAD(&of->messages, next);
	if (link) {
		link->held--;
		put_back(link, held->buffer);
	} else {
		service->held_dead--;
	}
	held_free(held);
}

static void free_if_empty(struct held_lane *of)
{
	if (!STAILQ_EMPTY(&of->messages))
		return;
	LIST_REMOVE(of, link);
	free(of);
}

/*
 * What one client can have us hold beside is part of what an inbox has room for: a client is held
 * back after as many notifications as on other transports.
 */
static bool notify(struct inbox_lane *lane, struct sender *sender, uint32_t tag)
{
	return inbox_notify_space(lane) > VERBS_RECEIVES && inbox_notify(lane, sender, tag);
}

/* @return false: no room */
static bool call(struct served_link *link, struct inbox_lane *lane, struct sender *sender,
		 struct buffer *buffer)
{
	const struct verbs_message *message = message_of(buffer);

	return serving_call(&link->service->serving, &link->served, lane, sender, message->slot,
			    message + 1, message->length);
}

static bool deliver(struct verbs_service *service, const struct held_lane *of,
		    const struct held *held)
{
	return of->calls ? call(link_of(service, held), of->lane, held->sender, held->buffer)
			 : notify(of->lane, held->sender, held->tag);
}

/* There is no room in its lane: then there is none for others. */
static bool lane_is_full(const struct verbs_service *service, const struct held_lane *of,
			 const struct held *held)
{
	return !of->calls || serving_may_call(&service->serving, &link_of(service, held)->served);
}

/* Calls of those who have many open are passed over: others have room. @return how many went */
static uint32_t retry(struct verbs_service *service, struct held_lane *of)
{
	uint32_t done = 0, passed = 0;
	struct held *held;

	while ((held = STAILQ_FIRST(&of->messages)) && passed < SERVED_LINKS_A_TURN) {
		if (deliver(service, of, held)) {
			release(service, of);
			done++;
		} else if (lane_is_full(service, of, held)) {
			break;
		} else {
			STAILQ_REMOVE_HEAD(&of->messages, next);
			STAILQ_INSERT_TAIL(&of->messages, held, next);
			if (passed++ == 0)
				verbs_take_back_some(service);
		}
	}
	return done;
}

uint32_t verbs_retry_held(struct verbs_service *service)
{
	struct held_lane *of = LIST_FIRST(&service->held), *next;
	uint32_t done = 0;

	for (; of; of = next) {
		next = LIST_NEXT(of, link);
		done += retry(service, of);
		free_if_empty(of);
	}
	return done;
}

/*
 * The receives of a link that goes are others'; of those that have gone calls are dropped, and the
 * oldest notifications where there are very many.
 */
static void drop_dead(struct verbs_service *service, struct held_lane *of, struct served_link *link)
{
	struct held_list all = STAILQ_HEAD_INITIALIZER(all);
	struct held *held;

	STAILQ_CONCAT(&all, &of->messages);
	while ((held = STAILQ_FIRST(&all))) {
		STAILQ_REMOVE_HEAD(&all, next);
		if (held->cookie == link->served.cookie)
			receives_give_up(link, held->buffer);
		if (link_of(service, held) || (!of->calls && service->held_dead <= HELD_DEAD_MAX)) {
			STAILQ_INSERT_TAIL(&of->messages, held, next);
			continue;
		}
		service->held_dead--;
		held_free(held);
	}
}

void verbs_drop_held(struct verbs_service *service, struct served_link *link)
{
	struct held_lane *of = link->held ? LIST_FIRST(&service->held) : NULL, *next;

	service->held_dead += link->held;
	for (; of; of = next) {
		next = LIST_NEXT(of, link);
		drop_dead(service, of, link);
		free_if_empty(of);
	}
}

static void forget(struct verbs_service *service, struct held_lane *of)
{
	struct held *held;

	for (; of && (held = STAILQ_FIRST(&of->messages)); release(service, of)) {
		struct served_link *link = link_of(service, held);

		if (of->calls)
			served_link_refuse(link, message_of(held->buffer)->slot, -ESHUTDOWN);
	}
	if (of)
		free_if_empty(of);
}

void verbs_forget_held(struct verbs_service *service, const struct inbox_lane *lane)
{
	forget(service, find_held(service, lane, false));
	forget(service, find_held(service, lane, true));
}

/* ---- what comes ---- */

static struct grant *find_grant(const struct verbs_service *service, const struct served_link *link,
				uint64_t subject)
{
	struct grant *grant;

	if (grants_find(service->grants, link->connection, (uint32_t)subject,
			(uint32_t)(subject >> 32), &grant) < 0)
		return NULL;
	return grant;
}

/* The right may have been withdrawn by now: then nobody is to be told. */
static void on_notification(struct verbs_service *service, struct served_link *link, uint32_t tag,
			    struct buffer *buffer)
{
	const struct grant *grant = find_grant(service, link, link->subject);
	struct inbox_lane *lane = grant && grant->rights & SLU_RIGHT_WRITE
					  ? serving_lane(&service->serving, grant)
					  : NULL;

	if (!lane || (!find_held(service, lane, false) && notify(lane, grant->sender, tag)))
		put_back(link, buffer);
	else
		hold(link, lane, false,
		     &(struct held){.cookie = link->served.cookie,
				    .sender = grant->sender,
				    .tag = tag,
				    .buffer = buffer});
}

/* Who has nothing open waits for room in the inbox, but not for those who have much. */
static bool others_first(const struct served_link *link)
{
	return link->served.calls > 0 || link->held > 0;
}

static void on_call(struct verbs_service *service, struct served_link *link, struct buffer *buffer)
{
	const struct verbs_message *message = message_of(buffer);
	const struct grant *grant =
		find_grant(service, link, (uint64_t)message->generation << 32 | message->handle);
	struct inbox_lane *lane = grant ? serving_lane(&service->serving, grant) : NULL;

	if (!serving_may_call(&service->serving, &link->served))
		verbs_take_back_some(service);
	if (lane && ((others_first(link) && find_held(service, lane, true)) ||
		     !call(link, lane, grant->sender, buffer))) {
		hold(link, lane, true,
		     &(struct held){.cookie = link->served.cookie,
				    .sender = grant->sender,
				    .buffer = buffer});
		return;
	}
	if (!lane)
		served_link_refuse(link, message->slot, -EKEYREVOKED);
	put_back(link, buffer);
}

static void hostile(struct served_link *link, struct buffer *buffer, const char *what)
{
	log_peer(SLU_LOG_WARNING, "an RDMA link is closed: its client sent %s", what);
	link->expelled = true;
	served_link_fail(link);
	receives_give_up(link, buffer);
}

static void on_message(struct verbs_service *service, struct served_link *link,
		       const struct ibv_wc *completion, struct buffer *buffer)
{
	const struct verbs_message *message = message_of(buffer);

	if (completion->byte_len < sizeof(*message) || message->reserved ||
	    message->length != completion->byte_len - sizeof(*message)) {
		hostile(link, buffer, "a message that cannot be");
	} else if (message->type == VERBS_SUBJECT && message->length == 0) {
		link->subject = (uint64_t)message->generation << 32 | message->handle;
		put_back(link, buffer);
	} else if (message->type == VERBS_CALL) {
		on_call(service, link, buffer);
	} else {
		hostile(link, buffer, "an unknown message");
	}
}

/* Also of a link that has failed since: the client was told that its notifications arrived. */
void verbs_hear(struct served_link *link, const struct ibv_wc *completion, struct buffer *buffer)
{
	if (completion->status != IBV_WC_SUCCESS)
		served_link_fail(link);
	if (completion->status != IBV_WC_SUCCESS || link->expelled)
		receives_give_up(link, buffer);
	else if (completion->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
		on_notification(link->service, link, ntohl(completion->imm_data), buffer);
	else
		on_message(link->service, link, completion, buffer);
}
