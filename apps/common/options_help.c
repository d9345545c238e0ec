/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "common/options.h"

#define HELP_COLUMN 36 /* where the descriptions start */
#define HELP_WIDTH  92

/* "  -h, --help", "  --workload read|write|mix": returns the columns taken. */
static int print_flag(const struct option_spec *spec, FILE *out)
{
	int used = spec->letter ? fprintf(out, "  -%c, --%s", spec->letter, spec->name)
				: fprintf(out, "  --%s", spec->name);

	if (spec->argument)
		return used + fprintf(out, " %s", spec->argument);
	for (uint32_t i = 0; spec->values && spec->values[i]; i++)
		used += fprintf(out, "%c%s", i ? '|' : ' ', spec->values[i]);
	return used;
}

/* One word at @p column, on a fresh line when it would go over the edge. */
static int print_word(FILE *out, const char *word, size_t len, int column)
{
	if (column + (int)len + 1 > HELP_WIDTH) {
		fprintf(out, "\n%*s", HELP_COLUMN, "");
		column = HELP_COLUMN;
	}
	if (column > HELP_COLUMN)
		column += fprintf(out, " ");
	return column + fprintf(out, "%.*s", (int)len, word);
}

static int print_words(FILE *out, const char *text, int column)
{
	while (*text) {
		size_t len = strcspn(text, " ");

		column = print_word(out, text, len, column);
		text += len;
		text += strspn(text, " ");
	}
	return column;
}

static void print_option(const struct option_spec *spec, FILE *out)
{
	bool off = spec->type == OPTION_BOOL && spec->initial && !strcmp(spec->initial, "false");
	int used = print_flag(spec, out);
	int column = HELP_COLUMN;
	char text[96];

	if (used + 2 > HELP_COLUMN)
		fprintf(out, "\n%*s", HELP_COLUMN, "");
	else
		fprintf(out, "%*s", HELP_COLUMN - used, "");
	column = print_words(out, spec->help, column);
	if (spec->initial && !off) {
		snprintf(text, sizeof(text), "(default %s)", spec->initial);
		print_words(out, text, column);
	}
	fputc('\n', out);
}

void options_print_help(const struct options *options, FILE *out)
{
	for (uint32_t i = 0; i < options->count; i++) {
		if (options->specs[i].section)
			fprintf(out, "\n%s:\n", options->specs[i].section);
		print_option(&options->specs[i], out);
	}
}
