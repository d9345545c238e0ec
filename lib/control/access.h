/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who has which rights on which segment: the table of grants. Immutable once made.
 *
 * The most specific grant counts: (identity, segment), then (identity, *), then (*, segment), then
 * (*, *); none is no right. Without any grants whoever was let in has every right. Our own user and
 * root, over a Unix socket, have every right that no grant with their identity takes away.
 */
#ifndef CONTROL_ACCESS_H
#define CONTROL_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/security.h>

struct access;

/** @return 0; -EINVAL a bad identity, segment or right, or one twice; -ENOMEM */
int access_create(const struct slu_grant *grants, uint32_t count, struct access **access);

/** Without any grants, so that whoever was let in has every right? */
bool access_is_open(const struct access *access);

/** Accepts NULL. */
void access_destroy(struct access *access);

/**
 * @param owner  our own user or root, over a Unix socket
 * @return       a set of enum slu_right
 */
uint32_t access_rights(const struct access *access, const char *identity, bool owner,
		       const char *segment);

/** May @p identity do anything with any segment? */
bool access_any(const struct access *access, const char *identity, bool owner);

#endif
