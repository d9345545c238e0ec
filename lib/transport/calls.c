/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot has up to two holders: an operation (posted), and the segment's owner (sender.open), who
 * keeps it beyond the operation's end if that was given up. Answers go into the caller's memory
 * only here, in calls_poll(), while the operation is posted: so to cancel is to forget.
 */
#include "transport/calls.h"

#include <errno.h>
#include <string.h>

static int remote_state(const struct calls_path *calls)
{
	return atomic_load_explicit(&calls->path.remote->state, memory_order_relaxed);
}

/* Late answers of calls that were given up: their slots are free again. */
static void reclaim(struct calls_path *calls)
{
	uint32_t left = calls->sender.open & ~calls->posted;
	struct mailbox_answer late;

	for (; left != 0; left &= left - 1)
		mailbox_answered(&calls->sender, (uint32_t)__builtin_ctz(left), &late);
}

/* @return its slot; -1: none is free */
static int start(struct calls_path *calls, const struct slu_op *op)
{
	const char *data = op->region->addr + op->local_offset;
	int slot;

	if (remote_state(calls) == 0)
		return mailbox_send(&calls->sender, calls->posted, data, (uint32_t)op->length);
	slot = __builtin_ctzll(~(uint64_t)calls->posted); /* nothing goes into its memory */
	if (slot >= (int)MAILBOX_SLOTS)
		return -1;
	calls->dead |= 1u << slot;
	return slot;
}

static uint32_t calls_post(struct path *path, const struct slu_op *ops, uint32_t n,
			   struct slu_completion *done)
{
	struct calls_path *calls = (struct calls_path *)path;
	uint32_t i;

	(void)done;
	reclaim(calls);
	for (i = 0; i < n; i++) {
		int slot = start(calls, &ops[i]);

		if (slot < 0)
			break;
		calls->posted |= 1u << slot;
		calls->ops[slot] = ops[i];
	}
	if (i > 0 && calls->dead == 0)
		client_stored(calls->waker);
	return i;
}

static int take_answer(struct calls_path *calls, uint32_t slot, const struct mailbox_answer *answer,
		       uint16_t *length)
{
	const struct slu_op *op = &calls->ops[slot];

	if (answer->status < 0)
		return answer->status;
	if (answer->length > op->tag)
		return -EMSGSIZE;
	if (answer->length > 0)
		memcpy(op->region->addr + op->remote_offset, mailbox_data(&calls->sender, slot),
		       answer->length);
	*length = (uint16_t)answer->length;
	return 0;
}

/* @return has it ended? */
static bool look(struct calls_path *calls, uint32_t slot, struct slu_completion *done)
{
	const uint32_t bit = 1u << slot;
	struct mailbox_answer answer;
	int state;

	*done = (struct slu_completion){.user_data = calls->ops[slot].user_data,
					.transport = calls->path.transport,
					.scope = SLU_SCOPE_OPERATION};
	if (calls->canceled & bit) {
		done->status = -ECANCELED;
	} else if (!(calls->dead & bit) && mailbox_answered(&calls->sender, slot, &answer)) {
		done->status = take_answer(calls, slot, &answer, &done->length);
	} else {
		state = remote_state(calls);
		if (state == 0)
			return false;
		done->status = state;
		done->scope = SLU_SCOPE_SESSION;
	}
	if (done->status == 0)
		done->scope = SLU_SCOPE_NONE;
	calls->posted &= ~bit;
	calls->canceled &= ~bit;
	calls->dead &= ~bit;
	calls->main->stats.failed += done->status != 0;
	return true;
}

static uint32_t calls_poll(struct path *path, struct slu_completion *done, uint32_t n)
{
	struct calls_path *calls = (struct calls_path *)path;
	uint32_t finished = 0;

	for (uint32_t left = calls->posted; left != 0 && finished < n; left &= left - 1)
		finished += look(calls, (uint32_t)__builtin_ctz(left), &done[finished]);
	return finished;
}

static void calls_flush(struct path *path)
{
	struct calls_path *calls = (struct calls_path *)path;

	calls->canceled = calls->posted;
}

static void calls_cancel(struct path *path, uint64_t user_data)
{
	struct calls_path *calls = (struct calls_path *)path;

	for (uint32_t left = calls->posted; left != 0; left &= left - 1) {
		uint32_t slot = (uint32_t)__builtin_ctz(left);

		if (calls->ops[slot].user_data == user_data)
			calls->canceled |= 1u << slot;
	}
}

static const struct transport_fast calls_fast = {
	.post = calls_post,
	.poll = calls_poll,
	.flush = calls_flush,
	.cancel = calls_cancel,
};

void calls_init(struct calls_path *calls, struct path *main, const struct client_waker *waker,
		uint32_t poller)
{
	*calls = (struct calls_path){.path = {.fast = &calls_fast,
					      .slice_bytes = SLU_MESSAGE_MAX,
					      .transport = main->transport,
					      .remote = main->remote},
				     .main = main,
				     .waker = waker};
	mailbox_attach(&calls->sender, &waker->area->calls, poller);
	main->calls = &calls->path;
}

void calls_fini(struct calls_path *calls)
{
	mailbox_detach(&calls->sender);
}
