/* SPDX-License-Identifier: Apache-2.0 */
#include "common/command.h"

#include <stdio.h>
#include <string.h>

#include <sluice/sluice.h>

#include "common/exit.h"
#include "common/settings.h"
#include "common/stdio.h"

static void print_help(const struct settings *settings)
{
	fputs(settings->command->usage, stdout);
	options_print_help(&settings->options, stdout);
	fputs(settings->command->notes, stdout);
}

/* The subcommand that the arguments name, which they are rid of then; else the nameless one. */
static const struct subcommand *take_subcommand(struct settings *settings)
{
	const struct command *command = settings->command;

	for (uint32_t i = 1; i < command->subcommands_count && settings->argc > 1; i++) {
		if (!strcmp(settings->argv[1], command->subcommands[i].name)) {
			settings->argc--;
			settings->argv++;
			return &command->subcommands[i];
		}
	}
	return &command->subcommands[0];
}

static int print_config(const struct settings *settings)
{
	int rc = settings_print(settings, stdout);

	if (rc)
		exit_explain(rc);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

static int run(struct settings *settings)
{
	const struct subcommand *subcommand = take_subcommand(settings);
	int (*check)(void *config, const struct options *options);
	const struct command_flags *flags;
	int rc = settings_read(settings);
	int code = EXIT_DONE;

	if (rc)
		return exit_usage();
	flags = settings_flags(settings);
	if (flags->verbose)
		slu_log_set(SLU_LOG_INFO, NULL, NULL);
	if (flags->help)
		print_help(settings);
	else if (flags->version)
		printf("%s %s\n", settings->command->name, slu_version());
	if (flags->help || flags->version)
		return EXIT_DONE;
	/* Also what contradicts itself is printed, for whoever looks for the reason. */
	check = flags->print_config ? settings->command->check_partial : subcommand->check;
	rc = check(settings->config, &settings->options);
	if (flags->print_config)
		code = print_config(settings);
	if (rc)
		return exit_usage();
	return flags->print_config ? code : subcommand->run(settings);
}

int command_main(const struct command *command, int argc, char **argv)
{
	struct settings settings = {.command = command, .argc = argc, .argv = argv};
	int code;

	stdio_guard();
	code = run(&settings);
	settings_fini(&settings);
	stdio_finish();
	return code;
}
