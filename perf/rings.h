/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * rte_ring between the two cores: what handing work to another core costs at the very least.
 */
#ifndef PERF_RINGS_H
#define PERF_RINGS_H

#include "bench.h"

#define RINGS_ELEMENT_BYTES 64
#define RINGS_BURST         32

/** Elements of 64 bytes a second, through one SPSC ring, in bursts of 32. One slice. */
double rings_rate(const struct bench *bench);

/** Round trip of one 8-byte element over two SPSC rings: p50, nanoseconds. One slice. */
double rings_round_trip_ns(const struct bench *bench);

#endif
