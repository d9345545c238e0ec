/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The path that carries SLU_CALL over a mailbox: asynchronous, beside a path that need not be. Its
 * poller has to look for the answers, nothing wakes it.
 */
#ifndef TRANSPORT_CALLS_H
#define TRANSPORT_CALLS_H

#include "message/client_area.h"
#include "transport/transport.h"

struct calls_path {
	struct path path;
	struct transport_link link;
	struct mailbox_sender sender;
	const struct client_waker *waker;
	uint32_t posted;                         /* slots with a request, a bit each */
	struct request *requests[MAILBOX_SLOTS]; /* by slot; of those that are posted */
};

/** Make it the calls of @p main, whose owner keeps the memory. Control path. */
void calls_init(struct calls_path *calls, struct path *main, const struct client_waker *waker,
		const struct path_env *env);

/** Nothing is posted any more. Control path. */
void calls_fini(struct calls_path *calls);

#endif
