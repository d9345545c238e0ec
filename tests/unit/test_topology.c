/* SPDX-License-Identifier: Apache-2.0 */
#include "numa/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/tap.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)

/* Two packages of one node each; 4 cores of 2 threads a node; 32 MiB L3, 1 MiB L2. */
#define TWO_SOCKETS                                                                                \
	"pack:2 [numa(memory=1073741824)] l3:1(size=33554432) core:4 l2:1(size=1048576) pu:2"

static struct topology *open_synthetic(const char *description)
{
	struct topology *topology = NULL;
	int ret = topology_open(description, &topology);

	if (ret < 0)
		fail_msg("topology_open(%s): %d, %s", description, ret, slu_last_error());
	return topology;
}

/* Goal: a description that hwloc cannot read is -EINVAL, named, and leaves the output alone. */
static void test_bad_description(void **state)
{
	struct topology *topology = (struct topology *)state;

	assert_int_equal(topology_open("four fine cores", &topology), -EINVAL);
	assert_ptr_equal(topology, state);
	assert_non_null(strstr(slu_last_error(), "four fine cores"));
}

/* Goal: nodes are counted and known by the operating system's numbers. */
static void test_nodes_of_two_sockets(void **state)
{
	struct topology *topology = open_synthetic(TWO_SOCKETS);

	(void)state;
	assert_int_equal(topology_node_count(topology), 2);
	assert_true(topology_has_node(topology, 0));
	assert_true(topology_has_node(topology, 1));
	assert_false(topology_has_node(topology, 2));
	assert_false(topology_has_node(topology, -1));
	topology_close(topology);
}

/* Goal: each CPU is on the node of its package; a CPU that is not there is on none. */
static void test_cpu_node(void **state)
{
	struct topology *topology = open_synthetic(TWO_SOCKETS);

	(void)state;
	for (int cpu = 0; cpu < 16; cpu++)
		assert_int_equal(topology_cpu_node(topology, cpu), cpu / 8);
	assert_int_equal(topology_cpu_node(topology, 16), -1);
	assert_int_equal(topology_cpu_node(topology, -1), -1);
	topology_close(topology);
}

/* Goal: a node with two memories (DRAM, then a second kind) counts both; its CPUs name the first.
 */
static void test_two_memories_at_one_package(void **state)
{
	struct topology *topology =
		open_synthetic("pack:2 [numa(memory=1073741824)] [numa(memory=4096)] core:2 pu:1");

	(void)state;
	assert_int_equal(topology_node_count(topology), 4);
	assert_true(topology_cpu_node(topology, 0) < topology_cpu_node(topology, 2));
	topology_close(topology);
}

/* Goal: a node without memory is there but does not count. */
static void test_node_without_memory(void **state)
{
	struct topology *topology = open_synthetic("pack:2 [numa(memory=0)] core:2 pu:1");

	(void)state;
	assert_int_equal(topology_node_count(topology), 1);
	assert_true(topology_has_node(topology, 1));
	topology_close(topology);
}

/* Goal: the largest data cache is found per CPU and for the machine; no cache is 0. */
static void test_llc(void **state)
{
	struct topology *topology = open_synthetic(TWO_SOCKETS);

	(void)state;
	assert_int_equal(topology_llc_bytes(topology, 5), 32 * MIB);
	assert_int_equal(topology_llc_bytes(topology, -1), 32 * MIB);
	assert_int_equal(topology_llc_bytes(topology, 99), 0);
	assert_int_equal(topology_llc(topology, 1), topology_llc(topology, 0));
	assert_int_not_equal(topology_llc(topology, 9), topology_llc(topology, 0));
	assert_int_equal(topology_llc(topology, 99), 0);
	topology_close(topology);

	topology = open_synthetic("pack:1 [numa] core:2 pu:1");
	assert_int_equal(topology_llc_bytes(topology, -1), 0);
	topology_close(topology);
}

/* Goal: this machine is read: at least one node, and the CPU that runs us is on one of them. */
static void test_this_machine(void **state)
{
	struct topology *topology = open_synthetic(NULL);
	int cpu = hwloc_bitmap_first(hwloc_topology_get_topology_cpuset(topology_hwloc(topology)));

	(void)state;
	assert_true(topology_node_count(topology) >= 1);
	assert_true(topology_has_node(topology, topology_cpu_node(topology, cpu)));
	topology_close(topology);
}

/* Goal: closing nothing is allowed. */
static void test_close_null(void **state)
{
	(void)state;
	topology_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_description),
		cmocka_unit_test(test_nodes_of_two_sockets),
		cmocka_unit_test(test_cpu_node),
		cmocka_unit_test(test_two_memories_at_one_package),
		cmocka_unit_test(test_node_without_memory),
		cmocka_unit_test(test_llc),
		cmocka_unit_test(test_this_machine),
		cmocka_unit_test(test_close_null),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
