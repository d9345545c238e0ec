/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients left for a segment's owner: notifications, requests, and the answers back. It comes
 * from two places: the areas of clients in shared memory that are hot (hot.c), and the lanes that
 * pollers of this engine fill.
 *
 * Hot, on the application's polling thread; slu_segment_arm() is the one call that enters the
 * kernel, and waits there for nobody.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/barrier.h"
#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"

#define COPIES_BYTES ((size_t)SLU_MESSAGES_MAX * SLU_MESSAGE_MAX)

static_assert(SLU_MESSAGES_MAX <= UINT16_MAX, "requests.free holds indices");

static inline void count_poll(struct slu_segment *segment, memory_order order)
{
	uint64_t polls = atomic_load_explicit(&segment->polls, memory_order_relaxed);

	atomic_store_explicit(&segment->polls, polls + 1, order);
}

/*
 * While we poll, nothing goes away that the sets have held meanwhile. The light barrier pairs with
 * the heavy one in leave_set().
 */
static inline void begin_polling(struct slu_segment *segment)
{
	count_poll(segment, memory_order_relaxed);
	barrier_light();
	hot_begin(segment);
}

static inline void look_for_rung(struct slu_segment *segment)
{
	if (__builtin_expect(segment->hot.looking, 0))
		hot_look(segment);
}

