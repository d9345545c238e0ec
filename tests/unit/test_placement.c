/* SPDX-License-Identifier: Apache-2.0 */
#include "numa/placement.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/tap.h"

#define TWO_SOCKETS_SMT "pack:2 [numa] core:4 pu:2"

static void assert_cores(const int *cores, int count, const int *expected, int expected_count)
{
	assert_int_equal(count, expected_count);
	for (int i = 0; i < count; i++)
		if (cores[i] != expected[i])
			fail_msg("core %d of %d is %d, not %d", i, count, cores[i], expected[i]);
}

#define assert_list(list, ...)                                                                     \
	do {                                                                                       \
		const int expected[] = {__VA_ARGS__};                                              \
		int cores[64];                                                                     \
		int count = placement_parse_cores(list, cores, 64);                                \
                                                                                                   \
		assert_cores(cores, count, expected, sizeof(expected) / sizeof(expected[0]));      \
	} while (0)

/* Goal: single CPUs, ranges and mixtures are read in the order given, repeats dropped. */
static void test_parse_cores(void **state)
{
	(void)state;
	assert_list("0", 0);
	assert_list("2,3", 2, 3);
	assert_list("0-3,8", 0, 1, 2, 3, 8);
	assert_list("7,1-2,0", 7, 1, 2, 0);
	assert_list("3,1-4,3", 3, 1, 2, 4);
	assert_list("5-5", 5);
	assert_list("8191", 8191);
}

/* Goal: whatever is not a CPU list is -EINVAL, with the place of the fault named. */
static void test_parse_malformed(void **state)
{
	static const char *const malformed[] = {
		"",    ",",  "1,",  ",1",    "1,,2",      "a",
		"1-",  "-1", "3-1", "1-2-3", " 1",        "1 ",
		"0x1", "+1", "1;",  "8192",  "1-9999999", "99999999999999999999999999",
		"1.5",
	};
	int cores[64];

	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		int ret = placement_parse_cores(malformed[i], cores, 64);

		if (ret != -EINVAL)
			fail_msg("\"%s\" gave %d, not -EINVAL", malformed[i], ret);
		assert_non_null(strstr(slu_last_error(), "character"));
	}
}

/* Goal: more CPUs than there is room for are -E2BIG, exactly from the first one too many. */
static void test_parse_too_many(void **state)
{
	int cores[4];

	(void)state;
	assert_int_equal(placement_parse_cores("0-3", cores, 4), 4);
	assert_int_equal(placement_parse_cores("0-3,2", cores, 4), 4);
	assert_int_equal(placement_parse_cores("0-4", cores, 4), -E2BIG);
	assert_int_equal(placement_parse_cores("0-8191", cores, 4), -E2BIG);
}

static void assert_choice(const char *machine, int node, const int *expected, uint32_t count)
{
	struct topology *topology;
	int cores[64];

	assert_int_equal(topology_open(machine, &topology), 0);
	assert_int_equal(placement_choose_cores(topology, node, count, cores), 0);
	assert_cores(cores, (int)count, expected, (int)count);
	placement_return_cores(cores, count);
	topology_close(topology);
}

/* Goal: distinct cores come before second threads, a node's last core before its first. */
static void test_choose_spreads_over_cores(void **state)
{
	static const int expected[] = {6, 4, 2, 0, 14, 12, 10, 8, 7, 5, 3, 1, 15, 13, 11, 9};

	(void)state;
	assert_choice(TWO_SOCKETS_SMT, -1, expected, 16);
}

/* Goal: the node asked for comes first, at each rank. */
static void test_choose_prefers_node(void **state)
{
	static const int expected[] = {14, 12, 10, 8, 6, 4, 2, 0, 15, 13, 11, 9, 7, 5, 3, 1};

	(void)state;
	assert_choice(TWO_SOCKETS_SMT, 1, expected, 16);
}

/* Goal: more pollers than CPUs go round again in the same order. */
static void test_choose_goes_round(void **state)
{
	static const int expected[] = {1, 0, 1, 0, 1};

	(void)state;
	assert_choice("pack:1 [numa] core:2 pu:1", -1, expected, 5);
	assert_choice("pack:1 [numa] core:2 pu:1", 7, expected, 5);
}

/* Goal: who comes later gets the cores that have the fewest pollers, whoever put them there; what
 * was given back is free again. */
