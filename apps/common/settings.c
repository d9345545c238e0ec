/* SPDX-License-Identifier: Apache-2.0 */
#include "common/settings.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "common/config_file.h"

#define PREFIX_MAX 32

static int no_memory(void)
{
	return fail(-ENOMEM, "out of memory for the configuration");
}

struct command_flags *settings_flags(const struct settings *settings)
{
	return (void *)((char *)settings->config + settings->command->flags_offset);
}

/* "SLUICE_TARGET_" */
static void make_prefix(const struct settings *settings, char prefix[static PREFIX_MAX])
{
	size_t length =
		(size_t)snprintf(prefix, PREFIX_MAX, "SLUICE_%s_", settings->command->section);

	for (size_t i = 0; i < length; i++)
		prefix[i] = (char)toupper((unsigned char)prefix[i]);
}

void settings_variable(const struct settings *settings, const struct option_spec *spec,
		       char name[static OPTION_NAME_MAX + 32])
{
	char prefix[PREFIX_MAX];
	size_t length;

	make_prefix(settings, prefix);
	length = (size_t)snprintf(name, OPTION_NAME_MAX + 32, "%s%s", prefix, spec->name);
	for (size_t i = strlen(prefix); i < length; i++)
		name[i] = spec->name[i - strlen(prefix)] == '-'
				  ? '_'
				  : (char)toupper((unsigned char)name[i]);
}

/* The words of a list between commas. */
static int set_list(struct settings *settings, const struct option_spec *spec, const char *value,
		    const char *where)
{
	int rc = 0;

	for (value += strspn(value, ","); *value && !rc; value += strspn(value, ",")) {
		size_t length = strcspn(value, ",");
		const char *word = texts_keep(&settings->texts, value, length);

		rc = word ? options_set(&settings->options, spec->name, word, where) : no_memory();
		value += length;
	}
	return rc;
}

/* A variable that is none of ours may be somebody else's: Kubernetes makes such names. */
static void warn_of_mistyped(const struct settings *settings)
{
	char prefix[PREFIX_MAX];

	make_prefix(settings, prefix);
	for (char **variable = environ; *variable; variable++) {
		size_t skip = strlen(prefix), length = strcspn(*variable, "=");
		char name[OPTION_NAME_MAX + 1];
		const char *near;

		if (strncmp(*variable, prefix, skip) || length - skip > OPTION_NAME_MAX)
			continue;
		for (size_t i = skip; i <= length; i++)
			name[i - skip] =
				i == length ? '\0' : (char)tolower((unsigned char)(*variable)[i]);
		near = options_nearest(&settings->options, name);
		if (near && !options_find(&settings->options, name))
			log_warning("%.*s in the environment is no option and ignored: did you "
				    "mean the one of --%s?",
				    (int)length, *variable, near);
	}
}

static int read_environment(struct settings *settings)
{
	const struct command *command = settings->command;
	char name[OPTION_NAME_MAX + 32];
	int rc = 0;

	options_source(&settings->options, OPTION_FROM_ENVIRONMENT, 0);
	for (uint32_t i = 0; i < command->specs_count && !rc; i++) {
		const struct option_spec *spec = &command->specs[i];
		const char *value;

		settings_variable(settings, spec, name);
		value = getenv(name);
		if (!value || !*value)
			continue;
		rc = spec->type == OPTION_LIST
			     ? set_list(settings, spec, value, name)
			     : options_set(&settings->options, spec->name, value, name);
	}
	warn_of_mistyped(settings);
	return rc;
}

/* Which file? *path stays NULL for none. */
static int find_file(struct settings *settings, const char *flag)
{
	const char *variable = getenv("SLUICE_CONFIG");
	char path[64];

	settings->path = flag ? flag : variable;
	if (settings->path) {
		settings->path = *settings->path ? settings->path : NULL;
		return 0;
	}
	snprintf(path, sizeof(path), "/etc/sluice/%s.conf", settings->command->section);
	if (access(path, F_OK))
		return 0;
	settings->path = texts_keep(&settings->texts, path, strlen(path));
	return settings->path ? 0 : no_memory();
}

/* Read the command line first for --config alone, and so that its mistakes are the first told. */
static int look_for_flags(struct settings *settings, struct command_flags *flags)
{
	const struct command *command = settings->command;
	int rc;

	options_init(&settings->options, command->specs, command->specs_count, settings->config);
	rc = options_parse(&settings->options, settings->argc, settings->argv);
	*flags = *settings_flags(settings);
	if (rc || flags->help || flags->version)
		return rc;
	memset(settings->config, 0, command->config_size);
	options_init(&settings->options, command->specs, command->specs_count, settings->config);
	return find_file(settings, flags->config);
}

int settings_read(struct settings *settings)
{
	struct command_flags flags;
	int rc;

	settings->config = calloc(1, settings->command->config_size);
	if (!settings->config)
		return no_memory();
	rc = look_for_flags(settings, &flags);
	if (rc || flags.help || flags.version)
		return rc;
	if (settings->path)
		rc = config_file_read(settings->path, settings->command->section,
				      &settings->options, &settings->grants, &settings->texts);
	if (!rc)
		rc = read_environment(settings);
	if (!rc)
		rc = options_parse(&settings->options, settings->argc, settings->argv);
	return rc;
}

void settings_fini(struct settings *settings)
{
	free(settings->config);
	grants_fini(&settings->grants);
	texts_fini(&settings->texts);
	settings->config = NULL;
}
