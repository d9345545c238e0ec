/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sluice's tcp path over the loopback interface: single figures that perf/run sets against other
 * programs, the round trip beside that of plain sockets, and beside bulk, a target that is
 * stopped, idle clients and hostile ones. One line of JSON a row; see perf/README.md.
 */
#include <stdio.h>
#include <string.h>

#include "cipher.h"
#include "client.h"
#include "idle.h"
#include "loopback.h"
#include "mixed.h"
#include "report.h"
#include "samples.h"
#include "siege.h"
#include "stalled.h"
#include "transport/tcp/tcp.h"
#include "visitor.h"

#define WAIT_MS    5000
#define TRIP_BYTES 8
#define TRIP_FLOOR (1 / 1.1)

/* clang-format off */
static const struct sample samples[] = {
	{"write 1M, 1 stream", SLU_WRITE, MIB, RIG_CACHED, MIB, 1, false},
	{"write 1M, 2 streams", SLU_WRITE, MIB, RIG_CACHED, MIB, 2, false},
	{"write 64K, 1 stream", SLU_WRITE, 64 * KIB, RIG_CACHED, 64 * KIB, 1, false},
	{"write 64K, 2 streams", SLU_WRITE, 64 * KIB, RIG_CACHED, 64 * KIB, 2, false},
	{"read 1M, 1 stream", SLU_READ, MIB, RIG_CACHED, MIB, 1, false},
	{"read 1M, 2 streams", SLU_READ, MIB, RIG_CACHED, MIB, 2, false},
	{"read 64K, 1 stream", SLU_READ, 64 * KIB, RIG_CACHED, 64 * KIB, 1, false},
	{"read 64K, 2 streams", SLU_READ, 64 * KIB, RIG_CACHED, 64 * KIB, 2, false},
	{"write 1M streaming, 1 stream", SLU_WRITE, MIB, RIG_STREAMING, 0, 1, false},
	{"read 1M streaming, 1 stream", SLU_READ, MIB, RIG_STREAMING, 0, 1, false},
	{"write 8B", SLU_WRITE, 8, RIG_CACHED, 0, 1, false},
	{"write 64B", SLU_WRITE, 64, RIG_CACHED, 0, 1, false},
	{"write 1M, TLS", SLU_WRITE, MIB, RIG_CACHED, MIB, 1, true},
	{"read 1M, TLS", SLU_READ, MIB, RIG_CACHED, MIB, 1, true},
	{"write 8B, TLS", SLU_WRITE, 8, RIG_CACHED, 0, 1, true},
};
/* clang-format on */

#define SAMPLES (sizeof(samples) / sizeof(samples[0]))

/* The first slice is not counted: the windows of new connections have to open. */
static void run_sample(const struct bench *bench, const struct sample *sample)
{
	bool small = sample->length <= CLIENT_SMALL_BYTES;
	static struct client client;
	double rate;

	client_open(&client, bench, sample, client_batch(sample->length), CLIENT_DEPTH);
	lanes_rate(bench, &client.lane, 1);
	rate = lanes_rate(bench, &client.lane, 1) / (small ? (double)sample->length : 1);
	report_sample(&(struct row){.name = sample->name,
				    .unit = small ? "M/s" : "GB/s",
				    .scale = small ? 1e6 : 1e9},
		      rate);
	client_close(&client);
}

static void run_samples(const struct bench *bench)
{
	for (size_t i = 0; i < SAMPLES; i++)
		if (!bench->only || strcmp(samples[i].name, bench->only) == 0)
			run_sample(bench, &samples[i]);
}

/* What a data connection negotiates, a control connection does: it is named by the figure. */
static void run_cipher(const struct bench *bench)
{
	struct rig_options options = {.tcp = true, .tls = true};
	struct visitor visitor;
	struct door door;
	struct rig rig;

	rig_open(&rig, bench, &options);
	door = door_tcp(rig.target.address, NULL, rig.keys[RIG_PERF], WAIT_MS);
	if (!visitor_connect(&visitor, &door))
		die("no TLS connection to the target");
	report_sample(&(struct row){.name = SSL_get_cipher_name(visitor.stream.ssl),
				    .unit = "GB/s",
				    .scale = 1e9},
		      cipher_rate(bench, visitor.stream.ssl));
	visitor_leave(&visitor);
	rig_close(&rig);
}

