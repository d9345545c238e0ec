/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The target of a benchmark: a child process with an engine of its own that exports segments and
 * otherwise sleeps.
 *
 * Order of calls: target_start() before this process opens an engine, which the child would
 * inherit; then remotes on target_segment.name; target_stop() at the end.
 */
#ifndef PERF_TARGET_H
#define PERF_TARGET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TARGET_NAME_BYTES    64
#define TARGET_ADDRESS_BYTES 64

struct target_segment {
	char name[TARGET_NAME_BYTES]; /* set by target_start(): unique to this process */
	uint64_t length;              /* bytes, a multiple of 2 MiB */
};

/** What it serves when it is besieged. */
struct target_siege {
	bool on;               /* data connections are not encrypted, so TLS hides nothing */
	uint32_t rogue_rights; /* of the identity "rogue"; all others may read and write */
	bool stalled_log;      /* it logs to a full pipe */
};

/** What it does; all zero: nothing but to export. */
struct target_options {
	bool tcp;             /* serve on 127.0.0.1, with one busy poller */
	bool answers;         /* the first segment's owner answers calls, and never sleeps */
	int core;             /* of the poller and of the owner */
	const char *psk_file; /* NULL = without TLS */
	struct target_siege siege;
};

struct target {
	pid_t pid;
	int hold;                           /* a pipe: when this end closes, the target leaves */
	char address[TARGET_ADDRESS_BYTES]; /* where it serves TCP; else empty */
};

/**
 * Start it and wait until all @p count segments are exported. Dies when that fails.
 *
 * Of several the last one started is to be stopped first: it has inherited what holds the others.
 */
void target_start(struct target *target, struct target_segment *segments, unsigned count,
		  const struct target_options *options);

/** Stop its threads where they are: its cores are free for something else. */
void target_pause(const struct target *target);

/** Let it go on. */
void target_resume(const struct target *target);

/** Tell it to leave and wait until it has. */
void target_stop(struct target *target);

/**
 * Map the very memory of a segment into this process, so that a plain copy goes to the same pages
 * as Sluice's. It is found among the target's memfds, through /proc.
 */
void *target_map(const struct target *target, const struct target_segment *segment);

#endif
