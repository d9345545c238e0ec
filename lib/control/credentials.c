/* SPDX-License-Identifier: Apache-2.0 */
#include "control/credentials.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

#define OVERFLOW_UID 65534u /* unless the kernel says something else */

/* @return the number that the file begins with; @p otherwise: it cannot be read */
static uint64_t number_in(const char *path, int skipped, uint64_t otherwise)
{
	FILE *file = fopen(path, "re");
	uint64_t number = otherwise;

	if (!file)
		return otherwise;
	while (skipped-- > 0 && fscanf(file, "%*u") == 0)
		;
	if (fscanf(file, "%" SCNu64, &number) != 1)
		number = otherwise;
	fclose(file);
	return number;
}

/*
 * In a user namespace the kernel shows all users of whom the namespace has no number as one. Only
 * the first namespace has a number for everybody: its map is one line, 0 0 4294967295.
 */
bool credentials_ambiguous(uid_t uid)
{
	return uid == number_in("/proc/sys/kernel/overflowuid", 0, OVERFLOW_UID) &&
	       number_in("/proc/self/uid_map", 2, 0) != UINT32_MAX;
}

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
	if (credentials_ambiguous(peer->uid))
		return fail(-EACCES,
			    "user %u (process %d) is not allowed: in this user namespace that "
			    "number stands for every user whom it does not map, and --allow-user "
			    "cannot mean one of them: add the user to the namespace's uid_map",
			    peer->uid, peer->pid);
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
