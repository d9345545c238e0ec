/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a run has shown, as text for people; report_json.h has it for programs.
 */
#ifndef INITIATOR_REPORT_H
#define INITIATOR_REPORT_H

#include <stdint.h>

#include <sluice/sluice.h>

#include "initiator/config.h"
#include "initiator/machine.h"
#include "initiator/run.h"
#include "initiator/setup.h"

/** The path that was taken, read while everything was open. */
struct path {
	struct slu_remote_info remote;
	struct slu_region_info local;
	struct slu_engine_info engine;
	struct slu_poller_info *pollers;                     /* threads, engine.pollers of them */
	struct slu_candidate candidates[SLU_CANDIDATES_MAX]; /* the ways that there were */
	int candidates_count;
};

struct report {
	const struct config *config;
	int argc;
	char **argv;
	const struct setup *setup;
	struct path path;
	struct machine machine;
	struct row **rows; /* one, or those of a sweep */
	uint32_t rows_count;
	uint32_t best; /* index of the row of highest throughput */
};

/**
 * Read path and machine.
 *
 * @param report  config, argc, argv and setup are set; the caller owns the rows
 * @return        0; -ENOMEM. report_fini() gives back what this took.
 */
int report_init(struct report *report);

void report_fini(struct report *report);

/** Was everything done, nothing failed and, where asked for, all found equal? */
bool report_succeeded(const struct report *report);

/** Was the integrity check asked for and passed by every row? */
bool report_verified(const struct report *report);

/** The errno of the lowest number that operations failed with; 0 when none failed. */
uint32_t report_first_error(const struct report *report);

/** Sums over all rows. */
uint64_t report_errors(const struct report *report);
uint64_t report_errors_of(const struct report *report, uint32_t number);
uint64_t report_verified_bytes(const struct report *report);

/** What was read and by nobody of this run written: pages looked at, and how many were zeros. */
uint64_t report_pages_looked_at(const struct report *report);
uint64_t report_pages_of_zeros(const struct report *report);

/** The row that met wrong data, or NULL. */
const struct row *report_mismatch(const struct report *report);

/** Print the text report on stdout. */
void report_print(const struct report *report);

/** "ETIMEDOUT" for 110; "other" for ERRNO_MAX. */
const char *report_errno_name(uint32_t number);

#endif
