/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/access.h"

#include "base/random.h"

void access_init(struct access *access, uint64_t base, uint64_t size, uint64_t blocks, bool random,
		 uint64_t seed)
{
	uint32_t bits = blocks > 1 ? 64 - (uint32_t)__builtin_clzll(blocks - 1) : 1;
	struct random keys = {.state = seed ^ base};

	*access = (struct access){
		.base = base,
		.size = size,
		.blocks = blocks,
		.random = random,
		.shift = (bits + 1) / 2,
		.mask = (UINT64_C(1) << bits) - 1,
		.key = {random_next(&keys) | 1, random_next(&keys) | 1},
	};
}
