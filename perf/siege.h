/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A client's rate, and the answers that a client gets, while somebody is at the same target: an
 * attacker, and in turn a harmless neighbour who does as much as often.
 */
#ifndef PERF_SIEGE_H
#define PERF_SIEGE_H

#include "bench.h"

/** Two rows for each attack of hostile.h. */
void siege_run(const struct bench *bench);

#endif
