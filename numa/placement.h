/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Placement: which core a poller gets, which node memory is bound to. Any thread.
 */
#ifndef NUMA_PLACEMENT_H
#define NUMA_PLACEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "numa/topology.h"

#define PLACEMENT_CPU_MAX 8191 /* highest CPU number: what Linux can be built for */

/**
 * Read a CPU list such as "2,3" or "0-3,8".
 *
 * @param cores  out: the CPUs in the order given, without repeats; undefined on failure
 * @param max    room in @p cores
 * @return       how many; -EINVAL malformed or empty (slu_last_error says where); -E2BIG over max
 */
int placement_parse_cores(const char *list, int *cores, uint32_t max);

/**
 * Choose cores for @p count pollers among those that threads of ours may use (the caller's, or
 * thread_cpus(); for a synthetic topology, all), and take them: until placement_return_cores() they
 * count as having a poller more.
 *
 * Those with the fewest pollers of this process, of whatever engine, first: distinct physical
 * cores, then their other hardware threads, then round again when there are more pollers than CPUs.
 * Among equals, cores of @p node (unless -1) first, then node by node, and the last core of a node
 * before its first, which the system's own work tends to sit on.
 *
 * @param cores  out: @p count CPU numbers
 * @return       0; -ENOENT no usable core
 */
int placement_choose_cores(const struct topology *topology, int node, uint32_t count, int *cores);

/** Pollers are pinned to @p cores that somebody else has chosen, or not any more. */
void placement_take_cores(const int *cores, uint32_t count);
void placement_return_cores(const int *cores, uint32_t count);

/**
 * Bind a range of memory, before it is touched, to @p node.
 *
 * Pages then come from that node or not at all: a node that is full shows when they are touched.
 *
 * @param addr    first byte, page aligned (of a hugepage mapping: hugepage aligned)
 * @param length  bytes
 * @return 0; -EINVAL no such node, or unaligned; -EPERM, -ENOSYS the kernel or a container forbids
 *         it; -ENOMEM
 */
int placement_bind_memory(void *addr, size_t length, int node);

/** Node of the page at @p addr, which has been touched; -1 unknown. */
int placement_memory_node(const void *addr);

/** Pin the calling thread to @p core. @return 0; -EINVAL not a CPU that it may use; -ENOMEM */
int placement_pin_thread(int core);

#endif
