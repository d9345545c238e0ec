/* SPDX-License-Identifier: Apache-2.0 */
/* After start the hot path neither allocates, locks nor enters the kernel: counted, not believed.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "tests/fault/counting.h"
#include "tests/fault/peer.h"
#include "tests/tap.h"
#include "tests/calls.h"

/* Built twice: over shared memory, and over verbs with the model of an mlx5 device. */
#ifdef HOTPATH_VERBS
#define TRANSPORT SLU_TRANSPORT_VERBS
#define CYCLES    10000
#else
#define TRANSPORT SLU_TRANSPORT_SHM
#define CYCLES    100000
#endif

#define BATCH_MAX     64
#define SEGMENT_BYTES PEER_SEGMENT_BYTES
#define BOTH_RIGHTS   (SLU_RIGHT_READ | SLU_RIGHT_WRITE)
#define POLLER_NAME   "slu-poll"

static int dispatch; /* what counting_init() said */
static struct peer target;
static char target_name[SLU_NAME_MAX + 1];
static struct slu_engine *engine;
static struct slu_remote *remote;
static struct slu_region *region;

/* ---- the counters themselves ---- */

/* Goal: an allocation and its free inside a window are counted, outside they are not. */
static void test_counter_counts_allocations(void **state)
{
	struct counts counts;
	void *volatile memory;

	(void)state;
	counting_open();
	memory = malloc(100);
	free(memory);
	counting_close(&counts);
	assert_int_equal(counts.allocations, 2);
	memory = malloc(100);
	free(memory);
	counting_open();
	counting_close(&counts);
	assert_int_equal(counts.allocations, 0);
}

/* Goal: a mutex taken inside a window is counted. */
static void test_counter_counts_locks(void **state)
{
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct counts counts;

	(void)state;
	counting_open();
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
	counting_close(&counts);
	assert_int_equal(counts.locks, 1);
}

/* Goal: each system call inside a window is counted, named, and still does its work. */
static void test_counter_counts_system_calls(void **state)
{
	pid_t before = getppid(), inside;
	struct counts counts;

	(void)state;
	if (dispatch < 0)
		skip_because("no syscall user dispatch: %s", strerror(-dispatch));
	counting_open();
	inside = getppid();
	inside += getppid() - inside;
	counting_close(&counts);
	assert_int_equal(counts.system_calls, 2);
	assert_int_equal(counts.first_system_call, SYS_getppid);
	assert_int_equal(inside, before);
}

/* ---- the work ---- */

static void fill(struct slu_op *ops, uint32_t n, uint32_t cycle)
{
	static const uint64_t lengths[] = {8, 64, 0, 1, 200, 4096, 63, 16384};

	for (uint32_t i = 0; i < n; i++) {
		uint64_t length = lengths[(cycle + i) % 8];
		uint64_t room = SEGMENT_BYTES - length;

		if (cycle % 5000 == 0 && i == 0)
			length = SEGMENT_BYTES / 2, room = SEGMENT_BYTES / 2;
		ops[i] = (struct slu_op){
			.user_data = cycle,
			.remote = remote,
			.region = region,
			.remote_offset = (cycle * UINT64_C(7919) + i * 4099) % room,
			.local_offset = (cycle * UINT64_C(104729) + i * 4099) % room,
			.length = length,
			.opcode = (cycle + i) % 3 == 0 ? SLU_READ : SLU_WRITE,
		};
	}
}

/* Count what did not complete well; nothing in here may do what is counted. */
static unsigned churn(struct slu_queue *queue)
{
	struct slu_completion done[BATCH_MAX];
	struct slu_op ops[BATCH_MAX];
	unsigned bad = 0;

	for (uint32_t cycle = 0; cycle < CYCLES; cycle++) {
		uint32_t n = cycle % 16 == 0 ? BATCH_MAX : 1 + cycle % 8;
		uint32_t sent = 0, reaped = 0;

		fill(ops, n, cycle);
		while (reaped < n) {
			int ret = submit_any(queue, ops + sent, n - sent);

			if (ret < 0)
				return bad + 1;
			sent += (uint32_t)ret;
			ret = slu_reap(queue, done, BATCH_MAX);
			for (int i = 0; i < ret; i++)
				bad += done[i].status != 0;
			reaped += (uint32_t)ret;
		}
	}
	return bad;
}

