/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How many lanes of an area its owner looks at, and the words in them. The client says how many it
 * uses, and may lie: each costs the owner time whenever it polls, and memory for the pages that it
 * reads. So the first is free, and each further one counts as a session of that identity.
 *
 * What announces something in a ring is one word, so that to announce is one store:
 *
 *   bit 63     of the round: at position p of a ring of n slots, whether p / n is even. So a slot
 *              does not hold what its position is to have before that was stored, beginning with 0
 *   62..32     which session of the area it is of
 *   31..0      a tag, or slot << 16 | length
 */
#ifndef MESSAGE_LANES_H
#define MESSAGE_LANES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct budget;

/** One more kind of lanes of one client, as its owner sees them. */
struct lanes {
	uint32_t count;        /* that are looked at; never fewer again */
	bool told;             /* that it may have no more */
	struct budget *budget; /* NULL: without limits. Its holder's reference outlives this */
};

static inline uint64_t lane_word(uint32_t position, uint32_t slots, uint32_t session, uint32_t low)
{
	return (uint64_t) !(position / slots & 1) << 63 | (uint64_t)session << 32 | low;
}

/** What is at @p position, if it has come. @return false: not yet */
static inline bool lane_read(const _Atomic uint64_t *ring, uint32_t position, uint32_t slots,
			     uint64_t *word)
{
	/* Pairs with the release of what was announced. */
	*word = atomic_load_explicit(&ring[position % slots], memory_order_acquire);
	return *word >> 63 != (position / slots & 1);
}

static inline uint32_t lane_session(uint64_t word)
{
	return (uint32_t)(word >> 32) & (uint32_t)INT32_MAX;
}

/** The client says that it uses @p wanted, more than are looked at: as many as it may have. Owner.
 */
void lanes_grow(struct lanes *lanes, uint32_t wanted);

/** Give back what they took of the budget. */
void lanes_end(struct lanes *lanes);

/** How many to look at, where the client says @p said and there can be @p most. Owner. */
static inline uint32_t lanes_seen(struct lanes *lanes, uint32_t said, uint32_t most)
{
	if (__builtin_expect(said > lanes->count && lanes->count < most, 0))
		lanes_grow(lanes, said < most ? said : most);
	return lanes->count;
}

#endif
