/* SPDX-License-Identifier: Apache-2.0 */
/* Several engines in one process. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../tap.h"
#include "engine/engine_internal.h"
#include "pairing.h"

#define THREADS 4u
#define ROUNDS  12u

static struct sigaction guarding; /* memory/guard.h */

static void check_pair(enum slu_transport transport, uint32_t pollers)
{
	struct pairing pairing;

	pairing_open(&pairing, "several-pair", transport, pollers);
	pairing_check(&pairing, 1);
	pairing_close(&pairing);
}

/* Goal: one engine reads and writes what another of its process exports. */
static void test_pair(void **state)
{
	(void)state;
	pairing_each(check_pair);
}

static void check_other_goes_on(enum slu_transport transport, uint32_t pollers)
{
	struct pairing kept, closed;

	pairing_open(&kept, "several-kept", transport, pollers);
	pairing_open(&closed, "several-closed", transport, pollers);
	pairing_check(&closed, 2);
	pairing_close(&closed);
	pairing_check(&kept, 3);
	pairing_close(&kept);
}

/* Goal: an engine that is closed leaves the others and what they have open as they were. */
static void test_closing_one(void **state)
{
	(void)state;
	pairing_each(check_other_goes_on);
}

/* Goal: whoever has a segment of an engine that is closed hears of it; his own goes on. */
static void test_closing_the_target(void **state)
{
	struct pairing pairing;
	int status;

	(void)state;
	pairing_open(&pairing, "several-target", SLU_TRANSPORT_SHM, 1);
	slu_engine_close(pairing.target);
	status = pairing_run(&pairing, SLU_READ, 0, 64);
	assert_true(status == -ESHUTDOWN || status == -ECONNRESET);
	slu_queue_close(pairing.queue);
	slu_remote_close(pairing.remote);
	slu_engine_close(pairing.client);
}

/* Goal: one name, one segment in the process: who comes second hears where the first one is. */
static void test_name_is_taken(void **state)
{
	struct slu_segment *second = NULL;
	struct slu_region *region;
	struct pairing pairing;

	(void)state;
	pairing_open(&pairing, "several-name", SLU_TRANSPORT_SHM, 0);
	assert_int_equal(slu_region_alloc(pairing.client, 4096, NULL, &region), 0);
	assert_int_equal(slu_segment_export(pairing.client, "several-name", region, SLU_RIGHT_READ,
					    NULL, &second),
			 -EADDRINUSE);
	assert_null(second);
	assert_non_null(strstr(slu_last_error(), "another engine of this process"));
	slu_segment_close(pairing.segment);
	assert_int_equal(slu_segment_export(pairing.client, "several-name", region, SLU_RIGHT_READ,
					    NULL, &second),
			 0);
	pairing_close(&pairing);
}

/* Goal: the fake transport knows the segments of its own engine only. */
static void test_fake_is_of_its_engine(void **state)
{
	struct slu_remote *remote = NULL;
	struct slu_remote_options options;
	struct pairing pairing;

	(void)state;
	pairing_open(&pairing, "several-fake", SLU_TRANSPORT_SHM, 0);
	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_FAKE;
	assert_int_equal(slu_remote_open(pairing.client, "several-fake", &options, &remote),
			 -ENOENT);
	assert_non_null(strstr(slu_last_error(), "this engine exports no segment"));
	assert_int_equal(slu_remote_open(pairing.target, "several-fake", &options, &remote), 0);
	slu_remote_close(remote);
	pairing_close(&pairing);
}

static int core_of(struct slu_engine *engine)
{
	struct slu_poller_info info = {.size = sizeof(info)};

	assert_int_equal(slu_engine_get_poller(engine, 0, &info), 0);
	return info.core;
}

/* Goal: a poller is put on no core that another engine's has, while others are free. */
static void test_cores_of_their_own(void **state)
{
	struct slu_engine *first, *second;
	cpu_set_t allowed;
	int core;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	if (CPU_COUNT(&allowed) < 2)
		skip_because("there is one core");
	assert_int_equal(pairing_engine(1, &first), 0);
	assert_int_equal(pairing_engine(1, &second), 0);
	core = core_of(second);
	assert_int_not_equal(core_of(first), core);
	slu_engine_close(second);
	assert_int_equal(pairing_engine(1, &second), 0); /* and what was given back is free */
	assert_int_equal(core_of(second), core);
	slu_engine_close(second);
	slu_engine_close(first);
}

/* Goal: limits are those of an engine. */
static void test_limits_of_their_own(void **state)
{
	uint64_t limits[SLU_LIMITS_MAX] = {[SLU_LIMIT_SESSIONS] = 1};
	struct slu_remote *remotes[2] = {NULL};
	struct pairing few, many;

	(void)state;
	pairing_open(&few, "several-few", SLU_TRANSPORT_SHM, 0);
	pairing_open(&many, "several-many", SLU_TRANSPORT_SHM, 0);
	assert_int_equal(slu_engine_set_limits(few.target, limits, NULL, 0), 0);
	assert_int_equal(slu_remote_open(few.client, few.name, NULL, &remotes[0]), -EDQUOT);
	assert_int_equal(slu_remote_open(few.client, many.name, NULL, &remotes[1]), 0);
	pairing_close(&few);
	pairing_close(&many);
}

