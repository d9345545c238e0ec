/* SPDX-License-Identifier: Apache-2.0 */
#include "common/grants.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "common/options.h"

static const char *const names[] = {"none", "read", "write", "read,write",
				    NULL}; /* enum slu_right */

static int no_memory(void)
{
	return fail(-ENOMEM, "out of memory for the identities");
}

const char *grants_rights_name(uint32_t rights)
{
	return names[rights & (SLU_RIGHT_READ | SLU_RIGHT_WRITE)];
}

int grants_check_identity(const char *identity, const char *where)
{
	size_t length = strlen(identity);

	for (size_t i = 0; i < length; i++)
		if (!isgraph((unsigned char)identity[i]) || strchr("];", identity[i]))
			length = 0;
	if (!length || length > SLU_IDENTITY_MAX)
		return fail(-EINVAL,
			    "%s: \"%.80s\" is no identity: 1 to %d printable characters without "
			    "blanks, ']' and ';', or * for everybody",
			    where, identity, SLU_IDENTITY_MAX);
	return 0;
}

static int check_segment(const char *segment, const char *where)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789._-";
	size_t length = strlen(segment);

	if (!strcmp(segment, "*"))
		return 0;
	if (!length || length > SLU_NAME_MAX || segment[strspn(segment, allowed)])
		return fail(-EINVAL,
			    "%s: \"%.80s\" is no segment name: 1 to %d letters, digits, dots, "
			    "dashes and underscores, or * for all",
			    where, segment, SLU_NAME_MAX);
	return 0;
}

static int parse_right(const char *word, size_t length, uint32_t *rights)
{
	for (uint32_t i = 0; i <= SLU_RIGHT_WRITE; i++) {
		if (strlen(names[i]) == length && !strncmp(names[i], word, length)) {
			*rights |= i;
			return 0;
		}
	}
	return -EINVAL;
}

/* Words of `names` between commas and blanks; "none" only alone. */
static int parse_rights(const char *text, uint32_t *rights)
{
	const char *at = text + strspn(text, ", ");
	uint32_t words = 0;
	bool none = false;

	for (*rights = 0; *at; at += strspn(at, ", ")) {
		size_t length = strcspn(at, ", ");

		if (parse_right(at, length, rights))
			return -EINVAL;
		none = none || !strncmp(at, names[0], length);
		words++;
		at += length;
	}
	return words && (!none || words == 1) ? 0 : -EINVAL;
}

