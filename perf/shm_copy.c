/* SPDX-License-Identifier: Apache-2.0 */
#include "shm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "plain.h"
#include "report.h"

#define BATCH_OPS_MAX  16
#define BATCH_BYTES    (4 * MIB) /* a batch ends within a slice */
#define POLLER_DEPTH   4         /* batches in flight behind a poller */
#define SLEEPER_BATCH  64        /* of a thread that has no core of its own */
#define SLEEPER_DEPTH  64        /* it may be given one only after a few milliseconds */
#define WORKERS_FEW    2         /* that more workers are held against */
#define STRETCH        10        /* slices in one where threads take turns on the cores */
#define SMALL_BYTES    64        /* and below: batches are as large as they can be */
#define NOTE_MAX_BYTES 128
#define SEED           1

/* Sluice's threads and the plain ones, walking the same memory by the same cursors. */
struct contest {
	const struct bench *bench;
	unsigned threads;
	struct cursor cursors[LANES_MAX];
	struct load loads[LANES_MAX];
	struct plain plains[LANES_MAX];
	struct lane lanes[LANES_MAX];
	struct copy_kernel kernel; /* of the plain copies */
	uint32_t *order;           /* NULL: ascending */
};

static void init_cursors(struct contest *contest, const struct rig_pair *pair,
			 const struct shm_row *row)
{
	uint64_t walked = row->walked ? row->walked : pair->length;
	uint64_t piece = row->length < SMALL_BYTES ? SMALL_BYTES : row->length;
	uint64_t count = walked / contest->threads / piece;

	contest->order = row->random ? cursor_permutation((uint32_t)count, SEED) : NULL;
	for (unsigned i = 0; i < contest->threads; i++)
		contest->cursors[i] = (struct cursor){.base = i * count * piece,
						      .size = piece,
						      .count = count,
						      .order = contest->order};
}

static uint32_t batch_of(uint64_t length)
{
	uint64_t batch = BATCH_BYTES / length;

	if (length <= SMALL_BYTES)
		return LOAD_BATCH_MAX;
	return batch > BATCH_OPS_MAX ? BATCH_OPS_MAX : (uint32_t)batch;
}

/* With a poller on each core there is none left for the threads: they sleep. */
static struct load_options options_of(const struct shm_row *row, unsigned thread)
{
	struct load_options options = {.opcode = row->opcode,
				       .length = row->length,
				       .batch = batch_of(row->length),
				       .depth = POLLER_DEPTH,
				       .poller = (int32_t)thread};

	if (row->group == SHM_INLINE || row->group == SHM_SAMPLE) {
		options.depth = 1;
		options.poller = SLU_POLLER_INLINE;
	} else if (row->group == SHM_POLLERS) {
		options.batch = SLEEPER_BATCH;
		options.depth = SLEEPER_DEPTH;
		options.sleep = true;
	}
	return options;
}

/*
 * The copying happens on the first core when queues are inline, on the poller's core when there is
 * one; the plain copy runs there too.
 */
static void place(const struct bench *bench, const struct shm_row *row, unsigned thread,
		  int *load_core, int *plain_core)
{
	*load_core = *plain_core = bench->cores[thread % 2];
	if (row->group == SHM_POLLER)
		*plain_core = bench->cores[1];
	if (row->group == SHM_POLLERS || row->threads > 2)
		*load_core = -1;
}

static void contest_open(struct contest *contest, const struct rig *rig, const struct shm_row *row)
{
	const struct rig_pair *pair = &rig->pairs[row->memory];
	bool reads = row->opcode == SLU_READ;

	*contest = (struct contest){.bench = rig->bench, .threads = row->threads};
	init_cursors(contest, pair, row);
	for (unsigned i = 0; i < contest->threads; i++) {
		struct load_options options = options_of(row, i);
		int load_core, plain_core;

		place(rig->bench, row, i, &load_core, &plain_core);
		load_open(&contest->loads[i], rig, pair, &contest->cursors[i], &options);
		load_verify(&contest->loads[i], pair);
		contest->lanes[i] = (struct lane){.core = load_core,
						  .step = load_step,
						  .finish = load_finish,
						  .arg = &contest->loads[i]};
		contest->plains[i] = (struct plain){.to = reads ? pair->local : pair->mapped,
						    .from = reads ? pair->mapped : pair->local,
						    .cursor = &contest->cursors[i],
						    .core = plain_core};
	}
}

