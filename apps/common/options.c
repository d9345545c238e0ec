/* SPDX-License-Identifier: Apache-2.0 */
#include "common/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define SHOWN "%.80s" /* of what the user typed: a message stays one readable line */

static char folded(char c)
{
	return c == '_' ? '-' : c;
}

static bool name_equal(const char *name, const char *text, size_t text_len)
{
	size_t i = 0;

	for (; i < text_len && name[i]; i++)
		if (folded(name[i]) != folded(text[i]))
			return false;
	return i == text_len && !name[i];
}

static const struct option_spec *find(const struct options *options, const char *name, size_t len)
{
	for (uint32_t i = 0; i < options->count; i++)
		if (name_equal(options->specs[i].name, name, len))
			return &options->specs[i];
	return NULL;
}

/* Levenshtein's distance; names are short, so one row of the table is enough. */
static size_t distance(const char *a, const char *b, size_t b_len)
{
	size_t row[OPTION_NAME_MAX + 1];

	for (size_t j = 0; j <= b_len; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1]; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= b_len; j++) {
			size_t best = diagonal + (folded(a[i - 1]) != folded(b[j - 1]));

			diagonal = row[j];
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			row[j] = best;
		}
	}
	return row[b_len];
}

/* Keep @p word as the best one so far if it takes fewer edits than *least. */
static void consider(const char *word, const char *text, size_t len, size_t *least,
		     const char **found)
{
	size_t edits = distance(word, text, len);

	if (edits < *least) {
		*least = edits;
		*found = word;
	}
}

static const char *nearest(const struct options *options, const char *name, size_t len)
{
	size_t least = len / 3 + 2;
	const char *found = NULL;

	for (uint32_t i = 0; i < options->count && len <= OPTION_NAME_MAX; i++)
		consider(options->specs[i].name, name, len, &least, &found);
	return found;
}

const char *options_nearest(const struct options *options, const char *name)
{
	return nearest(options, name, strlen(name));
}

const char *option_nearest_word(const char *const *words, const char *text)
{
	size_t len = strlen(text), least = len / 3 + 2;
	const char *found = NULL;

	for (; *words && len <= OPTION_NAME_MAX; words++)
		consider(*words, text, len, &least, &found);
	return found;
}

static int fail_unknown(const struct options *options, const char *name, size_t len,
			const char *where)
{
	const char *dashes = options->now.source == OPTION_FROM_COMMAND_LINE ? "--" : "";
	const char *near = nearest(options, name, len);

	if (near)
		return fail(-ENOENT, "unknown option " SHOWN ": did you mean %s%s?", where, dashes,
			    near);
	return fail(-ENOENT, "unknown option " SHOWN ": --help lists them all", where);
}

static void *field(const struct options *options, const struct option_spec *spec)
{
	return (char *)options->values + spec->offset;
}

/* Magnitude of a decimal (or, where allowed, 0x) number; *end is left behind the digits. */
static int parse_digits(const char *text, bool hexadecimal, uint64_t *number, const char **end)
{
	bool hex = hexadecimal && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hex ? text + 2 : text;
	char *behind;

	if (hex ? !isxdigit((unsigned char)digits[0]) : !isdigit((unsigned char)digits[0]))
		return -EINVAL;
	errno = 0;
	*number = strtoull(digits, &behind, hex ? 16 : 10);
	*end = behind;
	return errno == ERANGE ? -ERANGE : 0;
}

/* Position of @p suffix in "KMGT" plus one, 0 for none; -1 for what is no suffix. */
static int unit_of(const char *suffix, const char *units)
{
	const char *found;

	if (!*suffix)
		return 0;
	found = strchr(units, toupper((unsigned char)suffix[0]));
	if (!found)
		return -1;
	return suffix[1] == '\0' || !strcmp(suffix + 1, "iB") ? (int)(found - units) + 1 : -1;
}

int option_parse_size(const char *text, uint64_t *bytes)
{
	const char *suffix;
	uint64_t number;
	int unit;
	int rc = parse_digits(text, false, &number, &suffix);

	if (rc)
		return rc;
	unit = unit_of(suffix, "KMGT");
	if (unit < 0)
		return -EINVAL;
	if (unit && number > UINT64_MAX >> (10 * unit))
		return -ERANGE;
	*bytes = number << (10 * unit);
	return 0;
}

void option_format_size(uint64_t bytes, char text[static OPTION_SIZE_TEXT])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
	unsigned int unit = 0;

	while (bytes && bytes % 1024 == 0 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	snprintf(text, OPTION_SIZE_TEXT, "%llu %s", (unsigned long long)bytes, units[unit]);
}

static int fail_value(const char *where, const char *value, const char *wanted)
{
	return fail(-EINVAL, "%s: \"" SHOWN "\" is not %s", where, value, wanted);
}