static int fail_rights(const char *text, const char *where)
{
	const char *near = option_nearest_word(names, text);

	return fail(-EINVAL, "%s: \"%.80s\" is none of: read, write, read,write, none%s%s%s", where,
		    text, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int append(struct grants *grants, const struct slu_grant *grant, uint32_t line)
{
	size_t count = grants->count + 1;
	struct slu_grant *items = reallocarray(grants->items, count, sizeof(*items));
	uint32_t *lines;

	if (!items)
		return no_memory();
	grants->items = items;
	lines = reallocarray(grants->lines, count, sizeof(*lines));
	if (!lines)
		return no_memory();
	grants->lines = lines;
	items[grants->count] = *grant;
	lines[grants->count++] = line;
	return 0;
}

int grants_add_line(struct grants *grants, const char *identity, const char *segment,
		    const char *rights, uint32_t line, const char *where)
{
	struct slu_grant grant = {.identity = identity};
	int rc = check_segment(segment, where);

	if (rc)
		return rc;
	if (parse_rights(rights, &grant.rights))
		return fail_rights(rights, where);
	if (grants->count == SLU_GRANTS_MAX)
		return fail(-E2BIG, "%s: over %d rights: grant by * where that is meant", where,
			    SLU_GRANTS_MAX);
	grant.segment = texts_keep(&grants->texts, segment, strlen(segment));
	if (!grant.segment)
		return no_memory();
	return append(grants, &grant, line);
}

static int find_limit(const char *name)
{
	for (int i = 0; i < SLU_LIMIT_COUNT; i++)
		if (!strcmp(slu_limit_name((enum slu_limit)i), name))
			return i;
	return -1;
}

bool grants_is_limit(const char *name)
{
	return find_limit(name) >= 0;
}

/* Its limits so far, or none. @return NULL out of memory */
static struct slu_identity_limits *limits_of(struct grants *grants, const char *identity)
{
	struct slu_identity_limits *limits;

	for (uint32_t i = 0; i < grants->limits_count; i++)
		if (!strcmp(grants->limits[i].identity, identity))
			return &grants->limits[i];
	limits = reallocarray(grants->limits, (size_t)grants->limits_count + 1, sizeof(*limits));
	if (!limits)
		return NULL;
	grants->limits = limits;
	limits += grants->limits_count++;
	*limits = (struct slu_identity_limits){.identity = identity};
	return limits;
}

int grants_add_limit(struct grants *grants, const char *identity, const char *name,
		     const char *value, const char *where)
{
	int kind = find_limit(name);
	struct slu_identity_limits *limits;
	uint64_t number;

	if (!strcmp(identity, "*"))
		return fail(-EINVAL,
			    "%s: %s of all identities is an option: write it under [target]", where,
			    name);
	if (option_parse_size(value, &number) || !number)
		return fail(-EINVAL,
			    "%s: %s = \"%.80s\": %s are limited to a number of at least 1; "
			    "segments cannot have that name here",
			    where, name, value, slu_limit_text((enum slu_limit)kind));
	limits = limits_of(grants, identity);
	if (!limits)
		return no_memory();
	if (limits->limits[kind])
		return fail(-EINVAL, "%s: %s of identity %s is set already: leave one of them out",
			    where, name, identity);
	limits->limits[kind] = number;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct slu_grant *const *left = a, *const *right = b;
	int order = strcmp((*left)->identity, (*right)->identity);

	return order ? order : strcmp((*left)->segment, (*right)->segment);
}

/* Pointers to the grants, by identity and segment. @return NULL out of memory */
static const struct slu_grant **sorted(const struct grants *grants)
{
	const struct slu_grant **order = calloc(grants->count + 1, sizeof(const void *));

	for (uint32_t i = 0; order && i < grants->count; i++)
		order[i] = &grants->items[i];
	if (order)
		qsort(order, grants->count, sizeof(const void *), compare);
	return order;
}

int grants_check_unique(const struct grants *grants, const char *path)
{
	const struct slu_grant **order = sorted(grants);
	int rc = 0;

	if (!order)
		return no_memory();
	for (uint32_t i = 1; i < grants->count && !rc; i++) {
		uint32_t one = grants->lines[order[i - 1] - grants->items];
		uint32_t other = grants->lines[order[i] - grants->items];

		if (!compare(&order[i - 1], &order[i]))
			rc = fail(-EINVAL,
				  "%s:%u: %s of identity %s is granted in line %u already: leave "
				  "one of them out",
				  path, one > other ? one : other, order[i]->segment,
				  order[i]->identity, one > other ? other : one);
	}
	free(order);
	return rc;
}

/* One of the two can be missing. @return 1 they differ */
static int print_change(const struct slu_grant *before, const struct slu_grant *after, FILE *out)
{
	const struct slu_grant *any = after ? after : before;

	if (before && after && before->rights == after->rights)
		return 0;
	fprintf(out, "  %s on %s: %s, was %s\n", any->identity, any->segment,
		after ? grants_rights_name(after->rights) : "no line",
		before ? grants_rights_name(before->rights) : "no line");
	return 1;
}

int grants_print_changes(const struct grants *before, const struct grants *after, FILE *out)
{
	const struct slu_grant **old = sorted(before), **new = sorted(after);
	uint32_t i = 0, j = 0;
	int changes = 0;

	if (!old || !new)
		changes = no_memory();
	while (changes >= 0 && (i < before->count || j < after->count)) {
		int order = i == before->count  ? 1
			    : j == after->count ? -1
						: compare(&old[i], &new[j]);

		changes +=
			print_change(order <= 0 ? old[i] : NULL, order >= 0 ? new[j] : NULL, out);
		i += order <= 0;
		j += order >= 0;
	}
	free(old);
	free(new);
	return changes;
}

void grants_fini(struct grants *grants)
{
	free(grants->items);
	free(grants->lines);
	free(grants->limits);
	texts_fini(&grants->texts);
	*grants = (struct grants){0};
}
