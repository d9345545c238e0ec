/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A lane is two rings from one poller to whoever takes for the owner, each with one producer and
 * one consumer, and a set of answers back. Messages lie in slots: the poller fills a free one and
 * hands over its number, the owner answers in the same slot and sets its bit, whichever of his
 * threads it is, so nothing is copied in between. A ring of numbers has as many places as there are
 * slots and is never full.
 */
#include "message/inbox.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "base/barrier.h"
#include "base/log.h"
#include "message/body.h"
#include "message/sender.h"

static_assert((INBOX_NOTIFICATIONS & (INBOX_NOTIFICATIONS - 1)) == 0, "a power of two");
static_assert(INBOX_CALLS == 64, "a bit each in inbox_lane.answered");

struct inbox_slot {
	uint64_t cookie;
	uint32_t client;
	int32_t status;
	const char *identity;
	struct body *body; /* that it lies in; NULL: here */
	uint32_t length;
	_Alignas(64) uint8_t data[SLU_MESSAGE_MAX];
};

/* Positions of one ring; the release of each pairs with the acquire of the other side. */
struct inbox_ring {
	_Alignas(64) _Atomic uint32_t head; /* producer */
	_Alignas(64) _Atomic uint32_t tail; /* consumer */
};

struct inbox_lane {
	_Atomic(struct inbox *) inbox; /* whoever asks for the lane stores the same */
	struct inbox_ring notified;
	struct inbox_ring called;
	uint32_t marked_notified; /* heads, when they were marked; who takes for the owner */
	uint32_t marked_called;
	_Alignas(64) _Atomic uint64_t answered; /* slots, a bit each; any thread of the owner's */
	struct slu_notification notifications[INBOX_NOTIFICATIONS];
	uint8_t calls[INBOX_CALLS];

	/* The poller's: answers that are dealt with before it looks for others; slots given back,
	 * the last is used first, and how many were ever used. */
	_Alignas(64) uint64_t answers;
	uint32_t free_count;
	uint32_t touched;
	uint8_t free_slots[INBOX_CALLS];

	struct inbox_slot slots[INBOX_CALLS];
};

struct inbox {
	uint32_t lane_count;
	int eventfd;
	size_t mapped_bytes;
	_Atomic uint32_t lanes_used;
	_Alignas(64) _Atomic bool armed; /* owner sets, whoever wakes it clears */
	_Alignas(64) struct inbox_lane lanes[];
};

int inbox_create(uint32_t lanes, int eventfd, struct inbox **out)
{
	size_t bytes = sizeof(struct inbox) + lanes * sizeof(struct inbox_lane);
	struct inbox *inbox = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (inbox == MAP_FAILED)
		return fail(-ENOMEM, "a segment's inbox of %zu bytes: %s", bytes, strerror(errno));
	inbox->lane_count = lanes;
	inbox->eventfd = eventfd;
	inbox->mapped_bytes = bytes;
	*out = inbox;
	return 0;
}

static void free_bodies(struct inbox_lane *lane)
{
	for (uint32_t i = 0; i < lane->touched; i++)
		body_destroy(lane->slots[i].body);
}

void inbox_destroy(struct inbox *inbox)
{
	if (!inbox)
		return;
	for (uint32_t i = 0; i < inbox_lanes(inbox); i++)
		free_bodies(&inbox->lanes[i]);
	munmap(inbox, inbox->mapped_bytes);
}

struct inbox_lane *inbox_lane(struct inbox *inbox, uint32_t poller)
{
	uint32_t used;

	if (!inbox || poller >= inbox->lane_count)
		return NULL;
	used = atomic_load(&inbox->lanes_used);
	while (used <= poller &&
	       !atomic_compare_exchange_weak(&inbox->lanes_used, &used, poller + 1))
		;
	atomic_store_explicit(&inbox->lanes[poller].inbox, inbox, memory_order_relaxed);
	return &inbox->lanes[poller];
}

/* ---- rings ---- */

static bool ring_has_room(const struct inbox_ring *ring, uint32_t size)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	return head - atomic_load_explicit(&ring->tail, memory_order_acquire) < size;
}

static bool ring_has_some(const struct inbox_ring *ring)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	return atomic_load_explicit(&ring->head, memory_order_acquire) != tail;
}

static uint32_t ring_next_in(const struct inbox_ring *ring, uint32_t size)
{
	return atomic_load_explicit(&ring->head, memory_order_relaxed) % size;
}

static uint32_t ring_next_out(const struct inbox_ring *ring, uint32_t size)
{
	return atomic_load_explicit(&ring->tail, memory_order_relaxed) % size;
}

