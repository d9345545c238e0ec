/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#include "base/log.h"
#include "common/config_file.h"
#include "common/settings.h"

#define ORIGIN_MAX 160

/* "default", "/etc/sluice/target.conf:3", "SLUICE_TARGET_SIZE", "command line" */
static void describe_origin(const struct settings *settings, const struct option_spec *spec,
			    uint32_t line, char origin[static ORIGIN_MAX])
{
	char variable[OPTION_NAME_MAX + 32];

	switch (settings->options.origins[spec - settings->options.specs].source) {
	case OPTION_FROM_DEFAULT:
		snprintf(origin, ORIGIN_MAX, "default");
		break;
	case OPTION_FROM_FILE:
		snprintf(origin, ORIGIN_MAX, "%s:%u", settings->path, line);
		break;
	case OPTION_FROM_ENVIRONMENT:
		settings_variable(settings, spec, variable);
		snprintf(origin, ORIGIN_MAX, "%s", variable);
		break;
	case OPTION_FROM_COMMAND_LINE:
		snprintf(origin, ORIGIN_MAX, "command line");
		break;
	}
}

/* What only a default says is no line of the file: it may be another one in the next version. */
static int print_line(const struct settings *settings, const struct option_spec *spec,
		      uint32_t line, const char *value, FILE *out)
{
	char origin[ORIGIN_MAX];

	describe_origin(settings, spec, line, origin);
	if (!options_given(&settings->options, spec->name))
		fprintf(out, "#%s = %s  ; %s\n", spec->name, value, origin);
	else if (!config_file_can_hold(spec->name, value))
		return fail(-EINVAL,
			    "--print-config: no line of a file can hold the value of --%s: it is "
			    "too long, or has a blank at an end, a control character, or a "
			    "semicolon after a blank",
			    spec->name);
	else
		fprintf(out, "; %s\n%s = %s\n", origin, spec->name, value);
	return 0;
}

static int print_item(const struct settings *settings, const struct option_spec *spec,
		      uint32_t item, FILE *out)
{
	const struct options *options = &settings->options;
	const struct option_list *list = (void *)((char *)options->values + spec->offset);
	uint32_t line = options->origins[spec - options->specs].line;
	char *value = NULL;
	size_t size;
	FILE *text = open_memstream(&value, &size);
	int rc;

	if (!text)
		return fail(-ENOMEM, "out of memory for --print-config");
	options_print_value(options, spec, item, text);
	if (fclose(text))
		rc = fail(-ENOMEM, "out of memory for --print-config");
	else
		rc = print_line(settings, spec,
				spec->type == OPTION_LIST ? list->lines[item] : line, value, out);
	free(value);
	return rc;
}

static int print_option(const struct settings *settings, const struct option_spec *spec, FILE *out)
{
	uint32_t count = options_value_count(&settings->options, spec);
	int rc = 0;

	if (spec->section)
		fprintf(out, "\n;;; %s\n", spec->section);
	if (spec->flag_only)
		return 0;
	if (!count)
		fprintf(out, "#%s is not set  ; default\n", spec->name);
	for (uint32_t i = 0; i < count && !rc; i++)
		rc = print_item(settings, spec, i, out);
	return rc;
}

static void print_grants(const struct settings *settings, FILE *out)
{
	const struct grants *grants = &settings->grants;
	const char *identity = "";

	for (uint32_t i = 0; i < grants->count; i++) {
		const struct slu_grant *grant = &grants->items[i];

		if (strcmp(grant->identity, identity))
			fprintf(out, "\n[identity %s]\n", grant->identity);
		identity = grant->identity;
		fprintf(out, "; %s:%u\n%s = %s\n", settings->path, grants->lines[i], grant->segment,
			grants_rights_name(grant->rights));
	}
}

static void print_limits(const struct settings *settings, FILE *out)
{
	for (uint32_t i = 0; i < settings->grants.limits_count; i++) {
		const struct slu_identity_limits *limits = &settings->grants.limits[i];

		fprintf(out, "\n[identity %s]\n; %s\n", limits->identity, settings->path);
		for (int kind = 0; kind < SLU_LIMIT_COUNT; kind++)
			if (limits->limits[kind])
				fprintf(out, "%s = %" PRIu64 "\n",
					slu_limit_name((enum slu_limit)kind), limits->limits[kind]);
	}
}

int settings_print(const struct settings *settings, FILE *out)
{
	const struct command *command = settings->command;
	int rc = 0;

	fprintf(out, "; %s %s: the configuration in force\n; file: %s\n[%s]\n", command->name,
		slu_version(), settings->path ? settings->path : "none", command->section);
	for (uint32_t i = 0; i < command->specs_count && !rc; i++)
		rc = print_option(settings, &command->specs[i], out);
	print_grants(settings, out);
	print_limits(settings, out);
	return rc;
}