static int fail_range(const struct option_spec *spec, const char *value, const char *where)
{
	char low[OPTION_SIZE_TEXT], high[OPTION_SIZE_TEXT];

	if (spec->type == OPTION_SIZE) {
		option_format_size((uint64_t)spec->min, low);
		option_format_size((uint64_t)spec->max, high);
	} else {
		snprintf(low, sizeof(low), "%lld", (long long)spec->min);
		snprintf(high, sizeof(high), "%lld", (long long)spec->max);
	}
	if (!spec->max)
		return fail(-ERANGE, "%s: \"" SHOWN "\" is out of range: at least %s%s", where,
			    value, low,
			    spec->type == OPTION_U64 || spec->type == OPTION_SIZE
				    ? " and below 2^64"
				    : "");
	return fail(-ERANGE, "%s: \"" SHOWN "\" is out of range: %s to %s", where, value, low,
		    high);
}

static int set_u64(struct options *options, const struct option_spec *spec, const char *value,
		   const char *where)
{
	bool is_size = spec->type == OPTION_SIZE;
	const char *end = "";
	uint64_t number;
	int rc = is_size ? option_parse_size(value, &number)
			 : parse_digits(value, true, &number, &end);

	if (rc == -EINVAL || *end)
		return fail_value(where, value,
				  is_size ? "a size: digits and K, M, G or T, such as 64K"
					  : "a whole number");
	if (rc || number < (uint64_t)spec->min || (spec->max && number > (uint64_t)spec->max))
		return fail_range(spec, value, where);
	*(uint64_t *)field(options, spec) = number;
	return 0;
}

static int set_int(struct options *options, const struct option_spec *spec, const char *value,
		   const char *where)
{
	int64_t max = spec->max ? spec->max : INT_MAX;
	bool negative = value[0] == '-';
	const char *end;
	uint64_t number;
	int64_t signed_number;
	int rc = parse_digits(value + negative, false, &number, &end);

	if (rc == -EINVAL || *end)
		return fail_value(where, value, "a whole number");
	signed_number = negative ? -(int64_t)(number & INT_MAX) : (int64_t)(number & INT64_MAX);
	if (rc || number > INT_MAX || signed_number < spec->min || signed_number > max)
		return fail_range(spec, value, where);
	*(int *)field(options, spec) = (int)signed_number;
	return 0;
}

static int set_double(struct options *options, const struct option_spec *spec, const char *value,
		      const char *where)
{
	static const double scales[] = {1, 1e3, 1e6, 1e9};
	bool is_rate = spec->type == OPTION_RATE;
	bool begins = isdigit((unsigned char)value[0]) || value[0] == '.';
	double number;
	char *end;
	int unit;

	number = strtod(value, &end);
	unit = unit_of(end, is_rate ? "KMG" : "");
	if (!begins || end == value || unit < 0 || !isfinite(number) || (unit && end[1]))
		return fail_value(where, value,
				  is_rate ? "a rate: a number and k, M or G, such as 250k"
					  : "a number");
	number *= scales[unit];
	if (number < (double)spec->min || (spec->max && number > (double)spec->max))
		return fail_range(spec, value, where);
	*(double *)field(options, spec) = number;
	return 0;
}

static int set_bool(struct options *options, const struct option_spec *spec, const char *value,
		    const char *where)
{
	if (strcmp(value, "true") && strcmp(value, "false"))
		return fail_value(where, value, "true or false");
	*(bool *)field(options, spec) = value[0] == 't';
	return 0;
}

/* "read, write, mix" */
static void join_values(const char *const *values, const char *separator, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint32_t i = 0; values[i] && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s", i ? separator : "",
					 values[i]);
}

