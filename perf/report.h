/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a benchmark program hands to perf/run: one line of JSON for each row, on stdout.
 */
#ifndef PERF_REPORT_H
#define PERF_REPORT_H

#include "pair.h"

/** A row of the table, but for its figures. Texts are NULL where there is nothing to say. */
struct row {
	const char *name;
	const char *unit;           /* "GB/s", "M/s", "ns" */
	double scale;               /* figures are divided by it: 1e9 for GB/s */
	const char *reference_name; /* what Sluice is held against */
	double floor;               /* the least ratio that is enough */
	const char *note;
};

/** Print the rounds of a comparison. */
void report_pair(const struct row *row, const struct pair_round *rounds, unsigned count,
		 unsigned moved);

/**
 * Print one figure of the machine itself, without Sluice: a value of each round.
 *
 * @param note  other figures of the case; NULL = none
 */
void report_limit(const struct row *row, const double *values, unsigned count,
		  double core_to_core_ns);

/** A row that could not be measured, and why. */
void report_skipped(const char *name, const char *reason);

/** Print one figure of Sluice, to be set against a program that perf/run starts itself. */
void report_sample(const struct row *row, double value);

#endif
