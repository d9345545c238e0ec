/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that has engines forks while they work: the child can do no harm with them, and the
 * parent's go on.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tap.h"
#include "pairing.h"
#include "pattern.h"

#define FORKS 20u

/** All that the parent has. */
static struct {
	struct pairing pairing;
	struct slu_queue *inline_queue;
	struct slu_region *pooled;
	struct slu_pool *pool;
	struct slu_cache *cache;
	uint64_t buffer; /* out of the pool */
	char memory[65536];
} parent;

/* In the child an assertion would go on as the test: what fails is its status. */
#define expect(condition)                                                                          \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("# child, line %d: %s\n", __LINE__, #condition);                    \
			fflush(stdout);                                                            \
			_exit(1);                                                                  \
		}                                                                                  \
	} while (0)
#define expect_refused(call) expect((call) == -ECHILD)

static int in_child(void (*child)(void))
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		child();
		if (WITH_ADDRESS_SANITIZER)
			_exit(0); /* what threads held that are not here would be leaks */
		exit(0);          /* with what is to be done at an exit */
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

/* ---- what a child calls ---- */

static void call_engine(struct slu_engine *engine)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_poller_info poller = {.size = sizeof(poller)};
	const struct slu_grant grant = {"*", "*", SLU_RIGHT_READ};
	uint64_t limits[SLU_LIMITS_MAX] = {0};
	struct slu_engine *other = NULL;

	expect_refused(slu_engine_get_info(engine, &info));
	expect_refused(slu_engine_get_poller(engine, 0, &poller));
	expect_refused(slu_engine_set_grants(engine, &grant, 1));
	expect_refused(slu_engine_set_limits(engine, limits, NULL, 0));
	expect_refused(slu_engine_reload_tls(engine));
	expect_refused(slu_engine_drain(engine, 1000));
	expect(strstr(slu_last_error(), "before fork()") && strstr(slu_last_error(), "exec"));
	expect_refused(slu_engine_open(NULL, &other));
	expect(!other);
}

static void call_memory(struct slu_engine *engine, struct slu_region *region)
{
	struct slu_region_info info = {.size = sizeof(info)};
	struct slu_cache_info cache_info = {.size = sizeof(cache_info)};
	uint64_t offsets[8] = {parent.buffer};
	struct slu_region *other = NULL;
	struct slu_cache *cache = NULL;
	struct slu_pool *pool = NULL;

	expect_refused(slu_region_alloc(engine, 4096, NULL, &other));
	expect_refused(slu_region_register(engine, parent.memory, 4096, &other));
	expect_refused(slu_region_import(engine, 0, 0, 4096, NULL, &other));
	expect_refused(slu_region_get_info(region, &info));
	expect(!slu_region_addr(region));
	expect_refused(slu_pool_open(region, 0, 65536, 64, 8, &pool));
	expect_refused(slu_pool_get(parent.pool, offsets, 1));
	slu_pool_put(parent.pool, offsets, 1);
	slu_pool_close(parent.pool);
	expect_refused(slu_cache_open(engine, NULL, &cache));
	expect_refused(slu_cache_get(parent.cache, parent.memory, 4096, &other, offsets));
	expect_refused(slu_cache_invalidate(parent.cache, parent.memory, 4096));
	expect_refused(slu_cache_get_info(parent.cache, &cache_info));
	slu_cache_put(parent.cache, region);
	slu_cache_close(parent.cache);
	expect(!other && !cache && !pool);
}

static void call_queue(struct slu_queue *queue, struct slu_remote *remote,
		       struct slu_region *region)
{
	struct slu_queue_info info = {.size = sizeof(info)};
	const struct slu_call call = {.remote = remote, .region = region};
	const struct slu_op op = {
		.remote = remote, .region = region, .length = 64, .opcode = SLU_WRITE};
	struct slu_completion done;

