/* SPDX-License-Identifier: Apache-2.0 */
/* Either side dies by SIGKILL at a random moment: the other goes on, and loses and leaks nothing.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "base/clock.h"
#include "base/random.h"
#include "tests/fault/peer.h"
#include "tests/tap.h"

#define ROUNDS      20
#define DEPTH       64
#define BOTH_RIGHTS (SLU_RIGHT_READ | SLU_RIGHT_WRITE)
#define PATIENCE_NS (300 * NS_PER_SECOND)

static struct random chance;

static uint64_t now_ns(void)
{
	return clock_monotonic_ns(NULL);
}

static void sleep_up_to(uint64_t max_ns)
{
	struct timespec delay = {.tv_nsec = (long)random_below(&chance, max_ns)};

	nanosleep(&delay, NULL);
}

static void make_name(char *name, const char *kind, int round)
{
	snprintf(name, SLU_NAME_MAX + 1, "kill-%s-%d-%d", kind, (int)getpid(), round);
}

/* ---- a client ---- */

struct client {
	struct slu_engine *engine;
	struct slu_region *region;
	struct slu_remote *remote;
	struct slu_queue *queue;
};

static int client_open(struct client *client, const char *name, uint32_t pollers)
{
	struct slu_region_options region;
	struct slu_remote_options remote;
	struct slu_queue_options queue;
	int ret;

	slu_region_options_init(&region, sizeof(region));
	slu_remote_options_init(&remote, sizeof(remote));
	slu_queue_options_init(&queue, sizeof(queue));
	region.page = SLU_PAGE_ORDINARY;
	remote.timeout_us = PEER_HANG_MS * UINT64_C(1000);
	queue.depth = DEPTH;
	ret = peer_open_engine(pollers, SLU_POLL_ADAPTIVE, &client->engine);
	if (ret == 0)
		ret = slu_region_alloc(client->engine, PEER_SEGMENT_BYTES, &region,
				       &client->region);
	if (ret == 0)
		ret = slu_remote_open(client->engine, name, &remote, &client->remote);
	if (ret == 0)
		ret = slu_queue_open(client->engine, &queue, &client->queue);
	return ret;
}

static void fill_randomly(const struct client *client, struct slu_op *ops)
{
	for (uint64_t slot = 0; slot < DEPTH; slot++) {
		uint64_t length = random_below(&chance, 65536);
		uint64_t room = PEER_SEGMENT_BYTES - length;

		ops[slot] = (struct slu_op){
			.user_data = slot,
			.remote = client->remote,
			.region = client->region,
			.remote_offset = random_below(&chance, room),
			.local_offset = random_below(&chance, room),
			.length = length,
			.tag = (uint32_t)slot,
			.opcode = (uint8_t)random_below(&chance, 3),
		};
	}
}

/* Count completions per slot until all that was accepted is there, and a little longer. */
static void reap_all(struct slu_queue *queue, int accepted, unsigned *times)
{
	struct slu_completion done[DEPTH];
	uint64_t give_up = now_ns() + PATIENCE_NS;
	int reaped = 0;

	while (reaped < accepted && now_ns() < give_up) {
		int n = slu_reap(queue, done, DEPTH);

		for (int i = 0; i < n; i++)
			if (done[i].user_data < DEPTH)
				times[done[i].user_data]++;
		reaped += n;
	}
	assert_int_equal(slu_reap(queue, done, DEPTH), 0);
}

/* One full batch. @return 0, or the error that submission gave */
static int move_batch(const struct client *client)
{
	unsigned times[DEPTH] = {0};
	struct slu_op ops[DEPTH];
	int accepted;

	fill_randomly(client, ops);
	accepted = slu_submit(client->queue, ops, DEPTH);
	if (accepted < 0)
		return accepted;
	reap_all(client->queue, accepted, times);
	for (int slot = 0; slot < DEPTH; slot++)
		if (times[slot] != (slot < accepted))
			fail_msg("operation %d of %d accepted completed %u times", slot, accepted,
				 times[slot]);
	return 0;
}

/* ---- the target dies ---- */

#define SOON_NS 20000000

struct killer {
	pthread_t thread;
	pid_t pid;
	struct timespec delay;
};

