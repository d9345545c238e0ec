/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/request.h"

#include <errno.h>
#include <string.h>

#include "poller/poller.h"
#include "transport/atomic_op.h"

/* What the far end had no room for is posted again after so long. */
#define REFUSED_PAUSE_US 100u

/* Deadlines are kept to a millisecond. */
#define EXPIRE_EVERY_US 1000u

/* ---- paths: where they wait ---- */

void path_init(struct path *path)
{
	for (unsigned i = 0; i < LANES; i++)
		TAILQ_INIT(&path->queues[i]);
	TAILQ_INIT(&path->later);
}

void link_init(struct transport_link *link, const struct link_ops *ops, struct schedule *schedule)
{
	link->ops = ops;
	link->schedule = schedule;
	TAILQ_INIT(&link->stalled);
}

static bool has_queued(const struct path *path)
{
	return path_next(path, LANE_SMALL) || path_next(path, LANE_BULK);
}

/* A link is polled as long as it can give something back, or room. */
static inline void tend_link(struct transport_link *link)
{
	bool busy = link->out > 0 || !TAILQ_EMPTY(&link->stalled);

	if (busy == link->busy)
		return;
	link->busy = busy;
	if (busy)
		LIST_INSERT_HEAD(&link->schedule->busy, link, link);
	else
		LIST_REMOVE(link, link);
}

static inline void link_took_part(struct transport_link *link)
{
	link->fresh++;
	if (link->out++ == 0)
		tend_link(link);
}

/* With nothing out it is on no list: it may be freed by others. */
static inline void link_gave_part(struct transport_link *link)
{
	if (--link->out > 0)
		return;
	link->fresh = 0;
	tend_link(link);
}

static void leave(struct schedule *schedule, struct path *path)
{
	switch (path->wait) {
	case PATH_READY:
		TAILQ_REMOVE(&schedule->ready, path, turn);
		schedule->ready_count--;
		break;
	case PATH_STALLED:
		TAILQ_REMOVE(&path->link->stalled, path, turn);
		tend_link(path->link);
		break;
	case PATH_HELD:
		TAILQ_REMOVE(&schedule->held, path, turn);
		break;
	default:
		break;
	}
	path->wait = PATH_IDLE;
}

static void wait_on(struct schedule *schedule, struct path *path, enum path_wait wait)
{
	leave(schedule, path);
	path->wait = (uint8_t)wait;
	switch (wait) {
	case PATH_READY:
		TAILQ_INSERT_TAIL(&schedule->ready, path, turn);
		schedule->ready_count++;
		break;
	case PATH_STALLED:
		TAILQ_INSERT_TAIL(&path->link->stalled, path, turn);
		tend_link(path->link);
		break;
	case PATH_HELD:
		TAILQ_INSERT_TAIL(&schedule->held, path, turn);
		break;
	default:
		break;
	}
}

/* ---- requests: in and out of the queue of their path ---- */

static struct schedule *schedule_of(const struct request *request)
{
	return &request->queue->poller->schedule;
}

/* Bulk that finds no room says nothing of what is small. */
static bool may_go(const struct path *path, enum request_lane lane)
{
	return path->wait == PATH_IDLE || (path->wait == PATH_STALLED && lane == LANE_SMALL);
}

static void enqueue(struct request *request, bool first)
{
	struct path *path = request->path;
	struct request_queue *queue = &path->queues[request->lane];

	request->place = REQUEST_QUEUED;
	if (first)
		TAILQ_INSERT_HEAD(queue, request, link);
	else
		TAILQ_INSERT_TAIL(queue, request, link);
	if (may_go(path, request->lane))
		wait_on(schedule_of(request), path, PATH_READY);
}

/* Operations and calls of a remote have different paths, over shm; what is held back is with the
 * first. */
static struct path *main_path(const struct request *request)
{
	return request->op.remote->paths[request->queue->poller->index];
}

static void leave_later(struct request *request)
{
	struct path *main = main_path(request);

	TAILQ_REMOVE(&main->later, request, link);
	request->path->held_back--;
	main->ordering = main->calls->ordering = !TAILQ_EMPTY(&main->later);
}

