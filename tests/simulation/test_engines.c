/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two targets and two clients in one process, over simulated TCP and in virtual time: control
 * sessions, data connections, what becomes of them when connections are slow, cut short and reset;
 * and the same seed gives the same history. SEED=n lives the one of that seed alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "../tap.h"
#include "world.h"

#define TARGETS    2u
#define CLIENTS    2u
#define BLOCK      8192u
#define BLOCKS     32u /* of each client, in each segment */
#define LENGTH     ((uint64_t)CLIENTS * BLOCKS * BLOCK)
#define OPERATIONS 300u /* of each client */
#define IN_FLIGHT  8u
#define TIMEOUT_US 200000u
#define STEPS_MAX  20000000u
#define TRIES      100u
#define SEEDS      5u

struct block {
	uint8_t value; /* every byte of it */
	bool unknown;  /* something has failed, or may still land */
	bool busy;
};

struct target {
	struct slu_engine *engine;
	struct slu_region *memory;
	struct slu_segment *segment;
	char name[96];
};

struct client {
	uint32_t index;
	struct slu_engine *engine;
	struct slu_region *memory;
	struct slu_queue *queue;
	struct slu_remote *remotes[TARGETS];
	struct block blocks[TARGETS][BLOCKS];
	struct flight {
		bool busy;
		bool reads;
		uint8_t value;
		uint32_t target, block;
	} flights[IN_FLIGHT];
	uint32_t out, begun, ended, failed, reopened;
};

static struct target targets[TARGETS];
static struct client clients[CLIENTS];

struct outcome {
	uint64_t hash;
	uint64_t end_ns;
	uint32_t verified, failed, reopened;
	struct world_counts counts;
};

static struct slu_region *region(struct slu_engine *engine, uint64_t length)
{
	struct slu_region_options options;
	struct slu_region *made;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(slu_region_alloc(engine, length, &options, &made), 0);
	return made;
}

static void open_target(uint32_t index)
{
	struct target *target = &targets[index];
	struct slu_engine_options options;
	char listen[32], segment[32];

	snprintf(listen, sizeof(listen), "10.0.0.%u:7000", index + 1);
	snprintf(segment, sizeof(segment), "simulated-%07d-%u", getpid(), index);
	snprintf(target->name, sizeof(target->name), "%s@%s", segment, listen);
	slu_engine_options_init(&options, sizeof(options));
	options.name = "target";
	options.listen = listen;
	options.insecure = true;
	options.rdma.off = true;
	assert_int_equal(world_open(&options, &target->engine), 0);
	target->memory = region(target->engine, LENGTH);
	assert_int_equal(slu_segment_export(target->engine, segment, target->memory,
					    SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
					    &target->segment),
			 0);
}

/* Connections are reset while it is opened, as well: again, then. */
static void open_remote(struct client *client, uint32_t target)
{
	struct slu_remote_options options;
	int rc = -ECONNRESET;

	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_TCP;
	for (uint32_t i = 0; i < TRIES && rc < 0; i++)
		rc = slu_remote_open(client->engine, targets[target].name, &options,
				     &client->remotes[target]);
	if (rc < 0)
		fail_msg("a remote does not open: %s", slu_last_error());
}

static void open_client(uint32_t index)
{
	struct client *client = &clients[index];
	struct slu_engine_options options;
	struct slu_queue_options queue;

	memset(client, 0, sizeof(*client));
	client->index = index;
	slu_engine_options_init(&options, sizeof(options));
	options.name = "client";
	options.pollers = 1;
	options.insecure = true;
	options.rdma.off = true;
	assert_int_equal(world_open(&options, &client->engine), 0);
	client->memory = region(client->engine, IN_FLIGHT * BLOCK);
	slu_queue_options_init(&queue, sizeof(queue));
	queue.timeout_us = TIMEOUT_US;
	assert_int_equal(slu_queue_open(client->engine, &queue, &client->queue), 0);
	for (uint32_t i = 0; i < TARGETS; i++)
		open_remote(client, i);
}

static char *buffer(const struct client *client, uint32_t flight)
{
	return (char *)slu_region_addr(client->memory) + flight * BLOCK;
}

static uint64_t offset_of(const struct client *client, uint32_t block)
{
	return ((uint64_t)client->index * BLOCKS + block) * BLOCK;
}

