/* SPDX-License-Identifier: Apache-2.0 */
#include "common/users.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>

#include "base/log.h"

static int resolve(const char *flag, const char *user, uid_t *uid)
{
	struct passwd *entry;
	unsigned long number;
	char *end;

	errno = 0;
	number = strtoul(user, &end, 10);
	if (isdigit((unsigned char)user[0]) && !*end && !errno && number < (uid_t)-1) {
		*uid = (uid_t)number;
		return 0;
	}
	entry = getpwnam(user);
	if (!entry)
		return fail(-ENOENT,
			    "--%s: no user \"%.80s\" on this host: give a name that "
			    "getent passwd knows, or a uid",
			    flag, user);
	*uid = entry->pw_uid;
	return 0;
}

int users_resolve(const char *flag, const struct option_list *users, uid_t *uids, uint32_t max)
{
	if (users->count > max)
		return fail(-E2BIG, "--%s: at most %u users", flag, max);
	for (uint32_t i = 0; i < users->count; i++) {
		int rc = resolve(flag, users->items[i], &uids[i]);

		if (rc)
			return rc;
	}
	return (int)users->count;
}
