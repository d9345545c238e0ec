/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Links are made, and mended, where a poller must not wait: asking a target blocks. Threads of this
 * do it, and try again with jittered, doubling pauses until it is done; or somebody who waits for a
 * link anyway. Attempts in one lane, a transport's of a peer, go one after the other, in the order
 * in which they were asked for, and hold up no other's.
 */
#ifndef TRANSPORT_REPAIR_H
#define TRANSPORT_REPAIR_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct repair;
struct repair_item;

/** This many lanes can keep a thread waiting at the same time; the next one waits for its turn. */
#define REPAIR_THREADS_MAX 64u

/** Somebody who waits: for a turn in a lane, or for the end of a pause. */
struct repair_turn {
	struct repair_item *item; /* NULL: it was dropped */
	struct repair_turns *in;  /* NULL: it does not wait */
	uint64_t at_ns;           /* until when, in a pause */
	TAILQ_ENTRY(repair_turn) link;
	LIST_ENTRY(repair_turn) of_item;
};

TAILQ_HEAD(repair_turns, repair_turn);

/** Of one transport to one peer; longer there than its items. Under the lock of struct repair. */
struct repair_lane {
	struct repair_turns turns;
	const struct repair_item *attempted; /* NULL: it is free */
	bool dropped;                        /* that one was, meanwhile */
	bool ready;                          /* a thread may take the first */
	uint64_t over;                       /* attempts so far */
	TAILQ_ENTRY(repair_lane) link;
};

/** What needs a link. */
struct repair_item {
	/**
	 * Give it one; blocks, until @p until_ns at the most.
	 *
	 * @return 0: it has one; else why not, with slu_last_error()
	 */
	int (*attempt)(struct repair_item *item, uint64_t until_ns);
	/** It was dropped, and nobody is at it any more: while its lane is still its own. */
	void (*dropped)(struct repair_item *item);
	struct repair_lane *lane;
	const char *target; /* for messages */
	bool hopeless;      /* an attempt may say so: it is not tried again */

	/* Under the lock of struct repair. */
	struct repair_turn asked; /* the threads' turn */
	uint32_t pauses;          /* since it was asked for */
	LIST_HEAD(, repair_turn) callers;
};

/** @return 0; -ENOMEM, -EAGAIN */
int repair_start(struct repair **repair);

/** What a thread of it does, for a simulation: the attempt that is due. @return false: none is */
bool repair_step(struct repair *repair);

/** No item is left. Accepts NULL. */
void repair_stop(struct repair *repair);

void repair_lane_init(struct repair_lane *lane);

/** Any thread, never waits for an attempt: let the threads give @p item a link. */
void repair_ask(struct repair *repair, struct repair_item *item);

/**
 * An attempt on the caller's thread, in its turn.
 *
 * @param held  is let go of as soon as @p item may be dropped; NULL: nobody else drops it
 * @return      0, also if it was dropped; -ETIMEDOUT; as attempt
 */
int repair_now(struct repair *repair, struct repair_item *item, pthread_mutex_t *held,
	       uint64_t until_ns);

/**
 * Never waits: @p item is not attempted any more. dropped() is called here, or when the attempt
 * that has begun is over.
 */
void repair_drop(struct repair *repair, struct repair_item *item);

/**
 * Wait for the attempt in @p lane that has begun, if it is of what was dropped: its session can
 * end. @p repair may be NULL.
 */
void repair_settle(struct repair *repair, const struct repair_lane *lane);

#endif
