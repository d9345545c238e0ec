/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a link, and what is given up: by a failure, a deadline, or the end of its target. */
#include <errno.h>

#include "transport/verbs/mlx5_queue.h"
#include "transport/verbs/verbs_link.h"

/* A device that does not let go of a dead queue pair within this has it taken away. */
#define DRAIN_NS (2 * NS_PER_SECOND)

/* ---- one that comes back ---- */

/* Whoever destroys a link gives back what it sent with: the buffers are its poller's. */
void verbs_give_buffer(struct verbs_link *link, struct verbs_call *call)
{
	struct buffer *buffer = call->buffer;

	call->buffer = NULL;
	if (link->is_left) {
		buffer->next = link->left;
		link->left = buffer;
		return;
	}
	if (link->sending.out > 1)
		buffers_release(link->buffers, 1);
	sending_give(&link->sending, link->buffers, buffer);
}

void verbs_end_call(struct verbs_link *link, struct verbs_call *call, int status, bool may_land)
{
	struct request *request = call->request;

	call->request = NULL;
	free_slot(link, call);
	request_back(request, status, may_land);
}

/* A target that refuses has spoken; else it is not known how far it came, or will come. */
static bool may_land(int status)
{
	return status != -EACCES && status != -EREMOTEIO;
}

/* A key that is not good any more is how we see that the remote is dead; its state knows why. */
static int status_of(const struct request *request, int status)
{
	return atomic_load_explicit(&request->path->remote->state, memory_order_relaxed) != 0
		       ? -ECANCELED
		       : status;
}

static void went_wrong(struct verbs_link *link, struct verbs_sent *sent, int status)
{
	struct request *request = request_of(link, sent);

	if (sent->carries) {
		struct verbs_call *call = &link->slots[sent->slot % VERBS_CALLS];

		verbs_give_buffer(link, call);
		if (request)
			verbs_end_call(link, call, status_of(request, status), may_land(status));
		else
			free_slot(link, call);
	} else if (request) {
		request_back(request, status_of(request, status), !sent->reads && may_land(status));
	}
	sent->request = NULL;
	sent->carries = false;
}

/* ---- the end of a link ---- */

static bool is_written(const struct verbs_sent *sent)
{
	return sent->carries || (sent->request && !sent->reads);
}

/* Anything but READs that has not come back. */
static bool has_written(const struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->queue->posted; id++)
			if (is_written(&end->window[id % VERBS_DEPTH]))
				return true;
	}
	return false;
}

void verbs_link_fail(struct verbs_link *link, int error, bool written)
{
	if (link->error)
		return;
	if (link->ticket && (written || has_written(link))) {
		link->peer->raise(link->ticket);
		link->ticket = NULL;
	}
	link->error = error;
	link->direct = false;
	link->dead_ns = clock_monotonic_ns(NULL);
	for (uint32_t i = 0; i < link->count; i++) {
		verbs_queue_fail(link->ends[i]->queue);
		/* What the device was not told of would not come back. */
		verbs_queue_ring(link->ends[i]->queue, true);
	}
	link->unrung = 0;
}

static void end_calls(struct verbs_link *link)
{
	for (uint32_t i = 0; i < VERBS_CALLS; i++)
		if (link->slots[i].request)
			verbs_end_call(link, &link->slots[i], -ECANCELED, true);
}

static int map_status(enum ibv_wc_status status)
{
	switch (status) {
	case IBV_WC_SUCCESS:
		return 0;
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_RNR_RETRY_EXC_ERR:
	case IBV_WC_RESP_TIMEOUT_ERR:
	case IBV_WC_REM_ABORT_ERR:
	case IBV_WC_WR_FLUSH_ERR:
	case IBV_WC_LOC_QP_OP_ERR: /* Soft-RoCE: nothing can be sent, as when its link is down */
		return -ECANCELED; /* nobody is at fault: again, over another link */
	case IBV_WC_REM_ACCESS_ERR:
		return -EACCES;
	case IBV_WC_LOC_PROT_ERR:
	case IBV_WC_LOC_LEN_ERR:
	case IBV_WC_LOC_ACCESS_ERR:
		return -EFAULT;
	case IBV_WC_REM_INV_REQ_ERR:
	case IBV_WC_REM_OP_ERR:
		return -EREMOTEIO;
	default:
		return -EIO;
	}
}

