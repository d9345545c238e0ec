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

#define REGION_DEVICES_MAX 8

struct verbs_registration;

struct slu_region {
	/* Read by every operation. */
	char *addr;
	uint64_t length;
	struct verbs_registration *registered[REGION_DEVICES_MAX]; /* by device; NULL: not */

	uint64_t page_bytes;
	uint64_t registered_ns[REGION_DEVICES_MAX]; /* what it took */
	uint64_t export_register_ns;                /* likewise, as a segment, all devices */
	uint32_t export_devices;
	int node;
	bool owned;        /* arena is ours, else the memory is the caller's */
	uint32_t segments; /* exported from it and not closed */
	struct arena arena;
	struct slu_engine *engine;
	LIST_ENTRY(slu_region) link;
	LIST_ENTRY(slu_region) registered_link; /* those that RDMA devices are to know */
};

/** Allocate, without telling an engine. @return as slu_region_alloc() */
int region_create(uint64_t length_bytes, const struct slu_region_options *options,
		  struct slu_region **region);

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
