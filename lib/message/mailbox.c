/* SPDX-License-Identifier: Apache-2.0 */
#include "message/mailbox.h"

#include <errno.h>
#include <string.h>

#define ERRNO_MAX 4095

/* In a request word, of a request with a body. */
#define LENGTH_IN_SLOT 0xffffu

#define ANSWER_DONE (UINT64_C(1) << 63)

static uint64_t answer_word(int32_t status, uint32_t length)
{
	return ANSWER_DONE | (uint64_t)(uint32_t)-status << 32 | length;
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
	memcpy(sender->lane->saved_bodies, sender->bodies, sizeof(sender->bodies));
}

static void use_lane(struct mailbox_sender *sender)
{
	struct mailbox *box = sender->box;
	uint32_t lanes = atomic_load(&box->lanes);

	sender->lane = &box->lane[sender->index];
	sender->position = sender->lane->saved_position;
	sender->open = sender->lane->saved_open & ((UINT64_C(1) << MAILBOX_SLOTS) - 1);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++) /* the target can write there as well */
		if (sender->lane->saved_bodies[i] <= MAILBOX_BODIES)
			sender->bodies[i] = sender->lane->saved_bodies[i];
	while (lanes < sender->index + 1 &&
	       !atomic_compare_exchange_weak(&box->lanes, &lanes, sender->index + 1))
		;
}

/* @return one, and 1; 0: there is none */
static uint32_t take_body(struct mailbox *box)
{
	uint32_t taken = atomic_load_explicit(&box->bodies_taken, memory_order_relaxed), free;

	do {
		free = ~taken & ((1u << MAILBOX_BODIES) - 1);
		if (free == 0)
			return 0;
	} while (!atomic_compare_exchange_weak_explicit(
		&box->bodies_taken, &taken, taken | (free & -free), memory_order_acquire,
		memory_order_relaxed));
	return (uint32_t)__builtin_ctz(free) + 1;
}

static uint8_t *message_in(struct mailbox *box, struct mailbox_slot *slot, uint32_t body,
			   uint32_t length)
{
	return length > SLU_MESSAGE_MAX ? box->bodies[body - 1] : slot->data;
}

int mailbox_send(struct mailbox_sender *sender, uint32_t session, uint32_t busy, const void *data,
		 uint32_t length, uint32_t room)
{
	bool is_long = length > SLU_MESSAGE_MAX || room > SLU_MESSAGE_MAX;
	struct mailbox_lane *lane;
	uint32_t slot, body = 0;

	if (!sender->lane)
		use_lane(sender);
	lane = sender->lane;
	slot = (uint32_t)__builtin_ctzll(~(uint64_t)(sender->open | busy));
	if (slot >= MAILBOX_SLOTS || (is_long && !(body = take_body(sender->box))))
		return -1;
	sender->bodies[slot] = (uint8_t)body;
	if (length > 0)
		memcpy(message_in(sender->box, &lane->slots[slot], body, length), data, length);
	atomic_store_explicit(&lane->slots[slot].answer, 0, memory_order_relaxed);
	if (is_long) {
		atomic_store_explicit(&lane->slots[slot].body, body, memory_order_relaxed);
		atomic_store_explicit(&lane->slots[slot].length, length, memory_order_relaxed);
		length = LENGTH_IN_SLOT;
	}
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
	uint32_t negated = (uint32_t)(word >> 32) & (uint32_t)INT32_MAX;
	uint32_t length = (uint32_t)word, body = sender->bodies[slot];

	if (!(word & ANSWER_DONE))
		return false;
	*answer = (struct mailbox_answer){.status = -EPROTO};
	if (negated <= ERRNO_MAX && (mailbox_status_allowed(-(int)negated) || negated == EAGAIN) &&
	    length <= (body ? SLU_CALL_MAX : SLU_MESSAGE_MAX))
		*answer = (struct mailbox_answer){
			.status = -(int)negated,
			.length = length,
			.data = message_in(sender->box, &sender->lane->slots[slot], body, length)};
	return true;
}

void mailbox_done(struct mailbox_sender *sender, uint32_t slot)
{
	uint32_t body = sender->bodies[slot];

	sender->open &= ~(1u << slot);
	sender->bodies[slot] = 0;
	/* Pairs with the acquire in take_body(): another poller may have it now. */
	if (body)
		atomic_fetch_and_explicit(&sender->box->bodies_taken, ~(1u << (body - 1)),
					  memory_order_release);
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
	struct mailbox *box = receiver->box;
	uint32_t number, length, body = 0;
	struct mailbox_slot *slot;
	uint64_t word;

	if (!next_request(receiver, index, &word))
		return false;
	receiver->positions[index]++;
	number = (uint32_t)word >> 16;
	length = word & 0xffff;
	if (number >= MAILBOX_SLOTS)
		return false;
	slot = &box->lane[index].slots[number];
	if (length == LENGTH_IN_SLOT) {
		body = atomic_load_explicit(&slot->body, memory_order_relaxed);
		length = atomic_load_explicit(&slot->length, memory_order_relaxed);
		if (body == 0 || body > MAILBOX_BODIES)
			return false;
	}
	if (length > (body ? SLU_CALL_MAX : SLU_MESSAGE_MAX))
		return false;
	*request = (struct mailbox_request){.session = lane_session(word),
					    .lane = index,
					    .slot = number,
					    .body = body,
					    .length = length,
					    .data = message_in(box, slot, body, length)};
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
		   uint32_t body, int32_t status, const void *data, uint32_t length)
{
	struct mailbox_slot *slot = &receiver->box->lane[index].slots[number];

	if (length > SLU_MESSAGE_MAX && !body) {
		status = -EMSGSIZE;
		length = 0;
	}
	if (length > 0)
		memcpy(message_in(receiver->box, slot, body, length), data, length);
	/* Pairs with the acquire in mailbox_answered(). */
	atomic_store_explicit(&slot->answer, answer_word(status, length), memory_order_release);
}
