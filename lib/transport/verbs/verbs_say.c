/* SPDX-License-Identifier: Apache-2.0 */
/* What clients are sent: answers, and how many receives were put back. */
#include <string.h>

#include "base/work.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_served.h"

#define TAKE 16

static_assert(SERVED_SENDS + SERVED_BINDS == 64, "served_link.says has a bit for each");

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
			link->messages_back += link->says >> link->back[0] % 64 & 1;
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
	if (served_link_has_failed(link) ||
	    verbs_queue_post(link->queues[queue], works, n) != n)
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

/* A client that takes answers in at the rate of its calls always leaves room for them. */
static void send_message(struct served_link *link, struct verbs_message *message, const void *data)
{
	struct verbs_work work = {.opcode = VERBS_SEND, .pieces = 1};
	char *at =
		link->messages + (size_t)(link->messages_sent % SERVED_SENDS) * VERBS_MESSAGE_BYTES;

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
	if (served_link_post(link, 0, &work, 1))
		served_link_owe_none(link);
	else
		served_link_fail(link);
}

/* They can wait, and add up: the rest of the buffers is for answers. */
static void send_credits(struct served_link *link)
{
	if (messages_out(link) < SERVED_SENDS - VERBS_CALLS)
		send_message(link, &(struct verbs_message){.type = VERBS_CREDITS}, NULL);
}

void served_link_answer(struct served_link *link, uint32_t slot, const struct inbox_answer *answer)
{
	struct verbs_message message = {.type = VERBS_ANSWER,
					.status = (int16_t)answer->status,
					.length = answer->length,
					.slot = slot};

	if (!served_link_has_failed(link))
		send_message(link, &message, answer->data);
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
