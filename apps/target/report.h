/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a target moved in its life, as text and as JSON ("sluice-target-report/1", docs/report.md).
 */
#ifndef TARGET_REPORT_H
#define TARGET_REPORT_H

#include <stdint.h>

#include "target/config.h"
#include "target/serving.h"

struct outcome {
	double served_seconds;
	double cpu_seconds;
	uint32_t clients_left; /* that did not leave when they were told to */
};

void report_print(const struct serving *serving, const struct config *config,
		  const struct outcome *outcome);

/** @return as json_file_write() */
int report_write_json(const struct serving *serving, const struct config *config,
		      const struct outcome *outcome);

#endif
