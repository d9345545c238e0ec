/* SPDX-License-Identifier: Apache-2.0 */
#include "control/limits.h"

#include "base/clock.h"

bool rate_take(struct rate *rate, uint32_t per_second, uint32_t burst, uint64_t now_ns)
{
	uint64_t interval = NS_PER_SECOND / per_second;
	uint64_t due = rate->due_ns > now_ns ? rate->due_ns : now_ns;

	if (due - now_ns > interval * (burst - 1))
		return false;
	rate->due_ns = due + interval;
	return true;
}
