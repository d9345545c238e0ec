/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Operations on one target over TCP while another, on the same poller, has been stopped and does
 * not answer.
 */
#ifndef PERF_STALLED_H
#define PERF_STALLED_H

#include "bench.h"

/** A row for each kind of operation that the stopped target has not answered. */
void stalled_run(const struct bench *bench);

#endif