/* It is in a list. */
static void take_off(struct request *request)
{
	struct path *path = request->path;

	if (request->place == REQUEST_LATER)
		leave_later(request);
	else if (request->place == REQUEST_PAUSED)
		TAILQ_REMOVE(&schedule_of(request)->paused, request, link);
	else
		TAILQ_REMOVE(&path->queues[request->lane], request, link);
	request->place = REQUEST_OUT;
	if (path->wait != PATH_IDLE && !has_queued(path))
		leave(schedule_of(request), path);
}

static inline void dequeue(struct request *request)
{
	if (request->place != REQUEST_OUT)
		take_off(request);
}

/* Of a vector what notifies is a part of its own. */
static inline bool all_posted(const struct request *request)
{
	return request->next == request->op.length && request->begun &&
	       (!is_vector(request) || request->op.opcode != SLU_WRITE_NOTIFY || request->told);
}

/* The part that notifies goes when all others are back. */
static bool must_wait(const struct request *request)
{
	uint64_t last = is_vector(request) ? 0 : request->path->slice_bytes;

	return request->op.opcode == SLU_WRITE_NOTIFY && request->out > 0 &&
	       request->op.length - request->next <= last;
}

/* ---- the end of a request ---- */

static inline void count(struct path_stats *stats, const struct slu_op *op)
{
	if (op->opcode == SLU_READ) {
		counter_add(&stats->reads, 1);
		counter_add(&stats->bytes_read, op->length);
	} else if (op->opcode != OP_CALL) {
		counter_add(&stats->writes, 1);
		counter_add(&stats->bytes_written, op->length);
	}
}

void requests_tell(struct poller *poller)
{
	struct completion_burst *burst = &poller->burst;

	if (burst->count == 0)
		return;
	queue_complete(burst->queue, burst->done, burst->count);
	burst->count = 0;
}

/* Others are told by the burst. */
static inline struct slu_completion *next_done(struct poller *poller, struct slu_queue *queue)
{
	struct completion_burst *burst = &poller->burst;

	if (queue->is_inline)
		return queue_next_done(queue);
	if (burst->count == POLLER_BURST || burst->queue != queue)
		requests_tell(poller);
	burst->queue = queue;
	return &burst->done[burst->count++];
}

static inline bool is_quiet(const struct path *path)
{
	return path->requests == path->held_back;
}

/* The first of those that were held back, and others up to the next that is ordered. */
static void go_on(struct path *main)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&main->later))) {
		if (request->op.flags & SLU_ORDERED && !(is_quiet(main) && is_quiet(main->calls)))
			return;
		take_off(request);
		enqueue(request, false);
	}
}

/* With @p request, which has ended, nothing but what is held back is left of its path. */
__attribute__((noinline)) static void gone_quiet(struct path *path, const struct request *request)
{
	if (path->requests == 0)
		LIST_REMOVE(path, active);
	if (path->ordering)
		go_on(main_path(request));
}

static inline void retire(struct poller *poller, struct request *request)
{
	struct path *path = request->path;

	counter_add(&poller->operations, 1);
	path->requests--;
	if (path->requests == 0 && !path->ordering)
		LIST_REMOVE(path, active);
	else if (__builtin_expect(path->requests == path->held_back, 0))
		gone_quiet(path, request);
	request_put(request->queue, request);
}

static inline void finish_well(struct request *request)
{
	struct slu_queue *queue = request->queue;
	struct poller *poller = queue->poller;

	count(&request->path->stats, &request->op);
	*next_done(poller, queue) = (struct slu_completion){.user_data = request->op.user_data,
							    .transport = request->path->transport,
							    .bytes = request->done};
	retire(poller, request);
}

static void finish_silently(struct request *request)
{
	count(&request->path->stats, &request->op);
	queue_silence(request->queue, 1);
	retire(request->queue->poller, request);
}

/* Failed calls are counted for the path that the remote has for all else. */
static void finish_badly(struct request *request)
{
	struct slu_queue *queue = request->queue;
	struct poller *poller = queue->poller;
	uint8_t may_land = request->may_land ? SLU_MAY_LAND : 0;

	counter_add(&request->op.remote->paths[poller->index]->stats.failed, 1);
	*next_done(poller, queue) = (struct slu_completion){.user_data = request->op.user_data,
							    .status = request->status,
							    .scope = request->scope | may_land,
							    .transport = request->path->transport,
							    .bytes = request->done,
							    .syndrome = request->syndrome};
	retire(poller, request);
}

