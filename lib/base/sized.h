/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Structs of the public interface that begin with their size, and so can grow: what the caller's
 * release has of them, and what ours has. The rules that a caller sees stand in sluice/engine.h.
 *
 * To add a field, put it at the end, without a hole before or behind it; an option's default is
 * that of who never heard of it. Everything else follows from sizeof.
 */
#ifndef BASE_SIZED_H
#define BASE_SIZED_H

#include <stddef.h>

/** Ours of one such struct. */
struct sized {
	const char *name; /* of the type */
	size_t size;
	size_t size_min;      /* of its form in release 1.0 */
	size_t reserved_at;   /* bytes that must be zero; options only */
	size_t reserved_size; /* 0 = none */
	const void *defaults; /* options only */
};

/** @p last is the field with which @p type ended in release 1.0. */
#define SIZED(type, last)                                                                          \
	.name = #type, .size = sizeof(struct type),                                                \
	.size_min = offsetof(struct type, last) + sizeof(((struct type *)NULL)->last)

#define SIZED_RESERVED(type)                                                                       \
	.reserved_at = offsetof(struct type, reserved),                                            \
	.reserved_size = sizeof(((struct type *)NULL)->reserved)

/** Write @p size bytes: the defaults, and zeros where we have no field; the size itself first. */
void sized_init(const struct sized *ours, void *options, size_t size);

/**
 * Make our form of what a caller has given: the defaults, and over them what it knows.
 *
 * @param given  read up to its size, nothing of it if that cannot be; NULL = the defaults
 * @param taken  ours->size bytes, written on success only
 * @return       0; -EINVAL the size; -E2BIG something that we do not know is not zero
 */
int sized_take(const struct sized *ours, const void *given, void *taken);

/**
 * Tell a caller: what it knows of @p own, and zeros where we have no field; its size stays.
 *
 * @param info  with the caller's size; written on success only
 * @return      0; -EINVAL the size
 */
int sized_give(const struct sized *ours, const void *own, void *info);

/**
 * For what cannot grow by its size: are the bytes zero that have no meaning yet?
 *
 * @param what  whose bytes they are, for the message
 * @return      0; -E2BIG
 */
int sized_check_reserved(const char *what, const void *reserved, size_t size);

#endif
