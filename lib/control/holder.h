/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who has a name or a path that we want to listen at. Anybody on the host may take an abstract
 * name, also only to keep others from it.
 */
#ifndef CONTROL_HOLDER_H
#define CONTROL_HOLDER_H

#include <sys/socket.h>
#include <sys/un.h>

#include "control/credentials.h"

/**
 * Say who listens at @p address and what can be done about it. Waits for up to half a second, to
 * see whether it answers as a target does.
 *
 * @param text  the address, for people
 * @return      -EADDRINUSE with slu_last_error(); -EPERM: the same, and it is a user whom we don't
 *              deal with
 */
int holder_explain(const char *text, const struct sockaddr_un *address, socklen_t length,
		   const struct trust *trust);

#endif
