/* SPDX-License-Identifier: Apache-2.0 */
/* What clients are sent: answers, and how many receives were put back. */
#include <string.h>

#include "base/work.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_served.h"

#define TAKE 16

static_assert(VERBS_MESSAGE_BYTES <= BUFFER_BYTES, "any message fits");
static_assert(SERVED_SENDS + SERVED_BINDS == 64, "served_link.says has a bit for each");

/* ---- buffers ---- */

static struct buffer *take_buffer(struct served_link *link)
{
	struct verbs_service *service = link->service;
	struct buffer *buffer = sending_take(&link->sending, service->serving.buffers);

	if (buffer && link->sending.out == 1)
		TAILQ_INSERT_TAIL(&service->answering, link, answering);
	return buffer;
}

/* With it an answer is done. */
static void give_buffer(struct served_link *link, struct buffer *buffer)
{
	struct verbs_service *service = link->service;

	sending_give(&link->sending, service->serving.buffers, buffer);
	if (link->sending.out == 0)
		TAILQ_REMOVE(&service->answering, link, answering);
	serving_answered(&service->serving, &link->served);
}

uint32_t served_link_answer_none(struct served_link *link)
{
	if (link->sending.out == 0)
		return 0;
	TAILQ_REMOVE(&link->service->answering, link, answering);
	return link->sending.out - 1;
}

static void message_is_back(struct served_link *link)
{
	struct buffer **at = &link->out[link->messages_back++ % SERVED_SENDS];

	if (*at)
		give_buffer(link, *at);
	*at = NULL;
}

void verbs_take_back_some(struct verbs_service *service)
{
	struct served_link *last = TAILQ_LAST(&service->answering, served_links), *link = NULL;

	for (uint32_t i = 0; i < SERVED_LINKS_A_TURN && link != last; i++) {
		link = TAILQ_FIRST(&service->answering);
		work_count(WORK_ITEMS, 1);
		TAILQ_REMOVE(&service->answering, link, answering);
		TAILQ_INSERT_TAIL(&service->answering, link, answering);
		served_link_take_back(link, 0);
	}
}

/* ---- work requests ---- */

/* A completion also stands for those before it. */
void served_link_take_back(struct served_link *link, uint32_t queue)
{
	struct verbs_done done[TAKE];
	uint32_t n;

	if (link->sent[queue] == link->back[queue])
		return;
	n = link->queues[queue]->ops->poll(link->queues[queue], done, TAKE);
	for (uint32_t i = 0; i < n; i++) {
		for (; queue == 0 && link->back[0] != done[i].id + 1; link->back[0]++)
			if (link->says >> link->back[0] % 64 & 1)
				message_is_back(link);
		link->back[queue] = done[i].id + 1;
		if (done[i].status != IBV_WC_SUCCESS)
			served_link_fail(link);
	}
}

bool served_link_post(struct served_link *link, uint32_t queue, struct verbs_work *works,
		      uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		works[i].id = link->sent[queue] + i;
	works[n - 1].flags |= VERBS_SIGNALLED;
	if (served_link_has_failed(link) || verbs_queue_post(link->queues[queue], works, n) != n)
		return false;
	for (uint32_t i = 0; queue == 0 && i < n; i++) {
		uint64_t bit = UINT64_C(1) << works[i].id % 64;

		link->says = works[i].opcode == VERBS_SEND ? link->says | bit : link->says & ~bit;
		link->messages_sent += works[i].opcode == VERBS_SEND;
	}
	link->sent[queue] += n;
	return true;
}

void served_link_owe_none(struct served_link *link)
{
	link->taken = 0;
	if (link->owes)
		TAILQ_REMOVE(&link->service->owing, link, owing);
	link->owes = false;
}

/* Nobody looks after them before there are many: what is idle costs nothing. */
static uint32_t messages_out(struct served_link *link)
{
	if (link->messages_sent - link->messages_back >= SERVED_SENDS - VERBS_CALLS)
		served_link_take_back(link, 0);
	return link->messages_sent - link->messages_back;
}

