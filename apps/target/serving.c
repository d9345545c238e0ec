/* SPDX-License-Identifier: Apache-2.0 */
#include "target/serving.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

int serving_open_engine(struct serving *serving, const struct config *config,
			const struct grants *grants)
{
	struct slu_engine_options options;

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = (uint32_t)config->pollers;
	options.poll = (enum slu_poll_mode)config->poll;
	options.cores = config->cores;
	options.node = config->node;
	options.socket = config->socket;
	options.allowed_uids = config->allowed_uids;
	options.allowed_uids_count = config->allowed_uids_count;
	options.shm_writers = config->shm_writers;
	options.shm_writers_count = config->shm_writers_count;
	options.no_shm_writers = config->no_shm_writers;
	options.listen = config->listen;
	options.grants = grants->items;
	options.grants_count = grants->count;
	memcpy(options.limits, config->limits, sizeof(options.limits));
	options.identity_limits = grants->limits;
	options.identity_limits_count = grants->limits_count;
	security_apply(&config->security, &options);
	rdma_apply(&config->rdma, &options.rdma);
	return slu_engine_open(&options, &serving->engine);
}

static void print_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	const struct segment_config *segment = arg;

	printf("preparing segment %s: %.1f of %.1f GiB\n", segment->name,
	       (double)done_bytes / (1 << 30), (double)total_bytes / (1 << 30));
}

static int open_segment(struct serving *serving, const struct config *config, uint32_t index)
{
	const struct segment_config *segment = &config->segments[index];
	uint32_t rights = SLU_RIGHT_READ | (config->read_only ? 0 : SLU_RIGHT_WRITE);
	struct slu_region_options options;
	int rc;

	slu_region_options_init(&options, sizeof(options));
	options.page = (enum slu_page)config->page;
	options.node = segment->node;
	options.lock = config->mlock;
	options.progress = print_progress;
	options.progress_arg = (void *)segment;
	rc = slu_region_alloc(serving->engine, segment->length_bytes, &options,
			      &serving->regions[index]);
	if (rc)
		return rc;
	return slu_segment_export(serving->engine, segment->name, serving->regions[index], rights,
				  NULL, &serving->segments[index]);
}

static void tell_of_limits(const struct config *config, const struct grants *grants)
{
	char text[512] = "";
	size_t length = 0;

	for (int i = 0; i < SLU_LIMIT_COUNT && length < sizeof(text); i++)
		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%" PRIu64 " %s",
					   i ? ", " : "", config->limits[i], slu_limit_text(i));
	log_info("each identity may have at once: %s; %u have limits of their own", text,
		 grants->limits_count);
}

int serving_open(struct serving *serving, const struct config *config, const struct grants *grants)
{
	int rc = serving_open_engine(serving, config, grants);

	if (!rc)
		tell_of_limits(config, grants);
	for (uint32_t i = 0; i < config->segments_count && !rc; i++) {
		serving->count = i + 1;
		rc = open_segment(serving, config, i);
	}
	return rc;
}

void serving_close(struct serving *serving)
{
	for (uint32_t i = serving->count; i-- > 0;) {
		slu_segment_close(serving->segments[i]);
		slu_region_close(serving->regions[i]);
	}
	slu_engine_close(serving->engine);
	*serving = (struct serving){0};
}
