/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A DPDK program with an EAL of its own, which hosts engines. The argument says what memory its EAL
 * has, or when it is started.
 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mempool.h>
#include <rte_ring.h>

#include "../tap.h"
#include "pairing.h"

#define OBJECTS 1023u
#define HELD    64u

/** The host, and what it has of its own. */
static struct {
	const char *memory;
	int cpu; /* of its only lcore, to which EAL pins us */
	struct rte_ring *ring;
	struct rte_mempool *mempool;
	void *held[HELD];
	FILE *log;
} host;

static int first_cpu(void)
{
	cpu_set_t allowed;

	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			return cpu;
	return -1;
}

/* It may explain its options on standard output, which is TAP's. @return as rte_eal_init() */
static int init_eal(int argc, char **argv)
{
	int out = dup(STDOUT_FILENO), rc;

	fflush(stdout);
	dup2(STDERR_FILENO, STDOUT_FILENO);
	rc = rte_eal_init(argc, argv);
	fflush(stdout);
	dup2(out, STDOUT_FILENO);
	close(out);
	return rc;
}

/* As the argument says. @return as rte_eal_init() */
static int start_eal(void)
{
	char prefix[48], lcores[32];
	char *argv[12] = {"host",          "--no-pci", "--no-telemetry",
			  "--file-prefix", prefix,     "--lcores",
			  lcores,          "-m",       "64"};
	int argc = 9;

	snprintf(prefix, sizeof(prefix), "sluice-test-%d", getpid());
	snprintf(lcores, sizeof(lcores), "0@%d", host.cpu);
	argv[argc++] = strcmp(host.memory, "in-memory") == 0 ? "--in-memory" : "--no-huge";
	if (strcmp(host.memory, "failed") == 0)
		argv[argc++] = "--no-such-option";
	return init_eal(argc, argv);
}

/* EAL leaves them to who comes next by the same name. */
static void remove_runtime_files(void)
{
	const char *folder = rte_eal_get_runtime_dir();
	struct dirent *entry;
	char path[512];
	DIR *files = strstr(folder, "sluice-test-") ? opendir(folder) : NULL;

	while (files && (entry = readdir(files))) {
		snprintf(path, sizeof(path), "%.200s/%.200s", folder, entry->d_name);
		unlink(path);
	}
	if (files)
		closedir(files);
	rmdir(folder);
}

/* ---- the host's own life ---- */

static void begin_own(void)
{
	host.log = tmpfile();
	assert_non_null(host.log);
	rte_openlog_stream(host.log);
	host.ring = rte_ring_create("own", 64, SOCKET_ID_ANY, 0);
	host.mempool = rte_mempool_create("own", OBJECTS, 256, 32, 0, NULL, NULL, NULL, NULL,
					  SOCKET_ID_ANY, 0);
	assert_non_null(host.ring);
	assert_non_null(host.mempool);
	assert_int_equal(rte_mempool_get_bulk(host.mempool, host.held, HELD), 0);
	memset(host.held[0], 0x5a, 256);
	assert_int_equal(rte_ring_enqueue(host.ring, host.held[0]), 0);
}

/* What was there is there, and more can be had. */
static void check_own(void)
{
	void *object = NULL, *more = rte_zmalloc("own", 4096, 0);

	assert_non_null(more);
	rte_free(more);
	assert_ptr_equal(rte_mempool_lookup("own"), host.mempool);
	assert_int_equal(rte_mempool_in_use_count(host.mempool), HELD);
	assert_int_equal(rte_ring_dequeue(host.ring, &object), 0);
	assert_ptr_equal(object, host.held[0]);
	for (int i = 0; i < 256; i++)
		assert_int_equal(((char *)object)[i], 0x5a);
	assert_int_equal(rte_ring_enqueue(host.ring, object), 0);
	assert_int_equal(rte_mempool_get(host.mempool, &object), 0);
	rte_mempool_put(host.mempool, object);
}

static void end_own(void)
{
	rte_mempool_put_bulk(host.mempool, host.held, HELD);
	assert_int_equal(rte_mempool_avail_count(host.mempool), OBJECTS);
	rte_mempool_free(host.mempool);
	rte_ring_free(host.ring);
}

/* ---- engines in it ---- */

static void check_engines(enum slu_transport transport, uint32_t pollers)
{
	struct pairing pairing;

	pairing_open(&pairing, "hosted", transport, pollers);
	pairing_check(&pairing, 1);
	check_own();
	pairing_check(&pairing, 2);
	pairing_close(&pairing);
	check_own();
}

/* Goal: over shm and tcp, inline and by pollers, engines work beside what the host does, and leave
 * it as it was. */
static void test_engines(void **state)
{
	(void)state;
	pairing_each(check_engines);
}

/* Goal: the host's log stays the host's, and so does its affinity. */
static void test_left_alone(void **state)
{
	struct slu_engine *engine;
	cpu_set_t before, after;

	(void)state;
	assert_int_equal(sched_getaffinity(0, sizeof(before), &before), 0);
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	assert_int_equal(sched_getaffinity(0, sizeof(after), &after), 0);
	assert_true(CPU_EQUAL(&before, &after));
	assert_ptr_equal(rte_log_get_stream(), host.log);
	slu_engine_close(engine);
	assert_ptr_equal(rte_log_get_stream(), host.log);
}