static int set_enum(struct options *options, const struct option_spec *spec, const char *value,
		    const char *where)
{
	const char *near = option_nearest_word(spec->values, value);
	char words[256];

	for (int i = 0; spec->values[i]; i++) {
		if (!strcmp(spec->values[i], value)) {
			*(int *)field(options, spec) = i;
			return 0;
		}
	}
	join_values(spec->values, ", ", words, sizeof(words));
	return fail(-EINVAL, "%s: \"" SHOWN "\" is none of: %s%s%s%s", where, value, words,
		    near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static int set_list(struct options *options, const struct option_spec *spec, const char *value,
		    const char *where)
{
	const struct option_origin *origin = &options->origins[spec - options->specs];
	struct option_list *list = field(options, spec);

	if (origin->source != options->now.source)
		list->count = 0;
	if (list->count == OPTION_LIST_MAX)
		return fail(-E2BIG, "%s: given more than %d times", where, OPTION_LIST_MAX);
	list->lines[list->count] = options->now.line;
	list->items[list->count++] = value;
	return 0;
}

static int set(struct options *options, const struct option_spec *spec, const char *value,
	       const char *where)
{
	if (!*value)
		return fail(-EINVAL, "%s needs a value%s%s", where, spec->argument ? ": " : "",
			    spec->argument ? spec->argument : "");
	switch (spec->type) {
	case OPTION_BOOL:
		return set_bool(options, spec, value, where);
	case OPTION_U64:
	case OPTION_SIZE:
		return set_u64(options, spec, value, where);
	case OPTION_INT:
		return set_int(options, spec, value, where);
	case OPTION_RATE:
	case OPTION_DOUBLE:
		return set_double(options, spec, value, where);
	case OPTION_STRING:
		*(const char **)field(options, spec) = value;
		return 0;
	case OPTION_ENUM:
		return set_enum(options, spec, value, where);
	case OPTION_LIST:
		return set_list(options, spec, value, where);
	}
	return -EINVAL;
}

static int set_given(struct options *options, const struct option_spec *spec, const char *value,
		     const char *where)
{
	int rc;

	if (spec->flag_only && options->now.source != OPTION_FROM_COMMAND_LINE)
		return fail(-EINVAL, "%s: give it on the command line, as --%s", where, spec->name);
	rc = set(options, spec, value, where);
	if (!rc)
		options->origins[spec - options->specs] = options->now;
	return rc;
}

void options_init(struct options *options, const struct option_spec *specs, uint32_t count,
		  void *values)
{
	assert(count <= OPTIONS_MAX);
	*options = (struct options){.specs = specs, .count = count, .values = values};
	for (uint32_t i = 0; i < count; i++) {
		assert(strlen(specs[i].name) <= OPTION_NAME_MAX);
		if (specs[i].initial && set(options, &specs[i], specs[i].initial, specs[i].name))
			abort();
	}
	options_source(options, OPTION_FROM_COMMAND_LINE, 0);
}

void options_source(struct options *options, enum option_source source, uint32_t line)
{
	options->now = (struct option_origin){source, line};
}

int options_set(struct options *options, const char *name, const char *value, const char *where)
{
	const struct option_spec *spec = find(options, name, strlen(name));

	if (!spec)
		return fail_unknown(options, name, strlen(name), where);
	return set_given(options, spec, value, where);
}

static bool is_truth_value(const char *text)
{
	return text && (!strcmp(text, "true") || !strcmp(text, "false"));
}

/* The value of a flag that had no '=': the next argument, or for a boolean its presence. */
static const char *value_after(const struct option_spec *spec, const char *next, int *used)
{
	if (spec->type == OPTION_BOOL && !is_truth_value(next))
		return "true";
	if (!next || !strncmp(next, "--", 2))
		return "";
	*used = 2;
	return next;
}

static int parse_negated(struct options *options, const char *name, size_t len, const char *value,
			 const char *where)
{
	bool negated = len > 3 && !strncmp(name, "no", 2) && folded(name[2]) == '-';
	const struct option_spec *spec = negated ? find(options, name + 3, len - 3) : NULL;

	if (!spec)
		return fail_unknown(options, name, len, where);
	if (spec->type != OPTION_BOOL)
		return fail(-EINVAL, "%s: only a switch can be negated, --%s takes a value", where,
			    spec->name);
	if (value)
		return fail(-EINVAL, "%s takes no value", where);
	return set_given(options, spec, "false", where);
}

/* One "--name..." at args[0]; *used is how many arguments it took. */
static int parse_long(struct options *options, const char *arg, const char *next, int *used)
{
	size_t len = strcspn(arg + 2, "=");
	const char *value = arg[2 + len] ? arg + 2 + len + 1 : NULL;
	const struct option_spec *spec = find(options, arg + 2, len);
	char where[OPTION_NAME_MAX + 8];

	snprintf(where, sizeof(where), "%.*s",
		 (int)(len < OPTION_NAME_MAX ? len : OPTION_NAME_MAX) + 2, arg);
	if (!spec)
		return parse_negated(options, arg + 2, len, value, where);
	return set_given(options, spec, value ? value : value_after(spec, next, used), where);
}

static int parse_letter(struct options *options, const char *arg, const char *next, int *used)
{
	for (uint32_t i = 0; i < options->count; i++) {
		const struct option_spec *spec = &options->specs[i];

		if (spec->letter && arg[1] == spec->letter && !arg[2])
			return set_given(options, spec, value_after(spec, next, used), arg);
	}
	return fail(-ENOENT,
		    "unknown option " SHOWN ": flags start with two dashes, --help lists them",
		    arg);
}

int options_parse(struct options *options, int argc, char *const *argv)
{
	int used;

	options_source(options, OPTION_FROM_COMMAND_LINE, 0);
	for (int i = 1; i < argc; i += used) {
		const char *next = i + 1 < argc ? argv[i + 1] : NULL;
		int rc;

		used = 1;
		if (!strncmp(argv[i], "--", 2) && argv[i][2])
			rc = parse_long(options, argv[i], next, &used);
		else if (argv[i][0] == '-' && argv[i][1])
			rc = parse_letter(options, argv[i], next, &used);
		else
			rc = fail(-EINVAL,
				  "unexpected argument \"" SHOWN "\": a value follows its flag",
				  argv[i]);
		if (rc)
			return rc;
	}
	return 0;
}

bool options_given(const struct options *options, const char *name)
{
	const struct option_spec *spec = find(options, name, strlen(name));

	assert(spec);
	return spec && options->origins[spec - options->specs].source != OPTION_FROM_DEFAULT;
}

const struct option_spec *options_find(const struct options *options, const char *name)
{
	return find(options, name, strlen(name));
}
