/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * One row of the report: a size, measured --repeat times and checked.
 */
#ifndef INITIATOR_RUN_H
#define INITIATOR_RUN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/histogram.h"
#include "initiator/plan.h"
#include "initiator/progress.h"
#include "initiator/setup.h"
#include "initiator/worker.h"

/** One measurement: what was finished within the measured time. */
struct measurement {
	double seconds;
	double moving_seconds; /* of these, without filling and comparing */
	uint64_t operations;
	uint64_t batches;
	uint64_t bytes_read;
	uint64_t bytes_written;
	double cpu_initiator_seconds;
	double cpu_target_seconds; /* below 0: the target could not be asked */
};

struct row {
	struct plan plan;
	struct measurement runs[REPEAT_MAX]; /* in the order they were made */
	uint32_t runs_count;
	uint32_t median;               /* index of the run of median throughput */
	double spread;                 /* of throughput, (highest - lowest) / median */
	struct histogram operation_ns; /* of all runs */
	struct histogram batch_ns;
	uint64_t errors[ERRNO_MAX + 1]; /* by errno, of everything that was done */
	uint64_t errors_total;
	uint64_t submitted; /* operations of batches, warming up included */
	uint64_t finished;  /* of these, well or badly */
	uint64_t verified_bytes;
	uint64_t pages_looked_at; /* of what was read last; 0: this run wrote it */
	uint64_t pages_of_zeros;
	bool verified;            /* everything was checked and was as it should be */
	struct mismatch mismatch; /* the one at the lowest offset */
	bool interrupted;
};

/** While bytes moved: filling and comparing do not count. */
double measurement_bytes_per_second(const struct measurement *run);
double measurement_operations_per_second(const struct measurement *run);

/** CPU seconds per GiB moved; below 0 when nothing was moved or @p cpu_seconds is. */
double measurement_cpu_per_gib(const struct measurement *run, double cpu_seconds);

/**
 * Measure and check @p row->plan.
 *
 * Failures are not returned: they stand in @p row.
 *
 * @param row  zeroed but for its plan
 * @return     0; -ENOMEM it could not be begun
 */
int run_row(struct setup *setup, struct row *row, struct progress *progress);

#endif
