/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Shared memory: the initiator maps the target's segment and copies by itself; the target's cores
 * have no part in it.
 */
#ifndef TRANSPORT_SHM_H
#define TRANSPORT_SHM_H

#include <pthread.h>
#include <sys/queue.h>

#include "message/client_area.h"
#include "transport/calls.h"
#include "transport/transport.h"

/** A poller's lanes of an area, which its paths share. */
struct shm_lane {
	_Alignas(64) struct notify_sender notify; /* lane NULL without the right to write */
	struct calls_link calls;
	uint32_t users;
};

/** What a client has mapped, once for all its sessions that have the area. */
struct shm_mapping {
	char *base;
	uint64_t offset; /* in the file: whole pages, as what is mapped of it */
	uint64_t length; /* that is granted */
	uint64_t mapped_bytes;
	struct client_waker waker; /* and the area */
	uint32_t id;               /* of the area, on its connection */
	uint32_t rights;
	struct guard *guard; /* of the segment: the target, and who may write, can take its pages */
	struct guard *area_guard;
	struct shm_peer *peer;
	uint32_t users;
	LIST_ENTRY(shm_mapping) link;
	struct shm_lane *lanes[SLU_POLLERS_MAX]; /* by poller; whoever connects has opening */
};

/** What a client has mapped of one target, by one connection. */
struct shm_peer {
	pthread_mutex_t lock; /* of the list, and users */
	LIST_HEAD(, shm_mapping) mappings;
};

/** Of one session. */
struct shm_view {
	struct shm_mapping *mapping;
	uint32_t session; /* its number in the area */
};

struct shm_path {
	struct path path;
	char *base;
	const struct guard *guard;
	struct shm_lane *lane;
	struct copy_tracker *tracker;
	const struct client_waker *waker;
	uint32_t session;
	struct shm_mapping *mapping;
	struct calls_path calls;
};

extern const struct transport_fast shm_fast;

#endif
