/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A thread that mends what is broken where a poller must not wait: asking a target blocks. It tries
 * again with jittered, doubling pauses until there is nothing more to do.
 */
#ifndef TRANSPORT_REPAIR_H
#define TRANSPORT_REPAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct repair;

/** Part of what can break. */
struct repair_item {
	/** On the thread; may block for seconds. @return it is over: mended, or given up */
	bool (*attempt)(struct repair_item *item);

	/* The thread's. */
	uint64_t at_ns;
	uint64_t pause_ns;
	bool listed;
	TAILQ_ENTRY(repair_item) link;
};

/** @return 0; -ENOMEM, -EAGAIN */
int repair_start(struct repair **repair);

/** No item is left. Accepts NULL. */
void repair_stop(struct repair *repair);

/** Any thread, never waits for an attempt: mend @p item, which is not being mended. */
void repair_ask(struct repair *repair, struct repair_item *item);

/** It is not attempted any more; waits for an attempt that has begun. */
void repair_forget(struct repair *repair, struct repair_item *item);

#endif
