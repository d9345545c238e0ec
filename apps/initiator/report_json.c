/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/report_json.h"

#include <inttypes.h>
#include <jansson.h>

#include "common/json_file.h"
#include "initiator/report_rdma.h"
#include "initiator/timer.h"
#include "initiator/units.h"

static json_t *integer(uint64_t value)
{
	return json_integer((json_int_t)value);
}

/* A negative figure means that it is not known. */
static json_t *real_or_null(double value)
{
	return value < 0 ? json_null() : json_real(value);
}

static void set(json_t *object, const char *key, json_t *value)
{
	json_object_set_new(object, key, value);
}

static json_t *latency_json(const struct histogram *histogram)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "count",
			 (json_int_t)histogram->count, "p50",
			 (json_int_t)histogram_percentile(histogram, 50), "p90",
			 (json_int_t)histogram_percentile(histogram, 90), "p99",
			 (json_int_t)histogram_percentile(histogram, 99), "p99_9",
			 (json_int_t)histogram_percentile(histogram, 99.9), "p99_99",
			 (json_int_t)histogram_percentile(histogram, 99.99), "max",
			 (json_int_t)histogram_percentile(histogram, 100));
}

static double total_cpu(const struct measurement *run)
{
	return run->cpu_target_seconds < 0 ? -1
					   : run->cpu_initiator_seconds + run->cpu_target_seconds;
}

/* Throughput and CPU: of one run, and of a row by its median run. */
static void set_figures(json_t *object, const struct measurement *run)
{
	set(object, "throughput_bytes_per_second", json_real(measurement_bytes_per_second(run)));
	set(object, "operations_per_second", json_real(measurement_operations_per_second(run)));
	set(object, "duration_seconds", json_real(run->seconds));
	set(object, "moving_seconds", json_real(run->moving_seconds));
	set(object, "operations", integer(run->operations));
	set(object, "batches", integer(run->batches));
	set(object, "bytes_read", integer(run->bytes_read));
	set(object, "bytes_written", integer(run->bytes_written));
	set(object, "cpu_seconds_per_gib",
	    real_or_null(measurement_cpu_per_gib(run, total_cpu(run))));
	set(object, "cpu_seconds_per_gib_initiator",
	    real_or_null(measurement_cpu_per_gib(run, run->cpu_initiator_seconds)));
	set(object, "cpu_seconds_per_gib_target",
	    real_or_null(measurement_cpu_per_gib(run, run->cpu_target_seconds)));
}

static json_t *runs_json(const struct row *row)
{
	json_t *runs = json_array();

	for (uint32_t i = 0; i < row->runs_count; i++) {
		json_t *run = json_object();

		set_figures(run, &row->runs[i]);
		json_array_append_new(runs, run);
	}
	return runs;
}

static void set_row(json_t *object, const struct row *row)
{
	set(object, "size_bytes", integer(row->plan.size));
	set(object, "batch", integer(row->plan.batch));
	set(object, "depth", integer(row->plan.depth));
	set(object, "threads", integer(row->plan.threads));
	set_figures(object, &row->runs[row->median]);
	set(object, "throughput_spread", json_real(row->spread));
	set(object, "operations_submitted", integer(row->submitted));
	set(object, "operations_finished", integer(row->finished));
	set(object, "latency_operation_ns", latency_json(&row->operation_ns));
	set(object, "latency_batch_ns", latency_json(&row->batch_ns));
	set(object, "runs", runs_json(row));
}

static json_t *errors_json(const struct report *report)
{
	json_t *errors = json_object();

	for (uint32_t e = 0; e <= ERRNO_MAX; e++) {
		uint64_t count = report_errors_of(report, e);

		if (count)
			set(errors, report_errno_name(e), integer(count));
	}
	return errors;
}

static json_t *content_json(const struct report *report)
{
	uint64_t pages = report_pages_looked_at(report);

	return json_pack("{s:b, s:I, s:I}", "filled", pages == 0, "pages_looked_at",
			 (json_int_t)pages, "pages_of_zeros",
			 (json_int_t)report_pages_of_zeros(report));
}

static json_t *mismatch_json(const struct report *report)
{
	const struct row *wrong = report_mismatch(report);

	if (!wrong)
		return json_null();
	return json_pack("{s:I, s:i, s:i}", "offset_bytes", (json_int_t)wrong->mismatch.offset,
			 "expected", wrong->mismatch.expected, "got", wrong->mismatch.got);
}

static json_t *pollers_json(const struct path *path, const char *poll)
{
	json_t *pollers = json_array();

	for (uint32_t i = 0; i < path->engine.pollers; i++) {
		const struct slu_poller_info *info = &path->pollers[i];

		json_array_append_new(pollers,
				      json_pack("{s:i, s:i, s:s, s:i, s:i, s:i, s:I}", "core",
						info->core, "node", info->node, "poll", poll,
						"buffers", (int)info->buffers, "buffers_used",
						(int)info->buffers_used, "buffers_most",
						(int)info->buffers_most, "buffers_refused",
						(json_int_t)info->buffers_refused));
	}
	return pollers;
}

static json_t *worker_cores_json(const struct setup *setup)
{
	json_t *cores = json_array();

	for (uint32_t i = 0; i < setup->worker_cores_count; i++)
		json_array_append_new(cores, json_integer(setup->worker_cores[i]));
	return cores;
}