static void contest_close(struct contest *contest)
{
	for (unsigned i = 0; i < contest->threads; i++)
		load_close(&contest->loads[i]);
	free(contest->order);
}

static double measure_loads(void *arg)
{
	struct contest *contest = arg;

	return lanes_rate(contest->bench, contest->lanes, contest->threads);
}

static double measure_plains(void *arg)
{
	struct contest *contest = arg;

	return plain_rate(contest->bench, contest->plains, contest->threads, &contest->kernel);
}

/* The same options with slices in which every thread has had its turn many times. */
static struct bench stretched(const struct bench *bench)
{
	struct bench longer = *bench;

	longer.slice_ns *= STRETCH;
	return longer;
}

void shm_run_copy(const struct rig *rig, const struct shm_row *row)
{
	bool sleepers = row->group == SHM_POLLERS;
	struct bench bench = sleepers ? stretched(rig->bench) : *rig->bench;
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	double rates[COPY_KERNELS_MAX];
	struct contest contest;
	unsigned moved;

	contest_open(&contest, rig, row);
	contest.kernel = plain_fastest(rig->bench, contest.plains, contest.threads, rates);
	contest.bench = &bench;
	moved = pair_measure(&bench, &(struct side){measure_loads, &contest},
			     &(struct side){measure_plains, &contest}, BETTER_HIGHER, rounds);
	report_pair(&(struct row){.name = row->name,
				  .unit = "GB/s",
				  .scale = 1e9,
				  .reference_name = contest.kernel.name,
				  .floor = row->floor},
		    rounds, rig->bench->rounds, moved);
	contest_close(&contest);
}

void shm_run_sample(const struct rig *rig, const struct shm_row *row)
{
	bool small = row->length <= SMALL_BYTES;
	struct contest contest;
	double rate;

	contest_open(&contest, rig, row);
	rate = measure_loads(&contest) / (small ? (double)row->length : 1);
	report_sample(&(struct row){.name = row->name,
				    .unit = small ? "M/s" : "GB/s",
				    .scale = small ? 1e6 : 1e9},
		      rate);
	contest_close(&contest);
}

/* Record the batches of each worker; @return the histograms, to be freed. */
static struct histogram *record_batches(struct contest *contest)
{
	struct histogram *histograms = calloc(contest->threads, sizeof(*histograms));

	if (!histograms)
		die("out of memory");
	tick_ns();
	for (unsigned i = 0; i < contest->threads; i++)
		contest->loads[i].options.batch_ns = &histograms[i];
	return histograms;
}

static double p99_ms(struct histogram *histograms, unsigned count)
{
	for (unsigned i = 1; i < count; i++)
		histogram_merge(&histograms[0], &histograms[i]);
	return (double)histogram_percentile(&histograms[0], 99) / 1e6;
}

void shm_run_workers(const struct rig *rig, const struct shm_row *row)
{
	struct bench bench = stretched(rig->bench);
	struct shm_row few_row = *row;
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	struct histogram *many_ns, *few_ns;
	struct contest many, few;
	char note[NOTE_MAX_BYTES];
	unsigned moved;

	few_row.threads = WORKERS_FEW;
	contest_open(&many, rig, row);
	contest_open(&few, rig, &few_row);
	many.bench = few.bench = &bench;
	many_ns = record_batches(&many);
	few_ns = record_batches(&few);
	moved = pair_measure(&bench, &(struct side){measure_loads, &many},
			     &(struct side){measure_loads, &few}, BETTER_HIGHER, rounds);
	snprintf(note, sizeof(note), "p99 of a batch of %u: %.2f ms, with %d workers %.2f ms",
		 many.loads[0].options.batch, p99_ms(many_ns, many.threads), WORKERS_FEW,
		 p99_ms(few_ns, few.threads));
	report_pair(&(struct row){.name = row->name,
				  .unit = "GB/s",
				  .scale = 1e9,
				  .reference_name = "Sluice, 2 workers",
				  .floor = row->floor,
				  .note = note},
		    rounds, bench.rounds, moved);
	free(few_ns);
	free(many_ns);
	contest_close(&few);
	contest_close(&many);
}