void verbs_link_on_failure(struct verbs_link *link, struct verbs_end *end,
			   const struct verbs_done *done)
{
	int status = map_status((enum ibv_wc_status)done->status);
	bool written = is_written(sent_as(end, done->id));

	went_wrong(link, sent_as(end, end->expected++), status);
	if (link->error)
		return;
	link->why = (enum ibv_wc_status)done->status;
	link->vendor_error = done->vendor_error;
	verbs_link_fail(link, -ECONNRESET, written && may_land(status));
}

bool verbs_link_was_lost(const struct verbs_link *link)
{
	return link->error != -ECANCELED &&
	       (link->error != -ECONNRESET || map_status(link->why) == -ECANCELED);
}

/* ---- draining ---- */

/* The device does not answer: without its queue pairs it cannot touch our memory any more. */
static void take_away(struct verbs_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		struct verbs_end *end = link->ends[i];

		ibv_destroy_qp(end->queue->qp);
		end->queue->qp = NULL;
		while (end->expected != end->queue->posted)
			went_wrong(link, sent_as(end, end->expected++), -ECANCELED);
	}
	link->out = link->unrung = 0;
}

bool verbs_link_finish(struct verbs_link *link)
{
	if (link->out != 0 &&
	    (link->refused || clock_monotonic_ns(NULL) - link->dead_ns > DRAIN_NS))
		take_away(link);
	if (link->out != 0)
		return false;
	end_calls(link);
	link->drained = true;
	return true;
}

/* ---- giving up ---- */

static bool is_down(const struct verbs_path *verbs)
{
	return atomic_load_explicit(&verbs->state, memory_order_relaxed) != VERBS_PATH_UP;
}

/* Of @p path, or the one. */
static bool concerns(const struct request *of, const struct path *path,
		     const struct request *request)
{
	return of && (request ? of == request : of->path == path);
}

static bool has_posted(const struct verbs_link *link, const struct path *path,
		       const struct request *request)
{
	for (uint32_t i = 0; i < link->count; i++) {
		const struct verbs_end *end = link->ends[i];

		for (uint32_t id = end->expected; id != end->queue->posted; id++) {
			const struct verbs_sent *sent = &end->window[id % VERBS_DEPTH];

			if (concerns(request_of(link, sent), path, request))
				return true;
		}
	}
	return false;
}

/*
 * What the device has can be taken back from it only together with all else on its queue pairs:
 * they end, and the neighbours are posted again on others. Calls that the owner has are let go of:
 * a late answer finds nobody.
 */
static void give_up(struct verbs_path *verbs, const struct request *request, bool also_posted)
{
	struct verbs_link *link = verbs->link;

	if (is_down(verbs) || link->drained)
		return;
	if (also_posted && !link->error && has_posted(link, &verbs->path, request)) {
		link->why = IBV_WC_RESP_TIMEOUT_ERR;
		verbs_link_fail(link, -ECANCELED, false);
	}
	for (uint32_t i = 0; i < VERBS_CALLS; i++)
		if (concerns(link->slots[i].request, &verbs->path, request))
			verbs_end_call(link, &link->slots[i], -ECANCELED, true);
}

void verbs_cancel(struct path *path, struct request *request)
{
	give_up((struct verbs_path *)path, request, true);
}

/* Of a target that has gone nothing will be heard; one that closes a segment lets others go on. */
void verbs_dead(struct path *path, int state)
{
	give_up((struct verbs_path *)path, NULL, state == -ECONNRESET);
}
