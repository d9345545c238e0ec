/* SPDX-License-Identifier: Apache-2.0 */
#include "control/credentials.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

static bool trusted(const struct trust *trust, uid_t uid)
{
	if (uid == geteuid() || uid == 0)
		return true;
	for (uint32_t i = 0; i < trust->count; i++)
		if (trust->uids[i] == uid)
			return true;
	return false;
}

int credentials_check(int fd, const struct trust *trust, pid_t *pid)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return fail(-errno, "cannot learn who the peer is: %s", strerror(errno));
	if (!trusted(trust, peer.uid))
		return fail(
			-EACCES,
			"user %u (process %d) is not allowed: only user %u, root and those named "
			"with --allow-user are",
			peer.uid, peer.pid, geteuid());
	*pid = peer.pid;
	return 0;
}
