/* SPDX-License-Identifier: Apache-2.0 */
#include "control/credentials.h"

#include <errno.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
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

int credentials_check(int fd, const struct trust *trust, struct ucred *peer)
{
	socklen_t length = sizeof(*peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &length) < 0)
		return fail(-errno, "cannot learn who the peer is: %s", strerror(errno));
	if (!trusted(trust, peer->uid))
		return fail(
			-EACCES,
			"user %u (process %d) is not allowed: only user %u, root and those named "
			"with --allow-user are",
			peer->uid, peer->pid, geteuid());
	return 0;
}

void credentials_identity(uid_t uid, char identity[SLU_IDENTITY_MAX + 1])
{
	struct passwd entry, *found = NULL;
	char texts[4096];

	if (getpwuid_r(uid, &entry, texts, sizeof(texts), &found) == 0 && found &&
	    strlen(found->pw_name) + strlen("user:") <= SLU_IDENTITY_MAX)
		snprintf(identity, SLU_IDENTITY_MAX + 1, "user:%s", found->pw_name);
	else
		snprintf(identity, SLU_IDENTITY_MAX + 1, "user:%u", uid);
}
