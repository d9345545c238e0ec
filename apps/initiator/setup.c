/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/setup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "numa/placement.h"

#define CORES_TEXT (SLU_POLLERS_MAX * 5 + 1)

/* The first cores of --cores are the pollers', the others the workers'. */
static int divide_cores(struct setup *setup, const struct config *config,
			char poller_cores[CORES_TEXT])
{
	int cores[THREADS_MAX];
	int pollers = (int)config->pollers;
	int count = placement_parse_cores(config->cores, cores, THREADS_MAX);
	size_t used = 0;

	if (count < 0)
		return count;
	for (int i = 0; i < pollers && i < count; i++)
		used += (size_t)snprintf(poller_cores + used, CORES_TEXT - used, "%s%d",
					 i ? "," : "", cores[i]);
	for (int i = pollers; i < count; i++)
		setup->worker_cores[setup->worker_cores_count++] = cores[i];
	return 0;
}

int setup_engine(struct setup *setup, const struct config *config)
{
	struct slu_engine_options options;
	char poller_cores[CORES_TEXT] = "";
	int rc = config->cores ? divide_cores(setup, config, poller_cores) : 0;

	if (rc)
		return rc;
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = (uint32_t)config->pollers;
	options.poll = (enum slu_poll_mode)config->poll;
	options.cores = poller_cores[0] ? poller_cores : NULL;
	options.node = config->node;
	options.allowed_uids = config->allowed_uids;
	options.allowed_uids_count = config->allowed_uids_count;
	options.seed = config->seed;
	options.tcp_connections = (uint32_t)config->tcp_connections;
	security_apply(&config->security, &options);
	rdma_apply(&config->rdma, &options.rdma);
	options.rdma.queue_pairs = (uint32_t)config->rdma_queue_pairs;
	options.rdma.cm = config->connect == CONNECT_CM;
	options.tls.identity = config->identity;
	options.tls.name = config->tls_name;
	return slu_engine_open(&options, &setup->engine);
}

int setup_connect(struct setup *setup, const struct config *config)
{
	struct slu_remote_options options;
	int rc = setup_engine(setup, config);

	if (rc)
		return rc;
	config_remote(config, &options);
	return slu_remote_open(setup->engine, config->remote_segment, &options, &setup->remote);
}

static void print_progress(void *arg, uint64_t done_bytes, uint64_t total_bytes)
{
	(void)arg;
	fprintf(stderr, "preparing local memory: %.1f of %.1f GiB\n", (double)done_bytes / 0x1p30,
		(double)total_bytes / 0x1p30);
}

static int open_memory(struct setup *setup, const struct config *config, uint64_t bytes)
{
	struct slu_region_options options;
	int rc;

	slu_region_options_init(&options, sizeof(options));
	options.page = (enum slu_page)config->page;
	options.node = config->node;
	options.progress = print_progress;
	options.private_memory = !config->shmfs && !config->local_segment;
	rc = slu_region_alloc(setup->engine, bytes, &options, &setup->region);
	if (rc || !config->local_segment)
		return rc;
	return slu_segment_export(setup->engine, config->local_segment, setup->region,
				  SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL, &setup->segment);
}

static int open_worker(struct setup *setup, const struct config *config, uint64_t window_bytes,
		       uint32_t queue_depth)
{
	struct worker *worker = &setup->workers[setup->workers_count];
	struct slu_queue_options options;
	int rc;

	slu_queue_options_init(&options, sizeof(options));
	options.depth = queue_depth;
	options.poller = config->pollers ? SLU_POLLER_ANY : SLU_POLLER_INLINE;
	rc = slu_queue_open(setup->engine, &options, &worker->queue);
	if (rc)
		return rc;
	worker->load = &setup->load;
	worker->index = setup->workers_count++;
	worker->core = -1;
	worker->local_offset = window_bytes * worker->index;
	worker->memory = (uint8_t *)slu_region_addr(setup->region) + worker->local_offset;
	return 0;
}

static int open_workers(struct setup *setup, const struct config *config, uint64_t window_bytes,
			uint32_t queue_depth)
{
	size_t bytes = sizeof(struct worker) * config->threads;
	int rc = 0;

	setup->workers = aligned_alloc(_Alignof(struct worker), bytes);
	if (!setup->workers)
		return fail(-ENOMEM, "out of memory for %llu workers: lower --threads",
			    (unsigned long long)config->threads);
	memset(setup->workers, 0, bytes);
	while (setup->workers_count < config->threads && !rc)
		rc = open_worker(setup, config, window_bytes, queue_depth);
	return rc;
}

int setup_workers(struct setup *setup, const struct config *config, uint64_t window_bytes,
		  uint32_t queue_depth)
{
	int rc = open_memory(setup, config, window_bytes * config->threads);

	setup->load.config = config;
	setup->load.remote = setup->remote;
	setup->load.region = setup->region;
	if (!rc)
		rc = open_workers(setup, config, window_bytes, queue_depth);
	if (!rc)
		rc = threads_open(&setup->threads, setup->workers, setup->workers_count,
				  setup->worker_cores, setup->worker_cores_count);
	return rc;
}

void setup_close(struct setup *setup)
{
	threads_close(&setup->threads);
	for (uint32_t i = 0; i < setup->workers_count; i++) {
		worker_reset(&setup->workers[i]);
		slu_queue_close(setup->workers[i].queue);
	}
	free(setup->workers);
	slu_remote_close(setup->remote);
	slu_segment_close(setup->segment);
	slu_region_close(setup->region);
	slu_engine_close(setup->engine);
	*setup = (struct setup){0};
}
