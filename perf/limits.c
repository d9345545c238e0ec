/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's own limits, without Sluice: copies, core to core, rings. One line of JSON a row;
 * see perf/README.md.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plain.h"
#include "probe.h"
#include "report.h"
#include "rings.h"

#define NAME_MAX_BYTES 64
#define NOTE_MAX_BYTES 256
#define SEED           1

struct copy_case {
	const char *name;
	uint64_t size;   /* of one copy */
	uint64_t buffer; /* walked by each thread, at either end */
	bool random;
	uint64_t window; /* at the end that is read, when it is another */
};

/* clang-format off */
static const struct copy_case copy_cases[] = {
	{"4K in 64K", 4 * KIB, 64 * KIB, false},
	{"64K in 64K", 64 * KIB, 64 * KIB, false},
	{"4K in 512K", 4 * KIB, 512 * KIB, false},
	{"64K in 512K", 64 * KIB, 512 * KIB, false},
	{"4K in 4M", 4 * KIB, 4 * MIB, false},
	{"64K in 4M", 64 * KIB, 4 * MIB, false},
	{"1M in 4M", MIB, 4 * MIB, false},
	{"4K in 1G", 4 * KIB, GIB, false},
	{"64K in 1G", 64 * KIB, GIB, false},
	{"1M in 1G", MIB, GIB, false},
	{"4K random in 1G", 4 * KIB, GIB, true},
};
/* clang-format on */

/* What `sluice-initiator --workload write` does with one thread: see suites/shm.py. */
static const struct copy_case writer_case = {"64K from 2M to 1G", 64 * KIB, GIB, false, 2 * MIB};

/* The pair of buffers that all cases of one page size use parts of. */
struct buffers {
	char *from, *to;
	const char *pages;
	uint32_t *order; /* of the 4 KiB pieces that one thread walks */
};

static void note_rates(const double *rates, char *note)
{
	struct copy_kernel kernels[COPY_KERNELS_MAX];
	unsigned count = copy_kernels(kernels);
	size_t used = 0;

	for (unsigned i = 0; i < count && used < NOTE_MAX_BYTES; i++)
		used += (size_t)snprintf(note + used, NOTE_MAX_BYTES - used, "%s%s %.1f",
					 i ? ", " : "", kernels[i].name, rates[i] / 1e9);
}

static void run_copy(const struct bench *bench, const struct buffers *buffers,
		     const struct copy_case *c, unsigned threads)
{
	uint64_t span = c->buffer > GIB / 2 ? GIB / threads : c->buffer;
	double rates[COPY_KERNELS_MAX], values[PAIR_ROUNDS_MAX];
	struct plain plains[2];
	struct cursor cursors[2];
	char name[NAME_MAX_BYTES], note[NOTE_MAX_BYTES];
	struct copy_kernel best;

	snprintf(name, sizeof(name), "copy %s, %s pages, %u thread%s", c->name, buffers->pages,
		 threads, threads > 1 ? "s" : "");
	if (!bench_wants(bench, name))
		return;
	for (unsigned i = 0; i < threads; i++) {
		cursors[i] = (struct cursor){.base = i * span,
					     .size = c->size,
					     .count = span / c->size,
					     .order = c->random ? buffers->order : NULL};
		plains[i] = (struct plain){.to = buffers->to,
					   .from = buffers->from,
					   .window = c->window,
					   .cursor = &cursors[i],
					   .core = bench->cores[i]};
	}
	best = plain_fastest(bench, plains, threads, rates);
	for (unsigned i = 0; i < bench->rounds; i++)
		values[i] = plain_rate(bench, plains, threads, &best);
	note_rates(rates, note);
	report_limit(&(struct row){.name = name,
				   .unit = "GB/s",
				   .scale = 1e9,
				   .reference_name = best.name,
				   .note = note},
		     values, bench->rounds, probe_core_to_core_ns(bench));
}

static struct buffers map_buffers(uint64_t from_bytes, bool huge)
{
	struct buffers buffers = {.pages = huge ? "2M" : "4K",
				  .from = memory_map(from_bytes, huge),
				  .to = memory_map(GIB, huge)};

	memory_fill(buffers.from, from_bytes, 0);
	memory_fill(buffers.to, GIB, 1);
	return buffers;
}

static void run_writer(const struct bench *bench, bool huge)
{
	struct buffers buffers = map_buffers(writer_case.window, huge);

	run_copy(bench, &buffers, &writer_case, 1);
	memory_unmap(buffers.to, GIB);
	memory_unmap(buffers.from, writer_case.window);
}

static void run_copies(const struct bench *bench, bool huge)
{
	struct buffers buffers = map_buffers(GIB, huge);

	for (unsigned threads = 1; threads <= 2; threads++) {
		buffers.order = cursor_permutation((uint32_t)(GIB / (4 * KIB) / threads), SEED);
		for (size_t i = 0; i < sizeof(copy_cases) / sizeof(copy_cases[0]); i++)
			run_copy(bench, &buffers, &copy_cases[i], threads);
		free(buffers.order);
	}
	memory_unmap(buffers.to, GIB);
	memory_unmap(buffers.from, GIB);
}

static void run_figure(const struct bench *bench, const struct row *row,
		       double (*measure)(const struct bench *bench))
{
	double values[PAIR_ROUNDS_MAX];

	if (!bench_wants(bench, row->name))
		return;
	for (unsigned i = 0; i < bench->rounds; i++)
		values[i] = measure(bench);
	report_limit(row, values, bench->rounds, probe_core_to_core_ns(bench));
}

static void run_cores(const struct bench *bench)
{
	run_figure(bench,
		   &(struct row){.name = "core to core",
				 .unit = "ns",
				 .scale = 1,
				 .reference_name = "half a round trip of one cache line"},
		   probe_core_to_core_ns);
	run_figure(bench,
		   &(struct row){.name = "ring rate",
				 .unit = "M/s",
				 .scale = 1e6,
				 .reference_name = "SPSC rte_ring, 64 B elements, bursts of 32"},
		   rings_rate);
	run_figure(bench,
		   &(struct row){.name = "ring round trip",
				 .unit = "ns",
				 .scale = 1,
				 .reference_name = "one 8 B element over two SPSC rte_rings"},
		   rings_round_trip_ns);
}

int main(int argc, char **argv)
{
	struct bench bench;
	int first = bench_options(argc, argv, &bench);

	const char *group = argc - first == 1 ? argv[first] : "";

	if (strcmp(group, "cores") == 0)
		run_cores(&bench);
	else if (strcmp(group, "copy-2M") == 0)
		run_copies(&bench, true);
	else if (strcmp(group, "copy-4K") == 0)
		run_copies(&bench, false);
	else if (strcmp(group, "writer-2M") == 0)
		run_writer(&bench, true);
	else if (strcmp(group, "writer-4K") == 0)
		run_writer(&bench, false);
	else {
		fputs("usage: limits [options] cores|copy-2M|copy-4K|writer-2M|writer-4K\n",
		      stderr);
		return 2;
	}
	return 0;
}