static void begin(struct client *client, uint32_t index, uint32_t target, uint32_t block,
		  bool reads)
{
	struct flight *flight = &client->flights[index];
	struct slu_op op = {.user_data = index,
			    .remote = client->remotes[target],
			    .remote_offset = offset_of(client, block),
			    .region = client->memory,
			    .local_offset = index * BLOCK,
			    .length = BLOCK,
			    .opcode = reads ? SLU_READ : SLU_WRITE};

	*flight = (struct flight){.busy = true,
				  .reads = reads,
				  .value = (uint8_t)(1 + world_chance(255)),
				  .target = target,
				  .block = block};
	memset(buffer(client, index), reads ? 0 : flight->value, BLOCK);
	if (slu_submit(client->queue, &op, 1) != 1) {
		flight->busy = false; /* the remote is dead */
		return;
	}
	client->blocks[target][block].busy = true;
	client->out++;
	client->begun++;
}

static void check_filled(const char *bytes, uint8_t value)
{
	for (uint32_t i = 0; i < BLOCK; i++)
		if ((uint8_t)bytes[i] != value)
			fail_msg("byte %u is %u where %u was written", i, (uint8_t)bytes[i], value);
}

static void end(struct client *client, const struct slu_completion *done)
{
	struct flight *flight = &client->flights[done->user_data];
	struct block *block = &client->blocks[flight->target][flight->block];

	assert_true(flight->busy && block->busy);
	flight->busy = block->busy = false;
	client->out--;
	client->ended++;
	client->failed += done->status < 0;
	world_note((uint64_t)done->status << 32 | done->user_data << 8 | done->scope);
	if (!flight->reads) {
		block->unknown = done->status < 0;
		block->value = flight->value;
	} else if (done->status == 0 && !block->unknown) {
		check_filled(buffer(client, (uint32_t)done->user_data), block->value);
	}
}

static void reap(struct client *client)
{
	struct slu_completion done[IN_FLIGHT];
	int n = slu_reap(client->queue, done, IN_FLIGHT);

	assert_true(n >= 0);
	for (int i = 0; i < n; i++)
		end(client, &done[i]);
}

static void wait_for_all(struct client *client)
{
	uint64_t until_ns = world_now_ns() + 2 * (uint64_t)TIMEOUT_US * 1000;

	while (client->out > 0) {
		if (world_now_ns() > until_ns)
			fail_msg("%u operations have not ended by their deadline", client->out);
		world_step();
		reap(client);
	}
}

/* A remote whose session is lost is closed, when nothing of it is out, and opened again. */
static void mend(struct client *client)
{
	for (uint32_t i = 0; i < TARGETS; i++) {
		struct slu_remote_info info = {.size = sizeof(info)};

		assert_int_equal(slu_remote_get_info(client->remotes[i], &info), 0);
		if (info.state == 0)
			continue;
		wait_for_all(client);
		slu_remote_close(client->remotes[i]);
		open_remote(client, i);
		client->reopened++;
	}
}

static void work(struct client *client)
{
	uint32_t index = (uint32_t)world_chance(IN_FLIGHT);
	uint32_t target = (uint32_t)world_chance(TARGETS);
	uint32_t block = (uint32_t)world_chance(BLOCKS);

	reap(client);
	if (client->begun < OPERATIONS && !client->flights[index].busy &&
	    !client->blocks[target][block].busy)
		begin(client, index, target, block, world_chance(3) == 0);
	mend(client);
}

static bool is_done(void)
{
	for (uint32_t i = 0; i < CLIENTS; i++)
		if (clients[i].begun < OPERATIONS || clients[i].out > 0)
			return false;
	return true;
}

/* In the targets' memory, and as a client reads it. */
static uint32_t verify(struct client *client, uint32_t target)
{
	const char *memory = slu_region_addr(targets[target].memory);
	uint32_t known = 0;

	for (uint32_t i = 0; i < BLOCKS; i++) {
		const struct block *block = &client->blocks[target][i];

		begin(client, 0, target, i, true);
		wait_for_all(client);
		if (block->unknown)
			continue;
		check_filled(memory + offset_of(client, i), block->value);
		known++;
	}
	return known;
}

