/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The machine as hwloc sees it: packages, NUMA nodes, cores and caches. Read once, then constant.
 */
#ifndef NUMA_TOPOLOGY_H
#define NUMA_TOPOLOGY_H

#include <stdint.h>

struct topology;

/**
 * Read the machine.
 *
 * @param synthetic  NULL for this machine, or an hwloc synthetic description for tests, such as
 *                   "pack:2 numa:1 l3:1 core:4 pu:1"
 * @return 0; -ENOMEM; -EINVAL the description cannot be read
 */
int topology_open(const char *synthetic, struct topology **topology);

/** Accepts NULL. */
void topology_close(struct topology *topology);

/** NUMA nodes with memory, at least 1. */
uint32_t topology_node_count(const struct topology *topology);

/** Is there a node of that number (as the operating system counts)? */
int topology_has_node(const struct topology *topology, int node);

/** NUMA node of CPU @p cpu, or -1. */
int topology_cpu_node(const struct topology *topology, int cpu);

/** Bytes of the largest cache that @p cpu (or, with -1, any CPU) can use; 0 unknown. */
uint64_t topology_llc_bytes(const struct topology *topology, int cpu);

/** Which of the machine's is that? CPUs of one number share it; 0 where it is not known. */
uint32_t topology_llc(const struct topology *topology, int cpu);

/** hwloc's own object, for what this header leaves out (struct hwloc_topology *). */
void *topology_hwloc(const struct topology *topology);

#endif
