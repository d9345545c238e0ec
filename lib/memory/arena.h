/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Arenas: the memory under regions. A sealed memfd (or, private, an anonymous mapping), on 2 MiB or
 * ordinary pages, bound to a NUMA node, touched in parallel before it is handed out; or memory of
 * others, by its descriptor.
 */
#ifndef MEMORY_ARENA_H
#define MEMORY_ARENA_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/memory.h>

#include "memory/guard.h"

#define PAGE_ORDINARY_BYTES UINT64_C(4096)
#define PAGE_2M_BYTES       (UINT64_C(2) << 20)

enum arena_origin {
	ARENA_OWN,
	ARENA_IMPORTED, /* shared memory that others made */
	ARENA_DMABUF,   /* likewise */
};

struct arena {
	void *addr;
	uint64_t mapped_bytes; /* whole pages */
	uint64_t page_bytes;
	enum arena_origin origin;
	uint64_t offset;     /* of its first byte in the file */
	uint64_t end_bytes;  /* ARENA_OWN: in its file, from where on nothing is anybody's */
	int fd;              /* -1 when private */
	struct guard *guard; /* once it is shared; else NULL */
};

/** Who maps what is shared, a bit set. */
enum arena_sharing {
	ARENA_WRITTEN = 1, /* others write, and so may also punch holes into the file */
	ARENA_SEALED = 2,  /* nobody ever writes: others can map it for reading only */
	ARENA_WHOLE = 4,   /* who has the descriptor reaches no more than what is shared */
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

/**
 * Map what others made: a memfd or any other shared memory, or a dmabuf. Of it nothing is changed;
 * that pages of it are taken away is survived from now on (guard.h).
 *
 * @param fd            stays the caller's, ours is a duplicate
 * @param offset        whole pages
 * @param length_bytes  0 = to the end; out: what it is
 * @return              0; -EBADF; -EINVAL no memory, an offset within a page, a range that wraps,
 *                      options that cannot be met; -EACCES not open for reading and writing, or
 *                      sealed; -ERANGE beyond its end; -EOPNOTSUPP the CPU cannot map it; -EMFILE,
 *                      -ENOMEM
 */
int arena_import(int fd, uint64_t offset, uint64_t *length_bytes,
		 const struct slu_region_options *options, struct arena *arena);

/** The device that made it may have it again; accepts any arena. */
void arena_return(const struct arena *arena);

/** An imported one: see arena_share(). @return the seals that are in force; -EOPNOTSUPP, -errno */
int arena_seal_import(const struct arena *arena, unsigned wanted);

/** An imported one: the length of its file, which can change until it is sealed. */
uint64_t arena_import_end(const struct arena *arena);

/** @return 0; -ENOMEM over the memlock limit */
int arena_lock(const struct arena *arena);

/** Unmap and close. */
void arena_destroy(struct arena *arena);

/**
 * Get a part of it ready for being mapped by other processes, whatever they do with it: a loss of
 * its pages is survived (guard.h). Again for the same arena, not at the same time: what was sealed
 * stays so.
 *
 * A descriptor reaches the whole file, whatever part of it is shared. So seals are of the file too:
 * they are made final when it is written by others, or sealed against that. Imported memory is
 * sealed against shrinking and growing, never against writing: it is others' as well.
 *
 * @param wanted  ARENA_WRITTEN, ARENA_SEALED or 0: others read this part, and what they do
 *                otherwise is left to other parts
 * @return        what holds: ARENA_WRITTEN is missing if it is sealed against that already,
 *                ARENA_WHOLE says of which kind the part is; -EOPNOTSUPP it cannot be mapped by
 *                others, slu_last_error() says why; -EBUSY to be sealed, but it was shared for
 *                being written; -EINVAL a kernel older than 5.1; as guard_add()
 */
int arena_share(struct arena *arena, uint64_t offset, uint64_t length_bytes, unsigned wanted);

#endif
