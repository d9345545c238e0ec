/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/explain.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include <sluice/sluice.h>

#include "common/exit.h"
#include "common/json_file.h"
#include "common/wrap.h"
#include "initiator/config.h"
#include "initiator/probe.h"
#include "initiator/setup.h"
#include "initiator/timer.h"
#include "initiator/units.h"

#define ERROR_TEXT    512
#define REASON_COLUMN 13

/** A candidate, and what its probe has shown. */
struct way {
	struct slu_candidate candidate;
	struct probe probe;
	int error; /* of the probe */
	char cause[ERROR_TEXT];
};

struct explanation {
	const struct config *config;
	struct way ways[SLU_CANDIDATES_MAX];
	int count;
	int error; /* nothing could be asked */
	char cause[ERROR_TEXT];
};

static void keep_cause(int error, char cause[static ERROR_TEXT])
{
	snprintf(cause, ERROR_TEXT, "%s",
		 slu_last_error()[0] ? slu_last_error() : slu_strerror(error));
}

static void find_ways(struct explanation *explanation, struct slu_engine *engine)
{
	const struct config *config = explanation->config;
	struct slu_candidate candidates[SLU_CANDIDATES_MAX];
	struct slu_remote_options options;

	config_remote(config, &options);
	explanation->count = slu_remote_explain(engine, config->remote_segment, &options,
						candidates, SLU_CANDIDATES_MAX);
	if (explanation->count < 0) {
		explanation->error = explanation->count;
		explanation->count = 0;
		keep_cause(explanation->error, explanation->cause);
	}
	for (int i = 0; i < explanation->count; i++)
		explanation->ways[i].candidate = candidates[i];
}

static void probe_ways(struct explanation *explanation, struct slu_engine *engine)
{
	timer_calibrate();
	for (int i = 0; i < explanation->count; i++) {
		struct way *way = &explanation->ways[i];

		if (!way->candidate.usable)
			continue;
		way->error = probe_measure(engine, explanation->config, way->candidate.transport,
					   &way->probe);
		if (way->error)
			keep_cause(way->error, way->cause);
	}
}

static const char *verdict(const struct way *way)
{
	if (way->candidate.chosen)
		return "chosen";
	return way->candidate.usable ? "possible" : "not possible";
}

static const struct way *chosen(const struct explanation *explanation)
{
	for (int i = 0; i < explanation->count; i++)
		if (explanation->ways[i].candidate.chosen)
			return &explanation->ways[i];
	return NULL;
}

/* "60.0 ns, 20.00 GB/s"; what is not known is left out. */
static void format_cost(const struct config *config, uint64_t latency_ns, uint64_t bytes_per_second,
			char text[static 2 * UNIT_TEXT])
{
	char latency[UNIT_TEXT] = "", rate[UNIT_TEXT] = "";

	if (latency_ns)
		unit_format_duration(latency_ns, latency);
	if (bytes_per_second)
		unit_format_bytes((double)bytes_per_second, (enum unit)config->report_unit,
				  (int)config->report_precision, rate);
	snprintf(text, 2 * UNIT_TEXT, "%s%s%s%s", latency, latency[0] && rate[0] ? ", " : "", rate,
		 rate[0] ? "/s" : "");
}

static void print_way(const struct config *config, const struct way *way)
{
	const struct slu_candidate *candidate = &way->candidate;
	char expected[2 * UNIT_TEXT], measured[2 * UNIT_TEXT];

	format_cost(config, candidate->latency_ns, candidate->bytes_per_second, expected);
	format_cost(config, way->probe.latency_ns, way->probe.bytes_per_second, measured);
	printf("  %-10s %-14s %-24s %s%s\n", slu_transport_name(candidate->transport), verdict(way),
	       expected, way->error ? "failed" : measured, way->probe.zeros ? " of zeros" : "");
	printf("  %-10s ", "");
	wrap_print(stdout, wrap_width(), REASON_COLUMN, candidate->reason);
	if (way->error)
		printf("  %-10s when it was tried: %s\n", "", way->cause);
}

static void print(const struct explanation *explanation)
{
	const struct way *taken = chosen(explanation);

	printf("ways to %s, best first\n", explanation->config->remote_segment);
	if (explanation->count)
		printf("  %-10s %-14s %-24s %s\n", "transport", "", "expected", "measured");
	for (int i = 0; i < explanation->count; i++)
		print_way(explanation->config, &explanation->ways[i]);
	if (taken)
		printf("chosen: %s\n", slu_transport_name(taken->candidate.transport));
	else if (explanation->error)
		printf("none: %s\n", explanation->cause);
	else
		puts("none: the reasons say what would change that");
	if (explanation->count)
		puts("latency of a READ of 8 bytes, median; throughput of READs of 1 MiB, one "
		     "thread");
}

static json_t *cost_json(uint64_t latency_ns, uint64_t bytes_per_second)
{
	return json_pack(
		"{s:o, s:o}", "latency_ns",
		latency_ns ? json_integer((json_int_t)latency_ns) : json_null(), "bytes_per_second",
		bytes_per_second ? json_integer((json_int_t)bytes_per_second) : json_null());
}

static json_t *probe_json(const struct probe *probe)
{
	json_t *object = cost_json(probe->latency_ns, probe->bytes_per_second);

	json_object_set_new(object, "zeros", json_boolean(probe->zeros));
	return object;
}

static json_t *way_json(const struct way *way)
{
	const struct slu_candidate *candidate = &way->candidate;
	bool measured = candidate->usable && !way->error;

	return json_pack("{s:s, s:s, s:b, s:b, s:s, s:o, s:o, s:s?}", "transport",
			 slu_transport_name(candidate->transport), "verdict", verdict(way),
			 "chosen", candidate->chosen, "usable", candidate->usable, "reason",
			 candidate->reason, "expected",
			 cost_json(candidate->latency_ns, candidate->bytes_per_second), "measured",
			 measured ? probe_json(&way->probe) : json_null(), "error",
			 way->error ? way->cause : NULL);
}

static json_t *explanation_json(const struct explanation *explanation)
{
	const struct way *taken = chosen(explanation);
	json_t *ways = json_array();

	for (int i = 0; i < explanation->count; i++)
		json_array_append_new(ways, way_json(&explanation->ways[i]));
	return json_pack(
		"{s:s, s:s, s:s, s:s?, s:o, s:s?}", "schema", "sluice-explain/1", "version",
		slu_version(), "remote_segment", explanation->config->remote_segment, "chosen",
		taken ? slu_transport_name(taken->candidate.transport) : NULL, "candidates", ways,
		"error", explanation->error ? explanation->cause : NULL);
}

static int publish(const struct explanation *explanation)
{
	const char *json = explanation->config->json;
	const struct way *taken = chosen(explanation);
	int rc = 0;

	if (!json || strcmp(json, "-"))
		print(explanation);
	if (json)
		rc = json_file_write(explanation_json(explanation), json);
	if (rc)
		exit_explain(rc);
	return !rc && taken && !taken->error ? EXIT_DONE : EXIT_FAILED;
}

int explain_run(struct settings *settings)
{
	struct explanation explanation = {.config = settings->config};
	struct setup setup = {0};
	int code = EXIT_FAILED;
	int rc;

	timer_start();
	rc = setup_engine(&setup, settings->config);
	if (rc) {
		exit_explain(rc);
	} else {
		find_ways(&explanation, setup.engine);
		probe_ways(&explanation, setup.engine);
		code = publish(&explanation);
	}
	setup_close(&setup);
	return code;
}
