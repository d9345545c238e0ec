/* SPDX-License-Identifier: Apache-2.0 */
#include "mixed.h"

#include <stdio.h>

#include "base/clock.h"
#include "lanes.h"
#include "mix.h"
#include "report.h"

#define SLICES     5 /* in a slice here: one READ in a hundred is wanted, many times */
#define FRACTION   0.99
#define BULK_BYTES MIB
#define BULK_DEPTH 16
#define NOTE_BYTES 128

/* Of all that was measured for a row. */
struct mean {
	double sum;
	unsigned count;
};

struct mixed {
	const struct rig *rig;
	struct bench bench;
	uint64_t slice_bytes; /* of bulk */
	struct mix mix;
	struct lane bulk;
	double read_ns;
	double part_ns;   /* a slice alone */
	double bulk_rate; /* beside READs, bytes a second */
	struct mean idle_ns, slice_ns, alone, beside;
};

static void add(struct mean *mean, double value)
{
	mean->sum += value;
	mean->count++;
}

static double mean_of(const struct mean *mean)
{
	return mean->sum / mean->count;
}

static void *without_run(void *arg)
{
	struct mixed *mixed = arg;

	mixed->read_ns = mix_read_ns(&mixed->mix, mixed->bench.slice_ns, FRACTION);
	mixed->part_ns =
		mix_other_ns(&mixed->mix, mixed->slice_bytes, mixed->bench.slice_ns, FRACTION);
	return NULL;
}

static void *beside_run(void *arg)
{
	struct mixed *mixed = arg;
	struct mix *mix = &mixed->mix;
	uint64_t start_ns = clock_kernel_ns(), moved = mix->moved;

	mix_fill(mix);
	mixed->read_ns = mix_read_ns(mix, mixed->bench.slice_ns, FRACTION);
	mixed->bulk_rate = (double)(mix->moved - moved) * (double)NS_PER_SECOND /
			   (double)(clock_kernel_ns() - start_ns);
	mix_drain(mix);
	return NULL;
}

static double measure_beside(void *arg)
{
	struct mixed *mixed = arg;

	target_resume(&mixed->rig->target);
	core_thread_run(&mixed->bench, mixed->bench.cores[0], beside_run, mixed);
	target_pause(&mixed->rig->target);
	add(&mixed->beside, mixed->bulk_rate);
	return mixed->read_ns;
}

static double measure_without(void *arg)
{
	struct mixed *mixed = arg;

	target_resume(&mixed->rig->target);
	core_thread_run(&mixed->bench, mixed->bench.cores[0], without_run, mixed);
	add(&mixed->alone, lanes_rate(&mixed->bench, &mixed->bulk, 1));
	target_pause(&mixed->rig->target);
	add(&mixed->idle_ns, mixed->read_ns);
	add(&mixed->slice_ns, mixed->part_ns);
	return mixed->read_ns + mixed->part_ns;
}

/* The first time is not counted: the windows of connections have to open. */
void mixed_run(const struct rig *rig, const struct mixed_row *row)
{
	const struct rig_pair *reads = &rig->pairs[RIG_CACHED], *bulk = &rig->pairs[row->memory];
	struct mix_options options = {.poller = row->poller,
				      .opcode = row->opcode,
				      .length = BULK_BYTES,
				      .depth = BULK_DEPTH};
	struct mixed mixed = {.rig = rig, .bench = *rig->bench, .slice_bytes = row->slice_bytes};
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	char note[NOTE_BYTES];
	unsigned moved;
	double rate;

	mixed.bench.slice_ns *= SLICES;
	mix_open(&mixed.mix, rig, reads, bulk, &options);
	mixed.bulk = (struct lane){.core = rig->bench->cores[0],
				   .step = mix_step,
				   .finish = mix_finish,
				   .arg = &mixed.mix};
	rate = lanes_rate(&mixed.bench, &mixed.bulk, 1);
	if (rate > 0)
		mixed.mix.lull_ns = (double)row->slice_bytes * (double)NS_PER_SECOND / rate;
	target_pause(&rig->target);
	moved = pair_measure(&mixed.bench, &(struct side){measure_beside, &mixed},
			     &(struct side){measure_without, &mixed}, BETTER_LOWER, rounds);
	target_resume(&rig->target);
	snprintf(note, sizeof(note),
		 "idle %.1f us; slice %llu KiB, %.1f us; bulk alone : beside %.1f : %.1f GB/s",
		 mean_of(&mixed.idle_ns) / 1e3, (unsigned long long)(row->slice_bytes / KIB),
		 mean_of(&mixed.slice_ns) / 1e3, mean_of(&mixed.alone) / 1e9,
		 mean_of(&mixed.beside) / 1e9);
	report_pair(&(struct row){.name = row->name,
				  .unit = "us",
				  .scale = 1e3,
				  .reference_name =
					  "a busy poller without bulk, + a slice alone, both p99",
				  .floor = row->floor,
				  .note = note},
		    rounds, rig->bench->rounds, moved);
	mix_close(&mixed.mix);
}
