/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Checks of whole ranges around a measurement; single batches are compared in batch.c.
 *
 * Each is a step of all workers. In those that read, a worker reads what another one wrote, through
 * its own queue and into its own memory.
 */
#ifndef INITIATOR_VERIFY_H
#define INITIATOR_VERIFY_H

#include "initiator/worker.h"

/** A step: write the pattern of load->generation to the worker's share of the whole segment. */
void verify_write_all(struct worker *worker);

/** A step: read the next worker's share of the whole segment and compare it with that pattern. */
void verify_read_all(struct worker *worker);

/** A step: read back what the next worker wrote during `--workload write` and compare it. */
void verify_read_back(struct worker *worker);

#endif
