/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/heap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <numa.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>

#include "base/log.h"
#include "env/eal.h"
#include "memory/arena.h"

#define HEAPS_MAX   16 /* a node beyond them has its rings anywhere */
#define ALIGN_BYTES 64

/* What EAL puts before and after an object, generously. */
#define OVERHEAD_BYTES 1024

struct heap {
	bool made;
	char name[16]; /* to EAL, which takes 32 */
	int socket;    /* what EAL takes for its node */
	uint64_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct heap heaps[HEAPS_MAX]; /* the first one is bound to no node */
static _Atomic bool on_ordinary_pages;

static uint32_t heap_of(int node)
{
	return node < 0 || node >= HEAPS_MAX - 1 || numa_max_node() == 0 ? 0 : (uint32_t)node + 1;
}

static int make_heap(struct heap *heap, uint32_t index)
{
	if (heap->made)
		return 0;
	snprintf(heap->name, sizeof(heap->name), "sluice-%u", index);
	if (rte_malloc_heap_create(heap->name) < 0)
		return fail(-ENOMEM, "EAL makes no heap: %s", rte_strerror(rte_errno));
	heap->socket = rte_malloc_heap_get_socket(heap->name);
	heap->made = true;
	return 0;
}

static void say_ordinary(void)
{
	if (!atomic_exchange(&on_ordinary_pages, true))
		log_info("no free 2 MiB page: rings are on ordinary pages (%s); reserve hugepages "
			 "with: sysctl vm.nr_hugepages=512",
			 slu_last_error());
}

static int make_arena(uint64_t bytes, int node, struct arena *arena)
{
	struct slu_region_options options;

	slu_region_options_init(&options, sizeof(options));
	options.private_memory = true;
	options.node = node;
	options.page = SLU_PAGE_2M;
	if (arena_create(bytes, &options, arena) == 0)
		return 0;
	say_ordinary();
	options.page = SLU_PAGE_ORDINARY;
	return arena_create(bytes, &options, arena);
}

/* Under lock. Each time as much again as there is: EAL has no room for very many pieces. */
static int grow(uint32_t index, size_t wanted)
{
	struct heap *heap = &heaps[index];
	uint64_t bytes = wanted + OVERHEAD_BYTES;
	struct arena arena;
	int rc = make_heap(heap, index);

	if (bytes < PAGE_2M_BYTES)
		bytes = PAGE_2M_BYTES;
	if (bytes < heap->bytes)
		bytes = heap->bytes;
	if (rc == 0)
		rc = make_arena(bytes, (int)index - 1, &arena);
	if (rc < 0)
		return rc;
	if (rte_malloc_heap_memory_add(heap->name, arena.addr, arena.mapped_bytes, NULL, 0,
				       arena.page_bytes) < 0) {
		arena_destroy(&arena);
		return fail(-ENOMEM, "EAL takes no more memory: %s", rte_strerror(rte_errno));
	}
	heap->bytes += arena.mapped_bytes;
	return 0;
}

/* A host's memory is where it is, for all nodes that it is on. */
static void *take_from_host(size_t bytes, int node)
{
	void *memory = node >= 0 ? rte_zmalloc_socket("slu_heap", bytes, ALIGN_BYTES, node) : NULL;

	if (!memory)
		memory = rte_zmalloc_socket("slu_heap", bytes, ALIGN_BYTES, SOCKET_ID_ANY);
	if (!memory)
		fail(-ENOMEM,
		     "the EAL of this process has no room for %zu bytes: start it with more "
		     "memory (-m, --socket-mem)",
		     bytes);
	return memory;
}

static void *take(uint32_t index, size_t bytes)
{
	return heaps[index].made
		       ? rte_zmalloc_socket("slu_heap", bytes, ALIGN_BYTES, heaps[index].socket)
		       : NULL;
}

/* Under lock. */
static void *alloc_from(uint32_t index, size_t bytes)
{
	void *memory = take(index, bytes);

	if (!memory && grow(index, bytes) == 0) {
		memory = take(index, bytes);
		if (!memory)
			fail(-ENOMEM, "EAL has no room for %zu bytes", bytes);
	}
	return memory;
}

void heap_enter(void)
{
	pthread_mutex_lock(&lock);
}

void heap_leave(void)
{
	pthread_mutex_unlock(&lock);
}

int heap_start(void)
{
	int rc = 0;

	if (eal_is_hosted())
		return 0;
	heap_enter();
	if (heaps[0].bytes == 0)
		rc = grow(0, PAGE_2M_BYTES / 2);
	heap_leave();
	return rc;
}

void *heap_alloc(size_t bytes, int node)
{
	uint32_t index = heap_of(node);
	void *memory;

	if (eal_is_hosted())
		return take_from_host(bytes, node);
	heap_enter();
	memory = alloc_from(index, bytes);
	if (!memory && index != 0)
		memory = alloc_from(0, bytes);
	heap_leave();
	return memory;
}

void heap_free(void *memory)
{
	heap_enter();
	rte_free(memory);
	heap_leave();
}

int heap_socket(size_t bytes, int *socket)
{
	void *room;

	*socket = SOCKET_ID_ANY;
	if (eal_is_hosted())
		return 0;
	room = alloc_from(0, bytes);
	if (!room)
		return -ENOMEM;
	rte_free(room);
	*socket = heaps[0].socket;
	return 0;
}

bool heap_on_hugepages(void)
{
	return eal_is_hosted() ? rte_eal_has_hugepages() : !atomic_load(&on_ordinary_pages);
}
