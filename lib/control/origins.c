/* SPDX-License-Identifier: Apache-2.0 */
#include "control/origins.h"

#include <string.h>

#include "base/clock.h"
#include "base/random.h"

/* Of users: no address begins like this (RFC 4291, 2.5.7: reserved). */
static const uint8_t user_prefix[4] = {0x01, 'u', 'i', 'd'};

void origins_init(struct origins *origins, uint64_t seed)
{
	memset(origins, 0, sizeof(*origins));
	origins->seed = seed;
}

static void key_of_address(const union address *address, uint8_t key[ORIGIN_KEY_BYTES])
{
	memset(key, 0, ORIGIN_KEY_BYTES);
	if (address->any.sa_family == AF_INET)
		memcpy(key + 12, &address->v4.sin_addr, 4);
	else if (IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		memcpy(key + 12, &address->v6.sin6_addr.s6_addr[12], 4);
	else
		memcpy(key, &address->v6.sin6_addr, 8);
}

static struct origin *set_of(struct origins *origins, const uint8_t key[ORIGIN_KEY_BYTES])
{
	uint64_t halves[2];
	struct random hash = {.state = origins->seed};

	memcpy(halves, key, sizeof(halves));
	hash.state = random_next(&hash) ^ halves[0];
	hash.state = random_next(&hash) ^ halves[1];
	return origins->table[random_next(&hash) % ORIGIN_SETS];
}

/* Is @p one sooner to be forgotten than @p other? */
static bool matters_less(const struct origin *one, const struct origin *other, uint64_t now_ns)
{
	bool known = origin_is_known(one, now_ns);

	if (known != origin_is_known(other, now_ns))
		return !known;
	return one->seen_ns < other->seen_ns;
}

static struct origin *find(struct origins *origins, const uint8_t key[ORIGIN_KEY_BYTES],
			   bool shared, uint64_t now_ns)
{
	struct origin *set = set_of(origins, key);
	struct origin *place = NULL;

	for (uint32_t i = 0; i < ORIGIN_WAYS; i++) {
		struct origin *origin = &set[i];

		if (origin->seen_ns && memcmp(origin->key, key, ORIGIN_KEY_BYTES) == 0) {
			origin->seen_ns = now_ns;
			return origin;
		}
		if (origin->strangers == 0 && (!place || matters_less(origin, place, now_ns)))
			place = origin;
	}
	if (!place)
		return NULL;
	*place = (struct origin){.shared = shared, .seen_ns = now_ns};
	memcpy(place->key, key, ORIGIN_KEY_BYTES);
	return place;
}

struct origin *origins_of_address(struct origins *origins, const union address *address,
				  uint64_t now_ns)
{
	uint8_t key[ORIGIN_KEY_BYTES];

	key_of_address(address, key);
	return find(origins, key, address_is_loopback(address), now_ns);
}

struct origin *origins_of_user(struct origins *origins, uid_t uid, uint64_t now_ns)
{
	uint8_t key[ORIGIN_KEY_BYTES] = {0};

	memcpy(key, user_prefix, sizeof(user_prefix));
	memcpy(key + 12, &uid, sizeof(uid));
	return find(origins, key, false, now_ns);
}

/* What counted before was another rate. */
void origin_prove(struct origin *origin, uint64_t now_ns)
{
	if (!origin_is_known(origin, now_ns))
		origin->connects = (struct rate){0};
	origin->proved_ns = now_ns;
}

bool origin_is_known(const struct origin *origin, uint64_t now_ns)
{
	return origin->shared ||
	       (origin->proved_ns &&
		now_ns - origin->proved_ns <= ORIGIN_KNOWN_SECONDS * NS_PER_SECOND);
}

void origin_fail(struct origin *origin, uint64_t window_ns, uint64_t now_ns)
{
	if (origin->shared)
		return;
	if (now_ns - origin->failed_ns > window_ns) {
		origin->failures = 0;
		origin->failed_ns = now_ns;
	}
	origin->failures++;
}

bool origin_fails(const struct origin *origin, uint32_t failures, uint64_t window_ns,
		  uint64_t now_ns)
{
	return origin->failures >= failures && now_ns - origin->failed_ns <= window_ns;
}
