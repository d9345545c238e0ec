/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Shared memory: the initiator maps the target's segment and copies by itself; the target's cores
 * have no part in it.
 */
#ifndef TRANSPORT_SHM_H
#define TRANSPORT_SHM_H

#include "message/client_area.h"
#include "transport/calls.h"
#include "transport/transport.h"

/** What a client has mapped. */
struct shm_view {
	char *base;
	uint64_t mapped_bytes;
	struct client_waker waker; /* and the area */
	bool writes;               /* the right to */
	struct guard *guard; /* of the segment: the target, and who may write, can take its pages */
	struct guard *area_guard;
};

struct shm_path {
	struct path path;
	char *base;
	const struct guard *guard;
	struct notify_sender notify; /* lane NULL without the right to write */
	struct copy_tracker *tracker;
	const struct client_waker *waker;
	struct calls_path calls;
};

extern const struct transport_fast shm_fast;

#endif