	for (int again = 0; again < 2; again++) {
		expect_refused(slu_submit(queue, &op, 1));
		expect_refused(slu_submit(queue, &op, 0));
		expect_refused(slu_submit_calls(queue, &call, 1));
		expect_refused(slu_reap(queue, &done, 1));
		expect_refused(slu_wait(queue, 1, UINT64_MAX));
		expect_refused(slu_cancel(queue, 0));
		expect_refused(slu_queue_arm(queue));
		expect_refused(slu_queue_eventfd(queue));
		expect_refused(slu_queue_get_info(queue, &info));
	}
	slu_queue_close(queue);
}

static void call_segment(struct slu_engine *engine, struct slu_segment *segment,
			 struct slu_region *region)
{
	struct slu_segment_info info = {.size = sizeof(info)};
	const struct slu_service service = {.size = sizeof(service)};
	struct slu_segment *other = NULL;
	struct slu_notification note;
	struct slu_departure gone;
	struct slu_message message = {0};

	expect_refused(slu_segment_export(engine, "fork-other", region, 1, NULL, &other));
	expect_refused(slu_segment_get_info(segment, &info));
	expect_refused(slu_segment_poll(segment, &note, 1));
	expect_refused(slu_segment_receive(segment, &message, 1));
	expect_refused(slu_segment_departures(segment, &gone, 1));
	expect_refused(slu_segment_answer(segment, &message, 0, NULL, 0));
	expect_refused(slu_segment_arm(segment));
	expect_refused(slu_segment_fd(segment));
	expect_refused(slu_segment_serve(segment, 0, &service));
	expect_refused(slu_segment_unserve(segment));
	slu_segment_close(segment);
	expect(!other);
}

static void call_remote(struct slu_engine *engine, struct slu_remote *remote, const char *name)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	struct slu_usage usage = {.size = sizeof(usage)};
	struct slu_candidate candidate;
	struct slu_remote *other = NULL;

	expect_refused(slu_remote_open(engine, name, NULL, &other));
	expect_refused(slu_remote_explain(engine, name, NULL, &candidate, 1));
	expect_refused(slu_remote_get_info(remote, &info));
	expect_refused(slu_remote_get_candidates(remote, &candidate, 1));
	expect_refused(slu_remote_get_usage(remote, 1000000, &usage));
	expect(slu_remote_length(remote) == 0);
	slu_remote_close(remote);
	expect(!other);
}

static void call_all(void)
{
	const struct pairing *pairing = &parent.pairing;
	struct slu_queue *other = NULL;

	call_engine(pairing->client);
	call_engine(pairing->target);
	call_memory(pairing->client, pairing->region);
	call_queue(pairing->queue, pairing->remote, pairing->region);
	call_queue(parent.inline_queue, pairing->remote, pairing->region);
	expect_refused(slu_queue_open(pairing->client, NULL, &other));
	call_segment(pairing->target, pairing->segment, pairing->exported);
	call_remote(pairing->client, pairing->remote, pairing->name);
	slu_region_close(pairing->region);
	slu_region_close(pairing->exported);
	slu_engine_close(pairing->client);
	slu_engine_close(pairing->target);
	expect(slu_version() && slu_strerror(-ECHILD));
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
}

/* ---- the parent ---- */

static void open_all(enum slu_transport transport, uint32_t pollers)
{
	struct slu_queue_options options;
	struct pairing *pairing = &parent.pairing;

	pairing_open(pairing, "fork", transport, pollers);
	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	assert_int_equal(slu_queue_open(pairing->client, &options, &parent.inline_queue), 0);
	assert_int_equal(slu_region_alloc(pairing->client, 65536, NULL, &parent.pooled), 0);
	assert_int_equal(slu_pool_open(parent.pooled, 0, 65536, 64, 8, &parent.pool), 0);
	assert_int_equal(slu_pool_get(parent.pool, &parent.buffer, 1), 0);
	assert_int_equal(slu_cache_open(pairing->client, NULL, &parent.cache), 0);
}

