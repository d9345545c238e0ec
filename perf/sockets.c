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

#define BLOCKS (sizeof(blocks) / sizeof(blocks[0]))

/* A way and a size. */
struct stream {
	char name[64];
	const struct way *way;
	uint64_t bytes;
	double rates[VALUES_MAX];
	char note[WAYS_NOTE_MAX];
};

/* @return how many of the ways are wanted for blocks of that size */
static unsigned choose(const struct bench *bench, size_t block, struct stream *streams)
{
	const struct way *ways[WAYS_MAX];
	unsigned usable = ways_usable(ways);
	unsigned count = 0;

	for (unsigned i = 0; i < usable; i++) {
		struct stream *stream = &streams[count];

		stream->way = ways[i];
		stream->bytes = blocks[block].bytes;
		snprintf(stream->name, sizeof(stream->name), "plain TCP, send %s, %s",
			 blocks[block].name, ways[i]->name);
		count += bench_wants(bench, stream->name);
	}
	return count;
}

static void report_stream(const struct bench *bench, const struct stream *stream)
{
	report_limit(&(struct row){.name = stream->name,
				   .unit = "GB/s",
				   .scale = 1e9,
				   .reference_name = "a sender, a receiver that spins",
				   .note = stream->note[0] ? stream->note : NULL},
		     stream->rates, bench->rounds, probe_core_to_core_ns(bench));
}

static void run_streams(const struct bench *bench, size_t block)
{
	static struct stream streams[WAYS_MAX];
	unsigned count = choose(bench, block, streams);
	struct bench longer = *bench;

	longer.slice_ns *= STREAM_SLICES;
	for (unsigned round = 0; round < bench->rounds; round++)
		for (unsigned i = 0; i < count; i++)
			streams[i].rates[round] = ways_rate(&longer, streams[i].way,
							    streams[i].bytes, streams[i].note);
	for (unsigned i = 0; i < count; i++)
		report_stream(bench, &streams[i]);
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
	for (size_t block = 0; block < BLOCKS; block++)
		run_streams(&bench, block);
	return 0;
}
