/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss, delay, reordering and death, in virtual time and from a seed, over the fake transport: each
 * accepted operation ends once, in bounded time, and its memory is left alone afterwards.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#include "../tap.h"
#include "base/random.h"
#include "pattern.h"

#define BLOCK      256u
#define BLOCKS     512u
#define LONG_BYTES (200u << 10)
#define BYTES      ((uint64_t)BLOCKS * BLOCK + LONG_BYTES)
#define TIMEOUT_US 5000u

struct world {
	uint64_t now_ns;
	struct slu_engine *engine;
	struct slu_region *memory; /* the segment's */
	struct slu_region *region;
	struct slu_segment *segment;
	struct slu_remote *remote;
	struct slu_queue *queue;
};

static uint64_t virtual_now(void *arg)
{
	return ((struct world *)arg)->now_ns;
}

static void world_open(struct world *world, const char *fake, uint64_t seed)
{
	struct slu_engine_options options;
	struct slu_remote_options remote;
	struct slu_queue_options queue;
	struct slu_region_options region;

	memset(world, 0, sizeof(*world));
	slu_engine_options_init(&options, sizeof(options));
	options.fake = fake;
	options.seed = seed;
	options.clock = virtual_now;
	options.clock_arg = world;
	slu_region_options_init(&region, sizeof(region));
	region.page = SLU_PAGE_ORDINARY;
	slu_remote_options_init(&remote, sizeof(remote));
	remote.transport = SLU_TRANSPORT_FAKE;
	slu_queue_options_init(&queue, sizeof(queue));
	queue.poller = SLU_POLLER_INLINE;
	queue.timeout_us = TIMEOUT_US;
	assert_int_equal(slu_engine_open(&options, &world->engine), 0);
	assert_int_equal(slu_region_alloc(world->engine, BYTES, &region, &world->memory), 0);
	assert_int_equal(slu_region_alloc(world->engine, BYTES, &region, &world->region), 0);
	assert_int_equal(slu_segment_export(world->engine, "failures", world->memory, 3, NULL,
					    &world->segment),
			 0);
	assert_int_equal(slu_remote_open(world->engine, "failures", &remote, &world->remote), 0);
	assert_int_equal(slu_queue_open(world->engine, &queue, &world->queue), 0);
}

static void world_close(struct world *world)
{
	slu_engine_close(world->engine);
}

/* What happened to each operation, and in which order they ended. */
struct history {
	uint32_t ended;
	uint32_t order[BLOCKS + 1];
	int32_t status[BLOCKS + 1];
};

/* In one batch: the first one may be the death of the remote, which then takes no more. */
static void submit_all(struct world *world)
{
	char *base = slu_region_addr(world->region);
	struct slu_op ops[BLOCKS + 1];

	for (uint32_t i = 0; i <= BLOCKS; i++) {
		uint64_t at = (uint64_t)i * BLOCK;
		uint64_t length = i < BLOCKS ? BLOCK : LONG_BYTES;

		ops[i] = (struct slu_op){.remote = world->remote,
					 .region = world->region,
					 .remote_offset = at,
					 .local_offset = at,
					 .length = length,
					 .opcode = SLU_WRITE,
					 .user_data = i};
		pattern_fill(base + at, at, length, 3);
	}
	assert_int_equal(slu_submit(world->queue, ops, BLOCKS + 1), BLOCKS + 1);
}

/* Let virtual time pass in steps of 10 us and take what ends, for twice the longest deadline. */
static void live(struct world *world, struct history *history)
{
	memset(history, 0, sizeof(*history));
	for (uint32_t step = 0; step < 2 * TIMEOUT_US / 10; step++) {
		struct slu_completion done[64];
		int n = slu_reap(world->queue, done, 64);

		for (int i = 0; i < n; i++) {
			assert_true(history->ended <= BLOCKS);
			history->order[history->ended++] = (uint32_t)done[i].user_data;
			history->status[done[i].user_data] = done[i].status;
		}
		world->now_ns += 10000;
	}
}

static void each_ended_once(const struct history *history)
{
	uint8_t seen[BLOCKS + 1] = {0};

	assert_int_equal(history->ended, BLOCKS + 1);
	for (uint32_t i = 0; i <= BLOCKS; i++)
		assert_int_equal(seen[history->order[i]]++, 0);
}

static uint32_t count_status(const struct history *history, int status)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i <= BLOCKS; i++)
		n += history->status[i] == status;
	return n;
}

