/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random bursts of work requests through the direct path of mlx5, with the model of the device,
 * made from a seed and compared with a reference: storm_mlx5 COUNT [SEED]. To be built with
 * sanitizers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bursts.h"

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	const char *seed = argc > 2 ? argv[2] : "1";
	struct bursts_summary summary;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	bursts_run(count, strtoull(seed, NULL, 0), &summary);
	printf("%llu work requests in %llu bursts, %llu inline, %llu received, %llu failures, seed "
	       "%s: all as it must be\n",
	       (unsigned long long)summary.requests, (unsigned long long)summary.bursts,
	       (unsigned long long)summary.inlined, (unsigned long long)summary.received,
	       (unsigned long long)summary.failures, seed);
	return 0;
}
