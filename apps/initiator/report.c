/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/report.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "common/wrap.h"
#include "initiator/report_rdma.h"
#include "initiator/timer.h"
#include "initiator/units.h"

#define LABEL         "  %-12s"
#define LABEL_COLUMNS 14

static const double percents[] = {50, 90, 99, 99.9, 99.99, 100};
static const char *const percent_names[] = {"p50", "p90", "p99", "p99.9", "p99.99", "max"};

#define PERCENTS (sizeof(percents) / sizeof(percents[0]))

static int read_pollers(struct report *report)
{
	struct path *path = &report->path;

	path->pollers = calloc(path->engine.pollers + 1, sizeof(*path->pollers));
	if (!path->pollers)
		return fail(-ENOMEM, "out of memory for the report");
	for (uint32_t i = 0; i < path->engine.pollers; i++) {
		path->pollers[i].size = sizeof(path->pollers[i]);
		slu_engine_get_poller(report->setup->engine, i, &path->pollers[i]);
	}
	return 0;
}

int report_init(struct report *report)
{
	struct path *path = &report->path;

	path->remote.size = sizeof(path->remote);
	path->local.size = sizeof(path->local);
	path->engine.size = sizeof(path->engine);
	slu_remote_get_info(report->setup->remote, &path->remote);
	slu_region_get_info(report->setup->region, &path->local);
	slu_engine_get_info(report->setup->engine, &path->engine);
	path->candidates_count = slu_remote_get_candidates(report->setup->remote, path->candidates,
							   SLU_CANDIDATES_MAX);
	machine_read(&report->machine);
	return read_pollers(report);
}

void report_fini(struct report *report)
{
	free(report->path.pollers);
	report->path.pollers = NULL;
}

bool report_verified(const struct report *report)
{
	bool verified = report->rows_count > 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		verified = verified && report->rows[i]->verified;
	return verified;
}

uint64_t report_errors(const struct report *report)
{
	uint64_t errors = 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		errors += report->rows[i]->errors_total;
	return errors;
}

uint64_t report_errors_of(const struct report *report, uint32_t number)
{
	uint64_t errors = 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		errors += report->rows[i]->errors[number];
	return errors;
}

uint32_t report_first_error(const struct report *report)
{
	uint32_t number = 0;

	while (number < ERRNO_MAX && !report_errors_of(report, number))
		number++;
	return report_errors_of(report, number) ? number : 0;
}

uint64_t report_verified_bytes(const struct report *report)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		bytes += report->rows[i]->verified_bytes;
	return bytes;
}

uint64_t report_pages_looked_at(const struct report *report)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		pages += report->rows[i]->pages_looked_at;
	return pages;
}

uint64_t report_pages_of_zeros(const struct report *report)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < report->rows_count; i++)
		pages += report->rows[i]->pages_of_zeros;
	return pages;
}

const struct row *report_mismatch(const struct report *report)
{
	for (uint32_t i = 0; i < report->rows_count; i++)
		if (report->rows[i]->mismatch.found)
			return report->rows[i];
	return NULL;
}

static bool report_interrupted(const struct report *report)
{
	return report->rows_count && report->rows[report->rows_count - 1]->interrupted;
}

bool report_succeeded(const struct report *report)
{
	return report->rows_count && !report_errors(report) && !report_interrupted(report) &&
	       !report_mismatch(report) &&
	       (!report->config->integrity_check || report_verified(report));
}

const char *report_errno_name(uint32_t number)
{
	const char *name = number < ERRNO_MAX ? strerrorname_np((int)number) : NULL;

	return name ? name : "other";
}

static void print_work(const struct report *report)
{
	const struct config *config = report->config;
	const struct plan *plan = &report->rows[report->best]->plan;
	char size[OPTION_SIZE_TEXT], rate[UNIT_TEXT];

	option_format_size(plan->size, size);
	printf(LABEL "%s, %s %s, ", "work", config_workload_name(config),
	       config_access_name(config), config->sweep ? "sizes from 64 B to 16 MiB" : size);
	printf("batches of %" PRIu64 ", %u in flight, %u thread%s\n", config->batch, plan->depth,
	       plan->threads, plan->threads == 1 ? "" : "s");
	if (plan->depth < config->depth)
		printf(LABEL
		       "a slice holds %u batches: --depth lowered, so that checked batches never "
		       "overlap\n",
		       "", plan->depth);
	if (config->rate > 0) {
		unit_format_count(config->rate, rate);
		printf(LABEL "open loop: %s requests due per second\n", "", rate);
	}
}

static void print_pollers(const struct report *report)
{
	const struct path *path = &report->path;

	if (!path->engine.pollers) {
		printf(LABEL "inline queues, no polling threads", "");
	} else {
		printf(LABEL "%u polling threads (%s) on cores", "", path->engine.pollers,
		       report->config->poll == SLU_POLL_BUSY ? "busy" : "adaptive");
		for (uint32_t i = 0; i < path->engine.pollers; i++)
			printf("%s %d (of %u message buffers %u used at most)", i ? "," : "",
			       path->pollers[i].core, path->pollers[i].buffers,
			       path->pollers[i].buffers_most);
	}
	if (!report->setup->worker_cores_count)
		printf("; workers not pinned");
	else
		printf("; workers on cores");
	for (uint32_t i = 0; i < report->setup->worker_cores_count; i++)
		printf("%s %d", i ? "," : "", report->setup->worker_cores[i]);
	putchar('\n');
}