/* Those that ended well are there, and nothing moves after the end, whatever time passes. */
static void memory_is_right(struct world *world, const struct history *history)
{
	const uint8_t *memory = slu_region_addr(world->memory);
	uint8_t *before = malloc(BYTES);
	struct slu_completion done;

	for (uint32_t i = 0; i < BLOCKS; i++)
		if (history->status[i] == 0)
			assert_int_equal(pattern_mismatch(memory + i * BLOCK, i * BLOCK, BLOCK, 3),
					 BLOCK);
	memset(slu_region_addr(world->region), 0xee, BYTES);
	memcpy(before, memory, BYTES);
	for (int i = 0; i < 1000; i++) {
		world->now_ns += 1000000;
		assert_int_equal(slu_reap(world->queue, &done, 1), 0);
	}
	assert_memory_equal(before, memory, BYTES);
	free(before);
}

static void run(const char *fake, uint64_t seed, struct history *history, bool check)
{
	struct world world;

	world_open(&world, fake, seed);
	submit_all(&world);
	live(&world, history);
	each_ended_once(history);
	if (check)
		memory_is_right(&world, history);
	world_close(&world);
}

/* Goal: with nothing lost, delay and reordering change no result. */
static void survives_delay_and_reordering(void **state)
{
	struct history history;

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		run("delay_us=0-300", seed, &history, true);
		assert_int_equal(count_status(&history, 0), BLOCKS + 1);
	}
	assert_int_not_equal(history.order[0] + history.order[1], 1); /* it did reorder */
}

/*
 * Goal: what is lost ends at its deadline, what is not lost ends well: a neighbour's deadline
 * flushes the path but costs the others only a repetition.
 */
static void survives_loss(void **state)
{
	struct history history;

	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		run("delay_us=1-50,loss=0.05", seed, &history, true);
		assert_int_equal(count_status(&history, 0) + count_status(&history, -ETIMEDOUT),
				 BLOCKS + 1);
		assert_true(count_status(&history, -ETIMEDOUT) > 0);
		assert_true(count_status(&history, 0) > 0);
	}
}

/* Goal: when everything is lost, everything ends at its deadline. */
static void survives_total_loss(void **state)
{
	struct history history;

	(void)state;
	run("loss=1", 1, &history, true);
	assert_int_equal(count_status(&history, -ETIMEDOUT), BLOCKS + 1);
}

/* Goal: a target that dies after the 1st, 2nd, 3rd, ... operation ends all that is left. */
static void survives_death_at_each_point(void **state)
{
	struct history history;
	char fake[64];

	(void)state;
	for (uint32_t point = 0; point < BLOCKS; point += 1 + point / 8) {
		snprintf(fake, sizeof(fake), "delay_us=0-20,die_after=%u", point);
		run(fake, point + 1, &history, false);
		assert_int_equal(count_status(&history, 0) + count_status(&history, -ECONNRESET),
				 BLOCKS + 1);
		assert_true(count_status(&history, -ECONNRESET) > 0);
	}
}

/* Goal: one seed, one history; another seed, another history. */
static void replays_from_the_seed(void **state)
{
	struct history first, again, other;

	(void)state;
	run("delay_us=1-90,loss=0.02", 7, &first, false);
	run("delay_us=1-90,loss=0.02", 7, &again, false);
	run("delay_us=1-90,loss=0.02", 8, &other, false);
	assert_memory_equal(&first, &again, sizeof(first));
	assert_true(memcmp(&first, &other, sizeof(first)) != 0);
}

/* Goal: closing a queue with everything in flight neither hangs nor leaks. */
static void closes_in_flight(void **state)
{
	struct world world;

	(void)state;
	world_open(&world, "loss=1", 3);
	submit_all(&world);
	slu_queue_close(world.queue);
	world_close(&world);
}

/* Goal: a behaviour that is not understood is told, not guessed. */
static void refuses_bad_behaviour(void **state)
{
	static const char *const bad[] = {"loss=2",  "loss=x",     "delay_us=5", "delay_us=9-1",
					  "speed=1", "capacity=0", "die_after=", "loss=0.1;"};
	struct slu_engine_options options;
	struct slu_engine *engine = NULL;

	(void)state;
	slu_engine_options_init(&options, sizeof(options));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options.fake = bad[i];
		assert_int_equal(slu_engine_open(&options, &engine), -EINVAL);
		assert_null(engine);
		assert_non_null(strstr(slu_last_error(), bad[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(survives_delay_and_reordering),
		cmocka_unit_test(survives_loss),
		cmocka_unit_test(survives_total_loss),
		cmocka_unit_test(survives_death_at_each_point),
		cmocka_unit_test(replays_from_the_seed),
		cmocka_unit_test(closes_in_flight),
		cmocka_unit_test(refuses_bad_behaviour),
	};

	return cmocka_run_group_tests_name("failures", tests, NULL, NULL);
}