/*
 * A client that takes answers in at the rate of its calls always leaves room for them.
 *
 * @param buffer  NULL: all of it goes inline
 * @return        false: the link has failed
 */
static bool send_message(struct served_link *link, struct verbs_message *message, const void *data,
			 struct buffer *buffer)
{
	char inline_bytes[SERVED_INLINE], *at = buffer ? buffer->bytes : inline_bytes;
	struct verbs_work work = {.opcode = VERBS_SEND, .flags = VERBS_INLINE, .pieces = 1};
	struct buffer **out = &link->out[link->messages_sent % SERVED_SENDS];
	bool sent = messages_out(link) < SERVED_SENDS;

	message->taken = link->taken;
	memcpy(at, message, sizeof(*message));
	if (message->length > 0)
		memcpy(at + sizeof(*message), data, message->length);
	work.piece[0].addr = (uintptr_t)at;
	work.piece[0].length = (uint32_t)sizeof(*message) + message->length;
	if (buffer) {
		work.flags = 0;
		work.piece[0].lkey = verbs_buffer_key(buffer, link->device->index);
	}
	sent = sent && served_link_post(link, 0, &work, 1);
	if (sent) {
		*out = buffer;
		served_link_owe_none(link);
	} else {
		served_link_fail(link);
	}
	return sent;
}

/* They can wait, and add up: the rest of the buffers is for answers. */
static void send_credits(struct served_link *link)
{
	if (messages_out(link) < SERVED_SENDS - VERBS_CALLS)
		send_message(link, &(struct verbs_message){.type = VERBS_CREDITS}, NULL, NULL);
}

static bool goes_inline(const struct served_link *link, uint32_t length)
{
	uint32_t most = link->queues[0]->inline_bytes;

	return sizeof(struct verbs_message) + length <=
	       (most < SERVED_INLINE ? most : SERVED_INLINE);
}

bool served_link_answer(struct served_link *link, uint32_t slot, const struct inbox_answer *answer)
{
	struct verbs_message message = {.type = VERBS_ANSWER,
					.status = (int16_t)answer->status,
					.length = answer->length,
					.slot = slot};
	bool gone = served_link_has_failed(link);
	struct buffer *buffer = NULL;

	if (!gone && !goes_inline(link, answer->length)) {
		buffer = take_buffer(link);
		if (!buffer)
			return false;
	}
	if (!gone && send_message(link, &message, answer->data, buffer) && buffer)
		return true;
	if (buffer)
		give_buffer(link, buffer);
	else
		serving_answered(&link->service->serving, &link->served);
	return true;
}

void served_link_refuse(struct served_link *link, uint32_t slot, int status)
{
	struct verbs_message message = {
		.type = VERBS_ANSWER, .status = (int16_t)status, .slot = slot};

	if (!served_link_has_failed(link))
		send_message(link, &message, NULL, NULL);
}

void served_link_owe(struct served_link *link)
{
	if (!link->owes)
		TAILQ_INSERT_TAIL(&link->service->owing, link, owing);
	link->owes = true;
	if (++link->taken >= (link->share + 7) / 8)
		send_credits(link);
}

uint32_t verbs_tell_rest(struct verbs_service *service)
{
	struct served_link *last = TAILQ_LAST(&service->owing, served_links), *link = NULL;
	uint32_t told = 0;

	for (uint32_t i = 0; i < SERVED_LINKS_A_TURN && link != last; i++) {
		link = TAILQ_FIRST(&service->owing);
		work_count(WORK_ITEMS, 1);
		TAILQ_REMOVE(&service->owing, link, owing);
		TAILQ_INSERT_TAIL(&service->owing, link, owing);
		send_credits(link);
		told += !link->owes;
	}
	return told;
}
