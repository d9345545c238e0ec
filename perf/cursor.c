/* SPDX-License-Identifier: Apache-2.0 */
#include "cursor.h"

#include <stdlib.h>

#include "base/random.h"
#include "bench.h"

/* Fisher and Yates, inside out. */
uint32_t *cursor_permutation(uint32_t count, uint64_t seed)
{
	struct random random = {.state = seed};
	uint32_t *order = malloc(count * sizeof(*order));

	if (!order)
		die("out of memory");
	for (uint32_t i = 0; i < count; i++) {
		uint32_t other = (uint32_t)random_below(&random, (uint64_t)i + 1);

		order[i] = order[other];
		order[other] = i;
	}
	return order;
}