struct guard_swap {
	struct pairing pairing;
	struct guard *guard; /* the other one */
};

/* The control thread looks at it. */
static int swap_guard(void *arg)
{
	struct guard_swap *swap = arg;
	struct arena *arena = &swap->pairing.exported->arena;
	struct guard *before = arena->guard;

	arena->guard = swap->guard;
	swap->guard = before;
	return 0;
}

/* In place of the one of its segment, which nobody here can take pages from; and back. */
static void swap(struct guard_swap *swap)
{
	assert_int_equal(control_call(swap->pairing.target->control, swap_guard, swap), 0);
}

static void wait_for_loss(struct pairing *pairing)
{
	struct slu_remote_info info = {.size = sizeof(info)};

	for (uint32_t tries = 0; info.state == 0 && tries < 30000; tries++) {
		assert_int_equal(slu_remote_get_info(pairing->remote, &info), 0);
		usleep(1000);
	}
	assert_int_equal(info.state, -EFAULT);
}

/* Goal: every engine is told of memory that was lost, not only the first that looks. */
static void test_lost_memory(void **state)
{
	struct guard_swap swaps[2];
	struct guard *guard;
	volatile char *memory;
	int fd;

	(void)state;
	sigaction(SIGBUS, &guarding, NULL); /* cmocka has its own for each test */
	fd = memfd_create("lost", MFD_CLOEXEC);
	assert_int_equal(ftruncate(fd, 8192), 0);
	memory = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(guard_add((void *)memory, 8192, &guard), 0);
	pairing_open(&swaps[0].pairing, "several-lost", SLU_TRANSPORT_SHM, 0);
	pairing_open(&swaps[1].pairing, "several-too", SLU_TRANSPORT_SHM, 0);
	for (int i = 0; i < 2; i++) {
		swaps[i].guard = guard;
		swap(&swaps[i]);
	}
	assert_int_equal(ftruncate(fd, 4096), 0);
	assert_int_equal(memory[4096], 0);
	for (int i = 0; i < 2; i++)
		wait_for_loss(&swaps[i].pairing);
	for (int i = 0; i < 2; i++)
		swap(&swaps[i]);
	for (int i = 0; i < 2; i++)
		pairing_close(&swaps[i].pairing);
	guard_remove(guard);
	munmap((void *)memory, 8192);
	close(fd);
}

struct worker {
	pthread_t thread;
	uint32_t index;
	int result;
};

static int live_once(const struct worker *worker, uint32_t round)
{
	struct slu_engine *engine;
	struct slu_segment *segment;
	struct slu_remote *remote;
	struct slu_region *region;
	struct slu_queue *queue;
	struct slu_op op = {.length = 4096, .opcode = SLU_WRITE};
	struct slu_completion done = {.status = -EIO};
	char name[32];
	int rc = pairing_engine(round % 2, &engine);

	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), "several-%u-%u", worker->index, round);
	if ((rc = slu_region_alloc(engine, 8192, NULL, &region)) == 0 &&
	    (rc = slu_segment_export(engine, name, region, 3, NULL, &segment)) == 0 &&
	    (rc = slu_remote_open(engine, name, NULL, &remote)) == 0 &&
	    (rc = slu_queue_open(engine, NULL, &queue)) == 0) {
		op.remote = remote;
		op.region = region;
		op.local_offset = 4096;
		memset((char *)slu_region_addr(region) + 4096, (int)round + 1, 4096);
		rc = slu_submit(queue, &op, 1) == 1 && slu_wait(queue, 1, UINT64_MAX) == 1 &&
				     slu_reap(queue, &done, 1) == 1
			     ? done.status
			     : -EIO;
		if (rc == 0 && *(char *)slu_region_addr(region) != (char)(round + 1))
			rc = -EBADMSG;
	}
	slu_engine_close(engine);
	return rc;
}

static void *live(void *arg)
{
	struct worker *worker = arg;

	for (uint32_t round = 0; worker->result == 0 && round < ROUNDS; round++)
		worker->result = live_once(worker, round);
	return NULL;
}

/* Goal: engines are opened, used and closed by several threads at a time. */
static void test_opened_at_once(void **state)
{
	struct worker workers[THREADS] = {{0}};

	(void)state;
	for (uint32_t i = 0; i < THREADS; i++) {
		workers[i].index = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, live, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (uint32_t i = 0; i < THREADS; i++)
		assert_int_equal(workers[i].result, 0);
	sigaction(SIGBUS, NULL, &guarding);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_opened_at_once), /* before EAL is started */
		cmocka_unit_test(test_pair),
		cmocka_unit_test(test_closing_one),
		cmocka_unit_test(test_closing_the_target),
		cmocka_unit_test(test_name_is_taken),
		cmocka_unit_test(test_fake_is_of_its_engine),
		cmocka_unit_test(test_cores_of_their_own),
		cmocka_unit_test(test_limits_of_their_own),
		cmocka_unit_test(test_lost_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