/* Who is at the other end of which connection, and why this transport and no other. */
static void print_way(const struct path *path)
{
	const struct slu_remote_info *remote = &path->remote;
	char text[sizeof(path->candidates[0].reason) + 32];

	printf(LABEL "connected to %s as %s", "", remote->address ? remote->address : "unknown",
	       remote->identity ? remote->identity : "unknown");
	if (remote->transport == SLU_TRANSPORT_TCP || remote->transport == SLU_TRANSPORT_VERBS)
		printf(", %u %s, %s", remote->connections,
		       remote->transport == SLU_TRANSPORT_TCP ? "data connections"
							      : "queue pairs of all pollers",
		       remote->encrypted ? "encrypted" : "NOT encrypted");
	putchar('\n');
	report_rdma_print(&path->remote, &path->local, stdout);
	for (int i = 0; i < path->candidates_count; i++) {
		const struct slu_candidate *candidate = &path->candidates[i];

		snprintf(text, sizeof(text), "%s%s: %s",
			 candidate->chosen   ? ""
			 : candidate->usable ? "also possible, "
					     : "not ",
			 slu_transport_name(candidate->transport), candidate->reason);
		printf(LABEL, i ? "" : "why");
		wrap_print(stdout, wrap_width(), LABEL_COLUMNS, text);
	}
}

static void print_path(const struct report *report)
{
	const struct path *path = &report->path;
	char length[OPTION_SIZE_TEXT], remote[OPTION_SIZE_TEXT], local[OPTION_SIZE_TEXT];

	option_format_size(path->remote.length_bytes, length);
	option_format_size(path->remote.page_bytes, remote);
	option_format_size(path->local.page_bytes, local);
	printf(LABEL "%s to segment %s (%s) of %s, ", "path",
	       slu_transport_name(path->remote.transport), path->remote.name, length,
	       path->remote.target);
	if (path->remote.pid > 0)
		printf("pid %d, ", (int)path->remote.pid);
	printf("incarnation %016" PRIx64 "\n", path->remote.incarnation);
	printf(LABEL "segment on %s pages, node %d; buffers on %s pages, node %d%s\n", "", remote,
	       path->remote.node, local, path->local.node,
	       path->local.shareable ? ", shareable" : "");
	print_pollers(report);
	print_way(path);
}

static void print_machine(const struct report *report)
{
	const struct machine *machine = &report->machine;
	const char *balancing = machine->numa_balancing < 0 ? "unknown"
				: machine->numa_balancing   ? "on"
							    : "off";

	printf(LABEL "%s%s, %u of %u CPUs, %u NUMA node%s, Linux %s\n", "machine", machine->cpu,
	       machine->virtual_machine ? " (virtual)" : "", machine->cpus_usable,
	       machine->cpus_online, machine->nodes, machine->nodes == 1 ? "" : "s",
	       machine->kernel);
	printf(LABEL "2 MiB pages: %" PRIu64 " of %" PRIu64
		     " free; governor %s; NUMA balancing %s; "
		     "clock %s\n",
	       "", machine->hugepages_free, machine->hugepages_total, machine->governor, balancing,
	       timer_name());
}

static void print_throughput(const struct report *report, const struct row *row)
{
	const struct config *config = report->config;
	const struct measurement *run = &row->runs[row->median];
	char rate[UNIT_TEXT], count[UNIT_TEXT];

	unit_format_bytes(measurement_bytes_per_second(run), (enum unit)config->report_unit,
			  (int)config->report_precision, rate);
	unit_format_count(measurement_operations_per_second(run), count);
	printf(LABEL "%s/s", "throughput", rate);
	if (row->runs_count > 1)
		printf("   (median of %u runs, spread %.1f %%)", row->runs_count,
		       100 * row->spread);
	printf("\n" LABEL "%s operations/s\n", "", count);
	if (run->moving_seconds < run->seconds)
		printf(LABEL "of moving alone: %.2f of %.2f s; the others were for filling and "
			     "comparing\n",
		       "", run->moving_seconds, run->seconds);
}

static void print_latency_row(const char *name, const struct histogram *histogram)
{
	printf("    %-10s", name);
	for (size_t i = 0; i < PERCENTS; i++) {
		char text[UNIT_TEXT];

		unit_format_duration(histogram_percentile(histogram, percents[i]), text);
		printf("%11s", text);
	}
	putchar('\n');
}

static void print_latency(const struct row *row)
{
	printf(LABEL, "latency");
	for (size_t i = 0; i < PERCENTS; i++)
		printf("%11s", percent_names[i]);
	putchar('\n');
	print_latency_row("operation", &row->operation_ns);
	print_latency_row("batch", &row->batch_ns);
}

