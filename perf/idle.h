/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A busy client's figures at a target that a crowd of idle ones has come to, and at one that has no
 * other client.
 */
#ifndef PERF_IDLE_H
#define PERF_IDLE_H

#include "bench.h"

/** Over TCP each idle client has connections of its own. */
void idle_run_tcp(const struct bench *bench);

/** In shared memory one client has all idle sessions. */
void idle_run_shm(const struct bench *bench);

#endif
