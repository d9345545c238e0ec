/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients left for a segment's owner: notifications, requests, and the answers back. It comes
 * from two places: the areas of clients in shared memory that are hot (hot.c), and the lanes that
 * pollers of this engine fill.
 *
 * Hot, on threads of the application's, of which one at a time takes, and any answers;
 * slu_segment_arm() is the one call that enters the kernel, and waits there for nobody.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/barrier.h"
#include "base/fork.h"
#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"
#include "message/body.h"

static inline void count_poll(struct slu_segment *segment, memory_order order)
{
	uint64_t polls = atomic_load_explicit(&segment->polls, memory_order_relaxed);

	atomic_store_explicit(&segment->polls, polls + 1, order);
}

/*
 * By the first thread, which says by a store that it polls: the light barrier pairs with the heavy
 * one in make_known(), so either it sees that there are others, or is seen polling by them.
 */
static inline bool is_turn_of_first(struct slu_segment *segment)
{
	if (atomic_load_explicit(&segment->others, memory_order_relaxed) != OTHERS_NONE)
		return false;
	atomic_store_explicit(&segment->first_polls, true, memory_order_relaxed);
	barrier_light();
	if (atomic_load_explicit(&segment->others, memory_order_relaxed) == OTHERS_NONE) {
		segment->polls_as_first = true;
		return true;
	}
	atomic_store_explicit(&segment->first_polls, false, memory_order_release);
	return false;
}

/* From then on the first takes its turn as all do. */
static void make_known(struct slu_segment *segment)
{
	uint32_t none = OTHERS_NONE;

	atomic_compare_exchange_strong(&segment->others, &none, OTHERS_COME);
	barrier_heavy();
	atomic_store(&segment->others, OTHERS_KNOWN);
}

/* Where there are others. The acquires pair with the releases in end_polling(). */
__attribute__((noinline)) static bool is_turn_of_one(struct slu_segment *segment)
{
	if (atomic_load(&segment->others) != OTHERS_KNOWN)
		make_known(segment);
	if (atomic_load_explicit(&segment->taken, memory_order_relaxed) ||
	    atomic_exchange_explicit(&segment->taken, true, memory_order_acquire))
		return false;
	if (atomic_load_explicit(&segment->first_polls, memory_order_acquire)) {
		atomic_store_explicit(&segment->taken, false, memory_order_release);
		return false;
	}
	segment->polls_as_first = false;
	return true;
}

/* One thread at a time; what another finds meanwhile is nothing. */
static inline bool is_turn(struct slu_segment *segment)
{
	void *self = __builtin_thread_pointer(), *first = NULL;

	if (__builtin_expect(atomic_load_explicit(&segment->first, memory_order_relaxed) == self,
			     1) ||
	    atomic_compare_exchange_strong(&segment->first, &first, self)) {
		if (__builtin_expect(is_turn_of_first(segment), 1))
			return true;
	}
	return is_turn_of_one(segment);
}

void segment_shut_in_child(struct fork_hook *hook)
{
	struct slu_segment *segment =
		(struct slu_segment *)((char *)hook - offsetof(struct slu_segment, forked));

	atomic_store(&segment->first, segment); /* no thread */
	atomic_store(&segment->others, OTHERS_KNOWN);
	atomic_store(&segment->taken, true);
}

/*
 * The control thread frees nothing that the sets have held while somebody polls: the light barrier
 * pairs with the heavy one in leave_set().
 */
static inline bool begin_polling(struct slu_segment *segment)
{
	if (!is_turn(segment))
		return false;
	count_poll(segment, memory_order_relaxed);
	barrier_light();
	hot_begin(segment);
	return true;
}

static inline void end_polling(struct slu_segment *segment)
{
	count_poll(segment, memory_order_release);
	if (__builtin_expect(segment->polls_as_first, 1))
		atomic_store_explicit(&segment->first_polls, false, memory_order_release);
	else
		atomic_store_explicit(&segment->taken, false, memory_order_release);
}

static inline void look_for_rung(struct slu_segment *segment)
{
	if (__builtin_expect(segment->hot.looking, 0))
		hot_look(segment);
}

/*
 * Those in shared memory and those on the wire go first in turn: neither can keep the other out. A
 * turn in which nothing was taken, for want of room, was none.
 */
static inline void end_turn(bool *lanes_first, uint32_t taken)
{
	if (taken > 0)
		*lanes_first = !*lanes_first;
}

