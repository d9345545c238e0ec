/* SPDX-License-Identifier: Apache-2.0 */
#include "control/limits.h"

#include <string.h>

#include "base/clock.h"
#include "base/random.h"

bool rate_take(struct rate *rate, uint32_t per_second, uint32_t burst, uint64_t now_ns)
{
	uint64_t interval = NS_PER_SECOND / per_second;
	uint64_t due = rate->due_ns > now_ns ? rate->due_ns : now_ns;

	if (due - now_ns > interval * (burst - 1))
		return false;
	rate->due_ns = due + interval;
	return true;
}

static void key_of(const union address *address, uint8_t key[16])
{
	memset(key, 0, 16);
	if (address->any.sa_family == AF_INET)
		memcpy(key + 12, &address->v4.sin_addr, 4);
	else if (IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		memcpy(key + 12, &address->v6.sin6_addr.s6_addr[12], 4);
	else
		memcpy(key, &address->v6.sin6_addr, 8);
}

static uint32_t slot_of(const uint8_t key[16])
{
	uint64_t halves[2];
	struct random hash;

	memcpy(halves, key, sizeof(halves));
	hash.state = halves[0] ^ halves[1];
	return (uint32_t)(random_next(&hash) % PENALTIES);
}

void penalty_note(struct penalties *penalties, const union address *address, uint64_t window_ns,
		  uint64_t now_ns)
{
	struct penalty *penalty;
	uint8_t key[16];

	if (address_is_loopback(address))
		return;
	key_of(address, key);
	penalty = &penalties->table[slot_of(key)];
	if (memcmp(penalty->address, key, sizeof(key)) != 0 ||
	    now_ns - penalty->since_ns > window_ns) {
		memcpy(penalty->address, key, sizeof(key));
		penalty->failures = 0;
		penalty->since_ns = now_ns;
	}
	penalty->failures++;
}

bool penalty_applies(const struct penalties *penalties, const union address *address,
		     uint32_t failures, uint64_t window_ns, uint64_t now_ns)
{
	const struct penalty *penalty;
	uint8_t key[16];

	key_of(address, key);
	penalty = &penalties->table[slot_of(key)];
	return memcmp(penalty->address, key, sizeof(key)) == 0 && penalty->failures >= failures &&
	       now_ns - penalty->since_ns <= window_ns;
}
