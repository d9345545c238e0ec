/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the pollers of this engine leave for the owner of a segment: notifications and requests that
 * came to them over the wire, and the owner's answers on their way back. One inbox per segment, one
 * lane per poller thread; in each lane one poller and, one at a time, whoever takes for the owner,
 * so nothing is locked. Any thread answers. Clients in shared memory have no part in it: see
 * client_area.h.
 *
 * A lane's memory is reserved with the inbox and touched only as far as it is used.
 *
 * Order of calls: inbox_lane() when a client's connection comes to a poller; inbox_notify() and
 * inbox_call() as its frames arrive; inbox_answer() and inbox_answer_done() once per turn. The
 * inbox goes with its segment, after every client of it was withdrawn.
 */
#ifndef MESSAGE_INBOX_H
#define MESSAGE_INBOX_H

#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

#define INBOX_NOTIFICATIONS ((uint32_t)SLU_NOTIFICATIONS_MAX) /* not polled yet, per lane */
#define INBOX_CALLS         64u                               /* not answered yet, per lane */

struct body;
struct inbox;
struct inbox_lane;
struct sender;

/** An answer of the segment's owner. */
struct inbox_answer {
	uint64_t cookie; /* as given to inbox_call() */
	int32_t status;  /* 0 or a negative errno, never -EAGAIN or -ECANCELED */
	uint32_t length; /* 0 when status is not 0 */
	const void *data;
	struct body **body; /* that it lies in; who takes it over leaves NULL. NULL: in none */
};

/** A request as the owner takes it. */
struct inbox_request {
	uint32_t slot; /* for inbox_reply() */
	uint32_t client;
	uint32_t length;
	const char *identity;
	const void *data; /* stays until inbox_reply() */
};

/* ---- control path ---- */

/**
 * @param lanes    poller threads of the engine, 1 or more
 * @param eventfd  of this process only, written when the inbox is armed; not owned
 * @return         0; -ENOMEM
 */
int inbox_create(uint32_t lanes, int eventfd, struct inbox **inbox);

/** No poller has a lane of it any more. Accepts NULL. */
void inbox_destroy(struct inbox *inbox);

/** The lane of poller thread @p poller. Any thread. @return NULL: @p inbox is NULL or has none */
struct inbox_lane *inbox_lane(struct inbox *inbox, uint32_t poller);

/* ---- the lane's poller ---- */

/** Is there room for a notification? Ask before its data is written. */
bool inbox_notify_room(struct inbox_lane *lane);

/** How many notifications could be left now. */
uint32_t inbox_notify_space(struct inbox_lane *lane);

/** After the data. @return false: full, nothing was done */
bool inbox_notify(struct inbox_lane *lane, struct sender *sender, uint32_t tag);

/**
 * Leave a request, copied.
 *
 * @param cookie  comes back with the answer
 * @param length  0..SLU_MESSAGE_MAX
 * @return        false: full, nothing was done
 */
bool inbox_call(struct inbox_lane *lane, struct sender *sender, uint64_t cookie, const void *data,
		uint32_t length);

/**
 * Leave a request in a body, which is the lane's from then on; an answer has room there as well.
 *
 * @return false: full, nothing was done
 */
bool inbox_call_long(struct inbox_lane *lane, struct sender *sender, uint64_t cookie,
		     struct body *body, uint32_t length);

/** The next answer; none waits for more than those that came before it. @return false: none */
bool inbox_answer(struct inbox_lane *lane, struct inbox_answer *answer);

/** What inbox_answer() gave was sent or is not wanted: its memory is free. */
void inbox_answer_done(struct inbox_lane *lane);

/** Of the calls whose answers were not taken: the inbox goes. @return how many */
uint32_t inbox_open_calls(const struct inbox_lane *lane, uint64_t cookies[INBOX_CALLS]);

/** Asked before the poller sleeps. */
bool inbox_answers_pending(const struct inbox_lane *lane);

/* ---- the segment's owner; @p lane counts from 0 to inbox_lanes() ---- */

/** Lanes to look at: those up to the last that was ever asked for. 0 for a NULL @p inbox. */
uint32_t inbox_lanes(const struct inbox *inbox);

/** Take up to @p n notifications. */
uint32_t inbox_poll(struct inbox *inbox, uint32_t lane, struct slu_notification *out, uint32_t n);

/** Take the next request. @return false: none */
bool inbox_receive(struct inbox *inbox, uint32_t lane, struct inbox_request *request);

/** Answer it; one that is longer than there is room is -EMSGSIZE. Any thread, once. The caller then
 * wakes the poller, if it sleeps. */
void inbox_reply(struct inbox *inbox, uint32_t lane, uint32_t slot, int32_t status,
		 const void *data, uint32_t length);

/** Is there something to take? @p calls: requests count */
bool inbox_pending(const struct inbox *inbox, bool calls);

/** Remember what has come so far; both accept NULL, with which nothing has. */
void inbox_mark(struct inbox *inbox);

/** Was all of that taken? */
bool inbox_is_past_mark(const struct inbox *inbox);

/** From now on what comes writes the eventfd, once. A heavy barrier must follow, then a look. */
void inbox_arm(struct inbox *inbox);
void inbox_disarm(struct inbox *inbox);

#endif
