/* SPDX-License-Identifier: Apache-2.0 */
#include "target/report.h"

#include <inttypes.h>
#include <jansson.h>

#include "common/json_file.h"

static double gib(uint64_t bytes)
{
	return (double)bytes / (double)(1 << 30);
}

static void print_segment(struct slu_segment *segment)
{
	struct slu_segment_info info = {.size = sizeof(info)};

	if (slu_segment_get_info(segment, &info))
		return;
	printf("  segment %s: %" PRIu64 " operations, %.2f GiB read, %.2f GiB written, %" PRIu64
	       " clients",
	       info.name, info.operations, gib(info.bytes_read), gib(info.bytes_written),
	       info.clients_total);
	if (info.clients_lost)
		printf(", %" PRIu64 " of them vanished", info.clients_lost);
	putchar('\n');
}

void report_print(const struct serving *serving, const struct config *config,
		  const struct outcome *outcome)
{
	printf("served for %.1f s, using %.2f s of CPU time\n", outcome->served_seconds,
	       outcome->cpu_seconds);
	for (uint32_t i = 0; i < config->segments_count; i++)
		print_segment(serving->segments[i]);
	if (outcome->clients_left)
		printf("  %u clients had not left and were cut off\n", outcome->clients_left);
}

static json_t *segment_json(struct slu_segment *segment, const struct slu_region *memory)
{
	struct slu_region_info region = {.size = sizeof(region)};
	struct slu_segment_info info = {.size = sizeof(info)};

	if (slu_segment_get_info(segment, &info) || slu_region_get_info(memory, &region))
		return json_null();
	return json_pack("{s:s, s:I, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "name",
			 info.name, "length_bytes", (json_int_t)info.length_bytes, "rights",
			 info.rights & SLU_RIGHT_WRITE ? "read,write" : "read", "clients_total",
			 (json_int_t)info.clients_total, "clients_lost",
			 (json_int_t)info.clients_lost, "operations", (json_int_t)info.operations,
			 "read_bytes", (json_int_t)info.bytes_read, "written_bytes",
			 (json_int_t)info.bytes_written, "notifications",
			 (json_int_t)info.notifications, "rdma_devices", (json_int_t)region.devices,
			 "rdma_registration_ns", (json_int_t)region.register_ns);
}

static json_t *pollers_json(struct slu_engine *engine)
{
	struct slu_poller_info info = {.size = sizeof(info)};
	json_t *pollers = json_array();

	for (uint32_t i = 0; slu_engine_get_poller(engine, i, &info) == 0; i++)
		json_array_append_new(pollers, json_pack("{s:i, s:i, s:i, s:i, s:i, s:I}", "core",
							 info.core, "node", info.node, "buffers",
							 (int)info.buffers, "buffers_used",
							 (int)info.buffers_used, "buffers_most",
							 (int)info.buffers_most, "buffers_refused",
							 (json_int_t)info.buffers_refused));
	return pollers;
}

static json_t *report_json(const struct serving *serving, const struct config *config,
			   const struct outcome *outcome)
{
	struct slu_engine_info engine = {.size = sizeof(engine)};
	char incarnation[20];
	json_t *segments = json_array();

	slu_engine_get_info(serving->engine, &engine);
	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, engine.incarnation);
	for (uint32_t i = 0; i < config->segments_count; i++)
		json_array_append_new(segments,
				      segment_json(serving->segments[i], serving->regions[i]));
	return json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:s?, s:o, s:o}", "schema",
			 "sluice-target-report/1", "version", slu_version(), "incarnation",
			 incarnation, "served_seconds", outcome->served_seconds, "cpu_seconds",
			 outcome->cpu_seconds, "clients_left", (int)outcome->clients_left,
			 "rdma_devices", (int)engine.rdma_devices, "rdma", engine.rdma, "pollers",
			 pollers_json(serving->engine), "segments", segments);
}

int report_write_json(const struct serving *serving, const struct config *config,
		      const struct outcome *outcome)
{
	return json_file_write(report_json(serving, config, outcome), config->json);
}