/* One operation at a time beside plain sockets, on the same two cores. */
struct trips {
	struct client client;
	struct loopback loopback;
	double p50_ns;
};

static void trip_once(void *arg)
{
	struct trips *trips = arg;

	load_step(&trips->client.load);
}

static void *trips_run(void *arg)
{
	struct trips *trips = arg;

	trips->p50_ns = samples_p50_ns(trips->client.rig.bench->slice_ns, 1, trip_once, trips);
	return NULL;
}

/* The target's poller spins on the core that the sockets' echo and the probe need too. */
static double measure_sluice(void *arg)
{
	struct trips *trips = arg;
	const struct bench *bench = trips->client.rig.bench;

	target_resume(&trips->client.rig.target);
	core_thread_run(bench, bench->cores[0], trips_run, trips);
	target_pause(&trips->client.rig.target);
	return trips->p50_ns;
}

static double measure_sockets(void *arg)
{
	struct trips *trips = arg;

	return loopback_round_trip_ns(trips->client.rig.bench, &trips->loopback, TRIP_BYTES);
}

static void run_trip(const struct bench *bench, const struct sample *sample)
{
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	static struct trips trips;
	unsigned moved;

	client_open(&trips.client, bench, sample, 1, 1);
	loopback_open(&trips.loopback);
	target_pause(&trips.client.rig.target);
	moved = pair_measure(bench, &(struct side){measure_sluice, &trips},
			     &(struct side){measure_sockets, &trips}, BETTER_LOWER, rounds);
	target_resume(&trips.client.rig.target);
	report_pair(&(struct row){.name = sample->name,
				  .unit = "us",
				  .scale = 1e3,
				  .reference_name = "socket ping-pong, p50",
				  .floor = TRIP_FLOOR},
		    rounds, bench->rounds, moved);
	loopback_close(&trips.loopback);
	client_close(&trips.client);
}

static void run_trips(const struct bench *bench)
{
	static const struct sample trips[] = {
		{"write 8B round trip", SLU_WRITE, TRIP_BYTES, RIG_CACHED, 64, 1, false},
		{"read 8B round trip", SLU_READ, TRIP_BYTES, RIG_CACHED, 64, 1, false},
	};

	for (size_t i = 0; i < sizeof(trips) / sizeof(trips[0]); i++)
		if (bench_wants(bench, trips[i].name))
			run_trip(bench, &trips[i]);
}

static void run_mixed(const struct bench *bench)
{
	static const struct mixed_row rows[] = {
		{"read 64B p99 beside write 1M", 1, SLU_WRITE, RIG_CACHED, SLU_POLLER_INLINE,
		 TCP_SLICE_BYTES},
		{"read 64B p99 beside read 1M", 1, SLU_READ, RIG_CACHED, SLU_POLLER_INLINE,
		 TCP_SLICE_BYTES},
	};
	struct rig_options options = {.tcp = true, .connections = 1};
	struct rig rig;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (!bench_wants(bench, rows[i].name))
			continue;
		rig_open(&rig, bench, &options);
		mixed_run(&rig, &rows[i]);
		rig_close(&rig);
	}
}

static const struct {
	const char *name;
	void (*run)(const struct bench *bench);
} groups[] = {
	{"sample", run_samples}, {"cipher", run_cipher},   {"trips", run_trips},
	{"mixed", run_mixed},    {"stalled", stalled_run}, {"idle", idle_run_tcp},
	{"sieges", siege_run},
};

int main(int argc, char **argv)
{
	struct bench bench;
	int first = bench_options(argc, argv, &bench);
	const char *name = argc - first == 1 ? argv[first] : "";

	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		if (strcmp(name, groups[i].name) == 0) {
			groups[i].run(&bench);
			return 0;
		}
	}
	fputs("usage: tcp [options] sample|cipher|trips|mixed|stalled|idle|sieges\n", stderr);
	return 2;
}
