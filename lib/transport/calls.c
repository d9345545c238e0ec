/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot has up to two holders: a request (posted), and the segment's owner (sender.open), who
 * keeps it beyond the request's end if that was given up. Answers go into the caller's memory only
 * here, in calls_poll(), while the request is posted: so to cancel is to forget.
 */
#include "transport/calls.h"

#include <errno.h>
#include <string.h>

/* Late answers of calls that were given up: their slots are free again. @return how many */
static uint32_t reclaim(struct calls_link *calls)
{
	uint32_t left = calls->sender.open & ~calls->posted, freed = 0, slot;
	struct mailbox_answer late;

	for (; left != 0; left &= left - 1) {
		slot = (uint32_t)__builtin_ctz(left);
		if (!mailbox_answered(&calls->sender, slot, &late))
			continue;
		mailbox_done(&calls->sender, slot);
		freed++;
	}
	return freed;
}

static enum post_result calls_post(struct path *path, struct request *request, struct op_part part)
{
	const struct calls_path *of = (struct calls_path *)path;
	struct calls_link *calls = of->calls;
	const struct slu_op *op = &request->op;
	int slot;

	reclaim(calls);
	slot = mailbox_send(&calls->sender, of->session, calls->posted,
			    op->region->addr + op->local_offset, part.length, op->tag);
	if (slot < 0) {
		calls->lacks_body = part.length > SLU_MESSAGE_MAX || op->tag > SLU_MESSAGE_MAX;
		return POST_FULL;
	}
	calls->posted |= 1u << slot;
	calls->requests[slot] = request;
	return POST_DONE;
}

static void calls_flush(struct transport_link *link)
{
	client_stored(((struct calls_link *)link)->waker);
}

/* @return bytes of it, or why there are none */
static int take_answer(const struct slu_op *op, const struct mailbox_answer *answer)
{

	if (answer->status < 0)
		return answer->status;
	if (answer->length > op->tag)
		return -EMSGSIZE;
	if (answer->length > 0)
		memcpy(op->region->addr + op->remote_offset, answer->data, answer->length);
	return (int)answer->length;
}

static void give_back(struct calls_link *calls, uint32_t slot, int result)
{
	calls->posted &= ~(1u << slot);
	request_back(calls->requests[slot], result, false);
}

static uint32_t calls_poll(struct transport_link *link)
{
	struct calls_link *calls = (struct calls_link *)link;
	uint32_t finished = reclaim(calls); /* a call may be stalled for want of just those */
	struct mailbox_answer answer;

	if (calls->lacks_body && mailbox_has_body(&calls->sender)) {
		calls->lacks_body = false;
		finished++;
	}

	for (uint32_t left = calls->posted; left != 0; left &= left - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(left);
		int result;

		if (!mailbox_answered(&calls->sender, slot, &answer))
			continue;
		result = take_answer(&calls->requests[slot]->op, &answer);
		mailbox_done(&calls->sender, slot);
		give_back(calls, slot, result);
		finished++;
	}
	return finished;
}

static void calls_cancel(struct path *path, struct request *request)
{
	struct calls_link *calls = ((struct calls_path *)path)->calls;

	for (uint32_t left = calls->posted; left != 0; left &= left - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(left);

		if (calls->requests[slot] == request) {
			give_back(calls, slot, -ECANCELED);
			return;
		}
	}
}

static void calls_dead(struct path *path, int state)
{
	struct calls_link *calls = ((struct calls_path *)path)->calls;

	calls_poll(&calls->link);
	for (uint32_t left = calls->posted; left != 0; left &= left - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(left);

		if (calls->requests[slot]->path == path)
			give_back(calls, slot, state);
	}
}

static const struct link_ops link_ops = {.flush = calls_flush, .poll = calls_poll};

static const struct transport_fast calls_fast = {
	.post = calls_post,
	.cancel = calls_cancel,
	.dead = calls_dead,
};

void calls_link_init(struct calls_link *calls, const struct client_waker *waker,
		     const struct path_env *env)
{
	*calls = (struct calls_link){.waker = waker};
	link_init(&calls->link, &link_ops, env->schedule);
	mailbox_attach(&calls->sender, &waker->area->calls, env->poller);
}

void calls_link_fini(struct calls_link *calls)
{
	mailbox_detach(&calls->sender);
}

void calls_init(struct calls_path *path, struct path *main, struct calls_link *calls,
		uint32_t session)
{
	*path = (struct calls_path){.path = {.fast = &calls_fast,
					     .slice_bytes = SLU_CALL_MAX,
					     .transport = main->transport,
					     .remote = main->remote,
					     .link = &calls->link},
				    .calls = calls,
				    .session = session};
	path_init(&path->path);
	main->calls = &path->path;
}