static struct outcome live(const struct world_options *options)
{
	struct outcome outcome = {0};

	world_begin(options);
	for (uint32_t i = 0; i < TARGETS; i++)
		open_target(i);
	for (uint32_t i = 0; i < CLIENTS; i++)
		open_client(i);
	for (uint32_t step = 0; !is_done(); step++) {
		assert_true(step < STEPS_MAX);
		world_step();
		work(&clients[world_chance(CLIENTS)]);
	}
	world_calm();
	for (uint32_t i = 0; i < CLIENTS; i++) {
		mend(&clients[i]);
		for (uint32_t k = 0; k < TARGETS; k++)
			outcome.verified += verify(&clients[i], k);
		assert_int_equal(clients[i].begun, clients[i].ended);
		outcome.failed += clients[i].failed;
		outcome.reopened += clients[i].reopened;
	}
	outcome.end_ns = world_now_ns();
	outcome.counts = *world_counts();
	for (uint32_t i = 0; i < CLIENTS; i++)
		world_close(clients[i].engine);
	for (uint32_t i = 0; i < TARGETS; i++)
		world_close(targets[i].engine);
	outcome.hash = world_end();
	tap_comment("seed %llu: %llu steps, %llu connections, %llu reset, %llu calls cut, "
		    "%llu bytes; %u operations failed, %u remotes reopened; %llu ms",
		    (unsigned long long)options->seed, (unsigned long long)outcome.counts.steps,
		    (unsigned long long)outcome.counts.connections,
		    (unsigned long long)outcome.counts.resets,
		    (unsigned long long)outcome.counts.short_calls,
		    (unsigned long long)outcome.counts.bytes, outcome.failed, outcome.reopened,
		    (unsigned long long)(outcome.end_ns / 1000000));
	return outcome;
}

static struct world_options rough(uint64_t seed)
{
	return (struct world_options){
		.seed = seed, .delay_max_ns = 300000, .cut = 0.3, .reset = 0.02};
}

/* Goal: engines that share a process work over simulated streams, all of them to the end. */
static void test_calm(void **state)
{
	const struct world_options options = {.seed = 1, .delay_max_ns = 100000};
	struct outcome outcome = live(&options);

	(void)state;
	assert_int_equal(outcome.failed, 0);
	assert_int_equal(outcome.reopened, 0);
	assert_int_equal(outcome.verified, CLIENTS * TARGETS * BLOCKS);
	assert_true(outcome.counts.bytes > (uint64_t)CLIENTS * OPERATIONS * BLOCK);
}

/* Goal: with calls cut short and connections reset each operation ends once and in time, and what
 * ended well is what is in the memory. */
static void test_rough(void **state)
{
	uint64_t resets = 0, short_calls = 0;
	uint32_t failed = 0, reopened = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		const struct world_options options = rough(seed);
		struct outcome outcome = live(&options);

		assert_true(outcome.verified > 0);
		resets += outcome.counts.resets;
		short_calls += outcome.counts.short_calls;
		failed += outcome.failed;
		reopened += outcome.reopened;
	}
	assert_true(resets > 0 && short_calls > 0 && failed > 0 && reopened > 0);
}

/* Goal: what went wrong goes wrong again. */
static void test_one(void **state)
{
	const struct world_options options = rough(strtoull(getenv("SEED"), NULL, 10));

	(void)state;
	assert_true(live(&options).verified > 0);
}

/* Goal: a seed is a history, and another seed another one. */
static void test_replay(void **state)
{
	struct world_options options = rough(7);
	struct outcome first = live(&options), again = live(&options), other;

	(void)state;
	assert_true(first.hash == again.hash);
	assert_int_equal(first.end_ns, again.end_ns);
	assert_int_equal(first.counts.steps, again.counts.steps);
	options.seed = 8;
	other = live(&options);
	assert_true(other.hash != first.hash);
}

int main(void)
{
	const struct CMUnitTest one[] = {cmocka_unit_test(test_one)};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calm),
		cmocka_unit_test(test_rough),
		cmocka_unit_test(test_replay),
	};

	if (getenv("SEED"))
		return cmocka_run_group_tests_name("simulation", one, NULL, NULL);
	return cmocka_run_group_tests_name("simulation", tests, NULL, NULL);
}
