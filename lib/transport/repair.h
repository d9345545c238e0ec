/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Threads that mend what is broken where a poller must not wait: asking a target blocks. They try
 * again with jittered, doubling pauses until there is nothing more to do. Attempts for one peer go
 * one after the other, and hold up no other peer's.
 */
#ifndef TRANSPORT_REPAIR_H
#define TRANSPORT_REPAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct repair;
struct transport_peer;

/** This many peers can keep a thread waiting at the same time; the next one waits for its turn. */
#define REPAIR_THREADS_MAX 64u

/** Part of what can break. */
struct repair_item {
	/** On a thread; may block for seconds. @return it is over: mended, or given up */
	bool (*attempt)(struct repair_item *item);
	const struct transport_peer *peer;

	/* The threads'. */
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
