/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client shares with a segment's owner, while somebody writes anything into any word of it:
 * the owner takes only what is within bounds, and each call of the client ends once and writes
 * nothing outside its answer. The input is a list of steps, a byte each, with their arguments.
 */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "env/eal.h"
#include "message/client_area.h"
#include "poller/poller.h"
#include "tests/fuzz/fuzz.h"
#include "transport/calls.h"

#define SESSION  7u
#define OPEN_MAX (2 * MAILBOX_SLOTS) /* more than go out at once */

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

struct input {
	const uint8_t *at;
	size_t left;
};

/* A call in memory of its own: the sanitizer sees whoever writes beside it. */
struct call {
	struct slu_region region;
	uint32_t room;
	bool canceled;
};

struct both {
	struct client_area *area;
	struct client_inbox inbox;
	struct client_waker waker;
	struct slu_remote remote;
	struct poller *poller;
	struct slu_queue *queue;
	struct path main;
	struct calls_link link;
	struct calls_path calls;
	struct notify_sender notify;
	struct call *open[OPEN_MAX]; /* by user_data */
	bool answers;                /* the owner has one to give */
	struct mailbox_request request;
};

static int wake_of_owner;
static const struct clock monotonic = {.now = clock_monotonic_ns};
static const struct transport_env env = {.clock = &monotonic};

static uint32_t next(struct input *input)
{
	if (input->left == 0)
		return 0;
	input->left--;
	return *input->at++;
}

static uint32_t next_u32(struct input *input)
{
	uint32_t word = 0;

	for (int i = 0; i < 4; i++)
		word = word << 8 | next(input);
	return word;
}

/* ---- somebody in bad faith ---- */

/* Mostly what could be meant: of either round, a slot, and a length at a limit. */
static uint64_t make_word(struct input *input)
{
	static const uint32_t lengths[] = {0, 1, SLU_MESSAGE_MAX, SLU_MESSAGE_MAX + 1, 0xffff};
	uint32_t kind = next(input);
	uint64_t length = lengths[kind % 5];

	if (kind < 64)
		return (uint64_t)(next(input) & 1) << 63 | (uint64_t)next(input) << 32 |
		       next(input) << 16 | length;
	if (kind < 128)
		return UINT64_C(1) << 63 | (uint64_t)next(input) << 16 | length;
	return (uint64_t)next_u32(input) << 32 | next_u32(input);
}

static void spoil(struct both *both, struct input *input)
{
	struct notify_lane *notes = &both->area->notifications.lane[next(input) % NOTIFY_LANES];
	struct mailbox_lane *calls = &both->area->calls.lane[next(input) % MAILBOX_LANES];
	uint32_t what = next(input), slot = next(input);
	uint64_t word = make_word(input);

	switch (what % 9) {
	case 0:
		atomic_store(&both->area->armed, (uint32_t)word);
		break;
	case 1:
		atomic_store(&both->area->notifications.lanes, (uint32_t)word);
		break;
	case 2:
		atomic_store(&notes->tail, (uint32_t)word);
		break;
	case 3:
		notes->saved_head = (uint32_t)word;
		break;
	case 4:
		atomic_store(&notes->slots[slot % NOTIFY_SLOTS], word);
		break;
	case 5:
		atomic_store(&both->area->calls.lanes, (uint32_t)word);
		break;
	case 6:
		calls->saved_position = (uint32_t)word;
		calls->saved_open = (uint32_t)(word >> 32);
		calls->saved_bodies[slot % MAILBOX_SLOTS] = (uint8_t)word;
		break;
	case 7:
		atomic_store(&calls->requests[slot % MAILBOX_SLOTS], word);
		atomic_store(&calls->slots[slot % MAILBOX_SLOTS].body, (uint32_t)(word >> 32));
		atomic_store(&calls->slots[slot % MAILBOX_SLOTS].length, next_u32(input));
		break;
	default:
		atomic_store(&calls->slots[slot % MAILBOX_SLOTS].answer, word);
	}
}

/* ---- the owner ---- */

static void take_notifications(struct both *both, struct input *input)
{
	struct slu_notification notes[32];
	uint32_t n = next(input) % 33;
	uint32_t taken = notify_receive(&both->inbox.notifications, notes, n);

	must(taken <= n);
	for (uint32_t i = 0; i < taken; i++)
		must(notes[i].client <= INT32_MAX);
	notify_pending(&both->inbox.notifications);
}

static void take_request(struct both *both)
{
	const char *begin = (const char *)both->area;
	const char *data;
	static uint8_t copy[SLU_CALL_MAX];

	mailbox_pending(&both->inbox.calls);
	both->answers = mailbox_receive(&both->inbox.calls, &both->request);
	if (!both->answers)
		return;
	data = (const char *)both->request.data;
	must(both->request.lane < MAILBOX_LANES && both->request.slot < MAILBOX_SLOTS);
	must(both->request.body <= MAILBOX_BODIES &&
	     both->request.length <= (both->request.body ? SLU_CALL_MAX : SLU_MESSAGE_MAX) &&
	     data >= begin && data + both->request.length <= begin + sizeof(*both->area));
	memcpy(copy, data, both->request.length);
}