/* The only writer of the position: no need of an atomic addition. */
static void ring_advance(_Atomic uint32_t *position)
{
	uint32_t before = atomic_load_explicit(position, memory_order_relaxed);

	atomic_store_explicit(position, before + 1, memory_order_release);
}

/* ---- the lane's poller ---- */

/* The light barrier pairs with the heavy one after inbox_arm(): the owner sees what came, or we see
 * that it wants to be woken. */
static void wake_owner(const struct inbox_lane *lane)
{
	struct inbox *inbox = atomic_load_explicit(&lane->inbox, memory_order_relaxed);

	barrier_light();
	if (atomic_load_explicit(&inbox->armed, memory_order_relaxed) &&
	    atomic_exchange(&inbox->armed, false))
		eventfd_write(inbox->eventfd, 1);
}

bool inbox_notify_room(struct inbox_lane *lane)
{
	return ring_has_room(&lane->notified, INBOX_NOTIFICATIONS);
}

uint32_t inbox_notify_space(struct inbox_lane *lane)
{
	const struct inbox_ring *ring = &lane->notified;

	return INBOX_NOTIFICATIONS - (atomic_load_explicit(&ring->head, memory_order_relaxed) -
				      atomic_load_explicit(&ring->tail, memory_order_acquire));
}

bool inbox_notify(struct inbox_lane *lane, struct sender *sender, uint32_t tag)
{
	if (!inbox_notify_room(lane))
		return false;
	lane->notifications[ring_next_in(&lane->notified, INBOX_NOTIFICATIONS)] =
		(struct slu_notification){
			.tag = tag, .client = sender->number, .identity = sender->identity};
	sender_is_heard(sender);
	ring_advance(&lane->notified.head);
	wake_owner(lane);
	return true;
}

static bool take_slot(struct inbox_lane *lane, uint8_t *index)
{
	if (lane->free_count > 0)
		*index = lane->free_slots[--lane->free_count];
	else if (lane->touched < INBOX_CALLS)
		*index = (uint8_t)lane->touched++;
	else
		return false;
	return true;
}

static struct inbox_slot *fill_slot(struct inbox_lane *lane, uint8_t index, struct sender *sender,
				    uint64_t cookie, uint32_t length)
{
	struct inbox_slot *slot = &lane->slots[index];

	slot->cookie = cookie;
	slot->client = sender->number;
	slot->identity = sender->identity;
	slot->length = length;
	sender_is_heard(sender);
	return slot;
}

static void announce(struct inbox_lane *lane, uint8_t index)
{
	lane->calls[ring_next_in(&lane->called, INBOX_CALLS)] = index;
	ring_advance(&lane->called.head);
	wake_owner(lane);
}

bool inbox_call(struct inbox_lane *lane, struct sender *sender, uint64_t cookie, const void *data,
		uint32_t length)
{
	struct inbox_slot *slot;
	uint8_t index;

	if (!take_slot(lane, &index))
		return false;
	slot = fill_slot(lane, index, sender, cookie, length);
	if (length > 0)
		memcpy(slot->data, data, length);
	announce(lane, index);
	return true;
}

bool inbox_call_long(struct inbox_lane *lane, struct sender *sender, uint64_t cookie,
		     struct body *body, uint32_t length)
{
	uint8_t index;

	if (!take_slot(lane, &index))
		return false;
	fill_slot(lane, index, sender, cookie, length)->body = body;
	announce(lane, index);
	return true;
}

static uint8_t *data_of(struct inbox_slot *slot)
{
	return slot->body ? slot->body->data : slot->data;
}

bool inbox_answer(struct inbox_lane *lane, struct inbox_answer *answer)
{
	struct inbox_slot *slot;

	/* Pairs with the release in inbox_reply(). */
	if (!lane->answers && atomic_load_explicit(&lane->answered, memory_order_relaxed))
		lane->answers = atomic_exchange_explicit(&lane->answered, 0, memory_order_acquire);
	if (!lane->answers)
		return false;
	slot = &lane->slots[__builtin_ctzll(lane->answers)];
	*answer = (struct inbox_answer){.cookie = slot->cookie,
					.status = slot->status,
					.length = slot->length,
					.data = data_of(slot),
					.body = slot->body ? &slot->body : NULL};
	return true;
}

void inbox_answer_done(struct inbox_lane *lane)
{
	uint8_t index = (uint8_t)__builtin_ctzll(lane->answers);

	if (lane->slots[index].body) {
		body_destroy(lane->slots[index].body);
		lane->slots[index].body = NULL;
	}
	lane->free_slots[lane->free_count++] = index;
	lane->answers &= lane->answers - 1;
}

