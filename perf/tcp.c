/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sluice's tcp path over the loopback interface: single figures that perf/run sets against other
 * programs, the round trip beside that of plain sockets, and the rate beside a hostile client. One
 * line of JSON a row; see perf/README.md.
 */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "hostile.h"
#include "load.h"
#include "loopback.h"
#include "report.h"
#include "samples.h"

#define BATCH_OPS_MAX 16
#define BATCH_BYTES   (4 * MIB)
#define SMALL_BYTES   64 /* and below: batches are as large as they can be */
#define DEPTH         4  /* batches in flight */
#define TRIP_BYTES    8
#define TRIP_FLOOR    (1 / 1.1)
#define SIEGE_SLICES  15 /* in a slice of a siege */
#define SIEGE_FLOOR   0.9
#define NOTE_BYTES    64

struct sample {
	const char *name;
	enum slu_opcode opcode;
	uint64_t length; /* of one operation, bytes */
	enum rig_memory memory;
	uint64_t walked; /* bytes of the memory that are used; 0 = all */
	uint32_t connections;
	bool tls;
};

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

static uint32_t batch_of(uint64_t length)
{
	uint64_t batch = BATCH_BYTES / length;

	if (length <= SMALL_BYTES)
		return LOAD_BATCH_MAX;
	return batch > BATCH_OPS_MAX ? BATCH_OPS_MAX : (uint32_t)batch;
}

/* One thread with an inline queue, and what it runs on. */
struct client {
	struct rig rig;
	struct cursor cursor;
	struct load load;
	struct lane lane;
};

static void client_open(struct client *client, const struct bench *bench,
			const struct sample *sample, uint32_t batch, uint32_t depth)
{
	uint64_t piece = sample->length < SMALL_BYTES ? SMALL_BYTES : sample->length;
	struct load_options options = {.opcode = sample->opcode,
				       .length = sample->length,
				       .batch = batch,
				       .depth = depth,
				       .poller = SLU_POLLER_INLINE};
	struct rig_pair *pair = &client->rig.pairs[sample->memory];

	rig_open(&client->rig, bench,
		 &(struct rig_options){.tcp = true,
				       .tls = sample->tls,
				       .connections = sample->connections,
				       .streaming = sample->memory == RIG_STREAMING});
	client->cursor = (struct cursor){
		.size = piece, .count = (sample->walked ? sample->walked : pair->length) / piece};
	client->lane = (struct lane){.core = bench->cores[0],
				     .step = load_step,
				     .finish = load_finish,
				     .arg = &client->load};
	load_open(&client->load, &client->rig, pair, &client->cursor, &options);
	load_verify(&client->load, pair);
}

static void client_close(struct client *client)
{
	load_close(&client->load);
	rig_close(&client->rig);
}

/* The first slice is not counted: the windows of new connections have to open. */
static void run_sample(const struct bench *bench, const struct sample *sample)
{
	bool small = sample->length <= SMALL_BYTES;
	static struct client client;
	double rate;

	client_open(&client, bench, sample, batch_of(sample->length), DEPTH);
	lanes_rate(bench, &client.lane, 1);
	rate = lanes_rate(bench, &client.lane, 1) / (small ? (double)sample->length : 1);
	report_sample(&(struct row){.name = sample->name,
				    .unit = small ? "M/s" : "GB/s",
				    .scale = small ? 1e6 : 1e9},
		      rate);
	client_close(&client);
}

