/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sized.h"

#include <errno.h>
#include <string.h>

#include <sluice/sluice.h>

#include "base/log.h"

static size_t smaller(size_t one, size_t other)
{
	return one < other ? one : other;
}

/* @return the position of the first byte that is not zero; size: there is none */
static size_t find_nonzero(const unsigned char *bytes, size_t size)
{
	size_t i = 0;

	while (i < size && bytes[i] == 0)
		i++;
	return i;
}

static int refuse_unknown(const char *what, size_t at)
{
	return fail(
		-E2BIG,
		"%s, byte %zu: the program was built for a newer libsluice and asks for what "
		"%s does not know: install the newer one, or leave it as the init function does",
		what, at, slu_version());
}

int sized_check_reserved(const char *what, const void *reserved, size_t size)
{
	size_t at = find_nonzero(reserved, size);

	return at < size ? refuse_unknown(what, at) : 0;
}

/* The size as it stands in the caller's struct, which is read no further. */
static int take_size(const struct sized *ours, const void *theirs, size_t *size)
{
	memcpy(size, theirs, sizeof(*size));
	if (*size < ours->size_min || *size > SLU_STRUCT_SIZE_MAX)
		return fail(-EINVAL,
			    "%s.size is %zu, which no release has: set it to sizeof(struct %s)%s",
			    ours->name, *size, ours->name,
			    ours->defaults ? " by the init function" : "");
	return 0;
}

void sized_init(const struct sized *ours, void *options, size_t size)
{
	memset(options, 0, size);
	memcpy(options, ours->defaults, smaller(size, ours->size));
	memcpy(options, &size, smaller(size, sizeof(size)));
}

static int check_unknown(const struct sized *ours, const unsigned char *given, size_t size)
{
	size_t at = ours->reserved_at;

	at += find_nonzero(given + at, ours->reserved_size);
	if (at < ours->reserved_at + ours->reserved_size)
		return refuse_unknown(ours->name, at);
	at = ours->size;
	if (size > at)
		at += find_nonzero(given + at, size - at);
	return at < size ? refuse_unknown(ours->name, at) : 0;
}

int sized_take(const struct sized *ours, const void *given, void *taken)
{
	size_t size = 0;
	int rc;

	if (given) {
		rc = take_size(ours, given, &size);
		if (rc == 0)
			rc = check_unknown(ours, given, size);
		if (rc < 0)
			return rc;
	}
	memcpy(taken, ours->defaults, ours->size);
	if (given)
		memcpy(taken, given, smaller(size, ours->size));
	memcpy(taken, &ours->size, sizeof(ours->size));
	return 0;
}

int sized_give(const struct sized *ours, const void *own, void *info)
{
	unsigned char *to = info;
	size_t size, known;
	int rc = take_size(ours, info, &size);

	if (rc < 0)
		return rc;
	known = smaller(size, ours->size);
	memcpy(to, own, known);
	memset(to + known, 0, size - known);
	memcpy(to, &size, sizeof(size));
	return 0;
}
