/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Where the two cores stand to each other: the time that one cache line takes from one to the
 * other.
 */
#ifndef PERF_PROBE_H
#define PERF_PROBE_H

#include "bench.h"

/**
 * Core-to-core latency: half a round trip of one cache line that both cores write in turn.
 *
 * The median of many short bursts, so that a preempted burst does not count. A few milliseconds.
 *
 * @return nanoseconds
 */
double probe_core_to_core_ns(const struct bench *bench);

/**
 * Do two readings stand for different placements of the cores (shared last-level cache or not)?
 *
 * Readings of one placement lie within a third of each other; those of the two differ threefold.
 */
bool probe_moved(double before_ns, double after_ns);

#endif
