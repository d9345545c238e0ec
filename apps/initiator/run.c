/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/run.h"

#include <stdlib.h>

#include "common/interrupt.h"
#include "initiator/timer.h"
#include "initiator/verify.h"

#define ASK_TARGET_US UINT64_C(1000000)
#define START_NS      UINT64_C(1000000) /* the workers' way from the main thread's word to work */

double measurement_bytes_per_second(const struct measurement *run)
{
	double bytes = (double)(run->bytes_read + run->bytes_written);

	return run->moving_seconds > 0 ? bytes / run->moving_seconds : 0;
}

double measurement_operations_per_second(const struct measurement *run)
{
	return run->moving_seconds > 0 ? (double)run->operations / run->moving_seconds : 0;
}

double measurement_cpu_per_gib(const struct measurement *run, double cpu_seconds)
{
	double gib = (double)(run->bytes_read + run->bytes_written) / 0x1p30;

	return gib > 0 && cpu_seconds >= 0 ? cpu_seconds / gib : -1;
}

/* CPU time of both processes; target below 0 when it does not answer. */
struct cpu {
	uint64_t at_ns;
	double initiator;
	double target;
};

static struct cpu read_cpu(const struct setup *setup)
{
	struct slu_usage usage = {.size = sizeof(usage)};
	struct cpu cpu = {.target = -1};

	if (!slu_remote_get_usage(setup->remote, ASK_TARGET_US, &usage))
		cpu.target = (double)usage.cpu_ns / 1e9;
	cpu.initiator = (double)clock_process_cpu_ns() / 1e9;
	cpu.at_ns = timer_now();
	return cpu;
}

/* The samples are taken a little late, on a busy machine: what they show is scaled to the time. */
static void set_cpu(struct measurement *run, const struct cpu *before, const struct cpu *after)
{
	double between = (double)(after->at_ns - before->at_ns) / 1e9;
	double scale = between > 0 ? run->seconds / between : 0;

	run->cpu_initiator_seconds = (after->initiator - before->initiator) * scale;
	run->cpu_target_seconds = before->target < 0 || after->target < 0
					  ? -1
					  : (after->target - before->target) * scale;
}

static uint64_t load_end(const struct setup *setup)
{
	return atomic_load_explicit(&setup->load.end_ns, memory_order_relaxed);
}

/* Of @seconds that have been measured. */
static double moving_seconds(const struct setup *setup, double seconds)
{
	return load_in_rounds(&setup->load) ? (double)setup->load.meeting.moving_ns / 1e9 : seconds;
}

static void show_progress(const struct setup *setup, struct progress *progress)
{
	uint64_t now = timer_now();
	double seconds = (double)(now - setup->load.begin_ns) / 1e9;

	if (now > setup->load.begin_ns + PROGRESS_INTERVAL_NS / 2)
		progress_measuring(progress, setup->workers, setup->workers_count, seconds,
				   moving_seconds(setup, seconds));
}

/* Sleep until @until_ns, the end of the measurement or a signal, which moves the end to now. */
static void sleep_until(struct setup *setup, uint64_t until_ns, struct progress *progress)
{
	uint64_t now;

	while ((now = timer_now()) < until_ns && now < load_end(setup)) {
		uint64_t left = until_ns - now;

		if (interrupt_wait(left < PROGRESS_INTERVAL_NS ? left : PROGRESS_INTERVAL_NS))
			atomic_store_explicit(&setup->load.end_ns, timer_now(),
					      memory_order_relaxed);
		else
			show_progress(setup, progress);
	}
}

static void sum_counters(const struct setup *setup, struct measurement *run)
{
	for (uint32_t i = 0; i < setup->workers_count; i++) {
		const struct counters *counters = &setup->workers[i].counters;

		run->operations += counters->operations;
		run->batches += counters->batches;
		run->bytes_read += counters->bytes_read;
		run->bytes_written += counters->bytes_written;
	}
}

static void set_times(struct setup *setup)
{
	const struct config *config = setup->load.config;

	setup->load.start_ns = timer_now() + START_NS;
	setup->load.begin_ns = setup->load.start_ns + (uint64_t)(config->warmup * 1e9);
	atomic_store(&setup->load.end_ns,
		     setup->load.begin_ns + (uint64_t)(config->duration * 1e9));
	atomic_store(&setup->load.meeting.moving_ns, 0);
}

static void measure(struct setup *setup, struct measurement *run, struct progress *progress)
{
	struct cpu before, after;
	uint64_t end;

	for (uint32_t i = 0; i < setup->workers_count; i++)
		worker_clear_counters(&setup->workers[i]);
	progress_say(progress, "warming up");
	set_times(setup);
	threads_begin(&setup->threads, worker_measure);
	sleep_until(setup, setup->load.begin_ns, progress);
	before = read_cpu(setup);
	sleep_until(setup, load_end(setup), progress);
	after = read_cpu(setup);
	threads_end(&setup->threads);
	end = load_end(setup);
	sum_counters(setup, run);
	run->seconds = end > setup->load.begin_ns ? (double)(end - setup->load.begin_ns) / 1e9 : 0;
	run->moving_seconds = moving_seconds(setup, run->seconds);
	set_cpu(run, &before, &after);
}

