/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * How often something may happen: a rate with a burst. The time is passed in.
 */
#ifndef CONTROL_LIMITS_H
#define CONTROL_LIMITS_H

#include <stdbool.h>
#include <stdint.h>

/** A rate with a burst; all zero is full. */
struct rate {
	uint64_t due_ns; /* when all that was taken would be made up for */
};

/** Take one. @return false: over the rate */
bool rate_take(struct rate *rate, uint32_t per_second, uint32_t burst, uint64_t now_ns);

#endif
