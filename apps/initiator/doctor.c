/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/doctor.h"

#include <errno.h>
#include <stdio.h>

#include <sluice/sluice.h>

#include "common/doctor/config.h"
#include "common/doctor/doctor.h"
#include "common/doctor/rdma_in_use.h"
#include "initiator/config.h"
#include "initiator/plan.h"
#include "initiator/setup.h"

static const char *cause(int error)
{
	return slu_last_error()[0] ? slu_last_error() : slu_strerror(error);
}

static void check_ways(struct doctor *doctor, const struct config *config,
		       struct slu_engine *engine, uint32_t rights)
{
	struct slu_candidate candidates[SLU_CANDIDATES_MAX];
	struct slu_remote_options options;
	int count;

	config_remote(config, &options);
	options.rights = rights;
	count = slu_remote_explain(engine, config->remote_segment, &options, candidates,
				   SLU_CANDIDATES_MAX);
	for (int i = 0; i < count; i++) {
		char check[64];

		snprintf(check, sizeof(check), "way by %s",
			 slu_transport_name(candidates[i].transport));
		doctor_add(doctor, candidates[i].usable ? VERDICT_OK : VERDICT_ABSENT, check, NULL,
			   "%s%s", candidates[i].chosen ? "chosen: " : "", candidates[i].reason);
	}
}

/* Open it with the most rights that are granted. @return them; a negative errno */
static int open_remote(const struct config *config, struct slu_engine *engine,
		       struct slu_remote **remote)
{
	static const uint32_t wanted[] = {SLU_RIGHT_READ | SLU_RIGHT_WRITE, SLU_RIGHT_READ,
					  SLU_RIGHT_WRITE};
	struct slu_remote_options options;
	int rc = -EACCES;

	config_remote(config, &options);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]) && rc == -EACCES; i++) {
		options.rights = wanted[i];
		rc = slu_remote_open(engine, config->remote_segment, &options, remote);
		if (!rc)
			return (int)wanted[i];
	}
	return rc;
}

static void check_rights(struct doctor *doctor, const struct config *config, uint32_t rights)
{
	uint32_t needed = config_rights(config);
	bool enough = (rights & needed) == needed;

	doctor_add(doctor, enough ? VERDICT_OK : VERDICT_PROBLEM, "rights",
		   enough ? NULL
			  : "ask for a line in the target's [identity] section, or a target "
			    "without --read-only",
		   "granted: %s; --workload %s needs %s", grants_rights_name(rights),
		   config_workload_name(config), grants_rights_name(needed));
}

static void check_target(struct doctor *doctor, const struct config *config,
			 struct slu_engine *engine)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	struct slu_remote *remote = NULL;
	int rights = open_remote(config, engine, &remote);

	if (rights < 0) {
		doctor_add(doctor, VERDICT_PROBLEM, "target", NULL, "%s", cause(rights));
	} else {
		slu_remote_get_info(remote, &info);
		doctor_add(doctor, VERDICT_OK, "target", NULL,
			   "%s answers at %s, and knows us as %s", info.target,
			   info.address ? info.address : "an unknown address",
			   info.identity ? info.identity : "nobody in particular");
		check_rights(doctor, config, (uint32_t)rights);
	}
	slu_remote_close(remote);
	check_ways(doctor, config, engine, rights < 0 ? config_rights(config) : (uint32_t)rights);
}

static void check_engine(struct doctor *doctor, const struct config *config)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct setup setup = {0};
	int rc = setup_engine(&setup, config);

	if (!rc && !slu_engine_get_info(setup.engine, &info))
		doctor_check_rdma_in_use(doctor, &info);
	if (rc)
		doctor_add(doctor, VERDICT_PROBLEM, "start", NULL, "%s", cause(rc));
	else if (config->remote_segment)
		check_target(doctor, config, setup.engine);
	else
		doctor_add(doctor, VERDICT_SKIPPED, "target", "give --remote_segment NAME",
			   "none was named");
	setup_close(&setup);
}

/* Local memory of a run, as plan.c lays it out; a huge one is as good as without end. */
static uint64_t local_bytes(const struct config *config)
{
	uint64_t blocks = config->batch * config->depth * config->threads, bytes;

	if (config->sweep)
		return PLAN_SWEEP_LOCAL;
	return __builtin_mul_overflow(blocks, config->size, &bytes) ? UINT64_MAX : bytes;
}

int doctor_run(struct settings *settings)
{
	const struct config *config = settings->config;
	struct doctor_needs needs = {
		.hugepages_required = config->page == SLU_PAGE_2M,
		.tls = security_tls(&config->security),
		.pinned_bytes = local_bytes(config),
		.no_rdma = !config->rdma.on,
		.verbs_required = config->transport == SLU_TRANSPORT_VERBS,
		.cm = config->connect == CONNECT_CM,
		.node = config->node,
		.cores = config->cores,
	};
	struct doctor doctor;

	doctor_init(&doctor, settings_flags(settings)->doctor_root, &needs);
	doctor_examine(&doctor);
	doctor_check_config(&doctor, settings);
	if (!doctor_is_recorded(&doctor))
		check_engine(&doctor, config);
	return doctor_finish(&doctor, settings->command->name, config->json);
}
