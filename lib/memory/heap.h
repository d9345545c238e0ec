/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Memory of rings and pools: heaps of EAL over arenas of ours, one for each NUMA node.
 *
 * EAL has a heap of its own on 2 MiB pages, but it counts the free ones and then takes them, and
 * when another process was quicker it cannot be started again. An arena goes on with ordinary
 * pages. What is freed stays in its heap.
 *
 * In a process that has its own EAL it is the host's memory instead, which any process that shares
 * it, and any device that it is mapped for, knows already.
 */
#ifndef MEMORY_HEAP_H
#define MEMORY_HEAP_H

#include <stdbool.h>
#include <stddef.h>

/** Have some memory there before the first is asked for. EAL is started. @return 0; -ENOMEM */
int heap_start(void);

/**
 * Zeroed memory, aligned to a cache line; heap_free() gives it back. Any thread.
 *
 * @param node  wanted, not promised: where the node has none it is elsewhere; -1 = any
 * @return      NULL: there is none, slu_last_error() says why
 */
void *heap_alloc(size_t bytes, int node);

/** Any thread; NULL is nothing. */
void heap_free(void *memory);

/**
 * Until heap_leave() nobody else takes or frees memory of these heaps: around the calls by which
 * EAL's own objects are made and freed.
 */
void heap_enter(void);
void heap_leave(void);

/**
 * Entered: let the next @p bytes of EAL's objects find room.
 *
 * @param socket  out: what they take for a NUMA node
 * @return        0; -ENOMEM
 */
int heap_socket(size_t bytes, int *socket);

/** Is all of it on 2 MiB pages? */
bool heap_on_hugepages(void);

#endif
