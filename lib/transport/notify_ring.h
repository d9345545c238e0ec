/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The ring that carries notifications in shared memory: one per client of a segment, made by the
 * target, written by all pollers of the client, read by the segment's owner.
 *
 *   line 0   reserved words        written once by the target
 *   line 1   head                  next position to claim: the client's pollers
 *   line 2   tail                  next position to read: the target
 *   line 3.. SLU_NOTIFICATIONS_MAX slots of 8 bytes
 *
 * A slot holds (lap << 32 | tag) in one word, so that a notification is one store, and finding it is
 * one cache line moved. The lap of position p is p / slots + 1, which no slot holds before. What the
 * other side wrote is input: a hostile client can only invent tags, a hostile target only stall.
 */
#ifndef TRANSPORT_NOTIFY_RING_H
#define TRANSPORT_NOTIFY_RING_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

#define NOTIFY_SLOTS ((uint32_t)SLU_NOTIFICATIONS_MAX)

struct notify_ring {
	uint64_t reserved[8];
	_Alignas(64) _Atomic uint32_t head;
	_Alignas(64) _Atomic uint32_t tail;
	_Alignas(64) _Atomic uint64_t slots[SLU_NOTIFICATIONS_MAX];
};

static_assert(sizeof(struct notify_ring) == 192 + 8 * SLU_NOTIFICATIONS_MAX, "wire layout");
static_assert((SLU_NOTIFICATIONS_MAX & (SLU_NOTIFICATIONS_MAX - 1)) == 0, "a power of two");

/** The target's end of one client's ring. */
struct notify_inbox {
	struct notify_ring *ring;
	uint32_t position; /* the reader's own count, never read back from the ring */
};

static inline uint64_t notify_word(uint32_t position, uint32_t tag)
{
	return (uint64_t)(position / NOTIFY_SLOTS + 1) << 32 | tag;
}

/**
 * Claim a position before the data is copied. Any poller of the client.
 *
 * @param tail  the caller's last known value of ring->tail: reading the line anew, which the target
 *              writes, is needed only when the ring seems full. The acquire pairs with the release
 *              in notify_receive(): the slot was read before it is overwritten.
 * @return false: the ring is full
 */
static inline bool notify_claim(struct notify_ring *ring, uint32_t *tail, uint32_t *position)
{
	uint32_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	do {
		if (head - *tail >= NOTIFY_SLOTS)
			*tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
		if (head - *tail >= NOTIFY_SLOTS)
			return false;
	} while (!atomic_compare_exchange_weak_explicit(&ring->head, &head, head + 1,
							memory_order_relaxed, memory_order_relaxed));
	*position = head;
	return true;
}

/** After the data: pairs with the acquire in notify_receive(). */
static inline void notify_publish(struct notify_ring *ring, uint32_t position, uint32_t tag)
{
	atomic_store_explicit(&ring->slots[position % NOTIFY_SLOTS], notify_word(position, tag),
			      memory_order_release);
}

/** Take up to @p n tags. */
static inline uint32_t notify_receive(struct notify_inbox *inbox, uint32_t *tags, uint32_t n)
{
	struct notify_ring *ring = inbox->ring;
	uint32_t taken = 0;

	while (taken < n) {
		uint32_t at = inbox->position + taken;
		uint64_t word = atomic_load_explicit(&ring->slots[at % NOTIFY_SLOTS],
						     memory_order_acquire);

		if (word >> 32 != at / NOTIFY_SLOTS + 1)
			break;
		tags[taken++] = (uint32_t)word;
	}
	if (taken > 0) {
		inbox->position += taken;
		atomic_store_explicit(&ring->tail, inbox->position, memory_order_release);
	}
	return taken;
}

#endif
