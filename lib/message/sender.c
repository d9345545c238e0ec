/* SPDX-License-Identifier: Apache-2.0 */
#include "message/sender.h"

#include <stdlib.h>
#include <sys/eventfd.h>

#include "base/budget.h"
#include "message/inbox.h"

struct sender *sender_create(struct departures *departures, uint32_t number, const char *identity,
			     struct budget *budget)
{
	struct sender *sender = malloc(sizeof(*sender));

	if (!sender)
		return NULL;
	*sender = (struct sender){.number = number,
				  .identity = identity,
				  .references = 1,
				  .departures = departures,
				  .budget = budget_get(budget)};
	return sender;
}

static void sender_free(struct sender *sender)
{
	budget_give(sender->budget, SLU_LIMIT_SESSIONS, 1);
	budget_put(sender->budget);
	free(sender);
}

static void tell(struct departures *departures, struct sender *sender)
{
	sender->next = atomic_load_explicit(&departures->gone, memory_order_relaxed);
	/* Pairs with the acquire in departures_settle(). */
	while (!atomic_compare_exchange_weak_explicit(&departures->gone, &sender->next, sender,
						      memory_order_release, memory_order_relaxed))
		;
	eventfd_write(departures->eventfd, 1);
}

void sender_put(struct sender *sender)
{
	if (!sender || atomic_fetch_sub_explicit(&sender->references, 1, memory_order_acq_rel) > 1)
		return;
	if (atomic_load_explicit(&sender->heard, memory_order_relaxed) &&
	    atomic_load_explicit(&sender->departures->wanted, memory_order_relaxed))
		tell(sender->departures, sender);
	else
		sender_free(sender);
}

/* What is in the inbox now may be of those that have gone by now, what comes later is not. */
bool departures_settle(struct departures *departures, struct inbox *inbox)
{
	if (!departures->waiting && atomic_load_explicit(&departures->gone, memory_order_relaxed)) {
		departures->waiting =
			atomic_exchange_explicit(&departures->gone, NULL, memory_order_acquire);
		inbox_mark(inbox);
	}
	if (departures->waiting && !departures->due && inbox_is_past_mark(inbox)) {
		departures->due = departures->waiting;
		departures->waiting = NULL;
	}
	return departures->due;
}

uint32_t departures_take(struct departures *departures, struct slu_departure *out, uint32_t n)
{
	struct sender *sender;
	uint32_t taken = 0;

	while (taken < n && (sender = departures->due)) {
		departures->due = sender->next;
		out[taken++] = (struct slu_departure){.identity = sender->identity,
						      .client = sender->number,
						      .lost = atomic_load(&sender->lost)};
		sender_free(sender);
	}
	return taken;
}

static void free_all(struct sender *sender)
{
	struct sender *next;

	for (; sender; sender = next) {
		next = sender->next;
		sender_free(sender);
	}
}

void departures_fini(struct departures *departures)
{
	free_all(atomic_load(&departures->gone));
	free_all(departures->waiting);
	free_all(departures->due);
}
