/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * --allow-user and the like: names or numbers of users to uids.
 */
#ifndef COMMON_USERS_H
#define COMMON_USERS_H

#include <stdint.h>
#include <sys/types.h>

#include "common/options.h"

/**
 * @param flag  for messages
 * @param uids  out: one for each item of @p users
 * @param max   room in @p uids
 * @return      how many; -ENOENT no such user; -E2BIG more than @p max
 */
int users_resolve(const char *flag, const struct option_list *users, uid_t *uids, uint32_t max);

#endif
