/* SPDX-License-Identifier: Apache-2.0 */
#include "control/access.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/segment.h>

#include "base/log.h"
#include "base/sized.h"

#define ALL_RIGHTS (uint32_t)(SLU_RIGHT_READ | SLU_RIGHT_WRITE)

struct entry {
	char identity[SLU_IDENTITY_MAX + 1];
	char segment[SLU_NAME_MAX + 1];
	uint32_t rights;
};

/* Ordered by identity, then by segment. */
struct access {
	uint32_t count;
	struct entry entries[];
};

/* 1..SLU_IDENTITY_MAX printable characters, no space. */
static bool is_identity(const char *identity)
{
	size_t length = strlen(identity);

	if (length == 0 || length > SLU_IDENTITY_MAX)
		return false;
	for (const char *c = identity; *c; c++)
		if (!isgraph((unsigned char)*c))
			return false;
	return true;
}

static bool segment_valid(const char *segment)
{
	size_t length = strlen(segment);

	if (strcmp(segment, "*") == 0)
		return true;
	for (const char *c = segment; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("._-", *c))
			return false;
	return length > 0 && length <= SLU_NAME_MAX;
}

static int check(const struct slu_grant *grant)
{
	if (!grant->identity || !is_identity(grant->identity))
		return fail(-EINVAL,
			    "grant for identity \"%.80s\": 1 to %d printable characters without "
			    "spaces, or *",
			    grant->identity ? grant->identity : "", SLU_IDENTITY_MAX);
	if (!grant->segment || !segment_valid(grant->segment))
		return fail(-EINVAL,
			    "grant for %s on segment \"%.80s\": 1 to %d letters, digits and . _ -, "
			    "or *",
			    grant->identity, grant->segment ? grant->segment : "", SLU_NAME_MAX);
	if (grant->rights & ~ALL_RIGHTS)
		return fail(-EINVAL,
			    "grant for %s on segment %s: rights are a set of READ and "
			    "WRITE",
			    grant->identity, grant->segment);
	return sized_check_reserved("slu_grant.reserved", grant->reserved, sizeof(grant->reserved));
}

static int compare(const void *a, const void *b)
{
	const struct entry *one = a, *other = b;
	int order = strcmp(one->identity, other->identity);

	return order ? order : strcmp(one->segment, other->segment);
}

static int fill(struct access *access, const struct slu_grant *grants, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct entry *entry = &access->entries[i];
		int rc = check(&grants[i]);

		if (rc < 0)
			return rc;
		strcpy(entry->identity, grants[i].identity);
		strcpy(entry->segment, grants[i].segment);
		entry->rights = grants[i].rights;
	}
	access->count = count;
	qsort(access->entries, count, sizeof(access->entries[0]), compare);
	for (uint32_t i = 1; i < count; i++)
		if (compare(&access->entries[i - 1], &access->entries[i]) == 0)
			return fail(-EINVAL, "there are two grants for %s on segment %s: keep one",
				    access->entries[i].identity, access->entries[i].segment);
	return 0;
}

int access_create(const struct slu_grant *grants, uint32_t count, struct access **out)
{
	struct access *access;
	int rc;

	if (count > SLU_GRANTS_MAX)
		return fail(-EINVAL, "%u grants, at most %d are possible", count, SLU_GRANTS_MAX);
	access = calloc(1, sizeof(*access) + count * sizeof(access->entries[0]));
	if (!access)
		return fail(-ENOMEM, "out of memory");
	rc = fill(access, grants, count);
	if (rc < 0) {
		access_destroy(access);
		return rc;
	}
	*out = access;
	return 0;
}

bool access_is_open(const struct access *access)
{
	return access->count == 0;
}

void access_destroy(struct access *access)
{
	free(access);
}

static const struct entry *find(const struct access *access, const char *identity,
				const char *segment)
{
	struct entry wanted = {0};

	if (strlen(identity) > SLU_IDENTITY_MAX || strlen(segment) > SLU_NAME_MAX)
		return NULL;
	strcpy(wanted.identity, identity);
	strcpy(wanted.segment, segment);
	return bsearch(&wanted, access->entries, access->count, sizeof(wanted), compare);
}

uint32_t access_rights(const struct access *access, const char *identity, bool owner,
		       const char *segment)
{
	const struct entry *entry;

	if (access_is_open(access))
		return ALL_RIGHTS;
	entry = find(access, identity, segment);
	if (!entry)
		entry = find(access, identity, "*");
	if (!entry && owner)
		return ALL_RIGHTS;
	if (!entry)
		entry = find(access, "*", segment);
	if (!entry)
		entry = find(access, "*", "*");
	return entry ? entry->rights : 0;
}

/* The first entry of @p identity or behind where it would be. */
static uint32_t lower_bound(const struct access *access, const char *identity)
{
	uint32_t low = 0, high = access->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (strcmp(access->entries[middle].identity, identity) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* @return 1 some right; 0 none; -1 none, and nothing that others have either */
static int own_rights(const struct access *access, const char *identity)
{
	bool of_all = false;

	for (uint32_t i = lower_bound(access, identity);
	     i < access->count && strcmp(access->entries[i].identity, identity) == 0; i++) {
		if (access->entries[i].rights)
			return 1;
		of_all |= strcmp(access->entries[i].segment, "*") == 0;
	}
	return of_all ? -1 : 0;
}

bool access_any(const struct access *access, const char *identity, bool owner)
{
	int own;

	if (access->count == 0)
		return true;
	own = own_rights(access, identity);
	if (own != 0)
		return own > 0;
	return owner || own_rights(access, "*") > 0;
}