static void merge_latencies(const struct setup *setup, struct row *row)
{
	for (uint32_t i = 0; i < setup->workers_count; i++) {
		histogram_merge(&row->operation_ns, &setup->workers[i].operation_ns);
		histogram_merge(&row->batch_ns, &setup->workers[i].batch_ns);
	}
}

static bool went_well(const struct setup *setup)
{
	bool well = !interrupt_pending();

	for (uint32_t i = 0; i < setup->workers_count; i++) {
		const struct worker *worker = &setup->workers[i];

		well = well && !worker->broken && !worker->mismatch.found;
		for (uint32_t e = 0; e <= ERRNO_MAX; e++)
			well = well && !worker->errors[e];
	}
	return well;
}

static void new_generation(struct setup *setup)
{
	setup->load.generation += UINT64_C(1) << 32;
}

/* @return has everything been as it should be so far? */
static bool step(struct setup *setup, struct progress *progress, const char *text, worker_step step)
{
	progress_say(progress, text);
	threads_run(&setup->threads, step);
	return went_well(setup);
}

static bool measure_all(struct setup *setup, struct row *row, struct progress *progress)
{
	bool well = true;

	while (row->runs_count < setup->load.config->repeat && well) {
		measure(setup, &row->runs[row->runs_count++], progress);
		merge_latencies(setup, row);
		well = went_well(setup);
	}
	return well;
}

/* What is checked, and when, follows from the workload; docs/report.md tells it to the user. */
static void measure_and_verify(struct setup *setup, struct row *row, struct progress *progress)
{
	const struct config *config = setup->load.config;
	bool check = config->integrity_check;
	bool reads = config->workload == WORKLOAD_READ;
	bool fills = config_fills(config);
	bool well = true;

	new_generation(setup);
	if (fills && (check || !setup->filled))
		well = step(setup, progress, "writing what will be read", verify_write_all);
	setup->filled = fills;
	well = well && step(setup, progress, "filling local memory", verify_fill_window) &&
	       measure_all(setup, row, progress);
	if (reads && !fills)
		threads_run(&setup->threads, verify_look);
	if (!check || !well)
		return;
	if (config->workload == WORKLOAD_WRITE)
		well = step(setup, progress, "reading back what was written", verify_read_back);
	if (well && !reads) {
		new_generation(setup);
		well = step(setup, progress, "writing the whole segment", verify_write_all);
	}
	row->verified = well && step(setup, progress, "reading the whole segment", verify_read_all);
}

static int compare_rates(const void *a, const void *b, void *arg)
{
	const struct measurement *runs = arg;
	double left = measurement_bytes_per_second(&runs[*(const uint32_t *)a]);
	double right = measurement_bytes_per_second(&runs[*(const uint32_t *)b]);

	return (left > right) - (left < right);
}

static void find_median(struct row *row)
{
	uint32_t order[REPEAT_MAX];
	double median;

	for (uint32_t i = 0; i < row->runs_count; i++)
		order[i] = i;
	if (!row->runs_count)
		return;
	qsort_r(order, row->runs_count, sizeof(order[0]), compare_rates, row->runs);
	row->median = order[(row->runs_count - 1) / 2];
	median = measurement_bytes_per_second(&row->runs[row->median]);
	if (median > 0)
		row->spread =
			(measurement_bytes_per_second(&row->runs[order[row->runs_count - 1]]) -
			 measurement_bytes_per_second(&row->runs[order[0]])) /
			median;
}

static void collect(const struct setup *setup, struct row *row)
{
	for (uint32_t i = 0; i < setup->workers_count; i++) {
		const struct worker *worker = &setup->workers[i];

		row->submitted += worker->submitted;
		row->finished += worker->finished;
		row->verified_bytes += worker->verified_bytes;
		row->pages_looked_at += worker->pages_looked_at;
		row->pages_of_zeros += worker->pages_of_zeros;
		if (worker->mismatch.found &&
		    (!row->mismatch.found || worker->mismatch.offset < row->mismatch.offset))
			row->mismatch = worker->mismatch;
		for (uint32_t e = 0; e <= ERRNO_MAX; e++) {
			row->errors[e] += worker->errors[e];
			row->errors_total += worker->errors[e];
		}
	}
	row->interrupted = interrupt_pending();
	find_median(row);
}

int run_row(struct setup *setup, struct row *row, struct progress *progress)
{
	int rc = 0;

	setup->load.plan = row->plan;
	for (uint32_t i = 0; i < setup->workers_count && !rc; i++)
		rc = worker_prepare(&setup->workers[i]);
	if (!rc) {
		measure_and_verify(setup, row, progress);
		collect(setup, row);
	}
	progress_clear(progress);
	for (uint32_t i = 0; i < setup->workers_count; i++)
		worker_reset(&setup->workers[i]);
	return rc;
}
