/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The memory that carries notifications, part of an area (client_area.h). Each poller of the client
 * has a lane of its own, a ring that it alone writes, for all sessions of the area, and the
 * segment's owner reads; so nothing is locked, and finding a notification moves one cache line.
 *
 *   line 0              lanes in use: raised by the client, read by the target
 *   lanes[poller]
 *     line 0            tail (target) and saved head (client, between two owners of the lane)
 *     line 1..          SLU_NOTIFICATIONS_MAX slots of 8 bytes (client)
 *
 * A slot is a word as in lanes.h. What the other side wrote is input: a hostile client can only
 * invent tags and sessions, a hostile target only stall.
 */
#ifndef MESSAGE_NOTIFY_RING_H
#define MESSAGE_NOTIFY_RING_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

#include "message/lanes.h"

#define NOTIFY_SLOTS ((uint32_t)SLU_NOTIFICATIONS_MAX)
#define NOTIFY_LANES ((uint32_t)SLU_POLLERS_MAX)

struct notify_lane {
	_Alignas(64) _Atomic uint32_t tail;
	uint32_t saved_head;
	_Alignas(64) _Atomic uint64_t slots[SLU_NOTIFICATIONS_MAX];
};

struct notify_ring {
	_Alignas(64) _Atomic uint32_t lanes;
	struct notify_lane lane[SLU_POLLERS_MAX];
};

static_assert(sizeof(struct notify_lane) == 64 + 8 * SLU_NOTIFICATIONS_MAX, "shared layout");
static_assert(sizeof(struct notify_ring) == 64 + SLU_POLLERS_MAX * sizeof(struct notify_lane),
	      "shared layout");
static_assert((SLU_NOTIFICATIONS_MAX & (SLU_NOTIFICATIONS_MAX - 1)) == 0, "a power of two");

/** One poller's end of its lane. */
struct notify_sender {
	struct notify_lane *lane;
	uint32_t head; /* next position to write */
	uint32_t tail; /* as last read: the line is the target's, and read only when it matters */
};

/** The target's end. Positions are its own count, never read back from the memory. */
struct notify_inbox {
	struct notify_ring *ring;
	uint32_t next_lane; /* round robin */
	struct lanes lanes;
	uint32_t positions[SLU_POLLERS_MAX];
};

/** Take over lane @p index, and touch it so that no page fault comes later. Control path. */
static inline void notify_attach(struct notify_sender *sender, struct notify_ring *ring,
				 uint32_t index)
{
	struct notify_lane *lane = &ring->lane[index];
	uint32_t lanes = atomic_load(&ring->lanes);

	atomic_fetch_or(&lane->slots[0], 0);
	atomic_fetch_or(&lane->slots[NOTIFY_SLOTS - 1], 0);
	sender->lane = lane;
	sender->head = lane->saved_head;
	sender->tail = atomic_load(&lane->tail);
	while (lanes < index + 1 && !atomic_compare_exchange_weak(&ring->lanes, &lanes, index + 1))
		;
}

/** Leave the lane to the next poller of that index. Control path. */
static inline void notify_detach(struct notify_sender *sender)
{
	sender->lane->saved_head = sender->head;
}

/**
 * Is there room for one more? The acquire pairs with the release in notify_receive(): the slot was
 * read before it is overwritten.
 */
static inline bool notify_room(struct notify_sender *sender)
{
	if (sender->head - sender->tail >= NOTIFY_SLOTS)
		sender->tail = atomic_load_explicit(&sender->lane->tail, memory_order_acquire);
	return sender->head - sender->tail < NOTIFY_SLOTS;
}

/** After notify_room(), after the data: pairs with the acquire in notify_receive(). */
static inline void notify_send(struct notify_sender *sender, uint32_t session, uint32_t tag)
{
	atomic_store_explicit(&sender->lane->slots[sender->head % NOTIFY_SLOTS],
			      lane_word(sender->head, NOTIFY_SLOTS, session, tag),
			      memory_order_release);
	sender->head++;
}

static inline uint32_t notify_receive_lane(struct notify_inbox *inbox, uint32_t index,
					   struct slu_notification *out, uint32_t n)
{
	struct notify_lane *lane = &inbox->ring->lane[index];
	uint32_t position = inbox->positions[index];
	uint32_t taken = 0;
	uint64_t word;

	while (taken < n && lane_read(lane->slots, position, NOTIFY_SLOTS, &word)) {
		out[taken++] = (struct slu_notification){.tag = (uint32_t)word,
							 .client = lane_session(word)};
		position++;
	}
	if (taken > 0) {
		inbox->positions[index] = position;
		atomic_store_explicit(&lane->tail, position, memory_order_release);
	}
	return taken;
}

static inline uint32_t notify_lanes(struct notify_inbox *inbox)
{
	return lanes_seen(&inbox->lanes,
			  atomic_load_explicit(&inbox->ring->lanes, memory_order_relaxed),
			  NOTIFY_LANES);
}

/** Take up to @p n, each lane in turn; as client is the session, as it says. */
static inline uint32_t notify_receive(struct notify_inbox *inbox, struct slu_notification *out,
				      uint32_t n)
{
	uint32_t lanes = notify_lanes(inbox);
	uint32_t taken = 0;

	for (uint32_t i = 0; i < lanes && taken < n; i++) {
		if (inbox->next_lane >= lanes)
			inbox->next_lane = 0;
		taken += notify_receive_lane(inbox, inbox->next_lane++, out + taken, n - taken);
	}
	return taken;
}

/** Is there something to take? */
static inline bool notify_pending(struct notify_inbox *inbox)
{
	uint32_t lanes = notify_lanes(inbox);

	for (uint32_t i = 0; i < lanes; i++) {
		uint64_t word;

		if (lane_read(inbox->ring->lane[i].slots, inbox->positions[i], NOTIFY_SLOTS, &word))
			return true;
	}
	return false;
}

#endif
