/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The live line on stderr: what is done, and with rate and p99 so far while it is measured.
 */
#ifndef INITIATOR_PROGRESS_H
#define INITIATOR_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "initiator/config.h"
#include "initiator/worker.h"

#define PROGRESS_INTERVAL_NS UINT64_C(250000000)

struct progress {
	const struct config *config;
	bool shown; /* the line is not empty */
};

/** Show @p text; nothing without --progress. */
void progress_say(struct progress *progress, const char *text);

/** Show how far a measurement is that began @p elapsed_seconds ago, for @p moving_seconds moved. */
void progress_measuring(struct progress *progress, const struct worker *workers, uint32_t count,
			double elapsed_seconds, double moving_seconds);

/** Take the line away, before something else is printed. */
void progress_clear(struct progress *progress);

#endif
