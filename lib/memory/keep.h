/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_KEEP_H
#define MEMORY_KEEP_H

#include <stddef.h>
#include <sys/mman.h>

/**
 * What users have in a mapping is in no core dump, and not in a child of a fork: it has no use of
 * it, and what it did not share with us it would have copied, from under devices.
 */
static inline void memory_keep(void *addr, size_t length_bytes)
{
	madvise(addr, length_bytes, MADV_DONTDUMP);
	madvise(addr, length_bytes, MADV_DONTFORK);
}

#endif
