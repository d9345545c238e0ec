/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A process that besets a target's TCP port, to be stopped and let go on between measurements.
 *
 * It stands for somebody on another host: it has the lowest priority, so that what it takes from
 * the others is the target's work and the kernel's, not its own.
 */
#ifndef PERF_HOSTILE_H
#define PERF_HOSTILE_H

#include "bench.h"

enum hostile_kind {
	HOSTILE_SILENT,    /* connections that say nothing */
	HOSTILE_SLOW,      /* connections that say a byte a second */
	HOSTILE_CONNECTS,  /* connections that end at once, as many as it can */
	HOSTILE_OVERSIZED, /* messages of 4 GiB */
	HOSTILE_TOKEN,     /* guessed tokens for data connections */
	HOSTILE_KEY,       /* TLS handshakes with a wrong key */
};

struct hostile {
	pid_t pid;
	_Atomic uint64_t *attempts; /* shared with it */
};

/** Start one, paused. @param address  "127.0.0.1:PORT" */
void hostile_start(struct hostile *hostile, enum hostile_kind kind, const char *address);

void hostile_resume(const struct hostile *hostile);

void hostile_pause(const struct hostile *hostile);

void hostile_stop(struct hostile *hostile);

#endif
