/* SPDX-License-Identifier: Apache-2.0 */
#include "target/doctor.h"

#include <errno.h>
#include <string.h>

#include <sluice/sluice.h>

#include "common/doctor/config.h"
#include "common/doctor/doctor.h"
#include "common/doctor/rdma_in_use.h"
#include "target/config.h"
#include "target/serving.h"

static struct doctor_needs find_needs(const struct config *config)
{
	struct doctor_needs needs = {
		.serves = true,
		.hugepages_required = config->page == SLU_PAGE_2M,
		.hugepages_declined = config->page == SLU_PAGE_ORDINARY,
		.locks = config->mlock,
		.tls = security_tls(&config->security),
		.no_rdma = !config->rdma.on,
		.node = config->node,
		.cores = config->cores,
	};

	for (uint32_t i = 0; i < config->segments_count; i++) {
		uint64_t length_bytes = config->segments[i].length_bytes;

		needs.memory_bytes += length_bytes;
		if (length_bytes > needs.largest_bytes)
			needs.largest_bytes = length_bytes;
	}
	needs.pinned_bytes = needs.memory_bytes;
	return needs;
}

/* Everything but the memory: keys, certificates, addresses and cores are tried for real. */
static void check_engine(struct doctor *doctor, const struct settings *settings)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct serving serving = {0};
	int rc = serving_open_engine(&serving, settings->config, &settings->grants);

	if (rc) {
		doctor_add(doctor, rc == -EADDRINUSE ? VERDICT_WARNING : VERDICT_PROBLEM, "serving",
			   NULL, "%s", slu_last_error()[0] ? slu_last_error() : slu_strerror(rc));
	} else {
		slu_engine_get_info(serving.engine, &info);
		doctor_add(doctor, VERDICT_OK, "serving", NULL, "%s%s%s",
			   info.listen ? "could begin, over TCP at " : "could begin, on this host",
			   info.listen ? info.listen : "",
			   !info.listen ? ""
			   : info.tls   ? " with TLS"
					: " without TLS");
		doctor_check_rdma_in_use(doctor, &info);
	}
	serving_close(&serving);
}

static bool is_served(const struct config *config, const char *segment)
{
	bool served = !strcmp(segment, "*");

	for (uint32_t i = 0; i < config->segments_count; i++)
		served = served || !strcmp(config->segments[i].name, segment);
	return served;
}

static void check_grants(struct doctor *doctor, const struct settings *settings)
{
	const struct config *config = settings->config;
	const struct grants *grants = &settings->grants;
	uint32_t lost = 0;

	if (!grants->count && config->listen)
		doctor_add(doctor, VERDICT_WARNING, "identities",
			   "name them in [identity NAME] sections, see sluice.conf(5)",
			   "none: whoever is let in over TCP may read and write every segment");
	for (uint32_t i = 0; i < grants->count; i++) {
		if (is_served(config, grants->items[i].segment))
			continue;
		lost++;
		doctor_add(doctor, VERDICT_WARNING, "identities", "mend the name, or serve it",
			   "%s has a right on %s, which is not served", grants->items[i].identity,
			   grants->items[i].segment);
	}
	if (grants->count && !lost)
		doctor_add(doctor, VERDICT_OK, "identities", NULL, "%u rights on what is served",
			   grants->count);
}

int doctor_run(struct settings *settings)
{
	const struct config *config = settings->config;
	struct doctor_needs needs = find_needs(config);
	struct doctor doctor;

	doctor_init(&doctor, settings_flags(settings)->doctor_root, &needs);
	doctor_examine(&doctor);
	doctor_check_config(&doctor, settings);
	check_grants(&doctor, settings);
	if (!doctor_is_recorded(&doctor))
		check_engine(&doctor, settings);
	return doctor_finish(&doctor, settings->command->name, config->json);
}
