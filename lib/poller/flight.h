/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Flights: operations that a poller has taken and cannot finish at once, because they are long and
 * cut into slices, because the path is asynchronous, or because it is full for the moment.
 *
 * A flight is in one of two lists of its poller: pending (has bytes to post) or waiting (all
 * posted, completions to come). It ends once, in flight_finish().
 */
#ifndef POLLER_FLIGHT_H
#define POLLER_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sluice/queue.h>

#include "poller/queue.h"

struct path;

struct flight {
	struct slu_op op;
	struct slu_queue *queue;
	uint64_t next;   /* bytes of the operation handed to the transport */
	uint32_t posted; /* slices that the transport has not reported */
	int32_t status;  /* first failure of a slice */
	uint8_t scope;
	uint16_t answer_length; /* SLU_CALL */
	bool begun;    /* something was posted: tells an empty operation from a finished one */
	bool notified; /* the slice that notifies, or the call, was posted */
	bool retry;    /* canceled with its path: all of it goes again */
	bool may_land; /* of what was posted something may still reach the target */
	bool waiting;  /* which list */
	bool stamped;  /* op.engine is the time of submission */
	TAILQ_ENTRY(flight) link;
	struct flight *free_next;
};

TAILQ_HEAD(flight_list, flight);

static inline struct flight *flight_get(struct slu_queue *queue)
{
	struct flight *flight = queue->free_flights;

	queue->free_flights = flight->free_next;
	return flight;
}

static inline void flight_put(struct slu_queue *queue, struct flight *flight)
{
	flight->free_next = queue->free_flights;
	queue->free_flights = flight;
}

/**
 * Take @p op into a flight. The queue's depth bounds its flights: there is always one free. What
 * came through no ring is stamped when the clock is next looked at, not for each operation.
 */
void flight_start(struct poller *poller, struct slu_queue *queue, const struct slu_op *op);

/**
 * Leading operations of @p ops that go to the asynchronous @p path in one slice become flights that
 * are posted at once, as many as it takes now.
 *
 * @return flights, posted or pending; 0: the first operation is not of that kind
 */
uint32_t flights_launch(struct poller *poller, struct slu_queue *queue, struct path *path,
			const struct slu_op *ops, uint32_t n);

/** Give every pending flight a turn: one slice each. @return slices posted */
uint32_t flights_post(struct poller *poller);

/** Take completions of asynchronous paths. @return completions */
uint32_t flights_poll(struct poller *poller);

/** End what is past its deadline: at once if nothing is posted, else by flushing its path. */
void flights_expire(struct poller *poller, uint64_t now_us);

/** End every flight of @p remote (or, NULL, of @p queue) with -ECANCELED. */
void flights_cancel(struct poller *poller, const struct slu_remote *remote,
		    const struct slu_queue *queue);

/** Has the poller a flight of @p remote (or, NULL, of @p queue)? */
bool flights_any(const struct poller *poller, const struct slu_remote *remote,
		 const struct slu_queue *queue);

#endif
