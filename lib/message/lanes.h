/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How many lanes of a client's area its owner looks at. The client says how many it uses, and may
 * lie: each costs the owner time whenever it polls, and memory for the pages that it reads. So the
 * first is the session's, and each further one counts as a session of that identity.
 */
#ifndef MESSAGE_LANES_H
#define MESSAGE_LANES_H

#include <stdbool.h>
#include <stdint.h>

struct budget;

/** One more kind of lanes of one client, as its owner sees them. */
struct lanes {
	uint32_t count;        /* that are looked at; never fewer again */
	bool told;             /* that it may have no more */
	struct budget *budget; /* NULL: without limits. Its holder's reference outlives this */
};

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