static void *kill_later(void *arg)
{
	const struct killer *killer = arg;

	nanosleep(&killer->delay, NULL);
	kill(killer->pid, SIGKILL);
	return NULL;
}

/* The random numbers are the test's thread's. */
static void kill_soon(struct killer *killer, const struct peer *target)
{
	killer->pid = target->pid;
	killer->delay = (struct timespec){.tv_nsec = (long)random_below(&chance, SOON_NS)};
	assert_int_equal(pthread_create(&killer->thread, NULL, kill_later, killer), 0);
}

static void move_until_target_dies(const struct client *client, struct peer *target)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	uint64_t give_up = now_ns() + PATIENCE_NS;
	struct killer killer;
	int ret = 0;

	kill_soon(&killer, target);
	while (ret == 0 && now_ns() < give_up)
		ret = move_batch(client);
	pthread_join(killer.thread, NULL);
	assert_int_equal(ret, -ECONNRESET);
	assert_int_equal(slu_remote_get_info(client->remote, &info), 0);
	assert_int_equal(info.state, -ECONNRESET);
}

static void target_dies(uint32_t pollers)
{
	unsigned files = 0;

	for (int round = 0; round < ROUNDS; round++) {
		char name[SLU_NAME_MAX + 1];
		struct client client;
		struct peer target;

		make_name(name, "target", round);
		assert_int_equal(peer_start("serve", name, &target), 0);
		assert_int_equal(peer_answer(&target, PEER_HANG_MS), PEER_READY);
		if (client_open(&client, name, pollers) < 0)
			fail_msg("client: %s", slu_last_error());
		move_until_target_dies(&client, &target);
		slu_engine_close(client.engine);
		peer_kill(&target);
		/* From the first engine on EAL may keep files of its own. */
		if (round == 0)
			files = peer_open_files();
	}
	assert_int_equal(peer_open_files_settled(files), files);
}

/* Goal: an inline client loses its target at any moment: one completion each, then -ECONNRESET. */
static void test_target_dies_under_inline_client(void **state)
{
	(void)state;
	target_dies(0);
}

/* Goal: the same for a client behind a poller thread. */
static void test_target_dies_under_poller(void **state)
{
	(void)state;
	target_dies(1);
}

static int is_clear(int error)
{
	return error == 0 || error == -ECONNREFUSED || error == -ECONNRESET ||
	       error == -ESHUTDOWN || error == -ETIMEDOUT;
}

/* Open and close the remote over and over while the target comes up and is killed. */
static void knock_while_target_dies(struct slu_engine *engine, const char *name)
{
	struct slu_remote_options options;
	struct peer target;
	struct killer killer;

	slu_remote_options_init(&options, sizeof(options));
	options.timeout_us = 2000000;
	assert_int_equal(peer_start("serve", name, &target), 0);
	peer_answer(&target, PEER_HANG_MS);
	kill_soon(&killer, &target);
	for (int i = 0; i < 200; i++) {
		struct slu_remote *remote = NULL;
		int ret = slu_remote_open(engine, name, &options, &remote);

		if (!is_clear(ret))
			fail_msg("slu_remote_open gave %d: %s", ret, slu_last_error());
		slu_remote_close(remote);
	}
	pthread_join(killer.thread, NULL);
	peer_kill(&target);
}

/* Goal: a target that dies in the middle of a handshake gives a clear error and leaks nothing. */
static void test_target_dies_in_handshake(void **state)
{
	struct slu_engine *engine;
	unsigned files = 0;

	(void)state;
	assert_int_equal(peer_open_engine(0, SLU_POLL_ADAPTIVE, &engine), 0);
	for (int round = 0; round < ROUNDS; round++) {
		char name[SLU_NAME_MAX + 1];

		make_name(name, "handshake", round);
		knock_while_target_dies(engine, name);
		if (round == 0)
			files = peer_open_files();
	}
	assert_int_equal(peer_open_files_settled(files), files);
	slu_engine_close(engine);
}

/* ---- the client dies ---- */

/* Role: move batches until killed. */
static int run_client(const char *name)
{
	struct client client = {0};

	chance.state = (uint64_t)getpid();
	if (client_open(&client, name, 1) < 0)
		return 1;
	peer_say(PEER_READY);
	while (!peer_is_told_to_stop(0))
		if (move_batch(&client) < 0)
			return 1;
	slu_engine_close(client.engine);
	return 0;
}

