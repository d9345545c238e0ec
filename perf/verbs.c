/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: verbs read|write|pong BYTES TRIPS
 *
 * Latency by RDMA to another process, one operation at a time, in microseconds: median and mean.
 *
 * read, write: from one reaped to the next, as ib_read_lat does. pong: both write into each other's
 * memory, in turn, as ib_write_lat does: each spins on the last byte that the other will write,
 * writes back, and waits for its own completion; half of the round trip.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "bench.h"

#define NAME_BYTES    160
#define REGION_BYTES  (2 * MIB)
#define SOURCE_OFFSET MIB /* what is sent; what arrives is at 0 */

/* One of the two processes. */
struct player {
	bool calls; /* first; the other answers, or only serves */
	bool pong;
	int sync; /* a socket to the other */
	struct slu_engine *engine;
	struct slu_segment *segment;
	struct slu_queue *queue;
	struct slu_op op;
	_Atomic unsigned char *arrives, *leaves; /* last byte of either */
};

/* Both have come to the same point, and told each other their names. */
static void meet(const struct player *player, const char own[NAME_BYTES], char other[NAME_BYTES])
{
	if (write(player->sync, own, NAME_BYTES) != NAME_BYTES ||
	    recv(player->sync, other, NAME_BYTES, MSG_WAITALL) != NAME_BYTES)
		die("the other process has gone");
}

static void open_engine(struct player *player, char name[NAME_BYTES])
{
	struct slu_engine_options options;
	struct slu_region_options region;
	struct slu_engine_info info = {.size = sizeof(info)};
	char segment[32];

	snprintf(segment, sizeof(segment), "perf.%d", (int)getpid());
	slu_engine_options_init(&options, sizeof(options));
	slu_region_options_init(&region, sizeof(region));
	options.name = segment;
	options.listen = "127.0.0.1:0"; /* where queue pairs are agreed upon; data goes by RDMA */
	options.pollers = 1;            /* listening takes one; it sleeps */
	if (slu_engine_open(&options, &player->engine) != 0 ||
	    slu_engine_get_info(player->engine, &info) != 0 ||
	    slu_region_alloc(player->engine, REGION_BYTES, &region, &player->op.region) != 0 ||
	    slu_segment_export(player->engine, segment, player->op.region,
			       SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL, &player->segment) != 0)
		die("%s", slu_last_error());
	memory_fill(slu_region_addr(player->op.region), REGION_BYTES, 0);
	snprintf(name, NAME_BYTES, "%s@%s", segment, info.listen);
}

static void connect_to(struct player *player, const char *name)
{
	struct slu_remote_options remote;
	struct slu_queue_options queue;

	slu_remote_options_init(&remote, sizeof(remote));
	slu_queue_options_init(&queue, sizeof(queue));
	remote.transport = SLU_TRANSPORT_VERBS;
	queue.poller = SLU_POLLER_INLINE;
	if (slu_queue_open(player->engine, &queue, &player->queue) != 0 ||
	    slu_remote_open(player->engine, name, &remote, &player->op.remote) != 0)
		die("%s", slu_last_error());
}

static void send_one(struct player *player, unsigned trip)
{
	struct slu_completion done;

	atomic_store_explicit(player->leaves, (unsigned char)trip, memory_order_relaxed);
	if (slu_submit(player->queue, &player->op, 1) != 1)
		die("slu_submit: %s", slu_last_error());
	while (slu_reap(player->queue, &done, 1) == 0)
		;
	if (done.status != 0)
		die("a write failed: %s", slu_strerror(done.status));
}

static void receive_one(const struct player *player, unsigned trip)
{
	while (atomic_load_explicit(player->arrives, memory_order_acquire) != (unsigned char)trip)
		;
}

static void trip(struct player *player, unsigned number)
{
	if (player->calls)
		send_one(player, number);
	if (player->pong)
		receive_one(player, number);
	if (!player->calls)
		send_one(player, number);
}

static void play(struct player *player, unsigned trips, double *each_us)
{
	double trip_us = tick_ns() / (player->pong ? 2000 : 1000);
	uint64_t begin = ticks();

	/* The end of one is the begin of the next, as in perftest: the clock costs too. */
	for (unsigned i = 0; i < trips; i++) {
		uint64_t end;

		trip(player, i + 1);
		end = ticks();
		each_us[i] = (double)(end - begin) * trip_us;
		begin = end;
	}
}

static double mean(const double *values, unsigned count)
{
	double sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += values[i];
	return sum / count;
}

static void run(struct player *player, uint32_t bytes, unsigned trips)
{
	char own[NAME_BYTES] = "", other[NAME_BYTES];
	double *each_us = calloc(trips, sizeof(*each_us));
	char *memory;

	open_engine(player, own);
	meet(player, own, other);
	player->op.length = bytes;
	player->op.local_offset = SOURCE_OFFSET;
	memory = slu_region_addr(player->op.region);
	player->arrives = (_Atomic unsigned char *)memory + bytes - 1;
	*player->arrives = 0; /* the first to come is 1 */
	player->leaves = (_Atomic unsigned char *)memory + SOURCE_OFFSET + bytes - 1;
	connect_to(player, other);
	meet(player, own, other);
	if (player->calls || player->pong)
		play(player, trips, each_us);
	meet(player, own, other); /* the end of an engine fails its peer's last operations */
	slu_queue_close(player->queue);
	slu_remote_close(player->op.remote);
	meet(player, own, other);
	slu_engine_close(player->engine);
	if (player->calls)
		printf("%.3f %.3f\n", median(each_us, trips), mean(each_us, trips));
	free(each_us);
}

int main(int argc, char **argv)
{
	unsigned bytes = argc == 4 ? (unsigned)atoi(argv[2]) : 0;
	unsigned trips = argc == 4 ? (unsigned)atoi(argv[3]) : 0;
	struct player player = {0};
	pid_t twin;

	if (bytes == 0 || bytes > SOURCE_OFFSET || trips == 0)
		die("usage: verbs read|write|pong BYTES TRIPS");
	player.pong = strcmp(argv[1], "pong") == 0;
	player.op.opcode = strcmp(argv[1], "read") == 0 ? SLU_READ : SLU_WRITE;
	tick_ns();
	twin = twin_start(&player.sync);
	player.calls = twin != 0;
	run(&player, bytes, trips);
	if (twin == 0)
		exit(0);
	twin_join(twin);
	return 0;
}
