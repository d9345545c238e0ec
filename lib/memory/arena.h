/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Arenas: the memory under regions. A sealed memfd (or, private, an anonymous mapping), on 2 MiB or
 * ordinary pages, bound to a NUMA node, touched in parallel before it is handed out.
 */
#ifndef MEMORY_ARENA_H
#define MEMORY_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/memory.h>

#include "memory/guard.h"

#define PAGE_ORDINARY_BYTES UINT64_C(4096)
#define PAGE_2M_BYTES       (UINT64_C(2) << 20)

struct arena {
	void *addr;
	uint64_t mapped_bytes; /* whole pages */
	uint64_t page_bytes;
	int fd;              /* -1 when private */
	struct guard *guard; /* once it is shared; else NULL */
};

/**
 * Make an arena of at least @p length_bytes zeroed, touched bytes.
 *
 * The memfd is sealed against shrinking and growing, and its contents are left out of core dumps.
 *
 * @return 0; -EINVAL no such node; -ENOMEM no memory, no hugepages, memlock limit; -EMFILE
 */
int arena_create(uint64_t length_bytes, const struct slu_region_options *options,
		 struct arena *arena);

/** Unmap and close. */
void arena_destroy(struct arena *arena);

/**
 * Get it ready for being mapped by other processes, whatever they do with it: its seals are made
 * final, and a loss of its pages is survived (guard.h). Again for the same arena, not at the same
 * time: what was sealed stays so.
 *
 * @param others_write  other processes may map it writable, and so also punch holes into it; if
 *                      not, none ever can, while the mapping of this one stays writable
 * @return              0; 1 others_write, but it is sealed against writing already; -EBUSY not
 *                      others_write, but it was shared for that; -EINVAL a private arena, or a
 *                      kernel older than 5.1; as guard_add()
 */
int arena_share(struct arena *arena, bool others_write);

#endif