static void get_info(struct slu_segment *segment, struct slu_segment_info *info)
{
	info->size = sizeof(*info);
	assert_int_equal(slu_segment_get_info(segment, info), 0);
}

/* Take notifications, checking each, until nobody is connected. */
static void serve_until_alone(struct slu_segment *segment)
{
	struct slu_notification notifications[64];
	uint64_t give_up = now_ns() + PATIENCE_NS;
	struct slu_segment_info info;
	int n;

	do {
		n = slu_segment_poll(segment, notifications, 64);
		for (int i = 0; i < n; i++)
			assert_in_range(notifications[i].tag, 0, DEPTH - 1);
		get_info(segment, &info);
	} while ((n > 0 || info.clients > 0) && now_ns() < give_up);
	assert_int_equal(info.clients, 0);
}

static void kill_one_client(struct slu_segment *segment, const char *name, bool in_handshake)
{
	struct peer client;

	assert_int_equal(peer_start("client", name, &client), 0);
	if (!in_handshake)
		assert_int_equal(peer_answer(&client, PEER_HANG_MS), PEER_READY);
	sleep_up_to(in_handshake ? 200000000 : SOON_NS);
	peer_kill(&client);
	serve_until_alone(segment);
}

static void assert_client_still_works(struct slu_segment *segment, const char *name)
{
	struct slu_segment_info info;
	struct peer client;

	assert_int_equal(peer_start("client", name, &client), 0);
	assert_int_equal(peer_answer(&client, PEER_HANG_MS), PEER_READY);
	peer_ask_to_stop(&client);
	serve_until_alone(segment); /* its notifications wait for room until they are taken */
	assert_int_equal(peer_stop(&client), 0);
	get_info(segment, &info);
	assert_true(info.clients_lost < info.clients_total);
}

/* Goal: a target outlives clients killed at any moment, counts them, and serves the next. */
static void test_client_dies(void **state)
{
	struct slu_region_options options;
	struct slu_segment_info info;
	char name[SLU_NAME_MAX + 1];
	struct slu_segment *segment;
	struct slu_engine *engine;
	struct slu_region *region;
	unsigned files;

	(void)state;
	make_name(name, "client", 0);
	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(peer_open_engine(0, SLU_POLL_ADAPTIVE, &engine), 0);
	assert_int_equal(slu_region_alloc(engine, PEER_SEGMENT_BYTES, &options, &region), 0);
	assert_int_equal(slu_segment_export(engine, name, region, BOTH_RIGHTS, NULL, &segment), 0);
	files = peer_open_files();
	for (int round = 0; round < ROUNDS; round++)
		kill_one_client(segment, name, round % 2);
	get_info(segment, &info);
	assert_in_range(info.clients_lost, ROUNDS / 2, ROUNDS);
	assert_client_still_works(segment, name);
	assert_int_equal(peer_open_files_settled(files), files);
	slu_engine_close(engine);
}

/* ---- a client with calls open ---- */

#define CALLS      12u
#define LONG_BYTES 100000u

/* Role "caller": calls of all lengths, of which it awaits none. */
static int run_caller(const char *name)
{
	struct client client;
	uint32_t accepted = 0;

	if (client_open(&client, name, 1) < 0)
		return 1;
	memset(slu_region_addr(client.region), 0x5a, LONG_BYTES);
	for (uint32_t i = 0; i < CALLS; i++) {
		const struct slu_call call = {.remote = client.remote,
					      .region = client.region,
					      .request_length = i % 2 ? LONG_BYTES : 100,
					      .answer_offset = i * UINT64_C(1048576),
					      .answer_room = i % 3 ? LONG_BYTES : 0,
					      .timeout_us = SLU_TIMEOUT_MAX_US};

		accepted += (uint32_t)slu_submit_calls(client.queue, &call, 1);
	}
	peer_say(accepted == CALLS ? PEER_READY : '!');
	while (!peer_is_told_to_stop(1000))
		;
	return 0;
}

