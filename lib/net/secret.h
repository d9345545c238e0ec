/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Memory for keys: pages that no core dump has, that are not swapped out where the memlock limit
 * allows it, and that are wiped before they are given back.
 *
 * What OpenSSL makes of a key lives where OpenSSL puts it: a private key in its secure heap, which
 * is such memory too; what it derives for a connection in ordinary memory.
 */
#ifndef NET_SECRET_H
#define NET_SECRET_H

#include <stdbool.h>
#include <stddef.h>

#define SECRET_MAX_BYTES (256u << 20) /* a file of a million pre-shared keys */

/** Zeroed. @return NULL: out of memory */
void *secret_alloc(size_t size);

/** @param size  as it was asked for. Accepts NULL. */
void secret_free(void *memory, size_t size);

/** The text of a file, with a NUL. */
struct secret_text {
	char *text;
	size_t length;
	size_t size; /* of its memory */
};

/**
 * Read a file of secrets, which nobody but its owner may read.
 *
 * @param what  what it is, for the message: "key file"
 * @return      0, secret_text_free() afterwards; -EPERM others may read it; -EINVAL a NUL in it,
 *              or over SECRET_MAX_BYTES; -ENOMEM; errors of open and read
 */
int secret_read(const char *what, const char *path, struct secret_text *text);

/** Accepts what is zeroed. */
void secret_text_free(struct secret_text *text);

/**
 * Wipe what was freed lately by this thread, as far as it is to be had: OpenSSL's decoders leave
 * what they have read in memory that they give back. No piece of it was longer than @p longest.
 */
void secret_wipe_freed(size_t longest);

/**
 * Wipe what the functions that the caller has called left on the stack, and in registers: the
 * dynamic linker saves those on the stack.
 */
void secret_wipe_stack(void);

/** Have OpenSSL keep private keys in a heap of the same kind. Once per process; any thread. */
void secret_heap(void);

#endif
