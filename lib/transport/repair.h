/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Links are made, and mended, where a poller must not wait: asking a target blocks. Threads of this
 * do it, and try again with jittered, doubling pauses until it is done; or somebody who waits for a
 * link anyway. Attempts in one lane, a transport's of a peer, go one after the other, and hold up
 * no other's.
 */
#ifndef TRANSPORT_REPAIR_H
#define TRANSPORT_REPAIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct repair;
struct transport_peer;

/** This many lanes can keep a thread waiting at the same time; the next one waits for its turn. */
#define REPAIR_THREADS_MAX 64u

/** What needs a link. */
struct repair_item {
	/**
	 * Give it one; blocks, until @p until_ns at the most.
	 *
	 * @return 0: it has one; else why not, with slu_last_error()
	 */
	int (*attempt)(struct repair_item *item, uint64_t until_ns);
	/** It was dropped, and nobody is at it any more. */
	void (*dropped)(struct repair_item *item);
	const struct transport_peer *peer;
	const void *lane;
	const char *target; /* for messages */
	bool hopeless;      /* an attempt may say so: it is not tried again */

	/* Under the lock of struct repair. */
	uint64_t at_ns;
	uint64_t pause_ns;
	uint32_t holders;
	bool listed;
	bool gone;
	TAILQ_ENTRY(repair_item) link;
};

/** @return 0; -ENOMEM, -EAGAIN */
int repair_start(struct repair **repair);

/** No item is left. Accepts NULL. */
void repair_stop(struct repair *repair);

/** Any thread, never waits for an attempt: let the threads give @p item a link. */
void repair_ask(struct repair *repair, struct repair_item *item);

/** Never waits: keep @p item, until repair_now(). */
void repair_hold(struct repair *repair, struct repair_item *item);

/**
 * An attempt on the caller's thread, when the lane is free. One that was asked for stays so if it
 * fails.
 *
 * @return 0, also if it was dropped; -ETIMEDOUT; as attempt
 */
int repair_now(struct repair *repair, struct repair_item *item, uint64_t until_ns);

/**
 * Never waits: @p item is not attempted any more. dropped() is called here, or when the attempt
 * that has begun is over.
 */
void repair_drop(struct repair *repair, struct repair_item *item);

/** Wait for what has begun for @p peer, and was dropped: its session can end. Accepts NULL. */
void repair_settle(struct repair *repair, const struct transport_peer *peer);

#endif
