/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a run stands on: engine, connection, local memory, and the workers with their queues.
 *
 * Order of calls: setup_connect, setup_workers, setup_close. On an error the object holds what was
 * opened, for setup_close().
 */
#ifndef INITIATOR_SETUP_H
#define INITIATOR_SETUP_H

#include <sluice/sluice.h>

#include "initiator/config.h"
#include "initiator/threads.h"
#include "initiator/worker.h"

struct setup {
	struct slu_engine *engine;
	struct slu_remote *remote;
	struct slu_region *region;
	struct slu_segment *segment; /* of --local_segment */
	struct load load;
	bool filled; /* the segment: it holds data of this run */
	struct worker *workers;
	uint32_t workers_count;
	struct threads threads;
	int worker_cores[THREADS_MAX];
	uint32_t worker_cores_count; /* 0 = not pinned */
};

/** Open the engine alone. @param setup  zeroed. @return 0; errors of slu_engine_open() */
int setup_engine(struct setup *setup, const struct config *config);

/**
 * Open the engine and connect to the remote segment.
 *
 * @param setup  zeroed
 * @return       0; errors of slu_engine_open() and slu_remote_open()
 */
int setup_connect(struct setup *setup, const struct config *config);

/**
 * Allocate local memory, export it when asked for, open a queue for each worker and start them.
 *
 * @param window_bytes  local memory of each worker
 * @param queue_depth   operations that each of them has in flight
 * @return              0; errors of slu_region_alloc(), slu_segment_export(), slu_queue_open(),
 *                      threads_open()
 */
int setup_workers(struct setup *setup, const struct config *config, uint64_t window_bytes,
		  uint32_t queue_depth);

/** Close all of it; accepts a zeroed or half-made object. */
void setup_close(struct setup *setup);

#endif
