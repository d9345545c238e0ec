/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sluice's shm path against the machine's limits, or alone for what perf/run compares it with. One
 * line of JSON a row; see perf/README.md.
 */
#include <stdio.h>
#include <string.h>

#include "idle.h"
#include "shm.h"

#define NOTIFY_GROUP "notify"
#define IDLE_GROUP   "idle"

/* What a group's engine is opened with. */
static const struct {
	const char *name;
	uint32_t pollers;
	enum slu_poll_mode poll;
} groups[SHM_GROUPS] = {
	[SHM_INLINE] = {"inline", 0, SLU_POLL_ADAPTIVE},
	[SHM_POLLER] = {"poller", 1, SLU_POLL_ADAPTIVE},
	[SHM_POLLERS] = {"pollers", 2, SLU_POLL_ADAPTIVE},
	[SHM_BUSY] = {"busy", 1, SLU_POLL_BUSY},
	[SHM_SAMPLE] = {"sample", 0, SLU_POLL_ADAPTIVE},
};

/* clang-format off */
#define COPY(name, group, floor, opcode, length, memory) \
	{name, group, floor, shm_run_copy, opcode, length, memory, 0, false, 1}
#define COPY_THREADS(name, group, opcode) \
	{name, group, 0.95, shm_run_copy, opcode, 64 * KIB, RIG_STREAMING, 0, false, 2}
#define COPY_RANDOM(name, opcode) \
	{name, SHM_INLINE, 0.95, shm_run_copy, opcode, 4 * KIB, RIG_STREAMING, 0, true, 1}
#define WORKERS(name, opcode, threads) \
	{name, SHM_INLINE, 0.9, shm_run_workers, opcode, 64 * KIB, RIG_STREAMING, 0, false, threads}
#define MIXED(name, opcode) \
	{name, SHM_BUSY, 1, shm_run_mixed, opcode, MIB, RIG_STREAMING, 0, false, 1}
#define SAMPLE(name, opcode, length, memory, walked) \
	{name, SHM_SAMPLE, 0, shm_run_sample, opcode, length, memory, walked, false, 1}

