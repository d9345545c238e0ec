/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a row runs on: a target, an engine, and pairs of a local region and a remote segment.
 */
#ifndef PERF_RIG_H
#define PERF_RIG_H

#include <sluice/sluice.h>

#include "bench.h"
#include "target.h"

enum rig_memory {
	RIG_CACHED,    /* 4 MiB at either end: both inside the last-level cache */
	RIG_STREAMING, /* 1 GiB at either end */
	RIG_MEMORIES,
};

/** The two ends of transfers. */
struct rig_pair {
	uint64_t length;
	struct slu_region *region;
	char *local; /* of the region */
	struct slu_remote *remote;
	char *mapped; /* the segment, mapped for plain copies and for comparing */
	uint64_t page_bytes;
};

/** Who may come over TLS. */
enum rig_identity {
	RIG_PERF,
	RIG_NEIGHBOUR,
	RIG_ROGUE,
	RIG_IDENTITIES,
};

struct rig {
	const struct bench *bench;
	struct slu_engine *engine;
	struct target target;
	struct rig_pair pairs[RIG_MEMORIES];
	char names[RIG_MEMORIES][TARGET_NAME_BYTES]; /* of the segments */
	struct tls *keys[RIG_IDENTITIES];            /* with tls: of a client of that identity */

	/* With peer: another target, that has RIG_CACHED only. */
	struct target peer;
	struct rig_pair peer_pair;
	char peer_name[TARGET_NAME_BYTES];
};

struct rig_options {
	uint32_t pollers; /* 0; 1: on the second core; 2: one on each core */
	enum slu_poll_mode poll;
	bool streaming; /* the streaming pair is wanted; else it stays empty */
	bool tcp;       /* over TCP, the target's poller on the second core; else shared memory */
	bool tls;       /* and encrypted */
	bool answers;   /* the target's owner of RIG_CACHED answers calls, on the second core */
	bool peer;      /* a second target like the first */
	struct target_siege siege;
	uint32_t connections; /* as slu_engine_options.tcp_connections */
};

/** Start a target and an engine, and connect them. */
void rig_open(struct rig *rig, const struct bench *bench, const struct rig_options *options);

void rig_close(struct rig *rig);

/** Open a queue of @p depth operations behind @p poller, or inline with SLU_POLLER_INLINE. */
struct slu_queue *rig_queue(const struct rig *rig, int32_t poller, uint32_t depth);

#endif
