/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What is done with whole ranges around a measurement: filled, read back and compared, looked at;
 * single batches are filled and compared in batch.c.
 *
 * Each is a step of all workers. In those that read, a worker reads what another one wrote, through
 * its own queue and into its own memory.
 */
#ifndef INITIATOR_VERIFY_H
#define INITIATOR_VERIFY_H

#include "initiator/worker.h"

/**
 * A step: fill the worker's window of local memory with what no processor, hypervisor or wire can
 * shorten. No two pages of all windows are alike.
 */
void verify_fill_window(struct worker *worker);

/** A step: count the pages of zeros among what the worker has read last. */
void verify_look(struct worker *worker);

/** A step: write the pattern of load->generation to the worker's share of the whole segment. */
void verify_write_all(struct worker *worker);

/** A step: read the next worker's share of the whole segment and compare it with that pattern. */
void verify_read_all(struct worker *worker);

/** A step: read back what the next worker wrote during `--workload write` and compare it. */
void verify_read_back(struct worker *worker);

#endif