static int remote_state(const struct path *path)
{
	return atomic_load_explicit(&path->remote->state, memory_order_relaxed);
}

static enum slu_scope scope_of(int status, int state)
{
	if (state && (status == state || status == -ECANCELED))
		return SLU_SCOPE_SESSION;
	return status == -ECONNRESET || status == -ECANCELED ? SLU_SCOPE_PATH : SLU_SCOPE_OPERATION;
}

static void note_failure(struct request *request, int status, enum slu_scope scope)
{
	if (request->status < 0)
		return;
	request->status = status;
	request->scope = (uint8_t)scope;
}

static void pause_request(struct poller *poller, struct request *request)
{
	if (TAILQ_EMPTY(&poller->schedule.paused))
		poller->retry_at_us = poller_now_us(poller) + REFUSED_PAUSE_US;
	request->place = REQUEST_PAUSED;
	TAILQ_INSERT_TAIL(&poller->schedule.paused, request, link);
}

static void begin_again(struct request *request)
{
	bool refused = request->again & REQUEST_REFUSED;

	request->begun = request->told = false;
	request->again = 0;
	request->next = request->done = 0;
	if (is_vector(request))
		request->at = (struct vector_place){0};
	if (refused)
		pause_request(request->queue->poller, request);
	else
		enqueue(request, true);
}

/* Does it end, wait, or go on? */
__attribute__((noinline)) static void settle(struct request *request)
{
	if (request->out > 0)
		return;
	if (request->status < 0)
		finish_badly(request);
	else if (request->again)
		begin_again(request);
	else if (all_posted(request))
		request->op.flags &SLU_SILENT ? finish_silently(request) : finish_well(request);
	else if (request->place == REQUEST_OUT)
		enqueue(request, true); /* it waited for this */
}

static void part_failed(struct request *request, int status)
{
	int state = remote_state(request->path);

	dequeue(request);
	if (state && (status == -ECONNRESET || status == -ECANCELED))
		status = state; /* that the link has died is how we see it */
	else if (status == -ECANCELED && request->told)
		status = -ECONNRESET; /* the owner would see it twice */
	if (status == -ECANCELED)
		request->again |= REQUEST_LOST;
	else if (status == -EAGAIN)
		request->again |= REQUEST_REFUSED;
	else
		note_failure(request, status, scope_of(status, state));
}

void request_back(struct request *request, int64_t result, bool may_land)
{
	struct transport_link *link = request->path->link;

	request->out--;
	if (link)
		link_gave_part(link);
	/* What was lost is not repeated: there is other memory in its place by now. */
	if (__builtin_expect(guard_deaths() != 0, 0) && region_is_dead(request->op.region))
		result = -EFAULT;
	if (__builtin_expect(result < 0, 0)) {
		request->may_land |= may_land;
		part_failed(request, (int)result);
	} else {
		request->done += (uint64_t)result;
	}
	if (__builtin_expect(request->out == 0 && (request->status | request->again) == 0 &&
				     request->next == request->op.length &&
				     !(request->op.flags & (SLU_VECTOR | SLU_SILENT)),
			     1))
		finish_well(request);
	else
		settle(request);
}

/* ---- failing from above ---- */

/* The last part may come back at once, and with it the request is over; that leaves room. */
static void cancel(struct request *request)
{
	struct schedule *schedule = schedule_of(request);
	struct transport_link *link = request->path->link;
	struct path *path;

	request->path->fast->cancel(request->path, request);
	while (link && (path = TAILQ_FIRST(&link->stalled)))
		wait_on(schedule, path, PATH_READY);
}

static void request_fail(struct request *request, int status, enum slu_scope scope)
{
	if (request->status < 0)
		return;
	note_failure(request, status, scope);
	dequeue(request);
	if (request->out > 0)
		cancel(request);
	else
		finish_badly(request);
}

static void fail_queued(struct path *path, int state)
{
	struct request *request;

	for (unsigned lane = 0; lane < LANES; lane++)
		while ((request = path_next(path, lane)))
			request_fail(request, state, SLU_SCOPE_SESSION);
}

/* ---- posting ---- */

/* What notifies, or a list that has become shorter since it was submitted. */
static enum post_result post_nothing(struct path *path, struct request *request,
				     struct op_part *part)
{
	if (request->next < request->op.length) {
		note_failure(request, -EINVAL, SLU_SCOPE_OPERATION);
		request->op.length = request->next;
		part->opcode = part->opcode == SLU_READ ? SLU_READ : SLU_WRITE;
	}
	part->offset = part->length = 0;
	return path->fast->post(path, request, *part);
}

