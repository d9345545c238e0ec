/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Regions as the rest of the library sees them.
 */
#ifndef MEMORY_REGION_H
#define MEMORY_REGION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sluice/memory.h>

#include "memory/arena.h"

#define REGION_PRIVATES 8u

struct slu_region {
	/* Read by every operation. */
	char *addr;
	uint64_t length;
	void *private[REGION_PRIVATES]; /* what a transport knows it by, its number */

	uint64_t page_bytes;
	uint64_t register_ns;    /* what it took that devices know it */
	uint32_t devices;        /* that do */
	uint32_t export_devices; /* likewise, as a segment */
	int node;
	bool owned;      /* arena is ours, else the memory is the caller's */
	bool of_buffers; /* of a poller (transport/buffers.h), not of the application */
	struct arena arena;
	struct slu_engine *engine;
	void *cached; /* its range in a cache; NULL: it is in none */
	LIST_ENTRY(slu_region) link;
};

/** What a caller has given, in the library's own form. @return 0; -EINVAL, -E2BIG */
int region_take_options(const struct slu_region_options *given, struct slu_region_options *options);

/** Allocate, without telling an engine; @p options in our own form. @return as slu_region_alloc()
 */
int region_create(uint64_t length_bytes, const struct slu_region_options *options,
		  struct slu_region **region);

/** Map what others made, without telling an engine. @return as slu_region_import() */
int region_import(int fd, uint64_t offset_bytes, uint64_t length_bytes,
		  const struct slu_region_options *options, struct slu_region **region);

/** Wrap the caller's memory, without telling an engine. @return as slu_region_register() */
int region_wrap(void *addr, uint64_t length_bytes, struct slu_region **region);

/** Have its pages been taken away? Then nothing that was read from it is good (guard.h). */
static inline bool region_is_dead(const struct slu_region *region)
{
	return guard_is_dead(region->arena.guard);
}

/** Accepts NULL. */
void region_destroy(struct slu_region *region);

#endif
