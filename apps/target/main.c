/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * sluice-target: exposes memory under names until a signal comes, then says what was moved.
 *
 * main -> command_main -> serve -> serving_open -> announce -> (reload) -> finish
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "base/clock.h"
#include "base/log.h"
#include "common/command.h"
#include "common/exit.h"
#include "common/interrupt.h"
#include "common/json_file.h"
#include "common/notify.h"
#include "common/settings.h"
#include "common/stdio.h"
#include "target/announce.h"
#include "target/config.h"
#include "target/doctor.h"
#include "target/reload.h"
#include "target/report.h"
#include "target/serving.h"

#define DRAIN_TIMEOUT_US UINT64_C(2000000)

static int finish(const struct serving *serving, const struct config *config, uint64_t began_ns)
{
	struct outcome outcome = {
		.served_seconds = (double)(clock_monotonic_ns(NULL) - began_ns) / NS_PER_SECOND,
	};
	int left;

	puts("stopping: clients are told to leave");
	left = slu_engine_drain(serving->engine, DRAIN_TIMEOUT_US);
	outcome.clients_left = left > 0 ? (uint32_t)left : 0;
	outcome.cpu_seconds = (double)clock_process_cpu_ns() / NS_PER_SECOND;
	report_print(serving, config, &outcome);
	return config->json ? report_write_json(serving, config, &outcome) : 0;
}

/* What cannot be reloaded leaves the old rules in force: refused aloud, and serving goes on. */
static void handle_reload(const struct serving *serving, struct settings *settings)
{
	int rc;

	notify_reloading();
	rc = reload(serving->engine, settings);
	if (rc)
		log_error("not reloaded, the old identities and keys stay in force: %s",
			  slu_last_error());
	notify_send("READY=1\nSTATUS=%s",
		    rc ? "Serving; the last reload was refused, see the log" : "Serving");
}

static void serve_until_told(const struct serving *serving, struct settings *settings)
{
	notify_send("READY=1\nSTATUS=Serving\nMAINPID=%d", (int)getpid());
	while (!interrupt_wait(INTERRUPT_FOREVER))
		if (interrupt_take_reload())
			handle_reload(serving, settings);
	notify_send("STOPPING=1\nSTATUS=Clients are told to leave");
}

static int serve(struct settings *settings)
{
	const struct config *config = settings->config;
	struct serving serving = {0};
	uint64_t began_ns;
	int rc = interrupt_init();

	interrupt_catch_reload();
	stdio_bound();
	if (!rc)
		rc = json_file_check(config->json);
	if (!rc)
		rc = serving_open(&serving, config, &settings->grants);
	if (!rc) {
		announce(&serving, config, &settings->grants);
		began_ns = clock_monotonic_ns(NULL);
		serve_until_told(&serving, settings);
		rc = finish(&serving, config, began_ns);
	}
	if (rc)
		exit_explain(rc);
	serving_close(&serving);
	return rc ? EXIT_FAILED : EXIT_DONE;
}

int main(int argc, char **argv)
{
	static const struct subcommand subcommands[] = {
		{NULL, config_check, serve},
		{"doctor", config_check_partial, doctor_run},
	};
	const struct command command = {
		.name = "sluice-target",
		.section = "target",
		.specs = config_specs,
		.specs_count = config_specs_count,
		.config_size = sizeof(struct config),
		.flags_offset = offsetof(struct config, flags),
		.check_partial = config_check_partial,
		.usage = config_usage,
		.notes = config_notes,
		.subcommands = subcommands,
		.subcommands_count = sizeof(subcommands) / sizeof(subcommands[0]),
	};

	return command_main(&command, argc, argv);
}
