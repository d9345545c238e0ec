/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * sluice-initiator: reads and writes a target's memory, and reports how fast and how well it went.
 *
 * main -> command_main -> run -> setup_connect -> make_rows -> setup_workers -> run_row (each) ->
 * report
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/sluice.h>

#include "base/log.h"
#include "common/command.h"
#include "common/exit.h"
#include "common/interrupt.h"
#include "common/json_file.h"
#include "common/settings.h"
#include "gpu/gpu.h"
#include "initiator/config.h"
#include "initiator/doctor.h"
#include "initiator/explain.h"
#include "initiator/progress.h"
#include "initiator/report.h"
#include "initiator/report_json.h"
#include "initiator/run.h"
#include "initiator/setup.h"
#include "initiator/timer.h"

/* Say why GPU memory is left out. @return 0; -EINVAL nothing else was asked for */
static int skip_vram(const struct config *config)
{
	char why[256];

	if (!config->use_vram)
		return 0;
	if (gpu_count(why, sizeof(why)) > 0)
		snprintf(why, sizeof(why),
			 "this version moves host memory only, though a GPU is here");
	if (!config->use_dram)
		return fail(-EINVAL, "--use_vram without --use_dram leaves no memory to use: %s",
			    why);
	fprintf(stderr, "VRAM is skipped: %s (silence this with --no-use_vram)\n", why);
	return 0;
}

static struct row *add_row(struct report *report)
{
	struct row *row = calloc(1, sizeof(*row));

	if (row)
		report->rows[report->rows_count++] = row;
	return row;
}

static int make_sweep(struct report *report, uint64_t segment_bytes)
{
	for (uint32_t i = 0; i < PLAN_SWEEP_SIZES; i++) {
		struct plan plan;
		struct row *row;

		if (plan_make_sweep(report->config, segment_bytes, i, &plan)) {
			fprintf(stderr, "sweep ends before %llu bytes: %s\n",
				(unsigned long long)plan.size, slu_last_error());
			break;
		}
		row = add_row(report);
		if (!row)
			return fail(-ENOMEM, "out of memory for the results");
		row->plan = plan;
	}
	return report->rows_count ? 0 : -EINVAL;
}

/* Lay out what will be measured. @return 0; -EINVAL it does not fit; -ENOMEM */
static int make_rows(struct report *report)
{
	uint64_t segment_bytes = slu_remote_length(report->setup->remote);
	struct plan plan;
	struct row *row;
	int rc;

	report->rows = calloc(PLAN_SWEEP_SIZES, sizeof(*report->rows));
	if (!report->rows)
		return fail(-ENOMEM, "out of memory for the results");
	if (report->config->sweep)
		return make_sweep(report, segment_bytes);
	rc = plan_make(report->config, segment_bytes, &plan);
	if (rc)
		return rc;
	row = add_row(report);
	if (!row)
		return fail(-ENOMEM, "out of memory for the results");
	row->plan = plan;
	return 0;
}

static int open_workers(struct setup *setup, const struct report *report)
{
	uint64_t window = 0;
	uint32_t depth = 1;

	for (uint32_t i = 0; i < report->rows_count; i++) {
		const struct plan *plan = &report->rows[i]->plan;

		window = plan->window_bytes > window ? plan->window_bytes : window;
		depth = plan->batch * plan->depth > depth ? plan->batch * plan->depth : depth;
	}
	return setup_workers(setup, report->config, window, depth);
}

static bool row_failed(const struct row *row)
{
	return row->errors_total || row->mismatch.found || row->interrupted;
}

static int run_rows(struct setup *setup, struct report *report)
{
	struct progress progress = {.config = report->config};
	uint32_t wanted = report->rows_count;
	int rc = 0;

	for (report->rows_count = 0; report->rows_count < wanted && !rc;) {
		struct row *row = report->rows[report->rows_count];

		rc = run_row(setup, row, &progress);
		if (rc)
			break;
		if (measurement_bytes_per_second(&row->runs[row->median]) >
		    measurement_bytes_per_second(
			    &report->rows[report->best]->runs[report->rows[report->best]->median]))
			report->best = report->rows_count;
		report->rows_count++;
		if (row_failed(row))
			break;
	}
	while (wanted > report->rows_count)
		free(report->rows[--wanted]);
	return rc;
}

static int publish(struct report *report)
{
	int rc = report_init(report);

	if (rc)
		return rc;
	if (!report->config->json || strcmp(report->config->json, "-"))
		report_print(report);
	if (report->config->json)
		rc = report_json_write(report);
	report_fini(report);
	return rc;
}

/* A target that grants no WRITE cannot be given the data that would be compared. */
static int explain_connect(const struct config *config, int error)
{
	bool fills = (config->integrity_check || config->fill) && config->workload == WORKLOAD_READ;

	if (error == -EACCES && fills) {
		fail(error,
		     "%s has this run write what it will read, and the target does not let us "
		     "write: leave it out, have the target's configuration grant us write as well, "
		     "or start the target without --read-only",
		     config->integrity_check ? "--integrity_check" : "--fill");
		return exit_usage();
	}
	exit_explain(error);
	return error == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

/* One line for whoever reads only that. @return EXIT_FAILED */
static int explain_failure(const struct report *report)
{
	const struct row *wrong = report_mismatch(report);
	uint64_t errors = report_errors(report);
	uint32_t number = report_first_error(report);

	if (wrong)
		fail(-EIO,
		     "wrong data at offset %llu of the segment: is somebody else writing to it?",
		     (unsigned long long)wrong->mismatch.offset);
	else if (errors)
		fail(-EIO, "%llu operations failed, such as with %s: %s",
		     (unsigned long long)errors, report_errno_name(number),
		     slu_strerror((int)number));
	else
		fail(-EINTR, "interrupted: the report tells what was done");
	exit_explain(-EIO);
	return EXIT_FAILED;
}

static int work(struct setup *setup, struct report *report)
{
	int rc = setup_connect(setup, report->config);

	if (rc)
		return explain_connect(report->config, rc);
	rc = make_rows(report);
	if (rc == -EINVAL)
		return exit_usage();
	if (!rc)
		rc = open_workers(setup, report);
	timer_calibrate();
	if (!rc)
		rc = run_rows(setup, report);
	if (!rc)
		rc = publish(report);
	if (rc) {
		exit_explain(rc);
		return rc == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
	}
	return report_succeeded(report) ? EXIT_DONE : explain_failure(report);
}

static int initiate(const struct config *config, int argc, char **argv)
{
	struct setup setup = {0};
	struct report report = {.config = config, .argc = argc, .argv = argv, .setup = &setup};
	int code = EXIT_FAILED;
	int rc = interrupt_init();

	timer_start();
	if (!rc)
		rc = json_file_check(config->json);
	if (rc)
		exit_explain(rc);
	else
		code = work(&setup, &report);
	for (uint32_t i = 0; i < report.rows_count; i++)
		free(report.rows[i]);
	free(report.rows);
	setup_close(&setup);
	return code;
}

static int run(struct settings *settings)
{
	const struct config *config = settings->config;

	return skip_vram(config) ? exit_usage() : initiate(config, settings->argc, settings->argv);
}

int main(int argc, char **argv)
{
	static const struct subcommand subcommands[] = {
		{NULL, config_check, run},
		{"explain", config_check, explain_run},
		{"doctor", config_check_partial, doctor_run},
	};
	const struct command command = {
		.name = "sluice-initiator",
		.section = "initiator",
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
