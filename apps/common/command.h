/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the command lines of both appliances have in common: reading it, --help, --version,
 * --verbose, and the way in and out of main().
 */
#ifndef COMMON_COMMAND_H
#define COMMON_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/options.h"

/** Values of the flags that both have; a field of the program's struct. */
struct command_flags {
	bool verbose;
	bool help;
	bool version;
};

/** The rows for them, last in the program's table. @p flags is a struct command_flags in @p type */
/* clang-format off */
#define COMMAND_FLAGS(type, flags) \
	{NULL, "verbose", 'v', OPTION_BOOL, offsetof(type, flags.verbose), "false", \
	 .help = "log what happens"}, \
	{NULL, "version", 'V', OPTION_BOOL, offsetof(type, flags.version), "false", \
	 .help = "print it and exit"}, \
	{NULL, "help", 'h', OPTION_BOOL, offsetof(type, flags.help), "false", \
	 .help = "print this and exit"}
/* clang-format on */

struct command {
	const char *name; /* of the program */
	const struct option_spec *specs;
	uint32_t specs_count;
	size_t flags_offset; /* of the struct command_flags in the program's struct */
	const char *usage;   /* of --help, before the options */
	const char *notes;   /* after them */

	/** Check what was read and complete it. @return 0; a negative errno: a usage error */
	int (*check)(void *config, const struct options *options);

	/** Do the work. @return the program's exit code */
	int (*run)(const void *config, int argc, char **argv);
};

/**
 * main() of a program.
 *
 * @param config  the program's struct, zeroed; refers to @p argv afterwards
 * @return        exit code
 */
int command_main(const struct command *command, void *config, int argc, char **argv);

#endif
