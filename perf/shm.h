/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The rows of the shm suite. The table of them is in shm.c; here is how each kind is run.
 */
#ifndef PERF_SHM_H
#define PERF_SHM_H

#include "rig.h"

/** Rows of one group run on one engine, in one process. */
enum shm_group {
	SHM_INLINE,  /* no poller threads: queues run by their owners */
	SHM_POLLER,  /* one poller on the second core */
	SHM_POLLERS, /* one poller on each core */
	SHM_BUSY,    /* one poller on the second core that never sleeps */
	SHM_SAMPLE,  /* inline; single figures that perf/run sets against other programs */
	SHM_GROUPS,
};

struct shm_row {
	const char *name;
	enum shm_group group;
	double floor;
	void (*run)(const struct rig *rig, const struct shm_row *row);
	enum slu_opcode opcode;
	uint64_t length; /* of one operation, bytes */
	enum rig_memory memory;
	uint64_t walked;  /* bytes of the memory that are used; 0 = all */
	bool random;      /* pieces in a random order */
	unsigned threads; /* of copies, 1..LANES_MAX */
};

/** Copies of a row's size and working set, held against the fastest plain copy. */
void shm_run_copy(const struct rig *rig, const struct shm_row *row);

/** Many worker threads on the two cores, held against two. */
void shm_run_workers(const struct rig *rig, const struct shm_row *row);

/** Small operations behind a poller, held against the rate of one ring. */
void shm_run_ring_rate(const struct rig *rig, const struct shm_row *row);

/** One operation from submit to completion, inline, held against the copy + 40 ns. */
void shm_run_inline_latency(const struct rig *rig, const struct shm_row *row);

/** One operation from submit to completion, behind a poller, held against two ring round trips. */
void shm_run_poller_latency(const struct rig *rig, const struct shm_row *row);

/** A short READ behind a poller that has bulk of the row to do, held against one slice more. */
void shm_run_mixed(const struct rig *rig, const struct shm_row *row);

/** The rate of a row, alone. */
void shm_run_sample(const struct rig *rig, const struct shm_row *row);

/**
 * WRITE_NOTIFY of 8 bytes there and back between two processes, each with an engine of its own;
 * half a round trip, alone. Must run before this process opens an engine.
 */
void shm_run_notify(const struct bench *bench);

#endif
