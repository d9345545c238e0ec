/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A short look at what one transport does between here and a segment: enough to tell transports
 * apart, and no benchmark.
 */
#ifndef INITIATOR_PROBE_H
#define INITIATOR_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/sluice.h>

#include "initiator/config.h"

struct probe {
	uint64_t latency_ns;       /* median of single READs of 8 bytes, or of the whole segment */
	uint64_t bytes_per_second; /* of READs of 1 MiB, or of the whole segment, four in flight */
	bool zeros;                /* the last of those READs brought nothing else */
};

/**
 * Connect by @p transport and read for about a fifth of a second. timer_calibrate() comes before.
 *
 * @return 0; errors of slu_remote_open() and others, and of the first READ that failed
 */
int probe_measure(struct slu_engine *engine, const struct config *config,
		  enum slu_transport transport, struct probe *probe);

#endif