static json_t *candidates_json(const struct path *path)
{
	json_t *candidates = json_array();

	for (int i = 0; i < path->candidates_count; i++) {
		const struct slu_candidate *candidate = &path->candidates[i];

		json_array_append_new(candidates,
				      json_pack("{s:s, s:b, s:b, s:s}", "transport",
						slu_transport_name(candidate->transport), "chosen",
						candidate->chosen, "usable", candidate->usable,
						"reason", candidate->reason));
	}
	return candidates;
}

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *path_json(const struct report *report)
{
	const struct path *path = &report->path;
	const char *poll = report->config->poll == SLU_POLL_BUSY ? "busy" : "adaptive";
	char incarnation[20];
	json_t *object = json_object();

	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, path->remote.incarnation);
	set(object, "transport", json_string(slu_transport_name(path->remote.transport)));
	set(object, "segment", json_string(path->remote.name));
	set(object, "segment_bytes", integer(path->remote.length_bytes));
	set(object, "target_name", json_string(path->remote.target));
	set(object, "target_pid", json_integer(path->remote.pid));
	set(object, "target_incarnation", json_string(incarnation));
	set(object, "remote_page_bytes", integer(path->remote.page_bytes));
	set(object, "remote_node", json_integer(path->remote.node));
	set(object, "local_page_bytes", integer(path->local.page_bytes));
	set(object, "local_node", json_integer(path->local.node));
	set(object, "local_bytes", integer(path->local.length_bytes));
	set(object, "local_shareable", json_boolean(path->local.shareable));
	set(object, "queues", json_string(path->engine.pollers ? "poller" : "inline"));
	set(object, "pollers", pollers_json(path, poll));
	set(object, "worker_cores", worker_cores_json(report->setup));
	set(object, "copy", text_or_null(path->engine.copy));
	set(object, "address", text_or_null(path->remote.address));
	set(object, "identity", text_or_null(path->remote.identity));
	set(object, "encrypted", json_boolean(path->remote.encrypted));
	set(object, "connections", integer(path->remote.connections));
	set(object, "rdma", report_rdma_json(&path->engine, &path->remote, &path->local));
	set(object, "candidates", candidates_json(path));
	return object;
}

static json_t *machine_json(const struct report *report)
{
	const struct machine *machine = &report->machine;
	json_t *object = json_object();

	set(object, "cpu", json_string(machine->cpu));
	set(object, "cpus_online", integer(machine->cpus_online));
	set(object, "cpus_usable", integer(machine->cpus_usable));
	set(object, "virtual_machine", json_boolean(machine->virtual_machine));
	set(object, "numa_nodes", integer(machine->nodes));
	set(object, "numa_balancing",
	    machine->numa_balancing < 0 ? json_null() : json_boolean(machine->numa_balancing));
	set(object, "llc_bytes", integer(report->path.engine.llc_bytes));
	set(object, "memory_bytes", integer(machine->memory_bytes));
	set(object, "hugepages_2m_total", integer(machine->hugepages_total));
	set(object, "hugepages_2m_free", integer(machine->hugepages_free));
	set(object, "transparent_hugepages", json_string(machine->thp));
	set(object, "governor", json_string(machine->governor));
	set(object, "kernel", json_string(machine->kernel));
	set(object, "hostname", json_string(machine->hostname));
	set(object, "clock", json_string(timer_name()));
	return object;
}

static json_t *config_json(const struct config *config)
{
	json_t *object = json_object();

	set(object, "workload", json_string(config_workload_name(config)));
	set(object, "access", json_string(config_access_name(config)));
	set(object, "size_bytes", config->sweep ? json_null() : integer(config->size));
	set(object, "batch", integer(config->batch));
	set(object, "depth", integer(config->depth));
	set(object, "threads", integer(config->threads));
	set(object, "pollers", integer(config->pollers));
	set(object, "duration_seconds", json_real(config->duration));
	set(object, "warmup_seconds", json_real(config->warmup));
	set(object, "repeat", integer(config->repeat));
	set(object, "rate_operations_per_second",
	    config->rate > 0 ? json_real(config->rate) : json_null());
	set(object, "deadline_ms", integer(config->deadline_ms));
	set(object, "seed", integer(config->seed));
	set(object, "fill", json_boolean(config->fill));
	set(object, "integrity_check", json_boolean(config->integrity_check));
	set(object, "shmfs", json_boolean(config->shmfs));
	return object;
}

static json_t *command_line_json(const struct report *report)
{
	json_t *words = json_array();

	/* JSON text is UTF-8; an argument that is not has no other way to be named. */
	for (int i = 0; i < report->argc; i++) {
		json_t *word = json_string(report->argv[i]);

		json_array_append_new(words, word ? word : json_string("(not UTF-8)"));
	}
	return words;
}

static json_t *sweep_json(const struct report *report)
{
	json_t *rows = json_array();

	for (uint32_t i = 0; i < report->rows_count; i++) {
		json_t *row = json_object();

		set_row(row, report->rows[i]);
		json_array_append_new(rows, row);
	}
	return rows;
}

static json_t *report_json(const struct report *report)
{
	const struct row *last = report->rows[report->rows_count - 1];
	json_t *object = json_object();

	set(object, "schema", json_string("sluice-report/2"));
	set(object, "version", json_string(slu_version()));
	set(object, "command_line", command_line_json(report));
	set(object, "config", config_json(report->config));
	set(object, "transport", json_string(slu_transport_name(report->path.remote.transport)));
	set_row(object, report->rows[report->best]);
	if (report->config->sweep)
		set(object, "sweep", sweep_json(report));
	set(object, "content", content_json(report));
	set(object, "errors_total", integer(report_errors(report)));
	set(object, "errors", errors_json(report));
	set(object, "verified", json_boolean(report_verified(report)));
	set(object, "verified_bytes", integer(report_verified_bytes(report)));
	set(object, "mismatch", mismatch_json(report));
	set(object, "interrupted", json_boolean(last->interrupted));
	set(object, "path", path_json(report));
	set(object, "machine", machine_json(report));
	return object;
}

int report_json_write(const struct report *report)
{
	return json_file_write(report_json(report), report->config->json);
}
