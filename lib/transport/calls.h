/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The path that carries SLU_CALL over a mailbox: asynchronous, beside a path that need not be. Its
 * poller has to look for the answers, nothing wakes it.
 */
#ifndef TRANSPORT_CALLS_H
#define TRANSPORT_CALLS_H

#include "transport/client_area.h"
#include "transport/transport.h"

struct calls_path {
	struct path path;
	struct path *main; /* where failures are counted */
	struct mailbox_sender sender;
	const struct client_waker *waker;
	uint32_t posted;   /* slots with an operation, a bit each; all others below are of these */
	uint32_t dead;     /* never sent: the remote was gone already */
	uint32_t canceled; /* given up, to be reported */
	struct slu_op ops[MAILBOX_SLOTS];
};

/** Make it the calls of @p main, whose owner keeps the memory. Control path. */
void calls_init(struct calls_path *calls, struct path *main, const struct client_waker *waker,
		uint32_t poller);

/** Nothing is posted any more. Control path. */
void calls_fini(struct calls_path *calls);

#endif
