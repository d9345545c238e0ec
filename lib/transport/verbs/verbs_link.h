/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the three files of a link's hot side share: verbs_post.c (operations become work requests),
 * verbs_poll.c (completions become completions), verbs_lost.c (failures, and the end of a link).
 * All of it is the link's poller's.
 */
#ifndef VERBS_VERBS_LINK_H
#define VERBS_VERBS_LINK_H

#include "transport/verbs/verbs.h"

static inline struct verbs_sent *sent_as(struct verbs_end *end, uint32_t id)
{
	return &end->window[id % VERBS_DEPTH];
}

/* NULL: nobody waits for it. */
static inline struct request *request_of(const struct verbs_link *link,
					 const struct verbs_sent *sent)
{
	return sent->carries ? link->slots[sent->slot % VERBS_CALLS].request : sent->request;
}

/* Its message has left its buffer, or its answer has come: the last of the two frees the slot. */
static inline void free_slot(struct verbs_link *link, const struct verbs_call *call)
{
	if (!call->request && !call->buffer)
		link->calls--;
}

/** Give back what a call was sent with. */
void verbs_give_buffer(struct verbs_link *link, struct verbs_call *call);

/** The call's request is over. */
void verbs_end_call(struct verbs_link *link, struct verbs_call *call, int status, bool may_land);

/**
 * Everything posted comes back by poll, with an error. Before anyone is told the fence stands.
 *
 * @param written  a write was lost with it, beside those that have not come back
 */
void verbs_link_fail(struct verbs_link *link, int error, bool written);

/** The oldest work request of @p end that has not come back has failed, and the link with it. */
void verbs_link_on_failure(struct verbs_link *link, struct verbs_end *end,
			   const struct verbs_done *done);

/** A dead link is drained, in bounded time, before it is replaced. @return is it now? */
bool verbs_link_finish(struct verbs_link *link);

/** Was it the way there that failed, not an operation that was refused or a deadline? */
bool verbs_link_was_lost(const struct verbs_link *link);

/** As transport_fast. */
void verbs_cancel(struct path *path, struct request *request);
void verbs_dead(struct path *path, int state);

/** As link_ops. */
void verbs_flush(struct transport_link *link);

#endif