static void print_cpu(const struct row *row)
{
	const struct measurement *run = &row->runs[row->median];
	double initiator = measurement_cpu_per_gib(run, run->cpu_initiator_seconds);
	double target = measurement_cpu_per_gib(run, run->cpu_target_seconds);

	if (initiator < 0)
		printf(LABEL "nothing was moved in the measured time\n", "CPU");
	else if (target < 0)
		printf(LABEL "%.4f s per GiB here; the target did not tell\n", "CPU", initiator);
	else
		printf(LABEL "%.4f s per GiB: %.4f here, %.4f in the target\n", "CPU",
		       initiator + target, initiator, target);
}

static void print_moved(const struct row *row)
{
	uint64_t read = 0, written = 0;
	double seconds = 0;

	for (uint32_t i = 0; i < row->runs_count; i++) {
		read += row->runs[i].bytes_read;
		written += row->runs[i].bytes_written;
		seconds += row->runs[i].seconds;
	}
	printf(LABEL "%.2f GiB read, %.2f GiB written in %.2f s\n", "moved", (double)read / 0x1p30,
	       (double)written / 0x1p30, seconds);
}

static void print_sweep_row(const struct config *config, const struct row *row)
{
	static const double shown[] = {50, 99, 99.9, 100};
	const struct measurement *run = &row->runs[row->median];
	char size[OPTION_SIZE_TEXT], rate[UNIT_TEXT], text[UNIT_TEXT];

	option_format_size(row->plan.size, size);
	unit_format_bytes(measurement_bytes_per_second(run), (enum unit)config->report_unit,
			  (int)config->report_precision, rate);
	unit_format_count(measurement_operations_per_second(run), text);
	printf("%12s%8u%14s/s%10s", size, row->plan.batch, rate, text);
	for (size_t p = 0; p < sizeof(shown) / sizeof(shown[0]); p++) {
		unit_format_duration(histogram_percentile(&row->operation_ns, shown[p]), text);
		printf("%11s", text);
	}
	putchar('\n');
}

static void print_sweep(const struct report *report)
{
	printf("\n%12s%8s%16s%10s%11s%11s%11s%11s\n", "size", "batch", "throughput", "op/s", "p50",
	       "p99", "p99.9", "max");
	for (uint32_t i = 0; i < report->rows_count; i++) {
		const struct row *row = report->rows[i];

		/* Interrupted before it was measured: its zeros would be taken for results. */
		if (!row->interrupted || row->runs[row->median].operations)
			print_sweep_row(report->config, row);
	}
	puts("  latencies are of an operation\n");
}

/* Zeros are what a segment that nobody has written to holds, and they move faster than data. */
static void print_content(const struct report *report)
{
	uint64_t pages = report_pages_looked_at(report), zeros = report_pages_of_zeros(report);

	if (!pages)
		printf(LABEL "data that cannot be shortened, no two pages of a buffer alike\n",
		       "content");
	else if (zeros)
		printf(LABEL "ZEROS: %" PRIu64 " of the last %" PRIu64
			     " pages read; data may be slower: --fill writes some first\n",
		       "content", zeros, pages);
	else
		printf(LABEL "as found in the segment; none of the last %" PRIu64
			     " pages read was zeros\n",
		       "content", pages);
}

static void print_errors(const struct report *report)
{
	printf(LABEL "%" PRIu64, "errors", report_errors(report));
	for (uint32_t e = 0; e <= ERRNO_MAX; e++) {
		uint64_t count = report_errors_of(report, e);

		if (count)
			printf("; %" PRIu64 " %s: %s", count, report_errno_name(e),
			       e < ERRNO_MAX ? slu_strerror((int)e) : "");
	}
	putchar('\n');
}

static void print_verified(const struct report *report)
{
	const struct row *wrong = report_mismatch(report);
	double gib = (double)report_verified_bytes(report) / 0x1p30;

	if (wrong)
		printf(LABEL "WRONG DATA at offset %" PRIu64
			     " of the segment: expected 0x%02x, got "
			     "0x%02x\n",
		       "verified", wrong->mismatch.offset, wrong->mismatch.expected,
		       wrong->mismatch.got);
	else if (!report->config->integrity_check)
		printf(LABEL "not checked; --integrity_check compares the data\n", "verified");
	else if (report_verified(report))
		printf(LABEL "yes: %.2f GiB compared, all equal\n", "verified", gib);
	else
		printf(LABEL "NO: the check did not come to its end; %.2f GiB were compared, all "
			     "equal\n",
		       "verified", gib);
}

void report_print(const struct report *report)
{
	const struct row *best = report->rows[report->best];

	printf("sluice-initiator %s%s\n", slu_version(),
	       report_interrupted(report) ? ": INTERRUPTED, this is what was done" : "");
	print_work(report);
	print_path(report);
	print_machine(report);
	if (report->config->sweep) {
		print_sweep(report);
	} else {
		print_throughput(report, best);
		print_latency(best);
		print_cpu(best);
		print_moved(best);
	}
	print_content(report);
	print_errors(report);
	print_verified(report);
}