/* As many pieces as go at once; where they begin is known when they have gone. */
__attribute__((noinline)) static enum post_result
post_pieces(struct path *path, struct request *request, struct op_part *part)
{
	struct vector_piece pieces[VECTOR_PIECES];
	struct vector_place after = request->at;
	uint32_t count = vector_take(&request->op, request->vector, &after, part->length, pieces,
				     VECTOR_PIECES);
	enum post_result result;

	if (count == 0)
		return post_nothing(path, request, part);
	part->length = vector_bytes(pieces, count);
	part->opcode = part->opcode == SLU_READ ? SLU_READ : SLU_WRITE;
	result = path->fast->post_vector(path, request, *part, pieces, count);
	if (result == POST_DONE)
		request->at = after;
	return result;
}

static inline enum post_result post_part(struct path *path, struct request *request, bool vector)
{
	struct op_part part = request_part(request);
	enum post_result result =
		vector ? post_pieces(path, request, &part) : path->fast->post(path, request, part);

	if (__builtin_expect(result != POST_DONE, 0))
		return result;
	request->begun = true;
	request->may_land = false; /* it was posted again: what was lost can't land any more */
	if (__builtin_expect(part.opcode >= SLU_WRITE_NOTIFY, 0))
		request->told = true;
	request->next += part.length;
	request->out++;
	link_took_part(path->link);
	return POST_DONE;
}

/* Of it something was posted. */
static inline bool is_waited_for(const struct request *request)
{
	return request->next == request->op.length || must_wait(request);
}

/* @return where the path waits if more is queued */
static enum path_wait post_lane(struct poller *poller, struct path *path, enum request_lane lane)
{
	struct request *request;

	for (uint32_t left = REQUEST_BURST; left > 0; left--) {
		enum post_result result;

		request = path_next(path, lane);
		if (!request)
			break;
		result = post_part(path, request, is_vector(request));
		if (result != POST_DONE)
			return result == POST_HELD ? PATH_HELD : PATH_STALLED;
		poller->schedule.posted++;
		if (is_waited_for(request))
			dequeue(request);
	}
	return PATH_READY;
}

static enum path_wait post_lanes(struct poller *poller, struct path *path)
{
	enum path_wait small = post_lane(poller, path, LANE_SMALL);
	enum path_wait bulk = small == PATH_HELD ? PATH_HELD : post_lane(poller, path, LANE_BULK);

	/* What is small has had its turn, and the next one is not bulk's to take away. */
	if (bulk == PATH_STALLED && small == PATH_READY && path_next(path, LANE_SMALL))
		return PATH_READY;
	return bulk == PATH_READY ? small : bulk;
}

/* @return 0; -EAGAIN there is no room; or another negative errno */
static int copy_plain(struct path *path, const struct request *request, struct op_part part)
{
	struct path_stats of_parts = {0}; /* the request is counted as a whole */
	struct slu_op op = request->op;
	struct slu_completion done;

	if (opcode_is_atomic(op.opcode))
		return path->fast->atomic(path, &op, request->operand);
	op.remote_offset += part.offset;
	op.local_offset += part.offset;
	op.length = part.length;
	op.opcode = part.opcode;
	op.flags = 0;
	return path->fast->copy(path, &op, 1, &done, &of_parts) == 0 ? -EAGAIN : done.status;
}

/* @return as copy_plain(); @p part is what was copied */
__attribute__((noinline)) static int copy_pieces(struct path *path, struct request *request,
						 struct op_part *part)
{
	struct vector_piece pieces[VECTOR_PIECES];
	uint32_t left = part->length;

	*part = (struct op_part){.opcode = left > 0 && part->opcode != SLU_READ ? SLU_WRITE
										: part->opcode};
	if (left == 0)
		return copy_plain(path, request, *part);
	while (left > 0) {
		struct vector_place after = request->at;
		uint32_t count = vector_take(&request->op, request->vector, &after, left, pieces,
					     VECTOR_PIECES);
		uint32_t bytes = vector_bytes(pieces, count);
		int status = count == 0
				     ? -EINVAL /* it has changed since it was submitted */
				     : path->fast->copy_vector(path, &request->op, pieces, count);

		if (status < 0)
			return status == -EAGAIN && part->length > 0 ? 0 : status;
		request->at = after;
		part->length += bytes;
		left -= bytes;
	}
	return 0;
}

