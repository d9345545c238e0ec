/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The report as JSON, schema "sluice-report/2"; docs/report.md describes every key.
 */
#ifndef INITIATOR_REPORT_JSON_H
#define INITIATOR_REPORT_JSON_H

#include "initiator/report.h"

/** Write it where --json says. @return as json_file_write() */
int report_json_write(const struct report *report);

#endif
