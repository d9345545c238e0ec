/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * --allow-user: names or numbers of users to uids.
 */
#ifndef COMMON_USERS_H
#define COMMON_USERS_H

#include <stdint.h>
#include <sys/types.h>

#include "base/options.h"

/**
 * @param uids  out: one for each item of @p users
 * @param max   room in @p uids
 * @return      how many; -ENOENT no such user; -E2BIG more than @p max
 */
int users_resolve(const struct option_list *users, uid_t *uids, uint32_t max);

#endif
