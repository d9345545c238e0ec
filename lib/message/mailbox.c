/* SPDX-License-Identifier: Apache-2.0 */
#include "message/mailbox.h"

#include <errno.h>
#include <string.h>

#define ERRNO_MAX 4095

#define ANSWER_DONE (UINT64_C(1) << 63)

static uint64_t answer_word(int32_t status, uint32_t length)
{
	return ANSWER_DONE | (uint64_t)(uint32_t)-status << 16 | length;
}

bool mailbox_status_allowed(int status)
{
	return status <= 0 && status >= -ERRNO_MAX && status != -EAGAIN && status != -ECANCELED;
}

/* ---- the client's poller ---- */

void mailbox_attach(struct mailbox_sender *sender, struct mailbox *box, uint32_t index)
{
	*sender = (struct mailbox_sender){.box = box, .index = index};
}

void mailbox_detach(struct mailbox_sender *sender)
{
	if (!sender->lane)
		return;
	sender->lane->saved_position = sender->position;
	sender->lane->saved_open = sender->open;
}

static void use_lane(struct mailbox_sender *sender)
{
	struct mailbox *box = sender->box;
	uint32_t lanes = atomic_load(&box->lanes);

	sender->lane = &box->lane[sender->index];
	sender->position = sender->lane->saved_position;
	sender->open = sender->lane->saved_open & ((UINT64_C(1) << MAILBOX_SLOTS) - 1);
	while (lanes < sender->index + 1 &&
	       !atomic_compare_exchange_weak(&box->lanes, &lanes, sender->index + 1))
		;
}

int mailbox_send(struct mailbox_sender *sender, uint32_t session, uint32_t busy, const void *data,
		 uint32_t length)
{
	struct mailbox_lane *lane;
	uint32_t slot;

	if (!sender->lane)
		use_lane(sender);
	lane = sender->lane;
	slot = (uint32_t)__builtin_ctzll(~(uint64_t)(sender->open | busy));
	if (slot >= MAILBOX_SLOTS)
		return -1;
	if (length > 0)
		memcpy(lane->slots[slot].data, data, length);
	atomic_store_explicit(&lane->slots[slot].answer, 0, memory_order_relaxed);
	/* Pairs with the acquire in lane_read(): request and zeroed answer word before it. */
	atomic_store_explicit(
		&lane->requests[sender->position % MAILBOX_SLOTS],
		lane_word(sender->position, MAILBOX_SLOTS, session, slot << 16 | length),
		memory_order_release);
	sender->position++;
	sender->open |= 1u << slot;
	return (int)slot;
}

bool mailbox_answered(struct mailbox_sender *sender, uint32_t slot, struct mailbox_answer *answer)
{
	/* Pairs with the release in mailbox_reply(): the message is there. */
	uint64_t word =
		atomic_load_explicit(&sender->lane->slots[slot].answer, memory_order_acquire);
	uint32_t negated = (uint32_t)(word >> 16);
	uint32_t length = word & 0xffff;

	if (!(word & ANSWER_DONE))
		return false;
	sender->open &= ~(1u << slot);
	*answer = (struct mailbox_answer){.status = -EPROTO};
	if (negated <= ERRNO_MAX && mailbox_status_allowed(-(int)negated) &&
	    length <= SLU_MESSAGE_MAX)
		*answer = (struct mailbox_answer){.status = -(int)negated, .length = length};
	return true;
}

/* ---- the segment's owner ---- */

static bool next_request(const struct mailbox_receiver *receiver, uint32_t index, uint64_t *word)
{
	return lane_read(receiver->box->lane[index].requests, receiver->positions[index],
			 MAILBOX_SLOTS, word);
}

static uint32_t lanes_in_use(struct mailbox_receiver *receiver)
{
	return lanes_seen(&receiver->lanes,
			  atomic_load_explicit(&receiver->box->lanes, memory_order_relaxed),
			  MAILBOX_LANES);
}

/* @return false: nothing there, or nonsense, which is skipped */
static bool receive_lane(struct mailbox_receiver *receiver, uint32_t index,
			 struct mailbox_request *request)
{
	uint32_t slot, length;
	uint64_t word;

	if (!next_request(receiver, index, &word))
		return false;
	receiver->positions[index]++;
	slot = (uint32_t)word >> 16;
	length = word & 0xffff;
	if (slot >= MAILBOX_SLOTS || length > SLU_MESSAGE_MAX)
		return false;
	*request = (struct mailbox_request){.session = lane_session(word),
					    .lane = index,
					    .slot = slot,
					    .length = length,
					    .data = receiver->box->lane[index].slots[slot].data};
	return true;
}

bool mailbox_receive(struct mailbox_receiver *receiver, struct mailbox_request *request)
{
	uint32_t lanes = lanes_in_use(receiver);

	for (uint32_t i = 0; i < lanes; i++) {
		if (receiver->next_lane >= lanes)
			receiver->next_lane = 0;
		if (receive_lane(receiver, receiver->next_lane++, request))
			return true;
	}
	return false;
}

bool mailbox_pending(struct mailbox_receiver *receiver)
{
	uint32_t lanes = lanes_in_use(receiver);
	uint64_t word;

	for (uint32_t i = 0; i < lanes; i++)
		if (next_request(receiver, i, &word))
			return true;
	return false;
}

void mailbox_reply(struct mailbox_receiver *receiver, uint32_t index, uint32_t number,
		   int32_t status, const void *data, uint32_t length)
{
	struct mailbox_slot *slot = &receiver->box->lane[index].slots[number];

	if (length > 0)
		memcpy(slot->data, data, length);
	/* Pairs with the acquire in mailbox_answered(). */
	atomic_store_explicit(&slot->answer, answer_word(status, length), memory_order_release);
}