static uint32_t receive_some(struct slu_segment *segment, struct slu_message *messages, uint32_t n)
{
	uint64_t give_up = now_ns() + PATIENCE_NS;
	uint32_t taken = 0;

	while (taken < n && now_ns() < give_up)
		taken += (uint32_t)slu_segment_receive(segment, messages + taken, n - taken);
	return taken;
}

/* All that it had left and was not taken. @return departures */
static uint32_t take_until_told(struct slu_segment *segment, uint32_t client)
{
	uint64_t give_up = now_ns() + PATIENCE_NS;
	struct slu_departure gone = {.client = 0};
	struct slu_message message;
	uint32_t told = 0;

	while (told == 0 && now_ns() < give_up) {
		told = (uint32_t)slu_segment_departures(segment, &gone, 1);
		while (slu_segment_receive(segment, &message, 1) == 1) {
			assert_int_equal(told, 0); /* after its last message */
			assert_int_equal(message.client, client);
			assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
		}
	}
	assert_int_equal(gone.client, client);
	assert_true(gone.lost);
	return told + (uint32_t)slu_segment_departures(segment, &gone, 1);
}

static void kill_caller(struct slu_segment *segment, const char *name, uint32_t wanted)
{
	struct slu_message messages[CALLS];
	struct peer caller;

	assert_int_equal(peer_start("caller", name, &caller), 0);
	assert_int_equal(peer_answer(&caller, PEER_HANG_MS), PEER_READY);
	assert_int_equal(receive_some(segment, messages, wanted), wanted);
	for (uint32_t i = 0; i < wanted / 2; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, messages[i].data,
						    messages[i].length),
				 0);
	peer_kill(&caller);
	assert_int_equal(take_until_told(segment, messages[0].client), 1);
	for (uint32_t i = wanted / 2; i < wanted; i++) {
		assert_int_equal(((const uint8_t *)messages[i].data)[messages[i].length - 1], 0x5a);
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, messages[i].data,
						    messages[i].length),
				 0);
	}
}

/* Goal: of a client that is killed with calls open the owner is told once, after its last; what he
 * has of it stays his until he answers, and nothing of it is left then. */
static void test_caller_dies(void **state)
{
	char names[2][SLU_REMOTE_NAME_MAX + 1], name[SLU_NAME_MAX + 1];
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine_options options;
	struct slu_departure gone;
	struct slu_segment *segment;
	struct slu_engine *engine;
	struct slu_region *region;
	unsigned files;

	(void)state;
	make_name(name, "caller", 0);
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	options.listen = "127.0.0.1:0";
	assert_int_equal(slu_engine_open(&options, &engine), 0);
	assert_int_equal(slu_engine_get_info(engine, &info), 0);
	strcpy(names[0], name);
	snprintf(names[1], sizeof(names[1]), "%s@127.0.0.1%s", name, strrchr(info.listen, ':'));
	assert_int_equal(slu_region_alloc(engine, PEER_SEGMENT_BYTES, NULL, &region), 0);
	assert_int_equal(slu_segment_export(engine, name, region, BOTH_RIGHTS, NULL, &segment), 0);
	assert_int_equal(slu_segment_departures(segment, &gone, 1), 0);
	files = peer_open_files();
	for (uint32_t round = 0; round < 6; round++)
		kill_caller(segment, names[round % 2], 1 + 2 * round);
	assert_int_equal(peer_open_files_settled(files), files);
	slu_engine_close(engine);
}

int main(int argc, char **argv)
{
	static const struct peer_role roles[] = {
		{"serve", peer_serve}, {"client", run_client}, {"caller", run_caller}, {0}};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_target_dies_under_inline_client),
		cmocka_unit_test(test_target_dies_under_poller),
		cmocka_unit_test(test_target_dies_in_handshake),
		cmocka_unit_test(test_client_dies),
		cmocka_unit_test(test_caller_dies),
	};
	const char *seed = getenv("SEED");
	int ret = peer_main(argc, argv, roles);

	if (ret >= 0)
		return ret;
	chance.state = seed ? strtoull(seed, NULL, 0) : now_ns();
	slu_log_set(SLU_LOG_ERROR, NULL, NULL); /* deaths are warnings */
	tap_comment("seed: SEED=%llu", (unsigned long long)chance.state);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
