/* SPDX-License-Identifier: Apache-2.0 */
#include "stalled.h"

#include "mix.h"
#include "report.h"

#define FLOOR   (1 / 1.1)
#define STALLED 1000

struct stalled_row {
	const char *name;
	enum slu_opcode opcode;
	uint64_t length;
};

/* What goes out at once and is not answered; and what the sockets have no room for. */
static const struct stalled_row rows[] = {
	{"read 64B beside 1000 stalled READs of 64B", SLU_READ, 64},
	{"read 64B beside 1000 stalled WRITEs of 64K", SLU_WRITE, 64 * KIB},
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* The peer is always stopped while READs of the target are timed: its poller has the same core. */
struct stalled {
	struct rig rig;
	struct mix mix;
	double p50_ns;
};

static void *fill_run(void *arg)
{
	struct stalled *stalled = arg;

	mix_fill(&stalled->mix);
	return NULL;
}

static void *drain_run(void *arg)
{
	struct stalled *stalled = arg;

	mix_drain(&stalled->mix);
	return NULL;
}

static void *read_run(void *arg)
{
	struct stalled *stalled = arg;

	stalled->p50_ns = mix_read_ns(&stalled->mix, stalled->rig.bench->slice_ns, 0.5);
	return NULL;
}

static void run_on_first(struct stalled *stalled, void *(*run)(void *arg))
{
	core_thread_run(stalled->rig.bench, stalled->rig.bench->cores[0], run, stalled);
}

static double measure(struct stalled *stalled)
{
	target_resume(&stalled->rig.target);
	run_on_first(stalled, read_run);
	target_pause(&stalled->rig.target);
	return stalled->p50_ns;
}

static double measure_beside(void *arg)
{
	struct stalled *stalled = arg;

	run_on_first(stalled, fill_run);
	return measure(stalled);
}

static double measure_alone(void *arg)
{
	struct stalled *stalled = arg;

	target_resume(&stalled->rig.peer);
	run_on_first(stalled, drain_run);
	target_pause(&stalled->rig.peer);
	return measure(stalled);
}

static void run_row(struct stalled *stalled, const struct stalled_row *row)
{
	struct mix_options options = {.poller = SLU_POLLER_INLINE,
				      .opcode = row->opcode,
				      .length = row->length,
				      .depth = STALLED};
	const struct rig *rig = &stalled->rig;
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	unsigned moved;

	mix_open(&stalled->mix, rig, &rig->pairs[RIG_CACHED], &rig->peer_pair, &options);
	target_pause(&rig->target);
	target_pause(&rig->peer);
	moved = pair_measure(rig->bench, &(struct side){measure_beside, stalled},
			     &(struct side){measure_alone, stalled}, BETTER_LOWER, rounds);
	target_resume(&rig->target);
	target_resume(&rig->peer);
	run_on_first(stalled, drain_run);
	report_pair(&(struct row){.name = row->name,
				  .unit = "us",
				  .scale = 1e3,
				  .reference_name = "Sluice with nothing under way there, p50",
				  .floor = FLOOR},
		    rounds, rig->bench->rounds, moved);
	mix_close(&stalled->mix);
}

void stalled_run(const struct bench *bench)
{
	struct rig_options options = {.tcp = true, .peer = true};
	static struct stalled stalled;
	bool any = false;

	for (size_t i = 0; i < ROWS; i++)
		any |= bench_wants(bench, rows[i].name);
	if (!any)
		return;
	rig_open(&stalled.rig, bench, &options);
	for (size_t i = 0; i < ROWS; i++)
		if (bench_wants(bench, rows[i].name))
			run_row(&stalled, &rows[i]);
	rig_close(&stalled.rig);
}
