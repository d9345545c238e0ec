/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who is at the other end of a Unix socket, and is that somebody we deal with: our own user, root,
 * and users that were allowed by name. Both ends ask.
 */
#ifndef CONTROL_CREDENTIALS_H
#define CONTROL_CREDENTIALS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <sluice/engine.h>

struct trust {
	uint32_t count;
	uid_t uids[SLU_ALLOWED_UIDS_MAX];
};

/**
 * @param peer  out: who it is; its pid is 0 when it is in another PID namespace
 * @return      0; -EACCES a user that is not allowed, or one that stands for several in this user
 *              namespace; slu_last_error() names it; -errno
 */
int credentials_check(int fd, const struct trust *trust, struct ucred *peer);

/** Does @p uid stand for users who can't be told apart? It never is anybody whom we deal with. */
bool credentials_ambiguous(uid_t uid);

/** "user:NAME", or "user:UID" where the user has no name; may ask the network. Any thread. */
void credentials_identity(uid_t uid, char identity[SLU_IDENTITY_MAX + 1]);

#endif
