/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The engine of a target and its exported segments.
 */
#ifndef TARGET_SERVING_H
#define TARGET_SERVING_H

#include <sluice/sluice.h>

#include "common/grants.h"
#include "target/config.h"

struct serving {
	struct slu_engine *engine;
	struct slu_region *regions[TARGET_SEGMENTS_MAX];
	struct slu_segment *segments[TARGET_SEGMENTS_MAX];
	uint32_t count;
};

/**
 * Open the engine, allocate every segment's memory and export it.
 *
 * Says on stdout how far it is when touching the memory takes over a second.
 *
 * @param serving  zeroed; on an error it holds what was opened, for serving_close()
 * @param grants   of the configuration file; none = whoever is let in may do everything
 * @return         0; errors of slu_engine_open(), slu_region_alloc() and slu_segment_export()
 */
int serving_open(struct serving *serving, const struct config *config, const struct grants *grants);

/** The engine alone. @return as slu_engine_open(); serving_close() afterwards */
int serving_open_engine(struct serving *serving, const struct config *config,
			const struct grants *grants);

/** Close all of it; accepts what serving_open() left half-made. */
void serving_close(struct serving *serving);

#endif
