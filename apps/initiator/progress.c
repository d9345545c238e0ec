/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/progress.h"

#include <stdio.h>

#include "initiator/units.h"

#define ERASE "\r\033[K"

void progress_say(struct progress *progress, const char *text)
{
	if (!progress->config->progress)
		return;
	fprintf(stderr, ERASE "%s", text);
	fflush(stderr);
	progress->shown = true;
}

static uint64_t load(const _Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static double bytes_so_far(const struct worker *workers, uint32_t count)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < count; i++)
		bytes += load(&workers[i].counters.bytes_read) +
			 load(&workers[i].counters.bytes_written);
	return (double)bytes;
}

static uint64_t p99_so_far(const struct worker *workers, uint32_t count)
{
	static struct histogram all; /* 18 KiB; only the main thread comes here */

	histogram_reset(&all);
	for (uint32_t i = 0; i < count; i++)
		histogram_merge(&all, &workers[i].operation_ns);
	return histogram_percentile(&all, 99);
}

void progress_measuring(struct progress *progress, const struct worker *workers, uint32_t count,
			double elapsed_seconds, double moving_seconds)
{
	const struct config *config = progress->config;
	char rate[UNIT_TEXT], p99[UNIT_TEXT], text[160];

	if (!config->progress)
		return;
	unit_format_bytes(moving_seconds > 0 ? bytes_so_far(workers, count) / moving_seconds : 0,
			  (enum unit)config->report_unit, (int)config->report_precision, rate);
	unit_format_duration(p99_so_far(workers, count), p99);
	snprintf(text, sizeof(text), "measuring %.0f of %.0f s: %s/s, p99 of an operation %s",
		 elapsed_seconds, config->duration, rate, p99);
	progress_say(progress, text);
}

void progress_clear(struct progress *progress)
{
	if (progress->shown)
		fputs(ERASE, stderr);
	progress->shown = false;
}
