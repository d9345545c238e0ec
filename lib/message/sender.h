/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A client of a segment as its owner knows it, beside what it leaves: who it is, and that it has
 * gone. What still has something to hand over for it holds a reference, so that the owner is told
 * of its end after that: whoever puts the last one tells, and if the owner was left nothing, or has
 * never asked, nobody is told.
 *
 * sender_create -> sender_get / sender_put -> departures_settle -> departures_take
 */
#ifndef MESSAGE_SENDER_H
#define MESSAGE_SENDER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

struct budget;
struct inbox;

struct sender {
	uint32_t number;
	_Atomic bool heard; /* something of it was left for the owner */
	_Atomic bool lost;  /* it went without a goodbye */
	const char *identity;
	_Atomic uint32_t references;
	struct departures *departures;
	struct budget *budget; /* of which it has a session until it is freed */
	struct sender *next;
};

/** Of one segment. */
struct departures {
	_Atomic(struct sender *) gone; /* any thread adds */
	_Atomic bool wanted;           /* the owner has asked */
	int eventfd;                   /* that wakes him */
	/* Who polls: those that wait for what is in the inbox before them, and the next to be told.
	 */
	struct sender *waiting;
	struct sender *due;
};

/** One session of @p budget, which may be NULL, becomes its. @return NULL: out of memory */
struct sender *sender_create(struct departures *departures, uint32_t number, const char *identity,
			     struct budget *budget);

static inline struct sender *sender_get(struct sender *sender)
{
	atomic_fetch_add_explicit(&sender->references, 1, memory_order_relaxed);
	return sender;
}

/** Accepts NULL. Any thread. */
void sender_put(struct sender *sender);

/** Something of it is left for the owner. */
static inline void sender_is_heard(struct sender *sender)
{
	if (__builtin_expect(!atomic_load_explicit(&sender->heard, memory_order_relaxed), 0))
		atomic_store_explicit(&sender->heard, true, memory_order_relaxed);
}

/** Who polls: see whose last message was taken. @p inbox may be NULL. @return is there one to take?
 */
bool departures_settle(struct departures *departures, struct inbox *inbox);

/** Who polls. @return how many */
uint32_t departures_take(struct departures *departures, struct slu_departure *out, uint32_t n);

/** Nobody has a reference any more: forget those that were not taken. */
void departures_fini(struct departures *departures);

#endif
