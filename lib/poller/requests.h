/* SPDX-License-Identifier: Apache-2.0 */
/** @file The poller's side of requests (transport/request.h): begin, post, poll, end. */
#ifndef POLLER_REQUESTS_H
#define POLLER_REQUESTS_H

#include "poller/queue.h"
#include "transport/request.h"

struct poller;

/**
 * Make a request of @p op on @p path and post it, or let it wait for its turn; it ends at once if
 * it is late. The queue's depth bounds its requests. What came through no ring counts from @p
 * now_us.
 */
void request_start(struct poller *poller, struct slu_queue *queue, struct path *path,
		   const struct slu_op *op, uint64_t now_us);

/** The same, of an operation of an inline queue that nothing follows: it is flushed. */
void request_start_alone(struct poller *poller, struct slu_queue *queue, struct path *path,
			 const struct slu_op *op);

/**
 * A turn: each path that is ready posts, all that was posted leaves, links that are busy are
 * polled; and now and then what is past its deadline ends. @return how much was done
 */
uint32_t requests_run(struct poller *poller);

/** Send what was posted on it. What comes back of that waits for the next poll. */
static inline void link_flush(struct transport_link *link)
{
	if (link->fresh == 0)
		return;
	link->fresh = 0;
	if (link->ops->flush)
		link->ops->flush(link);
}

/** Flush its link if nothing else is under way on it: others gather more until they are polled. */
static inline void path_flush_idle(const struct path *path)
{
	if (path->link && path->link->out == path->link->fresh)
		link_flush(path->link);
}

/** The poller is about to sleep. @return false: something of the link has come already */
bool requests_sleep(struct poller *poller, struct transport_link *link);

/** End every request of @p remote (or, NULL, of @p queue) with -ECANCELED. */
void requests_cancel(struct poller *poller, const struct slu_remote *remote,
		     const struct slu_queue *queue);

/** The same with those of @p queue that have @p user_data. @return how many */
uint32_t requests_cancel_some(struct slu_queue *queue, uint64_t user_data);

/** Hand over the completions of those that have ended: after any of the above. */
void requests_tell(struct poller *poller);

#endif