/* One part, so that short operations never wait for more than one. */
static enum path_wait copy_part(struct poller *poller, struct path *path)
{
	struct request *request = path_next(path, LANE_SMALL);
	struct op_part part;
	int status;

	if (!request)
		request = path_next(path, LANE_BULK);
	part = request_part(request);
	status = is_vector(request) ? copy_pieces(path, request, &part)
				    : copy_plain(path, request, part);
	if (status == -EAGAIN)
		return PATH_READY;
	copy_settle(poller->env.tracker);
	poller->schedule.posted++;
	request->begun = true;
	request->told |= part.opcode >= SLU_WRITE_NOTIFY;
	request->next += part.length;
	request->out++;
	if (is_waited_for(request))
		dequeue(request);
	request_back(request, status < 0 ? status : (int64_t)part.length, false);
	return PATH_READY;
}

static void post_path(struct poller *poller, struct path *path)
{
	enum path_wait wait = PATH_READY;
	int state = remote_state(path);

	leave(&poller->schedule, path);
	if (__builtin_expect(state != 0, 0))
		fail_queued(path, state);
	else if (__builtin_expect(remote_is_fenced(path->remote), 0))
		wait = PATH_HELD;
	else
		wait = path->immediate ? copy_part(poller, path) : post_lanes(poller, path);
	if (has_queued(path))
		wait_on(&poller->schedule, path, wait);
}

/* Each path that is ready has a turn; but for copies, of which the poller makes one part. */
static uint32_t post_ready(struct poller *poller)
{
	struct schedule *schedule = &poller->schedule;
	uint64_t before = schedule->posted;
	bool copied = false;
	struct path *path;

	for (uint32_t left = schedule->ready_count; left > 0; left--) {
		path = TAILQ_FIRST(&schedule->ready);
		if (!path)
			break;
		if (path->immediate && copied)
			wait_on(schedule, path, PATH_READY);
		else
			post_path(poller, path);
		copied |= path->immediate;
	}
	return (uint32_t)(schedule->posted - before);
}

/* ---- beginning ---- */

static inline enum request_lane lane_of(const struct slu_op *op)
{
	return op->length <= REQUEST_SMALL_BYTES ? LANE_SMALL : LANE_BULK;
}

/* By a clock that is behind the one of the submission nothing is late. */
static uint64_t due_us(const struct slu_queue *queue, const struct slu_op *op, uint64_t now_us)
{
	uint32_t passed = (uint32_t)now_us - op->engine;

	if (passed > UINT32_MAX - CLOCK_AHEAD_MAX_US)
		passed = 0;
	return now_us - passed + queue_timeout_us(queue, op);
}

/* @return false: it is late, and has ended */
static inline bool set_deadline(struct poller *poller, struct slu_queue *queue,
				struct request *request, uint32_t timeout_us, uint64_t now_us)
{
	uint64_t due = now_us + timeout_us;

	if (queue->is_inline)
		request->op.engine = (uint32_t)now_us;
	else
		due = due_us(queue, &request->op, now_us);
	if (due < poller->expire_at_us)
		poller->expire_at_us = due;
	if (__builtin_expect(due > now_us, 1))
		return true;
	note_failure(request, -ETIMEDOUT, SLU_SCOPE_OPERATION);
	finish_badly(request);
	requests_tell(poller);
	return false;
}

/* Of its first part came @p result. What cannot be posted now waits from now on. */
__attribute__((noinline)) static void post_others(struct poller *poller, struct path *path,
						  struct request *request, enum post_result result)
{
	for (uint32_t left = REQUEST_BURST - 1; left > 0 && result == POST_DONE; left--) {
		result = post_part(path, request, is_vector(request));
		if (result == POST_DONE && is_waited_for(request))
			return;
	}
	enqueue(request, false);
	if (result != POST_DONE)
		wait_on(&poller->schedule, path, result == POST_HELD ? PATH_HELD : PATH_STALLED);
}

