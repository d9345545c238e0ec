/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What an engine has of verbs: its devices, and the memory they know.
 *
 * Order of calls: open before any region is made; stop when no path is left; close when no region
 * is.
 */
#ifndef VERBS_VERBS_HOST_H
#define VERBS_VERBS_HOST_H

#include <pthread.h>

#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_memory.h"
#include "transport/verbs/verbs_queue.h"

struct verbs_host {
	struct verbs_devices *devices;
	struct verbs_memory memory;  /* the application's */
	struct verbs_memory buffers; /* the pollers', of devices over which there are links */
	pthread_mutex_t texts;       /* of verbs_path.text */
};

/** @return as verbs_devices_open() */
int verbs_host_open(const struct slu_rdma_options *options, struct verbs_host **host);

/** Accepts NULL. */
void verbs_host_close(struct verbs_host *host);

extern const struct transport_host verbs_hosts;

/** Fill what does not depend on the peer: our GID, timeouts, retries, traffic class. */
void verbs_connection_init(const struct verbs_host *host, const struct verbs_device *device,
			   uint32_t gid, struct verbs_connection *connection);

#endif
