/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What both appliances have in common from main() on: flags that both know, subcommands, and the
 * configuration from its sources.
 */
#ifndef COMMON_COMMAND_H
#define COMMON_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/options.h"

struct settings;

/** Values of the flags that both have; a field of the program's struct. */
struct command_flags {
	const char *config;
	const char *doctor_root;
	bool print_config;
	bool verbose;
	bool help;
	bool version;
};

/* clang-format off */
/** The rows for them, last in the program's table. @p flags is a struct command_flags in @p type */
#define COMMAND_FLAGS(type, flags) \
	{"Configuration", "config", 0, OPTION_STRING, offsetof(type, flags.config), \
	 .argument = "FILE", .flag_only = true, \
	 .help = "read options there (sluice.conf(5)); without it $SLUICE_CONFIG, else the file in " \
		 "/etc/sluice"}, \
	{NULL, "doctor-root", 0, OPTION_STRING, offsetof(type, flags.doctor_root), \
	 .argument = "DIR", .flag_only = true, \
	 .help = "of doctor: look at a machine whose /proc and /sys were copied there"}, \
	{NULL, "print-config", 0, OPTION_BOOL, offsetof(type, flags.print_config), "false", \
	 .flag_only = true, \
	 .help = "print what is in force and where it came from, as a file, and exit"}, \
	{NULL, "verbose", 'v', OPTION_BOOL, offsetof(type, flags.verbose), "false", \
	 .help = "log what happens"}, \
	{NULL, "version", 'V', OPTION_BOOL, offsetof(type, flags.version), "false", \
	 .flag_only = true, .help = "print it and exit"}, \
	{NULL, "help", 'h', OPTION_BOOL, offsetof(type, flags.help), "false", \
	 .flag_only = true, .help = "print this and exit"}
/* clang-format on */

/** One thing that a program does. */
struct subcommand {
	const char *name; /* first argument; NULL = what it does without any */

	/** Check what was read and complete it. @return 0; a negative errno: a usage error */
	int (*check)(void *config, const struct options *options);

	/** @return the program's exit code */
	int (*run)(struct settings *settings);
};

struct command {
	const char *name;    /* of the program */
	const char *section; /* of the configuration file, and in names of variables */
	const struct option_spec *specs;
	uint32_t specs_count;
	size_t config_size;  /* of the program's struct */
	size_t flags_offset; /* of the struct command_flags in it */
	/* As check() of a subcommand, for --print-config: what is required may be missing. */
	int (*check_partial)(void *config, const struct options *options);
	const char *usage;                    /* of --help, before the options */
	const char *notes;                    /* after them */
	const struct subcommand *subcommands; /* the first has no name */
	uint32_t subcommands_count;
};

/** main() of a program. @return its exit code */
int command_main(const struct command *command, int argc, char **argv);

#endif