/* Who says that it is @p session of that area? @return NULL: nobody who is here */
static const struct segment_client *find_client(const struct slu_segment *segment,
						const struct segment_area *area, uint32_t session)
{
	const struct segment_client *client =
		place_set_at(&segment->sessions, session >> SESSION_AGE_BITS);

	return client && client->area == area && segment_session(client) == session ? client : NULL;
}

/* ---- notifications ---- */

/* @return how many are left: those of clients that have gone, or never were, are nobody's */
static uint32_t name_clients(const struct slu_segment *segment, const struct segment_area *area,
			     struct slu_notification *notes, uint32_t n)
{
	uint32_t named = 0;

	for (uint32_t i = 0; i < n; i++) {
		const struct segment_client *client = find_client(segment, area, notes[i].client);

		if (!client)
			continue;
		sender_is_heard(client->sender);
		notes[named++] = (struct slu_notification){.tag = notes[i].tag,
							   .client = client->number,
							   .identity = client->sender->identity};
	}
	return named;
}

/* Each area once, beginning where the last call ended, so that none starves. */
static uint32_t poll_areas(struct slu_segment *segment, struct slu_notification *out, uint32_t n)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t taken = 0, lanes = 0;

	work_count(WORK_ITEMS, hot->count);
	for (uint32_t i = 0; i < hot->count && taken < n; i++) {
		struct segment_area *area = hot_next(hot, &hot->next_polled);
		uint32_t count = notify_receive(&area->inbox.notifications, out + taken, n - taken);

		lanes += area->inbox.notifications.lanes.count;
		if (count == 0)
			continue;
		area->active = true;
		taken += name_clients(segment, area, out + taken, count);
	}
	hot_note_lanes(hot, lanes);
	return taken;
}

static uint32_t poll_lanes(struct slu_segment *segment, uint32_t lanes,
			   struct slu_notification *out, uint32_t n)
{
	uint32_t taken = 0;

	for (uint32_t i = 0; i < lanes && taken < n; i++) {
		if (segment->next_lane >= lanes)
			segment->next_lane = 0;
		taken += inbox_poll(segment->inbox, segment->next_lane++, out + taken, n - taken);
	}
	return taken;
}

/* One writer: a plain addition, that others may read. */
static inline void count_notifications(struct slu_segment *segment, uint32_t n)
{
	uint64_t before = atomic_load_explicit(&segment->notifications, memory_order_relaxed);

	atomic_store_explicit(&segment->notifications, before + n, memory_order_relaxed);
}

static uint32_t poll_all(struct slu_segment *segment, struct slu_notification *out, uint32_t n)
{
	uint32_t lanes = inbox_lanes(segment->inbox);
	bool lanes_first = lanes > 0 && segment->polls_lanes_first;
	uint32_t first = lanes_first ? poll_lanes(segment, lanes, out, n) : 0;
	uint32_t taken = first + poll_areas(segment, out + first, n - first);

	if (!lanes_first) {
		first = taken;
		taken += poll_lanes(segment, lanes, out + taken, n - taken);
	}
	end_turn(&segment->polls_lanes_first, first);
	return taken;
}

int slu_segment_poll(struct slu_segment *segment, struct slu_notification *out, uint32_t n)
{
	uint32_t taken;

	work_begin(WORK_OWNER);
	if (!begin_polling(segment))
		return fork_check();
	look_for_rung(segment);
	taken = poll_all(segment, out, n);
	if (taken > 0)
		count_notifications(segment, taken);
	end_polling(segment);
	return (int)taken;
}

/* ---- requests ---- */

/* @p area: that it came through; NULL: the export's inbox. @return its id */
static uint64_t open_request(struct requests *requests, uint32_t index, uint32_t lane,
			     uint32_t slot, const struct segment_area *area)
{
	struct open_request *request = &requests->open[index];

	request->lane = lane;
	request->slot = slot;
	request->area = area ? area->inbox.id : 0;
	request->place = area ? area->place : 0;
	return requests_open(requests, index);
}

/* @return 0; -EAGAIN, -EDQUOT no memory for it */
static int copy_request(struct requests *requests, uint32_t index, struct sender *sender,
			const struct mailbox_request *request, const void **data)
{
	struct open_request *open = &requests->open[index];
	uint8_t *copy = requests->copies[index];

	open->body = request->body;
	open->copy = NULL;
	if (request->length > SLU_MESSAGE_MAX) {
		int rc = body_create(sender->budget, request->length, &open->copy);

		if (rc < 0)
			return rc;
		copy = open->copy->data;
	}
	memcpy(copy, request->data, request->length);
	*data = copy;
	return 0;
}