static void answer(struct both *both, struct input *input)
{
	static const uint8_t text[255 * 40];
	uint32_t length = next(input) * 40;
	bool good = next(input) % 2;

	if (!both->answers)
		return;
	both->answers = false;
	mailbox_reply(&both->inbox.calls, both->request.lane, both->request.slot,
		      both->request.body, good ? 0 : -EIO, text, good ? length : 0);
}

/* ---- the client ---- */

static void post(struct both *both, struct input *input)
{
	uint32_t length = next(input) * 40, room = next(input) * 40; /* some take a body */
	struct call *call;
	uint32_t id = 0;
	struct slu_op op;

	while (id < OPEN_MAX && both->open[id])
		id++;
	if (id == OPEN_MAX)
		return;
	call = calloc(1, sizeof(*call));
	must(call);
	*call = (struct call){.region = {.addr = malloc(length + room)}, .room = room};
	must(call->region.addr || length + room == 0);
	memset(call->region.addr, 1, length + room);
	op = (struct slu_op){.user_data = id,
			     .remote = &both->remote,
			     .region = &call->region,
			     .length = length,
			     .remote_offset = length,
			     .tag = room,
			     .opcode = OP_CALL};
	both->open[id] = call;
	must(poller_start(both->poller, both->queue, &op, 1) == 1);
}

static void end_call(struct both *both, const struct slu_completion *done)
{
	struct call *call;

	must(done->user_data < OPEN_MAX);
	call = both->open[done->user_data];
	must(call);
	must(done->status <= 0 && done->status != -EAGAIN);
	must(done->status != -ECANCELED || call->canceled);
	must(done->status == 0 ? done->bytes <= call->room : done->bytes == 0);
	both->open[done->user_data] = NULL;
	free(call->region.addr);
	free(call);
}

static void poll_calls(struct both *both)
{
	struct slu_completion done[OPEN_MAX];
	uint32_t n;

	poller_run_once(both->poller);
	n = queue_take_done(both->queue, done, OPEN_MAX);
	for (uint32_t i = 0; i < n; i++)
		end_call(both, &done[i]);
}

static void end_all(struct both *both)
{
	for (uint32_t i = 0; i < OPEN_MAX; i++)
		if (both->open[i])
			both->open[i]->canceled = true;
	requests_cancel(both->poller, NULL, both->queue);
	requests_tell(both->poller);
	poll_calls(both);
	for (uint32_t i = 0; i < OPEN_MAX; i++)
		must(!both->open[i]);
}

static void notify(struct both *both, struct input *input)
{
	for (uint32_t n = next(input); n > 0 && notify_room(&both->notify); n--)
		notify_send(&both->notify, SESSION, n);
	client_stored(&both->waker);
}

static void attach(struct both *both, uint32_t index)
{
	const struct slu_queue_options options = {.depth = OPEN_MAX, .poller = SLU_POLLER_INLINE};

	must(poller_create(index, &env, 0, 0, &both->poller) == 0);
	must(queue_create(&options, both->poller, -1, &both->queue) == 0);
	must(poller_attach(both->poller, both->queue) == 0);
	calls_link_init(&both->link, &both->waker, &both->poller->env);
	calls_init(&both->calls, &both->main, &both->link, SESSION);
	notify_attach(&both->notify, &both->area->notifications, index);
	both->remote.paths[index] = &both->main;
}

static void detach(struct both *both)
{
	end_all(both);
	poller_detach(both->poller, both->queue);
	both->remote.paths[both->poller->index] = NULL;
	calls_link_fini(&both->link);
	notify_detach(&both->notify);
	queue_destroy(both->queue);
	poller_destroy(both->poller);
}

/* Another poller of that index takes over what this one left. */
static void replace(struct both *both, struct input *input)
{
	detach(both);
	attach(both, next(input) % (uint32_t)SLU_POLLERS_MAX);
}

static void step(struct both *both, struct input *input)
{
	switch (next(input) % 12) {
	default:
		spoil(both, input);
		break;
	case 1:
		take_notifications(both, input);
		break;
	case 2:
		take_request(both);
		break;
	case 3:
		answer(both, input);
		break;
	case 4:
	case 5:
		post(both, input);
		break;
	case 6:
		poll_calls(both);
		break;
	case 7:
		end_all(both);
		break;
	case 8:
		notify(both, input);
		break;
	case 9:
		replace(both, input);
		break;
	case 10:
		atomic_store(&both->remote.state, next(input) % 2 ? -ECONNRESET : 0);
		transport_changed();
	}
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	wake_of_owner = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	must(wake_of_owner >= 0);
	must(eal_start() == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {.at = data, .left = size};
	struct both both = {.main = {.transport = SLU_TRANSPORT_SHM}};

	must(client_inbox_init(&both.inbox, 1, SLU_RIGHT_WRITE, wake_of_owner, NULL) == 0);
	both.area = both.inbox.area;
	both.waker =
		(struct client_waker){.area = both.area, .wake_fd = wake_of_owner, .fence = true};
	both.main.remote = &both.remote;
	path_init(&both.main);
	attach(&both, next(&input) % (uint32_t)SLU_POLLERS_MAX);
	while (input.left > 0)
		step(&both, &input);
	detach(&both);
	client_inbox_fini(&both.inbox);
	return 0;
}
