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

#define PAGE_ORDINARY_BYTES UINT64_C(4096)
#define PAGE_2M_BYTES       (UINT64_C(2) << 20)

struct arena {
	void *addr;
	uint64_t mapped_bytes; /* whole pages */
	uint64_t page_bytes;
	int fd; /* -1 when private */
};

/**
 * Make an arena of at least @p length_bytes zeroed, touched bytes.
 *
 * The memfd is sealed against shrinking and growing, so that whoever maps it need not fear SIGBUS.
 *
 * @return 0; -EINVAL no such node; -ENOMEM no memory, no hugepages, memlock limit; -EMFILE
 */
int arena_create(uint64_t length_bytes, const struct slu_region_options *options,
		 struct arena *arena);

/** Unmap and close. */
void arena_destroy(struct arena *arena);

/**
 * Forbid every other process, for ever, to map the memory writable; mappings of this one stay.
 *
 * @return 0; -EINVAL a private arena, or a kernel older than 5.1
 */
int arena_seal_against_writing(const struct arena *arena);

#endif