/* It does not keep its slot from others. */
static bool refuse(struct segment_area *area, const struct mailbox_request *request, int status)
{
	mailbox_reply(&area->inbox.calls, request->lane, request->slot, request->body, status, NULL,
		      0);
	return false;
}

/*
 * The client could change its request while we look at it: only a copy is handed out. What nobody
 * has asked who is here is answered at once.
 */
static bool take_shared(struct slu_segment *segment, struct segment_area *area,
			const struct mailbox_request *request, struct slu_message *out)
{
	const struct segment_client *client = find_client(segment, area, request->session);
	struct requests *requests = segment->requests;
	const void *data;
	uint32_t index;
	int rc;

	if (!client)
		return refuse(area, request, -ECONNRESET);
	index = requests_take(requests);
	rc = copy_request(requests, index, client->sender, request, &data);
	if (rc < 0) {
		requests_untake(requests, index);
		return refuse(area, request, rc);
	}
	sender_is_heard(client->sender);
	*out = (struct slu_message){
		.id = open_request(requests, index, request->lane, request->slot, area),
		.client = client->number,
		.length = request->length,
		.identity = client->sender->identity,
		.data = data};
	return true;
}

static uint32_t receive_areas(struct slu_segment *segment, struct slu_message *out, uint32_t n)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t taken = 0, lanes = 0, looked = 0;

	work_count(WORK_ITEMS, hot->count);
	for (uint32_t idle = 0;
	     idle < hot->count && taken < n && requests_any_free(segment->requests); idle++) {
		struct segment_area *area = hot_next(hot, &hot->next_received);
		struct mailbox_request request;
		bool came = mailbox_receive(&area->inbox.calls, &request);

		if (looked++ < hot->count)
			lanes += area->inbox.calls.lanes.count;
		if (!came)
			continue;
		area->active = true;
		if (take_shared(segment, area, &request, &out[taken])) {
			taken++;
			idle = UINT32_MAX; /* once more round */
		}
	}
	hot_note_lanes(hot, lanes);
	return taken;
}

/* One request of each lane in turn. */
static uint32_t receive_lanes(struct slu_segment *segment, uint32_t lanes, struct slu_message *out,
			      uint32_t n)
{
	uint32_t taken = 0, idle = 0;

	while (idle < lanes && taken < n && requests_any_free(segment->requests)) {
		struct inbox_request request;
		uint32_t lane, index;

		if (segment->next_called_lane >= lanes)
			segment->next_called_lane = 0;
		lane = segment->next_called_lane++;
		idle++;
		if (!inbox_receive(segment->inbox, lane, &request))
			continue;
		idle = 0;
		index = requests_take(segment->requests);
		out[taken++] = (struct slu_message){
			.id = open_request(segment->requests, index, lane, request.slot, NULL),
			.client = request.client,
			.length = request.length,
			.identity = request.identity,
			.data = request.data};
	}
	return taken;
}

static uint32_t receive_all(struct slu_segment *segment, struct slu_message *out, uint32_t n)
{
	uint32_t lanes = inbox_lanes(segment->inbox);
	bool lanes_first = lanes > 0 && segment->receives_lanes_first;
	uint32_t first = lanes_first ? receive_lanes(segment, lanes, out, n) : 0;
	uint32_t taken = first + receive_areas(segment, out + first, n - first);

	if (!lanes_first) {
		first = taken;
		taken += receive_lanes(segment, lanes, out + taken, n - taken);
	}
	end_turn(&segment->receives_lanes_first, first);
	return taken;
}

int slu_segment_receive(struct slu_segment *segment, struct slu_message *out, uint32_t n)
{
	uint32_t taken;

	work_begin(WORK_OWNER);
	if (!begin_polling(segment))
		return fork_check();
	look_for_rung(segment);
	taken = receive_all(segment, out, n);
	end_polling(segment);
	return (int)taken;
}

/* ---- answers ---- */

/*
 * To its area, if that is still there: also of a client that has left, whose slot is free then. The
 * light barrier pairs with the heavy one in leave_set(): an area that is found here stays until the
 * request is closed.
 */
static void answer_shared(struct slu_segment *segment, const struct open_request *request,
			  int status, const void *data, uint32_t length)
{
	struct segment_area *area;

	barrier_light();
	area = place_set_at(&segment->areas, request->place);
	if (area && area->inbox.id == request->area)
		mailbox_reply(&area->inbox.calls, request->lane, request->slot, request->body,
			      status, data, length);
}