static const struct shm_row rows[] = {
	COPY("write 64K streaming, inline", SHM_INLINE, 0.97, SLU_WRITE, 64 * KIB, RIG_STREAMING),
	COPY("write 1M streaming, inline", SHM_INLINE, 0.97, SLU_WRITE, MIB, RIG_STREAMING),
	COPY("write 64K cached, inline", SHM_INLINE, 0.97, SLU_WRITE, 64 * KIB, RIG_CACHED),
	COPY("write 1M cached, inline", SHM_INLINE, 0.97, SLU_WRITE, MIB, RIG_CACHED),
	COPY("read 64K streaming, inline", SHM_INLINE, 0.97, SLU_READ, 64 * KIB, RIG_STREAMING),
	COPY("read 1M streaming, inline", SHM_INLINE, 0.97, SLU_READ, MIB, RIG_STREAMING),
	COPY("read 64K cached, inline", SHM_INLINE, 0.97, SLU_READ, 64 * KIB, RIG_CACHED),
	COPY("read 1M cached, inline", SHM_INLINE, 0.97, SLU_READ, MIB, RIG_CACHED),

	COPY("write 64K streaming, poller", SHM_POLLER, 0.95, SLU_WRITE, 64 * KIB, RIG_STREAMING),
	COPY("write 1M streaming, poller", SHM_POLLER, 0.95, SLU_WRITE, MIB, RIG_STREAMING),
	COPY("write 64K cached, poller", SHM_POLLER, 0.95, SLU_WRITE, 64 * KIB, RIG_CACHED),
	COPY("write 1M cached, poller", SHM_POLLER, 0.95, SLU_WRITE, MIB, RIG_CACHED),
	COPY("read 64K streaming, poller", SHM_POLLER, 0.95, SLU_READ, 64 * KIB, RIG_STREAMING),
	COPY("read 1M streaming, poller", SHM_POLLER, 0.95, SLU_READ, MIB, RIG_STREAMING),
	COPY("read 64K cached, poller", SHM_POLLER, 0.95, SLU_READ, 64 * KIB, RIG_CACHED),
	COPY("read 1M cached, poller", SHM_POLLER, 0.95, SLU_READ, MIB, RIG_CACHED),

	COPY_THREADS("write 64K streaming, 2 threads", SHM_INLINE, SLU_WRITE),
	COPY_THREADS("read 64K streaming, 2 threads", SHM_INLINE, SLU_READ),
	COPY_THREADS("write 64K streaming, 2 pollers", SHM_POLLERS, SLU_WRITE),
	COPY_THREADS("read 64K streaming, 2 pollers", SHM_POLLERS, SLU_READ),

	COPY_RANDOM("write 4K random in 1G, inline", SLU_WRITE),
	COPY_RANDOM("read 4K random in 1G, inline", SLU_READ),

	WORKERS("write 64K streaming, 4 workers", SLU_WRITE, 4),
	WORKERS("write 64K streaming, 8 workers", SLU_WRITE, 8),
	WORKERS("write 64K streaming, 16 workers", SLU_WRITE, 16),
	WORKERS("read 64K streaming, 4 workers", SLU_READ, 4),
	WORKERS("read 64K streaming, 8 workers", SLU_READ, 8),
	WORKERS("read 64K streaming, 16 workers", SLU_READ, 16),

	{"write 8B rate, poller", SHM_POLLER, 0.6, shm_run_ring_rate, SLU_WRITE, 8, RIG_CACHED},
	{"write 8B latency, inline", SHM_INLINE, 1, shm_run_inline_latency, SLU_WRITE, 8, RIG_CACHED},
	{"write 8B latency, busy poller", SHM_BUSY, 1, shm_run_poller_latency, SLU_WRITE, 8, RIG_CACHED},
	MIXED("read 64B p99 beside write 1M, busy poller", SLU_WRITE),
	MIXED("read 64B p99 beside read 1M, busy poller", SLU_READ),

	/* Large ones in one buffer of the message size, as ucx_perftest has it. */
	SAMPLE("write 8B", SLU_WRITE, 8, RIG_CACHED, 0),
	SAMPLE("write 64B", SLU_WRITE, 64, RIG_CACHED, 0),
	SAMPLE("write 64K", SLU_WRITE, 64 * KIB, RIG_CACHED, 64 * KIB),
	SAMPLE("write 1M", SLU_WRITE, MIB, RIG_CACHED, MIB),
	SAMPLE("write 64K streaming", SLU_WRITE, 64 * KIB, RIG_STREAMING, 0),
	SAMPLE("write 1M streaming", SLU_WRITE, MIB, RIG_STREAMING, 0),
	SAMPLE("read 8B", SLU_READ, 8, RIG_CACHED, 0),
	SAMPLE("read 64B", SLU_READ, 64, RIG_CACHED, 0),
	SAMPLE("read 64K", SLU_READ, 64 * KIB, RIG_CACHED, 64 * KIB),
	SAMPLE("read 1M", SLU_READ, MIB, RIG_CACHED, MIB),
	SAMPLE("read 64K streaming", SLU_READ, 64 * KIB, RIG_STREAMING, 0),
	SAMPLE("read 1M streaming", SLU_READ, MIB, RIG_STREAMING, 0),
};
/* clang-format on */

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* A sample is asked for by its whole name: "write 64K" is not "write 64K streaming". */
static bool wanted(const struct bench *bench, const struct shm_row *row, enum shm_group group)
{
	if (row->group != group)
		return false;
	if (group == SHM_SAMPLE && bench->only)
		return strcmp(row->name, bench->only) == 0;
	return bench_wants(bench, row->name);
}

static void run_group(const struct bench *bench, enum shm_group group)
{
	bool any = false, streaming = false;
	struct rig rig;

	for (size_t i = 0; i < ROWS; i++) {
		if (!wanted(bench, &rows[i], group))
			continue;
		any = true;
		streaming |= rows[i].memory == RIG_STREAMING;
	}
	if (!any)
		return;
	rig_open(&rig, bench,
		 &(struct rig_options){.pollers = groups[group].pollers,
				       .poll = groups[group].poll,
				       .streaming = streaming});
	for (size_t i = 0; i < ROWS; i++)
		if (wanted(bench, &rows[i], group))
			rows[i].run(&rig, &rows[i]);
	rig_close(&rig);
}

int main(int argc, char **argv)
{
	struct bench bench;
	int first = bench_options(argc, argv, &bench);
	const char *name = argc - first == 1 ? argv[first] : "";

	if (strcmp(name, NOTIFY_GROUP) == 0) {
		shm_run_notify(&bench);
		return 0;
	}
	if (strcmp(name, IDLE_GROUP) == 0) {
		idle_run_shm(&bench);
		return 0;
	}
	for (unsigned group = 0; group < SHM_GROUPS; group++) {
		if (strcmp(name, groups[group].name) == 0) {
			run_group(&bench, group);
			return 0;
		}
	}
	fputs("usage: shm [options] inline|poller|pollers|busy|sample|notify|idle\n", stderr);
	return 2;
}