/* What is there still does, and nothing that the child did is to be seen. */
static void check_all(uint64_t generation)
{
	struct slu_region *region;
	uint64_t offsets[8];

	pairing_check(&parent.pairing, generation);
	assert_int_equal(slu_pool_get(parent.pool, offsets, 7), 0);
	assert_int_equal(slu_pool_get(parent.pool, &offsets[7], 1), -ENOBUFS);
	slu_pool_put(parent.pool, offsets, 7);
	assert_int_equal(slu_cache_get(parent.cache, parent.memory, 4096, &region, offsets), 0);
	slu_cache_put(parent.cache, region);
}

static void close_all(void)
{
	slu_cache_close(parent.cache);
	slu_pool_put(parent.pool, &parent.buffer, 1);
	slu_pool_close(parent.pool);
	pairing_close(&parent.pairing);
}

static void check_calls(enum slu_transport transport, uint32_t pollers)
{
	open_all(transport, pollers);
	check_all(1);
	assert_int_equal(in_child(call_all), 0);
	check_all(2);
	assert_int_equal(in_child(call_all), 0);
	check_all(3);
	close_all();
}

/* Goal: every call of a child on what was opened before says -ECHILD or does nothing; neither that
 * nor its end is felt by the parent. */
static void test_calls(void **state)
{
	(void)state;
	pairing_each(check_calls);
}

static _Atomic bool stop;
static _Atomic uint32_t transferred;

static void *transfer(void *arg)
{
	(void)arg;
	for (uint64_t generation = 10; !atomic_load(&stop); generation++) {
		pairing_check(&parent.pairing, generation);
		atomic_fetch_add(&transferred, 1);
	}
	return NULL;
}

static void check_traffic(enum slu_transport transport, uint32_t pollers)
{
	pthread_t thread;

	open_all(transport, pollers);
	atomic_store(&stop, false);
	assert_int_equal(pthread_create(&thread, NULL, transfer, NULL), 0);
	for (uint32_t i = 0; i < FORKS; i++) {
		uint32_t before = atomic_load(&transferred);

		assert_int_equal(in_child(call_all), 0);
		while (atomic_load(&transferred) == before)
			usleep(1000);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	check_all(4);
	close_all();
}

/* Goal: the same while bytes are on their way, which arrive, and are those that were sent. */
static void test_traffic(void **state)
{
	(void)state;
	pairing_each(check_traffic);
}

static bool is_mapped(const void *addr)
{
	unsigned char there;

	return mincore((void *)addr, 1, &there) == 0;
}

static const void *looked_at[2];

static void look_for_memory(void)
{
	expect(!is_mapped(looked_at[0]) && !is_mapped(looked_at[1]));
}

/* Goal: a child has no memory of regions, and the parent's is not copied. */
static void test_memory_is_not_there(void **state)
{
	struct slu_region_options options;
	struct slu_region *region;

	(void)state;
	open_all(SLU_TRANSPORT_SHM, 1);
	slu_region_options_init(&options, sizeof(options));
	options.private_memory = true;
	assert_int_equal(slu_region_alloc(parent.pairing.client, 65536, &options, &region), 0);
	looked_at[0] = slu_region_addr(parent.pairing.exported);
	looked_at[1] = slu_region_addr(region);
	assert_true(is_mapped(looked_at[0]) && is_mapped(looked_at[1]));
	assert_int_equal(in_child(look_for_memory), 0);
	close_all();
}

static bool is_noticed_by_peers(int fd)
{
	char path[64], to[128] = "";

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return readlink(path, to, sizeof(to) - 1) > 0 &&
	       (strncmp(to, "socket:", 7) == 0 || strncmp(to, "/memfd:sluice", 13) == 0);
}

static int count_noticed(void)
{
	int count = 0;

	for (int fd = 3; fd < 4096; fd++)
		count += is_noticed_by_peers(fd);
	return count;
}

static int noticed_before;

static void look_for_descriptors(void)
{
	expect(count_noticed() == noticed_before);
}

/* Goal: a child keeps no socket and no memory of the parent's, and closes nothing else. */
static void test_descriptors_are_closed(void **state)
{
	int own[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, own), 0);
	noticed_before = count_noticed();
	open_all(SLU_TRANSPORT_TCP, 1);
	assert_true(count_noticed() > noticed_before);
	assert_int_equal(in_child(look_for_descriptors), 0);
	close_all();
	assert_int_equal(count_noticed(), noticed_before);
	close(own[0]);
	close(own[1]);
}