static int run_samples(const struct bench *bench)
{
	for (size_t i = 0; i < SAMPLES; i++)
		if (!bench->only || strcmp(samples[i].name, bench->only) == 0)
			run_sample(bench, &samples[i]);
	return 0;
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

static int run_trips(const struct bench *bench)
{
	static const struct sample trips[] = {
		{"write 8B round trip", SLU_WRITE, TRIP_BYTES, RIG_CACHED, 64, 1, false},
		{"read 8B round trip", SLU_READ, TRIP_BYTES, RIG_CACHED, 64, 1, false},
	};

	for (size_t i = 0; i < sizeof(trips) / sizeof(trips[0]); i++)
		if (bench_wants(bench, trips[i].name))
			run_trip(bench, &trips[i]);
	return 0;
}

/* A well-behaved client, with and without a hostile one at the same target. */
struct siege {
	struct client client;
	struct hostile hostile;
	struct bench bench; /* with slices in which the hostile one gets its turn */
	uint64_t besieged_ns;
};

static double measure_besieged(void *arg)
{
	struct siege *siege = arg;
	uint64_t start_ns = clock_monotonic_ns(NULL);
	double rate;

	target_resume(&siege->client.rig.target);
	hostile_resume(&siege->hostile);
	rate = lanes_rate(&siege->bench, &siege->client.lane, 1);
	hostile_pause(&siege->hostile);
	target_pause(&siege->client.rig.target);
	siege->besieged_ns += clock_monotonic_ns(NULL) - start_ns;
	return rate;
}

static double measure_peace(void *arg)
{
	struct siege *siege = arg;
	double rate;

	target_resume(&siege->client.rig.target);
	rate = lanes_rate(&siege->bench, &siege->client.lane, 1);
	target_pause(&siege->client.rig.target);
	return rate;
}

static void run_siege(const struct bench *bench, const char *name, enum hostile_kind kind)
{
	struct sample sample = {name, SLU_WRITE, 64 * KIB, RIG_CACHED, 0, 1, kind == HOSTILE_KEY};
	struct pair_round rounds[PAIR_ROUNDS_MAX];
	static struct siege siege;
	char note[NOTE_BYTES];
	unsigned moved;

	siege.besieged_ns = 0;
	siege.bench = *bench;
	siege.bench.slice_ns *= SIEGE_SLICES;
	client_open(&siege.client, bench, &sample, batch_of(sample.length), DEPTH);
	hostile_start(&siege.hostile, kind, siege.client.rig.target.address);
	target_pause(&siege.client.rig.target);
	moved = pair_measure(bench, &(struct side){measure_besieged, &siege},
			     &(struct side){measure_peace, &siege}, BETTER_HIGHER, rounds);
	snprintf(note, sizeof(note), "%.0f attempts a second",
		 (double)*siege.hostile.attempts * (double)NS_PER_SECOND /
			 (double)siege.besieged_ns);
	report_pair(&(struct row){.name = name,
				  .unit = "GB/s",
				  .scale = 1e9,
				  .reference_name = "Sluice in peace",
				  .floor = SIEGE_FLOOR,
				  .note = note},
		    rounds, bench->rounds, moved);
	hostile_stop(&siege.hostile);
	target_resume(&siege.client.rig.target);
	client_close(&siege.client);
}

static int run_sieges(const struct bench *bench)
{
	static const struct {
		const char *name;
		enum hostile_kind kind;
	} sieges[] = {
		{"write 64K beside silent connections", HOSTILE_SILENT},
		{"write 64K beside slow connections", HOSTILE_SLOW},
		{"write 64K beside a flood of connections", HOSTILE_CONNECTS},
		{"write 64K beside oversized messages", HOSTILE_OVERSIZED},
		{"write 64K beside guessed tokens", HOSTILE_TOKEN},
		{"write 64K, TLS, beside wrong keys", HOSTILE_KEY},
	};

	for (size_t i = 0; i < sizeof(sieges) / sizeof(sieges[0]); i++)
		if (bench_wants(bench, sieges[i].name))
			run_siege(bench, sieges[i].name, sieges[i].kind);
	return 0;
}

int main(int argc, char **argv)
{
	struct bench bench;
	int first = bench_options(argc, argv, &bench);
	const char *group = argc - first == 1 ? argv[first] : "";

	if (strcmp(group, "sample") == 0)
		return run_samples(&bench);
	if (strcmp(group, "trips") == 0)
		return run_trips(&bench);
	if (strcmp(group, "sieges") == 0)
		return run_sieges(&bench);
	fputs("usage: tcp [options] sample|trips|sieges\n", stderr);
	return 2;
}
