/* SPDX-License-Identifier: Apache-2.0 */
#include "idle.h"

#include <stdio.h>
#include <unistd.h>

#include "client.h"
#include "crowd.h"
#include "report.h"
#include "samples.h"

#define FLOOR       0.97
#define WAIT_MS     5000
#define SPARE_FILES 256 /* that a process has open beside those of the crowd */

struct idle_row {
	const char *name;
	enum slu_opcode opcode; /* a call is made one at a time, and its time is taken */
	uint64_t length;
	bool calls; /* in place of the opcode */
};

struct idle_case {
	bool tcp;
	unsigned clients;  /* of the crowd */
	unsigned sessions; /* of each of them */
	uint32_t depth;    /* batches that the busy one has in flight */
	const struct idle_row *rows;
	unsigned count;
};

static const struct idle_row tcp_rows[] = {
	{"write 64B beside 1000 idle clients", SLU_WRITE, 64},
	{"write 64K beside 1000 idle clients", SLU_WRITE, 64 * KIB},
};

static const struct idle_row shm_rows[] = {
	{"write 64B beside 10000 idle sessions", SLU_WRITE, 64},
	{"call 8B beside 10000 idle sessions", SLU_READ, 8, true},
};

#define ROWS(rows) rows, sizeof(rows) / sizeof((rows)[0])

static const struct idle_case over_tcp = {true, 1000, 1, CLIENT_DEPTH, ROWS(tcp_rows)};
static const struct idle_case in_shm = {false, 1, 10000, 1, ROWS(shm_rows)};

/* The busy client, at one of the two targets. */
struct busy {
	const struct bench *bench;
	const struct target *target;
	struct crowd *crowd; /* NULL: it is alone */
	struct cursor cursor;
	struct load load;
	struct lane lane;
	double p50_ns;
};

static void call_once(void *arg)
{
	struct busy *busy = arg;

	load_step(&busy->load);
}

static void *call_run(void *arg)
{
	struct busy *busy = arg;

	busy->p50_ns = samples_p50_ns(busy->bench->slice_ns, 1, call_once, busy);
	return NULL;
}

static double call_ns(struct busy *busy)
{
	core_thread_run(busy->bench, busy->bench->cores[0], call_run, busy);
	return busy->p50_ns;
}

/* What the other target spins on is the same core, which the probe needs as well. */
static double measure(void *arg)
{
	struct busy *busy = arg;
	double value;

	if (busy->crowd)
		crowd_tend(busy->crowd);
	target_resume(busy->target);
	value = busy->load.options.calls ? call_ns(busy) : lanes_rate(busy->bench, &busy->lane, 1);
	target_pause(busy->target);
	return value;
}

static void busy_open(struct busy *busy, const struct rig *rig, const struct rig_pair *pair,
		      const struct idle_case *idle, const struct idle_row *row)
{
	bool calls = row->calls;
	uint64_t piece = row->length < CLIENT_SMALL_BYTES ? CLIENT_SMALL_BYTES : row->length;
	struct load_options options = {.opcode = row->opcode,
				       .calls = calls,
				       .length = row->length,
				       .batch = calls ? 1 : client_batch(row->length),
				       .depth = calls ? 1 : idle->depth,
				       .poller = SLU_POLLER_INLINE};

	busy->bench = rig->bench;
	busy->cursor = (struct cursor){.size = piece, .count = pair->length / piece};
	busy->lane = (struct lane){.core = rig->bench->cores[0],
				   .step = load_step,
				   .finish = load_finish,
				   .arg = &busy->load};
	load_open(&busy->load, rig, pair, &busy->cursor, &options);
	if (!calls)
		load_verify(&busy->load, pair);
}

static void report(const struct rig *rig, const struct idle_row *row,
		   const struct pair_round *rounds, unsigned moved)
{
	bool calls = row->calls;
	bool small = !calls && row->length <= CLIENT_SMALL_BYTES;

	report_pair(&(struct row){.name = row->name,
				  .unit = calls ? "us" : (small ? "M/s" : "GB/s"),
				  .scale = calls ? 1e3 : (small ? 1e6 * (double)row->length : 1e9),
				  .reference_name = calls ? "Sluice alone, p50" : "Sluice alone",
				  .floor = FLOOR},
		    rounds, rig->bench->rounds, moved);
}

static void run_row(const struct rig *rig, struct crowd *crowd, const struct idle_case *idle,
		    const struct idle_row *row)
{
	static struct busy crowded, alone;
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	unsigned moved;

	crowded = (struct busy){.target = &rig->peer, .crowd = crowd};
	alone = (struct busy){.target = &rig->target};
	busy_open(&crowded, rig, &rig->peer_pair, idle, row);
	busy_open(&alone, rig, &rig->pairs[RIG_CACHED], idle, row);
	target_pause(&rig->target);
	target_pause(&rig->peer);
	moved = pair_measure(rig->bench, &(struct side){measure, &crowded},
			     &(struct side){measure, &alone},
			     row->calls ? BETTER_LOWER : BETTER_HIGHER, rounds);
	target_resume(&rig->target);
	target_resume(&rig->peer);
	report(rig, row, rounds, moved);
	load_close(&crowded.load);
	load_close(&alone.load);
}

static bool any_wanted(const struct bench *bench, const struct idle_case *idle)
{
	for (unsigned i = 0; i < idle->count; i++)
		if (bench_wants(bench, idle->rows[i].name))
			return true;
	return false;
}

static void skip_rows(const struct bench *bench, const struct idle_case *idle, unsigned files)
{
	char reason[96];

	snprintf(reason, sizeof(reason), "too few open files are allowed: ulimit -Hn %u", files);
	for (unsigned i = 0; i < idle->count; i++)
		if (bench_wants(bench, idle->rows[i].name))
			report_skipped(idle->rows[i].name, reason);
}

static void run_case(const struct bench *bench, const struct idle_case *idle)
{
	struct rig_options options = {.tcp = idle->tcp, .answers = !idle->tcp, .peer = true};
	unsigned files = 2 * idle->clients + SPARE_FILES;
	struct crowd crowd;
	struct door door;
	struct rig rig;

	if (!any_wanted(bench, idle))
		return;
	if (!crowd_files(files)) {
		skip_rows(bench, idle, files);
		return;
	}
	rig_open(&rig, bench, &options);
	door = idle->tcp ? door_tcp(rig.peer.address, NULL, NULL, WAIT_MS)
			 : door_unix(rig.peer_name, WAIT_MS);
	crowd_come(&crowd, &door, rig.peer_name, idle->clients, idle->sessions);
	for (unsigned i = 0; i < idle->count; i++)
		if (bench_wants(bench, idle->rows[i].name))
			run_row(&rig, &crowd, idle, &idle->rows[i]);
	crowd_leave(&crowd);
	rig_close(&rig);
}

void idle_run_tcp(const struct bench *bench)
{
	run_case(bench, &over_tcp);
}

void idle_run_shm(const struct bench *bench)
{
	run_case(bench, &in_shm);
}
