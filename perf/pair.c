/* SPDX-License-Identifier: Apache-2.0 */
#include "pair.h"

#include "probe.h"

#define PAIRS_PER_ROUND 5
#define ATTEMPTS_MAX    8

/* The order changes from pair to pair, so that neither side always runs on what the other left. */
static void measure_round(const struct side *sluice, const struct side *reference,
			  enum better better, struct pair_round *round)
{
	double left[PAIRS_PER_ROUND], right[PAIRS_PER_ROUND], ratios[PAIRS_PER_ROUND];

	for (unsigned i = 0; i < PAIRS_PER_ROUND; i++) {
		if (i % 2 == 0)
			left[i] = sluice->measure(sluice->arg);
		right[i] = reference->measure(reference->arg);
		if (i % 2 == 1)
			left[i] = sluice->measure(sluice->arg);
		ratios[i] = better == BETTER_HIGHER ? left[i] / right[i] : right[i] / left[i];
	}
	round->sluice = median(left, PAIRS_PER_ROUND);
	round->reference = median(right, PAIRS_PER_ROUND);
	round->ratio = median(ratios, PAIRS_PER_ROUND);
}

unsigned pair_measure(const struct bench *bench, const struct side *sluice,
		      const struct side *reference, enum better better, struct pair_round *rounds)
{
	double before_ns = probe_core_to_core_ns(bench);
	unsigned moved = 0;

	for (unsigned i = 0; i < bench->rounds; i++) {
		for (unsigned attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
			double after_ns;

			measure_round(sluice, reference, better, &rounds[i]);
			after_ns = probe_core_to_core_ns(bench);
			rounds[i].core_to_core_ns = after_ns;
			if (!probe_moved(before_ns, after_ns))
				break;
			before_ns = after_ns;
			moved++;
		}
		before_ns = rounds[i].core_to_core_ns;
	}
	return moved;
}
