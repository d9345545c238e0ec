/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the target's halves of transports have in common, where our pollers do something for
 * clients: whom a poller serves, the calls that it has left in the inboxes of segments and that are
 * to be answered, and what a client's connection has of a transport.
 */
#ifndef TRANSPORT_SERVING_H
#define TRANSPORT_SERVING_H

#include <stdbool.h>
#include <stdint.h>

#include "message/inbox.h"
#include "transport/buffers.h"
#include "transport/grants.h"
#include "transport/transport.h"

/** Data connections or links of one poller. */
#define SERVED_MAX 32768u

/* ---- a poller's ---- */

/** Something that is served. What comes late for it is told by its cookie from what took its place.
 */
struct served {
	uint32_t cookie;
	uint32_t calls; /* that are open, or whose answers are on their way */
};

/** A lane with calls that were not answered. */
struct open_lane {
	struct inbox_lane *lane;
	uint32_t calls;
};

struct serving {
	uint32_t lane;           /* the poller's, of inboxes */
	struct buffers *buffers; /* likewise */
	uint32_t count;
	uint32_t next_cookie;
	struct served **by_cookie;
	uint32_t lanes_count;
	struct open_lane *lanes; /* SLU_SEGMENTS_MAX */
};

/** @return 0; -ENOMEM */
int serving_init(struct serving *serving, uint32_t lane, struct buffers *buffers);

/** Accepts what is zeroed, or was not initialized wholly. */
void serving_fini(struct serving *serving);

/** @return 0; -ENOSPC */
int serving_add(struct serving *serving, struct served *served);

/** @p kept  shared buffers that it has still, and that are returned with it */
void serving_remove(struct serving *serving, const struct served *served, uint32_t kept);

/** @return NULL: it has gone */
struct served *serving_find(const struct serving *serving, uint32_t cookie);

/** Where the poller leaves what is for the segment's owner. */
static inline struct inbox_lane *serving_lane(const struct serving *serving,
					      const struct grant *grant)
{
	return inbox_lane(grant->export->inbox, serving->lane);
}

/**
 * May it leave a call? The answer to its only one goes by what is its own, for any further one a
 * shared buffer must be promised, so that no answer that is there waits for one, and others for it.
 */
static inline bool serving_may_call(const struct serving *serving, const struct served *served)
{
	return served->calls == 0 || buffers_may(serving->buffers, served->calls - 1);
}

/**
 * Leave a call of @p served in @p lane.
 *
 * @param slot  the client's, for the answer
 * @return      false: no room, or it may not; nothing was done
 */
bool serving_call(struct serving *serving, struct served *served, struct inbox_lane *lane,
		  struct sender *sender, uint32_t slot, const void *message, uint32_t length);

/** The same with one that lies in a body, which is the lane's then. */
bool serving_call_long(struct serving *serving, struct served *served, struct inbox_lane *lane,
		       struct sender *sender, uint32_t slot, struct body *body, uint32_t length);

/** The answer to a call of it takes no buffer any more. */
static inline void serving_answered(struct serving *serving, struct served *served)
{
	if (--served->calls > 0)
		buffers_release(serving->buffers, 1);
}

/** @return false: not now, nothing was done */
typedef bool (*serving_send)(struct served *served, uint32_t slot,
			     const struct inbox_answer *answer);

/** Take the answers that are there; @p send is given those whose client has not gone. @return how
 * many */
uint32_t serving_answer(struct serving *serving, serving_send send);

/** Asked before the poller sleeps: are there answers? */
bool serving_has_answers(const struct serving *serving);

/** What is left in that lane is not wanted any more. */
void serving_forget(struct serving *serving, const struct inbox_lane *lane);

/* ---- the control thread's ---- */

/** Some of the engine's pollers. */
struct poller_set {
	uint64_t bits[SLU_POLLERS_MAX / 64];
};

static inline void poller_set_add(struct poller_set *set, uint32_t poller)
{
	set->bits[poller / 64] |= UINT64_C(1) << poller % 64;
}

/** Take out the first. @return SLU_POLLERS_MAX: it is empty */
uint32_t poller_set_take(struct poller_set *set);

/**
 * A control connection for which there is something; the first of what a transport knows of it.
 * Found by its number in a tree, since there are very many.
 */
struct served_owner {
	uint64_t connection;
	struct poller_set
		pollers; /* that serve, or have served, something of it: no other is asked */
};

/** @return NULL: there is none */
struct served_owner *owners_find(void *const *owners, uint64_t connection);

/** @return NULL: there is none at all */
struct served_owner *owners_any(void *owners);

/** @return the same; NULL: out of memory, and it was freed */
struct served_owner *owners_add(void **owners, struct served_owner *owner);

/** It is freed. */
void owners_remove(void **owners, struct served_owner *owner);

#endif
