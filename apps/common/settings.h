/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A configuration, put together from its sources, weakest first: the defaults, a file, the
 * environment, the command line.
 *
 * The file is --config's, else SLUICE_CONFIG's (empty: none), else /etc/sluice/SECTION.conf where
 * there is one. An option NAME of the environment is SLUICE_SECTION_NAME, upper case, '-' as '_'; a
 * list is separated by commas there.
 */
#ifndef COMMON_SETTINGS_H
#define COMMON_SETTINGS_H

#include "common/options.h"
#include "common/command.h"
#include "common/grants.h"
#include "common/texts.h"

struct settings {
	const struct command *command;
	int argc;
	char **argv;  /* the flags follow argv[0] */
	void *config; /* the program's struct */
	struct options options;
	const char *path; /* of the file; NULL = none */
	struct grants grants;
	struct texts texts;
};

/**
 * Read all sources.
 *
 * With --help or --version the command line alone is read.
 *
 * @param settings  zeroed but for command, argc and argv; settings_fini() also after an error
 * @return          0; errors of options_parse() and config_file_read()
 */
int settings_read(struct settings *settings);

void settings_fini(struct settings *settings);

struct command_flags *settings_flags(const struct settings *settings);

/** The variable of the environment that stands for @p spec. */
void settings_variable(const struct settings *settings, const struct option_spec *spec,
		       char name[static OPTION_NAME_MAX + 32]);

/**
 * Write what is in force as a file, with a comment where each value came from.
 *
 * @return 0; -EINVAL a value that no file can hold
 */
int settings_print(const struct settings *settings, FILE *out);

#endif
