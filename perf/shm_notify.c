/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "report.h"
#include "shm.h"

#define MESSAGE_BYTES 8
#define SOURCE_OFFSET 4096 /* not on a line that the other writes, as in ucp_put_lat */
#define BLOCKS        2000 /* short ones: a preempted one does not count */
#define BLOCK_TRIPS   100
#define WARM_UP_TRIPS 20000
#define TRIPS         (WARM_UP_TRIPS + BLOCKS * BLOCK_TRIPS)

/* One of the two processes. */
struct player {
	const struct bench *bench;
	int core;
	int sync;                /* a socket to the other */
	const char *own, *other; /* segments */
	struct slu_engine *engine;
	struct slu_segment *segment;
	struct slu_queue *queue;
	struct slu_op op;
	double half_trip_ns;
};

/* Both have come to the same point. */
static void meet(const struct player *player)
{
	char byte = 0;

	if (write(player->sync, &byte, 1) != 1 || read(player->sync, &byte, 1) != 1)
		die("the other process has gone");
}

static void player_open(struct player *player)
{
	struct slu_engine_options engine;
	struct slu_region_options region;
	struct slu_remote_options remote;
	struct slu_queue_options queue;

	slu_engine_options_init(&engine, sizeof(engine));
	slu_region_options_init(&region, sizeof(region));
	slu_remote_options_init(&remote, sizeof(remote));
	slu_queue_options_init(&queue, sizeof(queue));
	remote.transport = SLU_TRANSPORT_SHM;
	queue.poller = SLU_POLLER_INLINE;
	if (slu_engine_open(&engine, &player->engine) != 0 ||
	    slu_region_alloc(player->engine, 2 * MIB, &region, &player->op.region) != 0 ||
	    slu_segment_export(player->engine, player->own, player->op.region,
			       SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL, &player->segment) != 0)
		die("%s", slu_last_error());
	memory_fill(slu_region_addr(player->op.region), 2 * MIB, 0);
	meet(player);
	if (slu_remote_open(player->engine, player->other, &remote, &player->op.remote) != 0 ||
	    slu_queue_open(player->engine, &queue, &player->queue) != 0)
		die("%s", slu_last_error());
	player->op.opcode = SLU_WRITE_NOTIFY;
	player->op.length = MESSAGE_BYTES;
	player->op.local_offset = SOURCE_OFFSET;
	meet(player);
}

/* The other must be through as well: the end of an engine fails its peer's last operations. */
static void player_close(struct player *player)
{
	meet(player);
	slu_queue_close(player->queue);
	slu_remote_close(player->op.remote);
	meet(player);
	slu_engine_close(player->engine);
}

static void send_one(struct player *player)
{
	struct slu_completion done;
	int n = slu_submit(player->queue, &player->op, 1);

	if (n != 1)
		die("slu_submit: %s", n < 0 ? slu_strerror(n) : "the queue is full");
	while (slu_reap(player->queue, &done, 1) == 0)
		;
	if (done.status != 0)
		die("a notification failed: %s", slu_strerror(done.status));
}

static void receive_one(struct player *player)
{
	struct slu_notification notification;

	while (slu_segment_poll(player->segment, &notification, 1) == 0)
		;
}

static void *answer_run(void *arg)
{
	for (unsigned i = 0; i < TRIPS; i++) {
		receive_one(arg);
		send_one(arg);
	}
	return NULL;
}

static double half_trip_ns(struct player *player, unsigned trips)
{
	uint64_t start = ticks();

	for (unsigned i = 0; i < trips; i++) {
		send_one(player);
		receive_one(player);
	}
	return (double)(ticks() - start) * tick_ns() / (2.0 * trips);
}

static void *call_run(void *arg)
{
	struct player *player = arg;
	double blocks[BLOCKS];

	half_trip_ns(player, WARM_UP_TRIPS);
	for (unsigned i = 0; i < BLOCKS; i++)
		blocks[i] = half_trip_ns(player, BLOCK_TRIPS);
	player->half_trip_ns = median(blocks, BLOCKS);
	return NULL;
}

static void play(struct player *player, void *(*run)(void *arg))
{
	player_open(player);
	core_thread_run(player->bench, player->core, run, player);
	player_close(player);
}

void shm_run_notify(const struct bench *bench)
{
	char names[2][TARGET_NAME_BYTES];
	struct player player = {.bench = bench};
	pid_t twin;

	for (int i = 0; i < 2; i++)
		snprintf(names[i], sizeof(names[i]), "perf.%d.%d", (int)getpid(), i);
	tick_ns();
	twin = twin_start(&player.sync);
	player.core = bench->cores[twin == 0];
	player.own = names[twin == 0];
	player.other = names[twin != 0];
	play(&player, twin == 0 ? answer_run : call_run);
	if (twin == 0)
		exit(0);
	twin_join(twin);
	report_sample(&(struct row){.name = "notify 8B", .unit = "ns", .scale = 1},
		      player.half_trip_ns);
}