static void assert_nothing_counted(const struct counts *counts)
{
	assert_int_equal(counts->allocations, 0);
	assert_int_equal(counts->locks, 0);
	if (dispatch < 0)
		skip_because("system calls not counted: no syscall user dispatch");
	if (counts->system_calls)
		fail_msg("%lu system calls, the first was number %d", counts->system_calls,
			 counts->first_system_call);
}

static void run_churn(int32_t poller)
{
	struct slu_queue_options options;
	struct slu_queue *queue;
	struct counts counts;
	unsigned bad;

	slu_queue_options_init(&options, sizeof(options));
	options.poller = poller;
	options.depth = 256;
	assert_int_equal(slu_queue_open(engine, &options, &queue), 0);
	counting_open();
	bad = churn(queue);
	counting_close(&counts);
	slu_queue_close(queue);
	assert_int_equal(bad, 0);
	assert_nothing_counted(&counts);
}

/* Goal: an inline queue does 100,000 batches of reads and writes without any of the three. */
static void test_inline_queue(void **state)
{
	(void)state;
	run_churn(SLU_POLLER_INLINE);
}

/* Goal: the same behind a busy poller, whose thread is watched as well. */
static void test_behind_busy_poller(void **state)
{
	(void)state;
	assert_int_equal(counting_threads(), 1);
	run_churn(0);
}

/* Goal: a refused operation costs none of the three either. */
static void test_refused_operation(void **state)
{
	struct slu_queue_options options;
	struct slu_queue *queue;
	struct counts counts;
	struct slu_op op;
	int out_of_range, malformed;

	(void)state;
	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	assert_int_equal(slu_queue_open(engine, &options, &queue), 0);
	fill(&op, 1, 1);
	op.remote_offset = SEGMENT_BYTES + 1;
	counting_open();
	out_of_range = submit_any(queue, &op, 1);
	op.opcode = 99;
	malformed = submit_any(queue, &op, 1);
	counting_close(&counts);
	slu_queue_close(queue);
	assert_int_equal(out_of_range, -ERANGE);
	assert_int_equal(malformed, -EINVAL);
	assert_nothing_counted(&counts);
}

/* Goal: taking and returning pool buffers does none of the three. */
static void test_pool(void **state)
{
	uint64_t offsets[32];
	struct slu_pool *pool;
	struct counts counts;
	unsigned bad = 0;

	(void)state;
	assert_int_equal(slu_pool_open(region, 0, 1 << 20, 4096, 64, &pool), 0);
	counting_open();
	for (int i = 0; i < CYCLES; i++) {
		bad += slu_pool_get(pool, offsets, 32) != 0;
		slu_pool_put(pool, offsets, 32);
	}
	counting_close(&counts);
	slu_pool_close(pool);
	assert_int_equal(bad, 0);
	assert_nothing_counted(&counts);
}

/* Goal: what is in a cache of registrations is found, and put back, without a system call or an
 * allocation, and with one lock each, that all who find it share. */
