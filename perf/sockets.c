/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What plain TCP over the loopback interface can do, way by way, without a line of Sluice. One line
 * of JSON a row; see perf/README.md.
 */
#include <stdio.h>

#include "probe.h"
#include "report.h"
#include "ways.h"

#define STREAM_SLICES 10 /* in a slice here: the windows of a connection have to open first */
#define PING_BYTES    8
#define VALUES_MAX    1000 /* as --rounds */

static const struct {
	const char *name;
	uint64_t bytes;
} blocks[] = {
	{"1M", MIB},
	{"64K", 64 * KIB},
	{"2560B", 2560}, /* 64 operations of 8 bytes with headers of 32 */
};

static void report_way(const struct bench *bench, const char *size, const struct way *way,
		       const double *rates, const char *note)
{
	char name[64];

	snprintf(name, sizeof(name), "plain TCP, send %s, %s", size, way->name);
	if (bench_wants(bench, name))
		report_limit(&(struct row){.name = name,
					   .unit = "GB/s",
					   .scale = 1e9,
					   .reference_name = "a sender, a receiver that spins",
					   .note = note[0] ? note : NULL},
			     rates, bench->rounds, probe_core_to_core_ns(bench));
}

static void run_streams(const struct bench *bench)
{
	static double rates[WAYS_MAX][VALUES_MAX];
	const struct way *ways[WAYS_MAX];
	char notes[WAYS_MAX][WAYS_NOTE_MAX];
	unsigned count = ways_usable(ways);
	struct bench longer = *bench;

	longer.slice_ns *= STREAM_SLICES;
	for (size_t size = 0; size < sizeof(blocks) / sizeof(blocks[0]); size++) {
		for (unsigned round = 0; round < bench->rounds; round++)
			for (unsigned i = 0; i < count; i++)
				rates[i][round] =
					ways_rate(&longer, ways[i], blocks[size].bytes, notes[i]);
		for (unsigned i = 0; i < count; i++)
			report_way(bench, blocks[size].name, ways[i], rates[i], notes[i]);
	}
}

static void run_ping_pong(const struct bench *bench)
{
	struct loopback loopback;
	double values[VALUES_MAX];

	loopback_open(&loopback);
	for (unsigned round = 0; round < bench->rounds; round++)
		values[round] = loopback_round_trip_ns(bench, &loopback, PING_BYTES);
	loopback_close(&loopback);
	report_limit(&(struct row){.name = "plain TCP, 8B round trip",
				   .unit = "us",
				   .scale = 1e3,
				   .reference_name = "socket ping-pong, p50"},
		     values, bench->rounds, probe_core_to_core_ns(bench));
}

int main(int argc, char **argv)
{
	struct bench bench;

	if (bench_options(argc, argv, &bench) != argc) {
		fputs("usage: sockets [options]\n", stderr);
		return 2;
	}
	if (bench_wants(&bench, "plain TCP, 8B round trip"))
		run_ping_pong(&bench);
	if (!bench.only || bench_wants(&bench, "plain TCP, send"))
		run_streams(&bench);
	return 0;
}