static void answer_lane(struct slu_segment *segment, const struct open_request *request, int status,
			const void *data, uint32_t length)
{
	struct slu_engine *engine = segment->engine;
	struct poller *poller = engine->pollers[request->lane % engine->poller_threads];

	inbox_reply(segment->inbox, request->lane, request->slot, status, data, length);
	/* Pairs with barrier_heavy() where the poller announces that it will sleep. */
	barrier_light();
	if (atomic_load_explicit(&poller->sleeping, memory_order_relaxed))
		poller_wake(poller);
}

/* Pairs with barrier_heavy() in slu_segment_arm(): it sees that there is room, or we see it
 * starved.
 */
static void wake_starved(struct slu_segment *segment)
{
	barrier_light();
	if (__builtin_expect(atomic_load_explicit(&segment->starved, memory_order_relaxed), 0) &&
	    atomic_exchange(&segment->starved, false))
		eventfd_write(wake_set_eventfd(segment->wake), 1);
}

int slu_segment_answer(struct slu_segment *segment, const struct slu_message *message, int status,
		       const void *data, uint32_t length)
{
	struct open_request *request;

	if (fork_is_child())
		return fork_refuse();
	if (length > SLU_CALL_MAX)
		return fail(-EINVAL, "an answer of %u bytes: at most %d are possible", length,
			    SLU_CALL_MAX);
	if (!mailbox_status_allowed(status))
		return fail(-EINVAL,
			    "status %d: answer with 0 or a negative errno other than "
			    "-EAGAIN and -ECANCELED",
			    status);
	request = requests_claim(segment->requests, message->id);
	if (!request)
		return fail(-EINVAL, "not a request of this segment that is open");
	if (status != 0)
		length = 0;
	if (request->area != 0)
		answer_shared(segment, request, status, data, length);
	else
		answer_lane(segment, request, status, data, length);
	body_destroy(request->copy);
	request->copy = NULL;
	requests_close(segment->requests, request);
	wake_starved(segment);
	return 0;
}

/* ---- clients that have gone ---- */

int slu_segment_departures(struct slu_segment *segment, struct slu_departure *out, uint32_t n)
{
	uint32_t taken = 0;

	work_begin(WORK_OWNER);
	if (!begin_polling(segment))
		return fork_check();
	atomic_store_explicit(&segment->departures.wanted, true, memory_order_relaxed);
	if (departures_settle(&segment->departures, segment->inbox))
		taken = departures_take(&segment->departures, out, n);
	end_polling(segment);
	return (int)taken;
}

/* ---- being woken ---- */

int slu_segment_fd(struct slu_segment *segment)
{
	return fork_is_child() ? fork_refuse() : wake_set_fd(segment->wake);
}

static void set_armed(struct slu_segment *segment, bool armed)
{
	hot_arm(segment, armed);
	if (segment->inbox && armed)
		inbox_arm(segment->inbox);
	else if (segment->inbox)
		inbox_disarm(segment->inbox);
}

/*
 * Whom a wake-up was meant for that was cleared just now finds nothing then, or is woken by this.
 */
static void pass_on(struct slu_segment *segment)
{
	set_armed(segment, false);
	if (atomic_load_explicit(&segment->others, memory_order_relaxed) != OTHERS_NONE)
		eventfd_write(wake_set_eventfd(segment->wake), 1);
}

/*
 * The heavy barriers pair with the light ones in client_stored(), in this process or another, and
 * in the inbox: either we see what came, or it is seen that we want to be woken. What is not polled
 * is armed all the time, from before its client has it. Requests that cannot be received for want
 * of room would wake for nothing: the next answer does.
 */
int slu_segment_arm(struct slu_segment *segment)
{
	bool calls, pending;
	int rc;

	work_begin(WORK_OWNER);
	if (!begin_polling(segment))
		return fork_is_child() ? fork_refuse() : 1;
	calls = requests_any_free(segment->requests);
	wake_set_clear(segment->wake);
	atomic_store_explicit(&segment->starved, !calls, memory_order_relaxed);
	set_armed(segment, true);
	barrier_heavy();
	rc = barrier_heavy_shared();
	calls = requests_any_free(segment->requests);
	pending = rc < 0 || hot_pending(segment, calls) || inbox_pending(segment->inbox, calls) ||
		  departures_settle(&segment->departures, segment->inbox);
	if (pending)
		pass_on(segment);
	end_polling(segment);
	if (rc < 0)
		return fail(rc, "membarrier is not allowed any more: poll instead of waiting, or "
				"mend the seccomp filter");
	return pending;
}