static void test_cached(void **state)
{
	struct slu_cache *cache;
	struct slu_region *found;
	struct counts counts;
	uint64_t offset;
	unsigned bad = 0;

	(void)state;
	assert_int_equal(slu_cache_open(engine, NULL, &cache), 0);
	for (uint64_t at = 0; at < 64; at++) {
		assert_int_equal(slu_cache_get(cache, (char *)slu_region_addr(region) + at * 8192,
					       4096, &found, &offset),
				 0);
		slu_cache_put(cache, found);
	}
	counting_open();
	for (int i = 0; i < CYCLES; i++) {
		bad += slu_cache_get(cache, (char *)slu_region_addr(region) + i % 64 * 8192, 4096,
				     &found, &offset) != 0;
		slu_cache_put(cache, found);
	}
	counting_close(&counts);
	slu_cache_close(cache);
	assert_int_equal(bad, 0);
	assert_int_equal(counts.locks, 2 * CYCLES);
	counts.locks = 0;
	assert_nothing_counted(&counts);
}

/* Goal: sending notifications, and looking for them on a segment, does none of the three. */
static void test_notifications(void **state)
{
	struct slu_notification notification;
	struct slu_queue_options options;
	struct slu_segment *segment;
	struct slu_queue *queue;
	struct counts counts;
	char name[SLU_NAME_MAX + 1];
	unsigned bad = 0;

	(void)state;
	snprintf(name, sizeof(name), "hotpath-own-%d", (int)getpid());
	slu_queue_options_init(&options, sizeof(options));
	options.poller = SLU_POLLER_INLINE;
	assert_int_equal(slu_queue_open(engine, &options, &queue), 0);
	assert_int_equal(slu_segment_export(engine, name, region, BOTH_RIGHTS, NULL, &segment), 0);
	counting_open();
	for (uint32_t i = 0; i < SLU_NOTIFICATIONS_MAX / 2; i++) {
		struct slu_completion done;
		struct slu_op op;

		fill(&op, 1, 1);
		op.opcode = SLU_WRITE_NOTIFY;
		bad += submit_any(queue, &op, 1) != 1;
		while (slu_reap(queue, &done, 1) == 0)
			;
		bad += done.status != 0;
		bad += slu_segment_poll(segment, &notification, 1) != 0;
	}
	counting_close(&counts);
	slu_segment_close(segment);
	slu_queue_close(queue);
	assert_int_equal(bad, 0);
	assert_nothing_counted(&counts);
}

#define CALLS 500u

static void call_of(struct slu_op *op, uint32_t i)
{
	*op = (struct slu_op){.user_data = i,
			      .remote = remote,
			      .region = region,
			      .remote_offset = 1 << 20,
			      .length = i * 7 % SLU_MESSAGE_MAX,
			      .tag = SLU_MESSAGE_MAX,
			      .opcode = TEST_CALL};
}

/* More than can be on their way, so that some wait. @return what did not go well */
static unsigned call_many(struct slu_queue *queue)
{
	struct slu_completion done[BATCH_MAX];
	uint32_t sent = 0, ended = 0;
	unsigned bad = 0;

	while (ended < CALLS) {
		struct slu_op op;
		int n;

		call_of(&op, sent);
		n = sent < CALLS ? submit_any(queue, &op, 1) : 0;
		if (n < 0)
			return bad + 1;
		sent += (uint32_t)n;
		n = slu_reap(queue, done, BATCH_MAX);
		for (int i = 0; i < n; i++)
			bad += done[i].status != 0 ||
			       done[i].bytes != done[i].user_data * 7 % SLU_MESSAGE_MAX;
		ended += (uint32_t)n;
	}
	return bad;
}

static void run_calls(int32_t poller)
{
	struct slu_queue_options options;
	struct slu_queue *queue;
	struct counts counts;
	unsigned bad;

	slu_queue_options_init(&options, sizeof(options));
	options.poller = poller;
	options.depth = 64;
	assert_int_equal(slu_queue_open(engine, &options, &queue), 0);
	counting_open();
	bad = call_many(queue);
	counting_close(&counts);
	slu_queue_close(queue);
	assert_int_equal(bad, 0);
	assert_nothing_counted(&counts);
}

/* Goal: calls, and their answers, do none of the three, inline and behind a poller. */
static void test_calls(void **state)
{
	(void)state;
	run_calls(SLU_POLLER_INLINE);
	run_calls(0);
}

