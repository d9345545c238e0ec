/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The paths that carry OP_CALL over a mailbox: asynchronous, beside paths that need not be. Those
 * of one area and poller share a lane of it, which is their link. The poller has to look for the
 * answers, nothing wakes it.
 */
#ifndef TRANSPORT_CALLS_H
#define TRANSPORT_CALLS_H

#include "message/client_area.h"
#include "transport/transport.h"

struct calls_link {
	struct transport_link link; /* first */
	struct mailbox_sender sender;
	const struct client_waker *waker;
	bool lacks_body; /* a call waits for one: another poller may give it back */
	uint32_t posted; /* slots with a request, a bit each */
	struct request *requests[MAILBOX_SLOTS]; /* by slot; of those that are posted */
};

struct calls_path {
	struct path path; /* first */
	struct calls_link *calls;
	uint32_t session;
};

/** Control path. */
void calls_link_init(struct calls_link *calls, const struct client_waker *waker,
		     const struct path_env *env);

/** Nothing is posted any more. Control path. */
void calls_link_fini(struct calls_link *calls);

/** Make it the calls of @p main, whose owner keeps the memory. Control path. */
void calls_init(struct calls_path *path, struct path *main, struct calls_link *calls,
		uint32_t session);

#endif
