/* SPDX-License-Identifier: Apache-2.0 */
#include "numa/placement.h"

#include <errno.h>
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

/* One CPU that pollers may use, with what decides its rank. */
struct candidate {
	int cpu;
	uint32_t pollers;      /* on it already */
	uint32_t core_pollers; /* on it and the other hardware threads of its core */
	int off_node;          /* not on the node asked for */
	int node;
	unsigned core; /* in hwloc's order, ascending within a node */
};

/* Pollers of all engines of this process, by CPU. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint16_t pollers_on[PLACEMENT_CPU_MAX + 1];

static int parse_number(const char **at, int *number)
{
	unsigned long value = 0;
	const char *start = *at;

	for (; **at >= '0' && **at <= '9'; (*at)++) {
		value = value * 10 + (unsigned long)(**at - '0');
		if (value > PLACEMENT_CPU_MAX)
			return -EINVAL;
	}
	if (*at == start)
		return -EINVAL;
	*number = (int)value;
	return 0;
}

/* "4" or "4-7". */
static int parse_range(const char **at, int *first, int *last)
{
	if (parse_number(at, first) < 0)
		return -EINVAL;
	*last = *first;
	if (**at != '-')
		return 0;
	(*at)++;
	if (parse_number(at, last) < 0 || *last < *first)
		return -EINVAL;
	return 0;
}

static int contains(const int *cores, int count, int core)
{
	for (int i = 0; i < count; i++)
		if (cores[i] == core)
			return 1;
	return 0;
}

int placement_parse_cores(const char *list, int *cores, uint32_t max)
{
	const char *at = list;
	int count = 0;

	for (;;) {
		int first, last;

		if (parse_range(&at, &first, &last) < 0 || (*at != ',' && *at != '\0'))
			return fail(-EINVAL,
				    "\"%s\" is not a CPU list such as 2,4-7 (at character %td; "
				    "CPUs are 0 to %d)",
				    list, at - list + 1, PLACEMENT_CPU_MAX);
		for (int core = first; core <= last; core++) {
			if (contains(cores, count, core))
				continue;
			if ((uint32_t)count == max)
				return fail(-E2BIG, "\"%s\" names over %u CPUs", list, max);
			cores[count++] = core;
		}
		if (*at == '\0')
			return count;
		at++;
	}
}

/* @return -1: it cannot be learned */
static int allowed_cpus(hwloc_topology_t hwloc, hwloc_bitmap_t allowed)
{
	const cpu_set_t *cpus = thread_cpus();

	if (!cpus)
		return hwloc_get_cpubind(hwloc, allowed, HWLOC_CPUBIND_THREAD);
	return hwloc_cpuset_from_glibc_sched_affinity(hwloc, allowed, cpus, sizeof(*cpus));
}

/* CPUs that threads of ours may use and hwloc knows. */
static hwloc_bitmap_t usable_cpus(hwloc_topology_t hwloc)
{
	hwloc_bitmap_t usable = hwloc_bitmap_dup(hwloc_topology_get_topology_cpuset(hwloc));
	hwloc_bitmap_t allowed = hwloc_bitmap_alloc();

	if (usable && allowed && hwloc_topology_is_thissystem(hwloc) &&
	    allowed_cpus(hwloc, allowed) == 0)
		hwloc_bitmap_and(usable, usable, allowed);
	hwloc_bitmap_free(allowed);
	return usable;
}

static hwloc_obj_t core_of(const struct topology *topology, int cpu)
{
	hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(topology_hwloc(topology), (unsigned)cpu);
	hwloc_obj_t core =
		hwloc_get_ancestor_obj_by_type(topology_hwloc(topology), HWLOC_OBJ_CORE, pu);

	return core ? core : pu;
}

/* Under lock. */
static uint32_t count_pollers(hwloc_obj_t core)
{
	uint32_t count = 0;
	int cpu = -1;

	while ((cpu = hwloc_bitmap_next(core->cpuset, cpu)) >= 0 && cpu <= PLACEMENT_CPU_MAX)
		count += pollers_on[cpu];
	return count;
}

/* Under lock. */
static struct candidate describe(const struct topology *topology, int cpu, int node)
{
	hwloc_obj_t core = core_of(topology, cpu);
	struct candidate candidate = {.cpu = cpu,
				      .pollers = pollers_on[cpu],
				      .core_pollers = count_pollers(core),
				      .node = topology_cpu_node(topology, cpu),
				      .core = core->logical_index};