static void test_choose_beside_others(void **state)
{
	static const int named[] = {6, 12}, second[] = {4, 2, 0, 14, 10, 8, 7}, third[] = {6, 4};
	struct topology *topology;
	int cores[7], others[2];

	(void)state;
	assert_int_equal(topology_open(TWO_SOCKETS_SMT, &topology), 0);
	placement_take_cores(named, 2);
	assert_int_equal(placement_choose_cores(topology, -1, 7, cores), 0);
	assert_cores(cores, 7, second, 7);
	placement_return_cores(named, 1);
	placement_return_cores(cores, 1);
	placement_return_cores(cores + 6, 1);
	assert_int_equal(placement_choose_cores(topology, -1, 2, others), 0);
	assert_cores(others, 2, third, 2);
	placement_return_cores(cores + 1, 5);
	placement_return_cores(named + 1, 1);
	placement_return_cores(others, 2);
	topology_close(topology);
}

static void *choose_while_pinned(void *arg)
{
	struct topology *topology = NULL;
	int *cores = arg;

	if (placement_pin_thread(cores[0]) < 0 || topology_open(NULL, &topology) < 0 ||
	    placement_choose_cores(topology, -1, 2, cores) < 0)
		cores[0] = -1;
	else
		placement_return_cores(cores, 2);
	topology_close(topology);
	return NULL;
}

static int first_allowed_cpu(void)
{
	cpu_set_t allowed;

	assert_int_equal(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed))
			return cpu;
	fail_msg("no CPU allowed");
	return -1;
}

/* Goal: only CPUs of the calling thread's affinity are chosen on this machine. */
static void test_choose_respects_affinity(void **state)
{
	int allowed = first_allowed_cpu();
	int cores[2] = {allowed, -1};
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, choose_while_pinned, cores), 0);
	pthread_join(thread, NULL);
	assert_int_equal(cores[0], allowed);
	assert_int_equal(cores[1], allowed);
}

/* Goal: a CPU number that cannot be is refused, and says so. */
static void test_pin_refuses(void **state)
{
	(void)state;
	assert_int_equal(placement_pin_thread(-1), -EINVAL);
	assert_int_equal(placement_pin_thread(PLACEMENT_CPU_MAX), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "CPU"));
	assert_int_equal(placement_pin_thread(PLACEMENT_CPU_MAX + 1), -EINVAL);
}

/* Goal: memory bound to the node of this CPU is there once touched. */
static void test_bind_memory(void **state)
{
	size_t length = (size_t)sysconf(_SC_PAGESIZE) * 16;
	struct topology *topology;
	char *memory;
	int node, ret;

	(void)state;
	assert_int_equal(topology_open(NULL, &topology), 0);
	node = topology_cpu_node(topology, first_allowed_cpu());
	topology_close(topology);
	memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	ret = placement_bind_memory(memory, length, node);
	if (ret == -EPERM || ret == -ENOSYS) {
		munmap(memory, length);
		skip_because("mbind is forbidden here");
	}
	assert_int_equal(ret, 0);
	memset(memory, 1, length);
	assert_int_equal(placement_memory_node(memory), node);
	munmap(memory, length);
}

/* Goal: a node that is not there is -EINVAL, an address without memory is on no node. */
static void test_bind_refuses(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int ret;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(placement_bind_memory(memory, page, -1), -EINVAL);
	assert_int_equal(placement_bind_memory(memory, page, 1 << 20), -EINVAL);
	ret = placement_bind_memory(memory, page, 63);
	assert_true(ret == -EINVAL || ret == -EPERM || ret == -ENOSYS);
	munmap(memory, page);
	assert_int_equal(placement_memory_node(memory), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_cores),
		cmocka_unit_test(test_parse_malformed),
		cmocka_unit_test(test_parse_too_many),
		cmocka_unit_test(test_choose_spreads_over_cores),
		cmocka_unit_test(test_choose_prefers_node),
		cmocka_unit_test(test_choose_goes_round),
		cmocka_unit_test(test_choose_beside_others),
		cmocka_unit_test(test_choose_respects_affinity),
		cmocka_unit_test(test_pin_refuses),
		cmocka_unit_test(test_bind_memory),
		cmocka_unit_test(test_bind_refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
