/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "common/options.h"

static const void *field(const struct options *options, const struct option_spec *spec)
{
	return (const char *)options->values + spec->offset;
}

/* The largest unit that holds it exactly, as option_parse_size() reads it: "64K". */
static void print_size(uint64_t bytes, FILE *out)
{
	static const char *const units[] = {"", "K", "M", "G", "T"};
	unsigned int unit = 0;

	while (bytes && bytes % 1024 == 0 && unit < 4) {
		bytes /= 1024;
		unit++;
	}
	fprintf(out, "%" PRIu64 "%s", bytes, units[unit]);
}

/* The shortest of two ways that reads back as the same number. */
static void print_double(double number, FILE *out)
{
	char text[32];

	snprintf(text, sizeof(text), "%.15g", number);
	if (strtod(text, NULL) == number)
		fputs(text, out);
	else
		fprintf(out, "%.17g", number);
}

uint32_t options_value_count(const struct options *options, const struct option_spec *spec)
{
	if (spec->type == OPTION_LIST)
		return ((const struct option_list *)field(options, spec))->count;
	if (spec->type == OPTION_STRING)
		return *(const char *const *)field(options, spec) != NULL;
	return 1;
}

void options_print_value(const struct options *options, const struct option_spec *spec,
			 uint32_t item, FILE *out)
{
	const void *value = field(options, spec);

	switch (spec->type) {
	case OPTION_BOOL:
		fputs(*(const bool *)value ? "true" : "false", out);
		break;
	case OPTION_U64:
		fprintf(out, "%" PRIu64, *(const uint64_t *)value);
		break;
	case OPTION_INT:
		fprintf(out, "%d", *(const int *)value);
		break;
	case OPTION_SIZE:
		print_size(*(const uint64_t *)value, out);
		break;
	case OPTION_RATE:
	case OPTION_DOUBLE:
		print_double(*(const double *)value, out);
		break;
	case OPTION_STRING:
		fputs(*(const char *const *)value, out);
		break;
	case OPTION_ENUM:
		fputs(spec->values[*(const int *)value], out);
		break;
	case OPTION_LIST:
		fputs(((const struct option_list *)value)->items[item], out);
		break;
	}
}