	candidate.off_node = node >= 0 && candidate.node != node;
	return candidate;
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
	if (a->pollers != b->pollers)
		return a->pollers < b->pollers;
	if (a->core_pollers != b->core_pollers)
		return a->core_pollers < b->core_pollers;
	if (a->off_node != b->off_node)
		return a->off_node < b->off_node;
	if (a->node != b->node)
		return a->node < b->node;
	if (a->core != b->core)
		return a->core > b->core;
	return a->cpu < b->cpu;
}

/* Under lock. */
static int choose_core(const struct topology *topology, hwloc_const_bitmap_t usable, int node)
{
	struct candidate best = {.cpu = -1};
	int cpu = -1;

	while ((cpu = hwloc_bitmap_next(usable, cpu)) >= 0 && cpu <= PLACEMENT_CPU_MAX) {
		struct candidate candidate = describe(topology, cpu, node);

		if (best.cpu < 0 || is_better(&candidate, &best))
			best = candidate;
	}
	return best.cpu;
}

void placement_take_cores(const int *cores, uint32_t count)
{
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < count; i++)
		pollers_on[cores[i]]++;
	pthread_mutex_unlock(&lock);
}

void placement_return_cores(const int *cores, uint32_t count)
{
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < count; i++)
		pollers_on[cores[i]]--;
	pthread_mutex_unlock(&lock);
}

int placement_choose_cores(const struct topology *topology, int node, uint32_t count, int *cores)
{
	hwloc_bitmap_t usable = usable_cpus(topology_hwloc(topology));
	int first = usable ? hwloc_bitmap_first(usable) : -1;

	if (first < 0 || first > PLACEMENT_CPU_MAX) {
		hwloc_bitmap_free(usable);
		return fail(-ENOENT, "this process may use no CPU that hwloc knows");
	}
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < count; i++) {
		cores[i] = choose_core(topology, usable, node);
		pollers_on[cores[i]]++;
	}
	pthread_mutex_unlock(&lock);
	hwloc_bitmap_free(usable);
	return 0;
}

static int bind_error(int error, int node)
{
	if (error == EPERM || error == ENOSYS)
		return fail(-error,
			    "the kernel or the container forbids mbind: memory stays unbound");
	return fail(-error, "cannot bind memory to node %d: %s", node, strerror(error));
}

int placement_bind_memory(void *addr, size_t length, int node)
{
	struct bitmask *nodes = numa_allocate_nodemask();
	int ret = 0;

	if (!nodes)
		return fail(-ENOMEM, "no memory for a node mask");
	if (node < 0 || (unsigned long)node >= nodes->size) {
		ret = fail(-EINVAL, "there is no NUMA node %d", node);
		goto free_nodes;
	}
	numa_bitmask_setbit(nodes, (unsigned)node);
	/* The kernel reads one bit less than it is told. */
	if (mbind(addr, length, MPOL_BIND, nodes->maskp, nodes->size + 1, 0) < 0)
		ret = bind_error(errno, node);

free_nodes:
	numa_bitmask_free(nodes);
	return ret;
}

int placement_memory_node(const void *addr)
{
	int node;

	if (get_mempolicy(&node, NULL, 0, (void *)(uintptr_t)addr, MPOL_F_NODE | MPOL_F_ADDR) < 0)
		return -1;
	return node;
}

int placement_pin_thread(int core)
{
	size_t size = CPU_ALLOC_SIZE(PLACEMENT_CPU_MAX + 1);
	cpu_set_t *set;
	int error = 0;

	if (core < 0 || core > PLACEMENT_CPU_MAX)
		return fail(-EINVAL, "%d is not a CPU", core);
	set = CPU_ALLOC(PLACEMENT_CPU_MAX + 1);
	if (!set)
		return fail(-ENOMEM, "no memory for a CPU set");
	CPU_ZERO_S(size, set);
	CPU_SET_S((size_t)core, size, set);
	if (sched_setaffinity(0, size, set) < 0)
		error = errno;
	CPU_FREE(set);
	if (error)
		return fail(-error, "cannot run on CPU %d: %s", core,
			    error == EINVAL ? "offline, or outside this process's CPU set"
					    : strerror(error));
	return 0;
}