/* Nothing waits on the path. */
static inline void post_first(struct poller *poller, struct path *path, struct request *request,
			      bool vector)
{
	enum post_result result = post_part(path, request, vector);

	if (__builtin_expect(result != POST_DONE || !is_waited_for(request), 0))
		post_others(poller, path, request, result);
}

static inline bool may_post(const struct path *path)
{
	return path_is_clear(path) && remote_state(path) == 0 && !remote_is_fenced(path->remote);
}

/*
 * Behind what is held back already, or because it is ordered and something else is under way: of
 * any queue of the poller, which is more than was promised. @return false: it may be begun
 */
__attribute__((noinline)) static bool hold_back(struct request *request)
{
	struct path *main = main_path(request);
	uint32_t under_way = main->requests + (main->calls == main ? 0 : main->calls->requests);

	if (TAILQ_EMPTY(&main->later) && under_way == 1)
		return false;
	TAILQ_INSERT_TAIL(&main->later, request, link);
	request->place = REQUEST_LATER;
	request->path->held_back++;
	main->ordering = main->calls->ordering = true;
	return true;
}

/* It has flags, or cannot be posted now. */
__attribute__((noinline)) static void begin_other(struct poller *poller, struct path *path,
						  struct request *request)
{
	if ((request->op.flags & SLU_ORDERED || path->ordering) && hold_back(request))
		return;
	if (may_post(path))
		post_first(poller, path, request, is_vector(request));
	else
		enqueue(request, false);
}

/* What stands in the place of the length, and the length. */
__attribute__((noinline)) static enum request_lane take_length(struct request *request)
{
	if (opcode_is_atomic(request->op.opcode)) {
		request->operand = request->op.operand;
		request->op.length = ATOMIC_BYTES;
	} else if (is_vector(request)) {
		request->vector = request->op.vector;
		request->at = (struct vector_place){0};
		request->op.length = vector_length(request->vector);
	}
	return lane_of(&request->op);
}

__attribute__((always_inline)) static inline void begin(struct poller *poller,
							struct slu_queue *queue, struct path *path,
							const struct slu_op *op, uint64_t now_us)
{
	struct request *request = request_get(queue);
	uint32_t timeout_us = queue_timeout_us(queue, op);
	bool plain = op_is_plain(op);

	request->op = *op;
	request->queue = queue;
	request->path = path;
	memset(&request->next, 0,
	       offsetof(struct request, vector) - offsetof(struct request, next));
	request->lane = (uint8_t)(__builtin_expect(plain, 1) ? lane_of(op) : take_length(request));
	if (path->requests++ == 0)
		LIST_INSERT_HEAD(&poller->schedule.active, path, active);
	if (timeout_us != 0 && !set_deadline(poller, queue, request, timeout_us, now_us))
		return;
	if (__builtin_expect(plain && may_post(path), 1))
		post_first(poller, path, request, false);
	else
		begin_other(poller, path, request);
}

void request_start(struct poller *poller, struct slu_queue *queue, struct path *path,
		   const struct slu_op *op, uint64_t now_us)
{
	begin(poller, queue, path, op, now_us);
}

void request_start_alone(struct poller *poller, struct slu_queue *queue, struct path *path,
			 const struct slu_op *op)
{
	begin(poller, queue, path, op, poller_now_us(poller));
	path_flush_idle(path);
}

/* ---- polling ---- */

/* It has room: for those that were stalled first. With a path that leaves it, it may have gone. */
static void resume_stalled(struct poller *poller, struct transport_link *link)
{
	struct path *path;

	while ((path = TAILQ_FIRST(&link->stalled))) {
		post_path(poller, path);
		if (path->link != link)
			return;
		if (path->wait == PATH_STALLED)
			break;
	}
	link_flush(link);
}

static uint32_t poll_busy(struct poller *poller)
{
	struct transport_link *link = LIST_FIRST(&poller->schedule.busy);
	uint32_t work = 0;

	while (link) {
		struct transport_link *next = LIST_NEXT(link, link);
		uint32_t done;

		link_flush(link);
		done = link->ops->poll(link);
		if (done > 0 && (link->fresh > 0 || !TAILQ_EMPTY(&link->stalled)))
			resume_stalled(poller, link);
		work += done;
		link = next;
	}
	return work;
}

bool requests_sleep(struct poller *poller, struct transport_link *link)
{
	if (!link->ops->sleep || link->ops->sleep(link))
		return true;
	resume_stalled(poller, link);
	return false;
}

