/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <jansson.h>

static void print_line(json_t *line)
{
	if (!line || json_dumpf(line, stdout, JSON_COMPACT) != 0)
		die("out of memory, or stdout is closed");
	putchar('\n');
	fflush(stdout);
	json_decref(line);
}

static json_t *array_of(const double *values, unsigned count, double scale)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(array, json_real(values[i] / scale));
	return array;
}

static json_t *column_of(const struct pair_round *rounds, unsigned count, size_t column,
			 double scale)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < count; i++) {
		const char *round = (const char *)&rounds[i];

		json_array_append_new(array, json_real(*(const double *)(round + column) / scale));
	}
	return array;
}

void report_pair(const struct row *row, const struct pair_round *rounds, unsigned count,
		 unsigned moved)
{
	print_line(json_pack(
		"{ss ss ss* sf so so so so si ss*}", "name", row->name, "unit", row->unit,
		"reference_name", row->reference_name, "floor", row->floor, "sluice",
		column_of(rounds, count, offsetof(struct pair_round, sluice), row->scale),
		"reference",
		column_of(rounds, count, offsetof(struct pair_round, reference), row->scale),
		"ratio", column_of(rounds, count, offsetof(struct pair_round, ratio), 1),
		"core_to_core_ns",
		column_of(rounds, count, offsetof(struct pair_round, core_to_core_ns), 1), "moved",
		(int)moved, "note", row->note));
}

void report_limit(const struct row *row, const double *values, unsigned count,
		  double core_to_core_ns)
{
	print_line(json_pack("{ss ss ss* so sf ss*}", "name", row->name, "unit", row->unit,
			     "reference_name", row->reference_name, "reference",
			     array_of(values, count, row->scale), "core_to_core_ns",
			     core_to_core_ns, "note", row->note));
}

void report_skipped(const char *name, const char *reason)
{
	print_line(json_pack("{ss ss}", "name", name, "skipped", reason));
}

void report_sample(const struct row *row, double value)
{
	print_line(json_pack("{ss ss sf}", "name", row->name, "unit", row->unit, "value",
			     value / row->scale));
}
