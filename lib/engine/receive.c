/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients left for a segment's owner: notifications, requests, and the answers back. It comes
 * from two places: the inboxes of the clients in shared memory, and the lanes that pollers of this
 * engine fill.
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
#include "engine/engine_internal.h"

#define COPIES_BYTES ((size_t)SLU_MESSAGES_MAX * SLU_MESSAGE_MAX)

static_assert(SLU_MESSAGES_MAX <= UINT16_MAX, "requests.free holds indices");

/*
 * While we poll, no client of the set goes away. The light barrier pairs with the heavy one in
 * client_set_update().
 */
static inline const struct client_set *begin_polling(struct slu_segment *segment)
{
	atomic_store_explicit(&segment->polling, true, memory_order_relaxed);
	barrier_light();
	return atomic_load_explicit(&segment->set, memory_order_acquire);
}

static inline void end_polling(struct slu_segment *segment)
{
	atomic_store_explicit(&segment->polling, false, memory_order_release);
	if (!atomic_load_explicit(&segment->ever_polled, memory_order_relaxed))
		atomic_store_explicit(&segment->ever_polled, true, memory_order_relaxed);
}

/* Those in shared memory and those on the wire go first in turn: neither can keep the other out. */
static inline bool take_turn(bool *lanes_first)
{
	*lanes_first = !*lanes_first;
	return *lanes_first;
}

/* ---- notifications ---- */

/* Each client once, beginning where the last call ended, so that none starves. */
static uint32_t poll_clients(struct slu_segment *segment, const struct client_set *set,
			     struct slu_notification *out, uint32_t n)
{
	uint32_t taken = 0;

	for (uint32_t i = 0; i < set->count && taken < n; i++) {
		if (segment->next_client >= set->count)
			segment->next_client = 0;
		taken += notify_receive(&set->clients[segment->next_client++]->inbox->notifications,
					out + taken, n - taken);
	}
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
	bool lanes_first = lanes > 0 && take_turn(&segment->polls_lanes_first);
	uint32_t taken = lanes_first ? poll_lanes(segment, lanes, out, n) : 0;

	taken += poll_clients(segment, begin_polling(segment), out + taken, n - taken);
	end_polling(segment);
	if (lanes > 0 && !lanes_first)
		taken += poll_lanes(segment, lanes, out + taken, n - taken);
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

/* The client could change its request while we look at it: only a copy is handed out. */
static void take_shared(struct requests *requests, const struct segment_client *client,
			const struct mailbox_request *request, struct slu_message *out)
{
	uint32_t index = take_index(requests);
	uint8_t *copy = requests->copies[index];

	memcpy(copy, request->data, request->length);
	open_request(requests, index,
		     (struct open_request){.client = client->number,
					   .lane = request->lane,
					   .slot = request->slot,
					   .shared = true},
		     copy, request->length, out);
}

static uint32_t receive_clients(struct slu_segment *segment, const struct client_set *set,
				struct slu_message *out, uint32_t n)
{
	uint32_t taken = 0, idle = 0;

	while (idle < set->count && taken < n && any_free(segment->requests)) {
		struct mailbox_request request;
		struct segment_client *client;

		if (segment->next_caller >= set->count)
			segment->next_caller = 0;
		client = set->clients[segment->next_caller++];
		if (mailbox_receive(&client->inbox->calls, &request)) {
			take_shared(segment->requests, client, &request, &out[taken++]);
			idle = 0;
		} else {
			idle++;
		}
	}
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
	bool lanes_first = lanes > 0 && take_turn(&segment->receives_lanes_first);
	uint32_t taken = lanes_first ? receive_lanes(segment, lanes, out, n) : 0;

	taken += receive_clients(segment, begin_polling(segment), out + taken, n - taken);
	end_polling(segment);
	if (lanes > 0 && !lanes_first)
		taken += receive_lanes(segment, lanes, out + taken, n - taken);
	return (int)taken;
}

/* ---- answers ---- */

/* @return NULL: it has left */
static struct segment_client *find_client(const struct client_set *set, uint32_t number)
{
	uint32_t low = 0, high = set->count;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (set->clients[middle]->number > number)
			low = middle + 1;
		else
			high = middle;
	}
	return low < set->count && set->clients[low]->number == number ? set->clients[low] : NULL;
}

static void answer_shared(struct slu_segment *segment, const struct open_request *request,
			  int status, const void *data, uint32_t length)
{
	struct segment_client *client = find_client(begin_polling(segment), request->client);

	if (client)
		mailbox_reply(&client->inbox->calls, request->lane, request->slot, status, data,
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
	if (request->shared)
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

static void set_armed(struct slu_segment *segment, const struct client_set *set, bool armed)
{
	atomic_store(&segment->armed, armed);
	for (uint32_t i = 0; i < set->count; i++)
		atomic_store_explicit(&set->clients[i]->inbox->area->armed, armed,
				      memory_order_relaxed);
	if (segment->inbox && armed)
		inbox_arm(segment->inbox);
	else if (segment->inbox)
		inbox_disarm(segment->inbox);
}

/* Requests that cannot be received for want of room would wake for nothing. */
static bool anything_pending(const struct slu_segment *segment, const struct client_set *set)
{
	bool calls = any_free(segment->requests);

	for (uint32_t i = 0; i < set->count; i++) {
		const struct client_inbox *inbox = set->clients[i]->inbox;

		if (notify_pending(&inbox->notifications) ||
		    (calls && mailbox_pending(&inbox->calls)))
			return true;
	}
	return inbox_pending(segment->inbox, calls);
}

/*
 * The heavy barriers pair with the light ones in client_stored(), in this process or another, and
 * in the inbox: either we see what came, or it is seen that we want to be woken.
 */
int slu_segment_arm(struct slu_segment *segment)
{
	const struct client_set *set;
	bool pending;
	int rc;

	wake_set_clear(segment->wake);
	set = begin_polling(segment);
	set_armed(segment, set, true);
	barrier_heavy();
	rc = barrier_heavy_shared();
	pending = anything_pending(segment, set);
	if (pending || rc < 0)
		set_armed(segment, set, false);
	end_polling(segment);
	if (rc < 0)
		return fail(rc, "membarrier is not allowed any more: poll instead of waiting, or "
				"mend the seccomp filter");
	return pending;
}
