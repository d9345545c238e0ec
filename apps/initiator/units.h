/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Units of the report: throughput as --report_unit asks, durations and counts as they read best.
 */
#ifndef INITIATOR_UNITS_H
#define INITIATOR_UNITS_H

#include <stdint.h>

#define UNIT_TEXT 32 /* room for a formatted figure */

/** In the order of --report_unit's words; B is bytes, b bits, i powers of 1024. */
enum unit {
	UNIT_GB,
	UNIT_GIB,
	UNIT_GBIT,
	UNIT_GIBIT,
	UNIT_MB,
	UNIT_MIB,
	UNIT_MBIT,
	UNIT_MIBIT,
	UNIT_KB,
	UNIT_KIB,
	UNIT_KBIT,
	UNIT_KIBIT,
};

/** The words, NULL-terminated. */
extern const char *const unit_names[];

/** "12.34 GB" */
void unit_format_bytes(double bytes, enum unit unit, int precision, char text[static UNIT_TEXT]);

/** "812 ns", "1.25 us", "12.5 ms": three significant digits. */
void unit_format_duration(uint64_t ns, char text[static UNIT_TEXT]);

/** "812", "1.25 k", "12.5 M" */
void unit_format_count(double count, char text[static UNIT_TEXT]);

#endif
