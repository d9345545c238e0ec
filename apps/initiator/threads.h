/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The threads of the workers: all of them run the same step, one step after another.
 *
 * Between two steps they stand still, and what they wrote is visible to the calling thread.
 */
#ifndef INITIATOR_THREADS_H
#define INITIATOR_THREADS_H

#include <pthread.h>
#include <stdint.h>

#include "initiator/worker.h"

typedef void (*worker_step)(struct worker *worker);

struct threads {
	struct worker *workers;
	uint32_t count;       /* running */
	pthread_t *ids;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	uint64_t round;       /* steps begun; the following are guarded by lock, too */
	uint32_t busy;        /* workers inside the step */
	worker_step step;     /* NULL = leave */
};

/**
 * Start @p count threads, one for each of @p workers.
 *
 * @param cores  CPUs to pin them to in turn; without any they run anywhere
 * @return       0; -ENOMEM; -EAGAIN too many threads; -EINVAL a CPU that this process may not use
 */
int threads_open(struct threads *threads, struct worker *workers, uint32_t count, const int *cores,
		 uint32_t cores_count);

/** End them; accepts a zeroed object. No step may be running. */
void threads_close(struct threads *threads);

/** Begin @p step in every worker. */
void threads_begin(struct threads *threads, worker_step step);

/** Wait until every worker has finished its step. */
void threads_end(struct threads *threads);

/** Begin a step and wait for its end. */
void threads_run(struct threads *threads, worker_step step);

#endif
