/* SPDX-License-Identifier: Apache-2.0 */
#include "plain.h"

#define TRIES       5
#define UPPER       0.7         /* of the tries: whoever disturbs one only ever slows it */
#define BATCH_BYTES (256 * KIB) /* copied between two looks at the stop flag */

static uint64_t plain_step(void *arg)
{
	struct plain *plain = arg;
	struct cursor *cursor = plain->cursor;
	uint64_t done = 0;

	do {
		uint64_t offset = cursor_next(cursor);

		plain->copy(plain->to + offset,
			    plain->from + (plain->window ? offset % plain->window : offset),
			    cursor->size);
		done += cursor->size;
	} while (done < BATCH_BYTES);
	return done;
}

double plain_rate(const struct bench *bench, struct plain *plains, unsigned count,
		  const struct copy_kernel *kernel)
{
	struct lane lanes[LANES_MAX];

	for (unsigned i = 0; i < count; i++) {
		plains[i].copy = kernel->copy;
		lanes[i] = (struct lane){
			.core = plains[i].core, .step = plain_step, .arg = &plains[i]};
	}
	return lanes_rate(bench, lanes, count);
}

struct copy_kernel plain_fastest(const struct bench *bench, struct plain *plains, unsigned count,
				 double *rates)
{
	struct copy_kernel kernels[COPY_KERNELS_MAX];
	unsigned kernels_count = copy_kernels(kernels);
	double tries[COPY_KERNELS_MAX][TRIES];
	unsigned best = 0;

	for (unsigned try = 0; try < TRIES; try++)
		for (unsigned i = 0; i < kernels_count; i++)
			tries[i][try] = plain_rate(bench, plains, count, &kernels[i]);
	for (unsigned i = 0; i < kernels_count; i++) {
		rates[i] = percentile(tries[i], TRIES, UPPER);
		if (rates[i] > rates[best])
			best = i;
	}
	return kernels[best];
}