uint32_t inbox_open_calls(const struct inbox_lane *lane, uint64_t cookies[INBOX_CALLS])
{
	uint64_t open =
		lane->touched == INBOX_CALLS ? UINT64_MAX : (UINT64_C(1) << lane->touched) - 1;
	uint32_t n = 0;

	for (uint32_t i = 0; i < lane->free_count; i++)
		open &= ~(UINT64_C(1) << lane->free_slots[i]);
	for (; open != 0; open &= open - 1)
		cookies[n++] = lane->slots[__builtin_ctzll(open)].cookie;
	return n;
}

bool inbox_answers_pending(const struct inbox_lane *lane)
{
	return lane->answers || atomic_load_explicit(&lane->answered, memory_order_relaxed);
}

/* ---- the segment's owner ---- */

uint32_t inbox_lanes(const struct inbox *inbox)
{
	return inbox ? atomic_load_explicit(&inbox->lanes_used, memory_order_acquire) : 0;
}

uint32_t inbox_poll(struct inbox *inbox, uint32_t index, struct slu_notification *out, uint32_t n)
{
	struct inbox_lane *lane = &inbox->lanes[index];
	uint32_t taken = 0;

	while (taken < n && ring_has_some(&lane->notified)) {
		out[taken++] =
			lane->notifications[ring_next_out(&lane->notified, INBOX_NOTIFICATIONS)];
		ring_advance(&lane->notified.tail);
	}
	return taken;
}

bool inbox_receive(struct inbox *inbox, uint32_t index, struct inbox_request *request)
{
	struct inbox_lane *lane = &inbox->lanes[index];
	struct inbox_slot *slot;
	uint8_t number;

	if (!ring_has_some(&lane->called))
		return false;
	number = lane->calls[ring_next_out(&lane->called, INBOX_CALLS)];
	ring_advance(&lane->called.tail);
	slot = &lane->slots[number];
	*request = (struct inbox_request){.slot = number,
					  .client = slot->client,
					  .identity = slot->identity,
					  .length = slot->length,
					  .data = data_of(slot)};
	return true;
}

void inbox_reply(struct inbox *inbox, uint32_t index, uint32_t number, int32_t status,
		 const void *data, uint32_t length)
{
	struct inbox_lane *lane = &inbox->lanes[index];
	struct inbox_slot *slot = &lane->slots[number];

	if (length > (slot->body ? slot->body->room : SLU_MESSAGE_MAX)) {
		status = -EMSGSIZE;
		length = 0;
	}
	slot->status = status;
	slot->length = length;
	if (length > 0)
		memmove(data_of(slot), data, length); /* an owner may answer out of the request */
	atomic_fetch_or_explicit(&lane->answered, UINT64_C(1) << number, memory_order_release);
}

bool inbox_pending(const struct inbox *inbox, bool calls)
{
	for (uint32_t i = 0; i < inbox_lanes(inbox); i++)
		if (ring_has_some(&inbox->lanes[i].notified) ||
		    (calls && ring_has_some(&inbox->lanes[i].called)))
			return true;
	return false;
}

/* The acquires pair with the releases of what the pollers have left. */
void inbox_mark(struct inbox *inbox)
{
	for (uint32_t i = 0; i < inbox_lanes(inbox); i++) {
		struct inbox_lane *lane = &inbox->lanes[i];

		lane->marked_notified =
			atomic_load_explicit(&lane->notified.head, memory_order_acquire);
		lane->marked_called =
			atomic_load_explicit(&lane->called.head, memory_order_acquire);
	}
}

static bool ring_is_past(const struct inbox_ring *ring, uint32_t mark)
{
	uint32_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

	return (int32_t)(tail - mark) >= 0;
}

/* A lane that came into use since has nothing before the mark: that is 0. */
bool inbox_is_past_mark(const struct inbox *inbox)
{
	for (uint32_t i = 0; i < inbox_lanes(inbox); i++)
		if (!ring_is_past(&inbox->lanes[i].notified, inbox->lanes[i].marked_notified) ||
		    !ring_is_past(&inbox->lanes[i].called, inbox->lanes[i].marked_called))
			return false;
	return true;
}

void inbox_arm(struct inbox *inbox)
{
	atomic_store_explicit(&inbox->armed, true, memory_order_relaxed);
}

void inbox_disarm(struct inbox *inbox)
{
	atomic_store_explicit(&inbox->armed, false, memory_order_relaxed);
}
