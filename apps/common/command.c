/* SPDX-License-Identifier: Apache-2.0 */
#include "common/command.h"

#include <stdio.h>

#include <sluice/sluice.h>

#include "common/exit.h"
#include "common/stdio.h"

static void print_help(const struct command *command, const struct options *options)
{
	fputs(command->usage, stdout);
	options_print_help(options, stdout);
	fputs(command->notes, stdout);
}

static int run(const struct command *command, void *config, int argc, char **argv)
{
	struct command_flags *flags = (void *)((char *)config + command->flags_offset);
	struct options options;
	int rc;

	options_init(&options, command->specs, command->specs_count, config);
	rc = options_parse(&options, argc, argv);
	if (!rc && !flags->help && !flags->version)
		rc = command->check(config, &options);
	if (rc)
		return exit_usage();
	if (flags->verbose)
		slu_log_set(SLU_LOG_INFO, NULL, NULL);
	if (flags->help)
		print_help(command, &options);
	else if (flags->version)
		printf("%s %s\n", command->name, slu_version());
	else
		return command->run(config, argc, argv);
	return EXIT_DONE;
}

int command_main(const struct command *command, void *config, int argc, char **argv)
{
	int code;

	stdio_guard();
	code = run(command, config, argc, argv);
	stdio_finish();
	return code;
}
