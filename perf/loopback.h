/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Plain TCP over the loopback interface: what the kernel does without Sluice.
 */
#ifndef PERF_LOOPBACK_H
#define PERF_LOOPBACK_H

#include "bench.h"

/** Two connected sockets: non-blocking, without Nagle's delay. */
struct loopback {
	int ends[2]; /* the first is used on the first core */
};

/** Dies when 127.0.0.1 cannot be reached. */
void loopback_open(struct loopback *loopback);

void loopback_close(struct loopback *loopback);

/**
 * The p50 of a message of @p bytes there and as many back, one at a time. Each end spins in recv()
 * on a core of its own.
 *
 * @return nanoseconds
 */
double loopback_round_trip_ns(const struct bench *bench, struct loopback *loopback, uint32_t bytes);

#endif
