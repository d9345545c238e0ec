/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "load.h"
#include "mixed.h"
#include "report.h"
#include "rings.h"
#include "samples.h"
#include "shm.h"
#include "transport/transport.h"

#define RATE_BATCH   64
#define RATE_DEPTH   4
#define SLOT_BYTES   64
#define OVER_COPY_NS 40 /* that submit, poller and completion may take, inline */
#define ROUND_TRIPS  2  /* that an operation behind a poller may take */

/* One thread's operations of a row, in slots of one cache line. */
struct small {
	const struct rig *rig;
	struct cursor cursor;
	struct load load;
	struct lane lane;
};

static void small_open(struct small *small, const struct rig *rig, const struct shm_row *row,
		       uint32_t batch, uint32_t depth)
{
	struct load_options options = {.opcode = row->opcode,
				       .length = row->length,
				       .batch = batch,
				       .depth = depth,
				       .poller = row->group == SHM_INLINE ? SLU_POLLER_INLINE : 0};

	*small = (struct small){.rig = rig,
				.cursor = {.size = SLOT_BYTES, .count = batch},
				.lane = {.core = rig->bench->cores[0],
					 .step = load_step,
					 .finish = load_finish,
					 .arg = &small->load}};
	load_open(&small->load, rig, &rig->pairs[row->memory], &small->cursor, &options);
	load_verify(&small->load, &rig->pairs[row->memory]);
}

static double measure_rate(void *arg)
{
	struct small *small = arg;

	return lanes_rate(small->rig->bench, &small->lane, 1) / (double)small->load.options.length;
}

static double measure_ring_rate(void *arg)
{
	struct small *small = arg;

	return rings_rate(small->rig->bench);
}

void shm_run_ring_rate(const struct rig *rig, const struct shm_row *row)
{
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	struct small small;
	unsigned moved;

	small_open(&small, rig, row, RATE_BATCH, RATE_DEPTH);
	moved = pair_measure(rig->bench, &(struct side){measure_rate, &small},
			     &(struct side){measure_ring_rate, &small}, BETTER_HIGHER, rounds);
	report_pair(&(struct row){.name = row->name,
				  .unit = "M/s",
				  .scale = 1e6,
				  .reference_name = "SPSC rte_ring, 64 B",
				  .floor = row->floor},
		    rounds, rig->bench->rounds, moved);
	load_close(&small.load);
}

/* What runs on the first core, timed. */
struct timed {
	uint64_t slice_ns;
	void (*once)(void *arg);
	void *arg;
	double p50_ns;
};

static void *timed_run(void *arg)
{
	struct timed *timed = arg;

	timed->p50_ns = samples_p50_ns(timed->slice_ns, SAMPLES_BLOCK, timed->once, timed->arg);
	return NULL;
}

static double p50_ns(const struct bench *bench, void (*once)(void *arg), void *arg)
{
	struct timed timed = {.slice_ns = bench->slice_ns, .once = once, .arg = arg};

	core_thread_run(bench, bench->cores[0], timed_run, &timed);
	return timed.p50_ns;
}

static void operation_once(void *arg)
{
	struct small *small = arg;

	load_step(&small->load);
}

static double measure_operation(void *arg)
{
	struct small *small = arg;

	return p50_ns(small->rig->bench, operation_once, small);
}

/* The compiler must not know the length, nor drop a copy that nobody reads. */
static void copy_once(void *arg)
{
	const struct small *small = arg;
	const struct rig_pair *pair = &small->rig->pairs[RIG_CACHED];

	memcpy(pair->mapped, pair->local, small->load.options.length);
	__asm__ volatile("" : : : "memory");
}

static double measure_copy_and_margin(void *arg)
{
	struct small *small = arg;

	return p50_ns(small->rig->bench, copy_once, small) + OVER_COPY_NS;
}

static double measure_round_trips(void *arg)
{
	struct small *small = arg;

	return rings_round_trip_ns(small->rig->bench) * ROUND_TRIPS;
}

static void run_latency(const struct rig *rig, const struct shm_row *row,
			double (*reference)(void *arg), const char *reference_name)
{
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	struct small small;
	unsigned moved;

	small_open(&small, rig, row, 1, 1);
	moved = pair_measure(rig->bench, &(struct side){measure_operation, &small},
			     &(struct side){reference, &small}, BETTER_LOWER, rounds);
	report_pair(&(struct row){.name = row->name,
				  .unit = "ns",
				  .scale = 1,
				  .reference_name = reference_name,
				  .floor = row->floor},
		    rounds, rig->bench->rounds, moved);
	load_close(&small.load);
}

void shm_run_inline_latency(const struct rig *rig, const struct shm_row *row)
{
	run_latency(rig, row, measure_copy_and_margin, "8 B copy + 40 ns");
}

void shm_run_poller_latency(const struct rig *rig, const struct shm_row *row)
{
	run_latency(rig, row, measure_round_trips, "2 ring round trips");
}

void shm_run_mixed(const struct rig *rig, const struct shm_row *row)
{
	mixed_run(rig, &(struct mixed_row){.name = row->name,
					   .floor = row->floor,
					   .opcode = row->opcode,
					   .memory = row->memory,
					   .slice_bytes = TRANSPORT_SLICE_MAX_BYTES});
}
