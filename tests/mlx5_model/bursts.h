/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Random bursts of every kind of work request through the direct path of mlx5 and the model of the
 * device, beside a reference that does the same with memcpy: memory, completions and receives must
 * agree. Now and then a request fails, and everything after it must be flushed.
 */
#ifndef TESTS_MLX5_MODEL_BURSTS_H
#define TESTS_MLX5_MODEL_BURSTS_H

#include <stdint.h>

struct bursts_summary {
	uint64_t requests;
	uint64_t bursts;
	uint64_t failures; /* queue pairs that were let fail */
	uint64_t inlined;
	uint64_t received;
};

/** What does not agree ends the program with a text. Equal seeds make equal bursts. */
void bursts_run(uint64_t requests, uint64_t seed, struct bursts_summary *summary);

#endif