/* Goal: the owner takes and answers calls without any of the three. */
static void test_answering(void **state)
{
	struct slu_remote_options options;
	struct slu_queue_options inlined;
	struct slu_segment *segment;
	struct slu_message message;
	struct slu_remote *own;
	struct slu_queue *queue;
	struct counts counts;
	char name[SLU_NAME_MAX + 1];
	unsigned bad = 0;

	(void)state;
	snprintf(name, sizeof(name), "hotpath-own-%d", (int)getpid());
	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_FAKE;
	assert_int_equal(slu_queue_open(engine, &inlined, &queue), 0);
	assert_int_equal(slu_segment_export(engine, name, region, BOTH_RIGHTS, NULL, &segment), 0);
	assert_int_equal(slu_remote_open(engine, name, &options, &own), 0);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 0); /* it sees its client */
	counting_open();
	for (uint32_t i = 0; i < CALLS; i++) {
		struct slu_completion done = {.status = 1};
		struct slu_op op;

		call_of(&op, i);
		op.remote = own;
		bad += submit_any(queue, &op, 1) != 1;
		while (slu_reap(queue, &done, 1) == 0)
			if (slu_segment_receive(segment, &message, 1) == 1)
				bad += slu_segment_answer(segment, &message, 0, message.data,
							  message.length) != 0;
		bad += done.status != 0 || done.bytes != op.length;
	}
	counting_close(&counts);
	slu_queue_close(queue);
	slu_remote_close(own);
	slu_segment_close(segment);
	assert_int_equal(bad, 0);
	assert_nothing_counted(&counts);
}

/* ---- start ---- */

static int open_all(void **state)
{
	struct slu_region_options options;
	struct slu_remote_options wanted;

	(void)state;
	slu_region_options_init(&options, sizeof(options));
	slu_remote_options_init(&wanted, sizeof(wanted));
	wanted.transport = TRANSPORT;
	wanted.timeout_us = PEER_HANG_MS * UINT64_C(1000);
	options.page = SLU_PAGE_ORDINARY;
	if (peer_answer(&target, PEER_HANG_MS) != PEER_READY ||
	    peer_open_engine(1, SLU_POLL_BUSY, &engine) < 0 ||
	    slu_region_alloc(engine, SEGMENT_BYTES, &options, &region) < 0 ||
	    slu_remote_open(engine, target_name, &wanted, &remote) < 0) {
		tap_comment("%s", slu_last_error());
		return -1;
	}
	return 0;
}

static int close_all(void **state)
{
	(void)state;
	slu_engine_close(engine);
	return peer_stop(&target);
}

int main(int argc, char **argv)
{
	static const struct peer_role roles[] = {{"serve", peer_serve}, {0}};
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counter_counts_allocations),
		cmocka_unit_test(test_counter_counts_locks),
		cmocka_unit_test(test_counter_counts_system_calls),
		cmocka_unit_test(test_inline_queue),
		cmocka_unit_test(test_behind_busy_poller),
		cmocka_unit_test(test_refused_operation),
		cmocka_unit_test(test_pool),
		cmocka_unit_test(test_cached),
		cmocka_unit_test(test_notifications),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_answering),
	};
	int ret;

	if (TRANSPORT == SLU_TRANSPORT_VERBS)
		peer_listen = "127.0.0.1:0";
	ret = peer_main(argc, argv, roles);
	if (ret >= 0)
		return ret;
	if (WITH_ADDRESS_SANITIZER || WITH_THREAD_SANITIZER) {
		puts("1..0 # SKIP a sanitizer allocates by itself");
		return 0;
	}
	snprintf(target_name, sizeof(target_name), "hotpath-%d", (int)getpid());
	if (peer_start("serve", target_name, &target) < 0)
		return 1;
	dispatch = counting_init(POLLER_NAME);
	return cmocka_run_group_tests(tests, open_all, close_all);
}