static inline void end_polling(struct slu_segment *segment)
{
	count_poll(segment, memory_order_release);
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

		if (client)
			notes[named++] = (struct slu_notification){.tag = notes[i].tag,
								   .client = client->number};
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

int slu_segment_poll(struct slu_segment *segment, struct slu_notification *out, uint32_t n)
{
	uint32_t lanes = inbox_lanes(segment->inbox);
	bool lanes_first = lanes > 0 && segment->polls_lanes_first;
	uint32_t taken, first;

	work_begin(WORK_OWNER);
	first = taken = lanes_first ? poll_lanes(segment, lanes, out, n) : 0;

	begin_polling(segment);
	look_for_rung(segment);
	taken += poll_areas(segment, out + taken, n - taken);
	end_polling(segment);
	if (!lanes_first) {
		first = taken;
		taken += poll_lanes(segment, lanes, out + taken, n - taken);
	}
	end_turn(&segment->polls_lanes_first, first);
	if (taken > 0)
		count_notifications(segment, taken);
	return (int)taken;
}

/* ---- requests ---- */

struct requests *requests_create(void)
{
	struct requests *requests = calloc(1, sizeof(*requests));
	void *copies;

	if (!requests)
		return NULL;
	copies = mmap(NULL, COPIES_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (copies == MAP_FAILED) {
		free(requests);
		return NULL;
	}
	requests->copies = copies;
	return requests;
}

void requests_destroy(struct requests *requests)
{
	if (!requests)
		return;
	munmap(requests->copies, COPIES_BYTES);
	free(requests);
}

static bool any_free(const struct requests *requests)
{
	return requests->free_count > 0 || requests->touched < SLU_MESSAGES_MAX;
}

/* The index that was freed last: its copy is still in the cache. */
static uint32_t take_index(struct requests *requests)
{
	if (requests->free_count > 0)
		return requests->free[--requests->free_count];
	return requests->touched++;
}

static void open_request(struct requests *requests, uint32_t index, struct open_request request,
			 const void *data, uint32_t length, struct slu_message *out)
{
	request.generation = requests->open[index].generation + 1;
	requests->open[index] = request;
	*out = (struct slu_message){.id = (uint64_t)request.generation << 32 | index,
				    .client = request.client,
				    .length = length,
				    .data = data};
}

/* @return NULL: not a request that is open */
static struct open_request *find_request(struct requests *requests, uint64_t id)
{
	uint32_t index = (uint32_t)id;
	uint32_t generation = id >> 32;

	if (index >= SLU_MESSAGES_MAX || !(generation & 1) ||
	    requests->open[index].generation != generation)
		return NULL;
	return &requests->open[index];
}

static void close_request(struct requests *requests, struct open_request *request)
{
	request->generation++;
	requests->free[requests->free_count++] = (uint16_t)(request - requests->open);
}

/*
 * The client could change its request while we look at it: only a copy is handed out. What nobody
 * has asked who is here is answered at once, so that it does not keep its slot from others.
 */
static bool take_shared(struct slu_segment *segment, struct segment_area *area,
			const struct mailbox_request *request, struct slu_message *out)
{
	const struct segment_client *client = find_client(segment, area, request->session);
	struct requests *requests = segment->requests;
	uint32_t index;
	uint8_t *copy;

	if (!client) {
		mailbox_reply(&area->inbox.calls, request->lane, request->slot, -ECONNRESET, NULL,
			      0);
		return false;
	}
	index = take_index(requests);
	copy = requests->copies[index];
	memcpy(copy, request->data, request->length);
	open_request(requests, index,
		     (struct open_request){.client = client->number,
					   .lane = request->lane,
					   .slot = request->slot,
					   .area = area->inbox.id,
					   .place = area->place},
		     copy, request->length, out);
	return true;
}

static uint32_t receive_areas(struct slu_segment *segment, struct slu_message *out, uint32_t n)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t taken = 0, lanes = 0, looked = 0;

	work_count(WORK_ITEMS, hot->count);
	for (uint32_t idle = 0; idle < hot->count && taken < n && any_free(segment->requests);
	     idle++) {
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

	while (idle < lanes && taken < n && any_free(segment->requests)) {
		struct inbox_request request;
		uint32_t lane;

		if (segment->next_called_lane >= lanes)
			segment->next_called_lane = 0;
		lane = segment->next_called_lane++;
		idle++;
		if (!inbox_receive(segment->inbox, lane, &request))
			continue;
		idle = 0;
		open_request(segment->requests, take_index(segment->requests),
			     (struct open_request){
				     .client = request.client, .lane = lane, .slot = request.slot},
			     request.data, request.length, &out[taken++]);
	}
	return taken;
}

int slu_segment_receive(struct slu_segment *segment, struct slu_message *out, uint32_t n)
{
	uint32_t lanes = inbox_lanes(segment->inbox);
	bool lanes_first = lanes > 0 && segment->receives_lanes_first;
	uint32_t taken, first;

	work_begin(WORK_OWNER);
	first = taken = lanes_first ? receive_lanes(segment, lanes, out, n) : 0;

	begin_polling(segment);
	look_for_rung(segment);
	taken += receive_areas(segment, out + taken, n - taken);
	end_polling(segment);
	if (!lanes_first) {
		first = taken;
		taken += receive_lanes(segment, lanes, out + taken, n - taken);
	}
	end_turn(&segment->receives_lanes_first, first);
	return (int)taken;
}

/* ---- answers ---- */

/* To its area, if that is still there: also of a client that has left, whose slot is free then. */
static void answer_shared(struct slu_segment *segment, const struct open_request *request,
			  int status, const void *data, uint32_t length)
{
	struct segment_area *area;

	begin_polling(segment);
	area = place_set_at(&segment->areas, request->place);
	if (area && area->inbox.id == request->area)
		mailbox_reply(&area->inbox.calls, request->lane, request->slot, status, data,
			      length);
	end_polling(segment);
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

int slu_segment_answer(struct slu_segment *segment, const struct slu_message *message, int status,
		       const void *data, uint32_t length)
{
	struct open_request *request = find_request(segment->requests, message->id);

	if (!request)
		return fail(-EINVAL, "not a request of this segment that is open");
	if (length > SLU_MESSAGE_MAX)
		return fail(-EINVAL, "an answer of %u bytes: at most %d are possible", length,
			    SLU_MESSAGE_MAX);
	if (!mailbox_status_allowed(status))
		return fail(-EINVAL,
			    "status %d: answer with 0 or a negative errno other than "
			    "-EAGAIN and -ECANCELED",
			    status);
	if (status != 0)
		length = 0;
	if (request->area != 0)
		answer_shared(segment, request, status, data, length);
	else
		answer_lane(segment, request, status, data, length);
	close_request(segment->requests, request);
	return 0;
}

/* ---- being woken ---- */

int slu_segment_fd(struct slu_segment *segment)
{
	return wake_set_fd(segment->wake);
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
 * The heavy barriers pair with the light ones in client_stored(), in this process or another, and
 * in the inbox: either we see what came, or it is seen that we want to be woken. What is not polled
 * is armed all the time, from before its client has it. Requests that cannot be received for want
 * of room would wake for nothing.
 */
int slu_segment_arm(struct slu_segment *segment)
{
	bool calls = any_free(segment->requests);
	bool pending;
	int rc;

	work_begin(WORK_OWNER);
	wake_set_clear(segment->wake);
	begin_polling(segment);
	set_armed(segment, true);
	barrier_heavy();
	rc = barrier_heavy_shared();
	pending = rc < 0 || hot_pending(segment, calls) || inbox_pending(segment->inbox, calls);
	if (pending)
		set_armed(segment, false);
	end_polling(segment);
	if (rc < 0)
		return fail(rc, "membarrier is not allowed any more: poll instead of waiting, or "
				"mend the seccomp filter");
	return pending;
}
