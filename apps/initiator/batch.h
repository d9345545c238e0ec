/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A batch on its way: built and filled, submitted, finished, compared. Hot; worker's thread.
 */
#ifndef INITIATOR_BATCH_H
#define INITIATOR_BATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "initiator/worker.h"

/** Set what stays the same in the operations of @p slot. */
void batch_init(struct worker *worker, struct slot *slot);

/**
 * Choose offsets and direction of the next batch in an idle slot, and with --integrity_check fill
 * or clear its buffers.
 */
void batch_build(struct worker *worker, struct slot *slot);

/**
 * Submit what of @p slot has not been submitted.
 *
 * @return 1 all of it is; 0 the queue is full; a negative errno of slu_submit()
 */
int batch_submit(struct worker *worker, struct slot *slot);

/** All of it has completed: with --integrity_check compare, or arrange the READ that will be. */
void batch_finish(struct worker *worker, struct slot *slot);

#endif