/* Goal: what the parent closes is closed, names and ports are free, though a child lives on. */
static void test_parent_comes_again(void **state)
{
	struct slu_engine_options options;
	char listen[32];
	int hold[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(hold), 0);
	open_all(SLU_TRANSPORT_SHM, 1);
	snprintf(listen, sizeof(listen), "127.0.0.1:%d", pairing_port(parent.pairing.target));
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(hold[1]);
		_exit(read(hold[0], &status, 1) == 0 ? 0 : 1); /* until the parent lets go */
	}
	close_all();
	slu_engine_options_init(&options, sizeof(options));
	options.listen = listen;
	assert_int_equal(slu_engine_open(&options, &parent.pairing.target), 0);
	slu_engine_close(parent.pairing.target);
	open_all(SLU_TRANSPORT_SHM, 1); /* by the same name */
	check_all(5);
	close_all();
	close(hold[0]);
	close(hold[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* A target that forks, and then waits to be killed. Its child lives until @p hold is closed. */
static void be_target(int ready, int hold, int hold_end)
{
	struct slu_segment *segment;
	struct slu_region *region;
	struct slu_engine *engine;
	int port;
	char byte;

	close(hold_end);
	expect(pairing_engine(1, &engine) == 0);
	port = pairing_port(engine);
	expect(slu_region_alloc(engine, PAIRING_BYTES, NULL, &region) == 0);
	expect(slu_segment_export(engine, "fork-target", region, 3, NULL, &segment) == 0);
	expect(write(ready, &port, sizeof(port)) == sizeof(port));
	expect(read(ready, &byte, 1) == 1); /* the remotes are open */
	if (fork() == 0)
		_exit(read(hold, &byte, 1) == 0 ? 0 : 1);
	expect(write(ready, &byte, 1) == 1);
	pause();
}

static void wait_until_lost(struct slu_remote *remote)
{
	struct slu_remote_info info = {.size = sizeof(info)};

	for (uint32_t tries = 0; info.state == 0 && tries < 60000; tries++) {
		assert_int_equal(slu_remote_get_info(remote, &info), 0);
		usleep(1000);
	}
	assert_int_equal(info.state, -ECONNRESET);
}

/* Goal: that a target was killed its clients see at once, though a child of it lives on. The first
 * test: a child of a process with engines opens none. */
static void test_end_is_seen(void **state)
{
	int ready[2], hold[2], port;
	struct slu_remote *remotes[2];
	struct slu_engine *engine;
	char name[64], byte = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ready), 0);
	assert_int_equal(pipe(hold), 0);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		be_target(ready[1], hold[0], hold[1]);
		_exit(1);
	}
	assert_int_equal(read(ready[0], &port, sizeof(port)), sizeof(port));
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	snprintf(name, sizeof(name), "fork-target@127.0.0.1:%d", port);
	assert_int_equal(slu_remote_open(engine, "fork-target", NULL, &remotes[0]), 0);
	assert_int_equal(slu_remote_open(engine, name, NULL, &remotes[1]), 0);
	assert_int_equal(write(ready[0], &byte, 1), 1);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	kill(pid, SIGKILL);
	wait_until_lost(remotes[0]);
	wait_until_lost(remotes[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	slu_engine_close(engine);
	close(hold[0]);
	close(hold[1]);
	close(ready[0]);
	close(ready[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_end_is_seen),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_traffic),
		cmocka_unit_test(test_memory_is_not_there),
		cmocka_unit_test(test_descriptors_are_closed),
		cmocka_unit_test(test_parent_comes_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