static bool is_ours(int thread)
{
	char path[64], name[32] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", thread);
	file = fopen(path, "re");
	if (file && !fgets(name, sizeof(name), file))
		name[0] = '\0';
	if (file)
		fclose(file);
	return strncmp(name, "slu", 3) == 0;
}

/* Goal: threads of an engine that the host's lcore opens are not on its core, which polls. */
static void test_threads_keep_off(void **state)
{
	struct slu_engine_options options;
	struct slu_engine *engine;
	struct dirent *entry;
	unsigned count = 0;
	cpu_set_t cpus;
	DIR *threads;

	(void)state;
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		skip_because("there is one CPU");
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	assert_int_equal(slu_engine_open(&options, &engine), 0);
	threads = opendir("/proc/self/task");
	assert_non_null(threads);
	while ((entry = readdir(threads))) {
		if (!is_ours(atoi(entry->d_name)))
			continue;
		assert_int_equal(sched_getaffinity(atoi(entry->d_name), sizeof(cpus), &cpus), 0);
		assert_false(CPU_ISSET(host.cpu, &cpus));
		count++;
	}
	closedir(threads);
	assert_true(count >= 2); /* the poller, the control thread */
	slu_engine_close(engine);
}

/* Goal: the host's lcores and other threads use pools of ours. */
static void test_pool(void **state)
{
	uint64_t offsets[100];
	struct slu_region *region;
	struct slu_engine *engine;
	struct slu_pool *pool;

	(void)state;
	assert_int_not_equal(rte_lcore_id(), LCORE_ID_ANY);
	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	assert_int_equal(slu_region_alloc(engine, 1 << 20, NULL, &region), 0);
	assert_int_equal(slu_pool_open(region, 0, 1 << 20, 4096, 100, &pool), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(slu_pool_get(pool, offsets, 100), 0);
		assert_int_equal(slu_pool_get(pool, offsets, 1), -ENOBUFS);
		slu_pool_put(pool, offsets, 100);
	}
	slu_pool_close(pool);
	slu_engine_close(engine);
	check_own();
}

/* Goal: memory of the host that is used up is an error which says so, and nothing is lost by it. */
static void test_no_room(void **state)
{
	struct slu_queue_options options;
	struct slu_engine *engine;
	int rc = 0, first = 0, again = 0;

	(void)state;
	if (rte_eal_has_hugepages())
		skip_because("this EAL takes more pages as it needs them");
	slu_queue_options_init(&options, sizeof(options));
	options.depth = SLU_QUEUE_DEPTH_MAX;
	for (int *opened = &first; opened; opened = opened == &first ? &again : NULL) {
		struct slu_queue *queue;

		assert_int_equal(slu_engine_open(NULL, &engine), 0);
		while ((rc = slu_queue_open(engine, &options, &queue)) == 0)
			(*opened)++;
		assert_int_equal(rc, -ENOMEM);
		assert_non_null(strstr(slu_last_error(), "start it with more memory"));
		slu_engine_close(engine);
	}
	assert_true(first > 0);
	assert_int_equal(first, again);
	check_own();
}

/* Goal: the host ends its EAL as if there had been no engine. */
static void test_end(void **state)
{
	(void)state;
	end_own();
	assert_int_equal(rte_eal_cleanup(), 0);
}

/* ---- an EAL that comes too late, or not at all ---- */

/* Goal: who starts an EAL after ours is told by DPDK that there is one, and engines go on. */
static void test_late(void **state)
{
	struct pairing pairing;

	(void)state;
	pairing_open(&pairing, "late", SLU_TRANSPORT_SHM, 0);
	assert_int_equal(start_eal(), -1);
	assert_int_equal(rte_errno, EALREADY);
	pairing_check(&pairing, 1);
	pairing_close(&pairing);
}

/* Goal: an EAL that did not come up, after which DPDK starts none, is said to be the reason. */
static void test_failed(void **state)
{
	struct slu_engine *engine = NULL;

	(void)state;
	assert_int_equal(start_eal(), -1);
	assert_int_equal(slu_engine_open(NULL, &engine), -EIO);
	assert_null(engine);
	assert_non_null(strstr(slu_last_error(), "called rte_eal_init() itself"));
}

static int run_hosted(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_engines),          cmocka_unit_test(test_left_alone),
		cmocka_unit_test(test_threads_keep_off), cmocka_unit_test(test_pool),
		cmocka_unit_test(test_no_room),          cmocka_unit_test(test_end),
	};

	if (start_eal() < 0) {
		printf("1..0 # SKIP no EAL with %s: %s\n", host.memory, rte_strerror(rte_errno));
		return 0;
	}
	begin_own();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest late[] = {cmocka_unit_test(test_late)};
	const struct CMUnitTest failed[] = {cmocka_unit_test(test_failed)};

	host.memory = argc > 1 ? argv[1] : "no-huge";
	host.cpu = first_cpu();
	atexit(remove_runtime_files);
	if (strcmp(host.memory, "late") == 0)
		return cmocka_run_group_tests(late, NULL, NULL);
	if (strcmp(host.memory, "failed") == 0)
		return cmocka_run_group_tests(failed, NULL, NULL);
	return run_hosted();
}