/* ---- deadlines ---- */

static bool is_live(const struct request *request)
{
	return request->path && request->status == 0;
}

/* @return when the next one of the queue is due */
static uint64_t expire_queue(struct slu_queue *queue, uint64_t now_us)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t i = 0; i < queue->depth && queue->requests_live > 0; i++) {
		struct request *request = &queue->requests[i];
		uint64_t due;

		if (!is_live(request) || queue_timeout_us(queue, &request->op) == 0)
			continue;
		due = due_us(queue, &request->op, now_us);
		if (due <= now_us)
			request_fail(request, -ETIMEDOUT, SLU_SCOPE_OPERATION);
		else if (due < next)
			next = due;
	}
	return next;
}

static void expire(struct poller *poller, uint64_t now_us)
{
	uint64_t next = UINT64_MAX;

	for (uint32_t i = 0; i < poller->queue_count; i++) {
		uint64_t due = expire_queue(poller->queues[i], now_us);

		if (due < next)
			next = due;
	}
	poller->expire_at_us = next;
	poller->expired_at_us = now_us;
}

static void resume_paused(struct poller *poller)
{
	struct request *request;

	while ((request = TAILQ_FIRST(&poller->schedule.paused))) {
		dequeue(request);
		enqueue(request, true);
	}
}

static void look_at_clock(struct poller *poller)
{
	bool paused = !TAILQ_EMPTY(&poller->schedule.paused);
	uint64_t now_us;

	if (poller->expire_at_us == UINT64_MAX && !paused)
		return;
	now_us = poller_now_us(poller);
	if (paused && now_us >= poller->retry_at_us)
		resume_paused(poller);
	if (now_us >= poller->expire_at_us && now_us - poller->expired_at_us >= EXPIRE_EVERY_US)
		expire(poller, now_us);
}

/* ---- what others have changed ---- */

static void look_at(struct poller *poller, struct path *path)
{
	int state = remote_state(path);

	path->looked = poller->changes;
	if (path->wait == PATH_HELD)
		wait_on(&poller->schedule, path, PATH_READY);
	if (state == 0)
		return;
	if (path->fast->dead && path->requests > 0)
		path->fast->dead(path, state);
	fail_queued(path, state);
}

static void look_at_changes(struct poller *poller)
{
	struct path *path, *next;

	for (path = LIST_FIRST(&poller->schedule.active); path; path = next) {
		next = LIST_NEXT(path, active);
		if (path->looked == poller->changes)
			continue;
		look_at(poller, path);
		if (next && next->requests == 0) /* it has left the list with this one */
			next = LIST_FIRST(&poller->schedule.active);
	}
}

/* ---- a turn ---- */

uint32_t requests_run(struct poller *poller)
{
	uint64_t changes = transport_changes();
	uint32_t work = 0;

	if (__builtin_expect(changes != poller->changes, 0)) {
		poller->changes = changes;
		look_at_changes(poller);
	}
	if (poller->schedule.ready_count > 0)
		work += post_ready(poller);
	work += poll_busy(poller);
	if (++poller->clock_turns >= POLLER_CLOCK_TURNS) {
		poller->clock_turns = 0;
		look_at_clock(poller);
	}
	requests_tell(poller);
	return work;
}

/* ---- giving up ---- */

uint32_t requests_cancel_some(struct slu_queue *queue, uint64_t user_data)
{
	uint32_t cancelled = 0;

	for (uint32_t i = 0; i < queue->depth && queue->requests_live > 0; i++) {
		struct request *request = &queue->requests[i];

		if (!is_live(request) || request->op.user_data != user_data)
			continue;
		request_fail(request, -ECANCELED, SLU_SCOPE_OPERATION);
		cancelled++;
	}
	return cancelled;
}

void requests_cancel(struct poller *poller, const struct slu_remote *remote,
		     const struct slu_queue *queue)
{
	for (uint32_t i = 0; i < poller->queue_count; i++) {
		struct slu_queue *of = poller->queues[i];

		for (uint32_t k = 0; k < of->depth && of->requests_live > 0; k++) {
			struct request *request = &of->requests[k];

			if (is_live(request) &&
			    (remote ? request->op.remote == remote : of == queue))
				request_fail(request, -ECANCELED, SLU_SCOPE_OPERATION);
		}
	}
}
