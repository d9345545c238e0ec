/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"

/*
 * 4.096 us * 2^16 is 0.27 s: longer than a switch takes to forward again after a link has flapped
 * and than a busy receiver needs, and with 6 retries a dead peer is given up after about 2 s.
 */
#define TIMEOUT 16
#define RETRIES VERBS_RETRIES_MAX

int verbs_host_open(const struct slu_rdma_options *options, struct verbs_host **out)
{
	struct verbs_host *host = calloc(1, sizeof(*host));
	int rc;

	if (!host)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&host->texts, NULL);
	rc = verbs_devices_open(options, &host->devices);
	verbs_memory_init(&host->memory, host->devices);
	verbs_memory_init(&host->buffers, host->devices);
	if (rc < 0) {
		verbs_host_close(host);
		return rc;
	}
	*out = host;
	return 0;
}

void verbs_host_close(struct verbs_host *host)
{
	if (!host)
		return;
	verbs_memory_fini(&host->memory);
	verbs_memory_fini(&host->buffers);
	verbs_devices_close(host->devices);
	pthread_mutex_destroy(&host->texts);
	free(host);
}

void verbs_connection_init(const struct verbs_host *host, const struct verbs_device *device,
			   uint32_t gid, struct verbs_connection *connection)
{
	const struct slu_rdma_options *options = &host->devices->options;

	*connection = (struct verbs_connection){
		.gid_index = device->gids[gid].index,
		.global = device->ethernet || device->gids[gid].type != IBV_GID_TYPE_IB,
		.timeout = (uint8_t)(options->timeout < 0 ? TIMEOUT : options->timeout),
		.retries = (uint8_t)(options->retries < 0 ? RETRIES : options->retries),
		.traffic_class =
			(uint8_t)(options->traffic_class < 0 ? 0 : options->traffic_class)};
}

static int open_host(const struct slu_engine_options *options, void **out)
{
	struct verbs_host *host;
	int rc = verbs_host_open(&options->rdma, &host);

	if (rc == 0)
		*out = host;
	return rc;
}

static void close_host(void *host)
{
	verbs_host_close(host);
}

static const char *devices(const void *arg, uint32_t *count)
{
	const struct verbs_host *host = arg;

	*count = host->devices->count;
	return host->devices->text;
}

static struct verbs_memory *memory_of(struct verbs_host *host, const struct slu_region *region)
{
	return region->of_buffers ? &host->buffers : &host->memory;
}

static int add(void *host, struct slu_region *region)
{
	return verbs_memory_add(memory_of(host, region), region);
}

static void remove_region(void *host, struct slu_region *region)
{
	verbs_memory_remove(memory_of(host, region), region);
}

const struct transport_host verbs_hosts = {
	.open = open_host,
	.close = close_host,
	.devices = devices,
	.add = add,
	.remove = remove_region,
};
