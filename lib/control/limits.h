/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How often something may happen: a rate with a burst, and addresses that failed too often. Bounded
 * memory, and the time is passed in.
 */
#ifndef CONTROL_LIMITS_H
#define CONTROL_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/address.h"

/** A rate with a burst; all zero is full. */
struct rate {
	uint64_t due_ns; /* when all that was taken would be made up for */
};

/** Take one. @return false: over the rate */
bool rate_take(struct rate *rate, uint32_t per_second, uint32_t burst, uint64_t now_ns);

#define PENALTIES 256u

/** Who has failed how often; an address takes the place of another one with the same hash. */
struct penalties {
	struct penalty {
		uint8_t address[16];
		uint32_t failures;
		uint64_t since_ns;
	} table[PENALTIES];
};

/**
 * Note a failure. Loopback does not count: all who work on this host share it. Of IPv6 addresses
 * the network of 64 bits counts, for that is what one host can choose from.
 */
void penalty_note(struct penalties *penalties, const union address *address, uint64_t window_ns,
		  uint64_t now_ns);

/** Has it failed @p failures times within the window? */
bool penalty_applies(const struct penalties *penalties, const union address *address,
		     uint32_t failures, uint64_t window_ns, uint64_t now_ns);

#endif
