/* SPDX-License-Identifier: Apache-2.0 */
#include "poller/flight.h"

#include <errno.h>

#include "poller/poller.h"

static void insert(struct poller *poller, struct flight *flight, bool waiting)
{
	TAILQ_INSERT_TAIL(waiting ? &poller->waiting : &poller->pending, flight, link);
	flight->waiting = waiting;
}

static void move_to(struct poller *poller, struct flight *flight, bool waiting)
{
	TAILQ_REMOVE(flight->waiting ? &poller->waiting : &poller->pending, flight, link);
	insert(poller, flight, waiting);
}

/* In neither list yet. */
static struct flight *flight_make(struct poller *poller, struct slu_queue *queue,
				  const struct slu_op *op)
{
	struct flight *flight = flight_get(queue);

	flight->op = *op;
	flight->queue = queue;
	flight->stamped = !queue->is_inline;
	poller->deadlines += queue_timeout_us(queue, op) != 0;
	flight->next = 0;
	flight->posted = 0;
	flight->status = 0;
	flight->scope = SLU_SCOPE_NONE;
	flight->answer_length = 0;
	flight->begun = false;
	flight->notified = false;
	flight->retry = false;
	flight->may_land = false;
	return flight;
}

void flight_start(struct poller *poller, struct slu_queue *queue, const struct slu_op *op)
{
	insert(poller, flight_make(poller, queue, op), false);
}

static void flight_finish(struct poller *poller, struct flight *flight, int status,
			  enum slu_scope scope)
{
	struct slu_queue *queue = flight->queue;
	struct slu_completion done = {
		.user_data = flight->op.user_data,
		.status = status,
		.scope = (uint8_t)(scope | (status < 0 && flight->may_land ? SLU_MAY_LAND : 0)),
		.transport = poller_path(poller, &flight->op)->transport,
		.length = flight->answer_length,
	};

	TAILQ_REMOVE(flight->waiting ? &poller->waiting : &poller->pending, flight, link);
	poller->deadlines -= queue_timeout_us(queue, &flight->op) != 0;
	flight_put(queue, flight);
	poller->operations++;
	copy_settle(poller->env.tracker);
	queue_complete(queue, &done, 1);
}

static bool all_posted(const struct flight *flight)
{
	return flight->begun && flight->next == flight->op.length;
}

/* After something changed: does it end, wait, or go on? */
static void flight_settle(struct poller *poller, struct flight *flight)
{
	if (flight->posted > 0) {
		bool waiting = all_posted(flight) || flight->status < 0;

		if (waiting != flight->waiting)
			move_to(poller, flight, waiting);
		return;
	}
	if (flight->status < 0) {
		flight_finish(poller, flight, flight->status, flight->scope);
	} else if (flight->retry) {
		flight->retry = false;
		flight->begun = false;
		flight->notified = false;
		flight->next = 0;
		move_to(poller, flight, false);
	} else if (all_posted(flight)) {
		flight_finish(poller, flight, 0, SLU_SCOPE_NONE);
	} else if (flight->waiting) {
		move_to(poller, flight, false);
	}
}

/*
 * The next slice. A notification must not overtake its data: the slice that carries it goes when
 * all others are done. @return false: not now
 */
static bool next_slice(const struct flight *flight, uint64_t slice_bytes, struct slu_op *slice)
{
	uint64_t left = flight->op.length - flight->next;
	bool last = left <= slice_bytes;
	bool notifies = flight->op.opcode == SLU_WRITE_NOTIFY;

	if (all_posted(flight) || flight->retry || flight->status < 0 ||
	    (notifies && last && flight->posted > 0))
		return false;
	*slice = flight->op;
	slice->user_data = (uintptr_t)flight;
	slice->remote_offset += flight->next;
	slice->local_offset += flight->next;
	slice->length = last ? left : slice_bytes;
	if (notifies && !last)
		slice->opcode = SLU_WRITE;
	return true;
}

/* The segment's owner would see it twice. */
static bool must_not_repeat(const struct slu_op *slice)
{
	return slice->opcode == SLU_WRITE_NOTIFY || slice->opcode == SLU_CALL;
}

static void slice_posted(struct flight *flight, const struct slu_op *slice)
{
	flight->begun = true;
	flight->next += slice->length;
	flight->posted++;
	flight->notified |= must_not_repeat(slice);
}

static void slice_refused(struct flight *flight, const struct slu_op *slice)
{
	flight->next -= slice->length;
	flight->posted--;
	flight->begun = flight->next > 0;
	if (must_not_repeat(slice))
		flight->notified = false;
}

static void slice_done(struct poller *poller, const struct slu_completion *done)
{
	struct flight *flight = (struct flight *)(uintptr_t)done->user_data;

	flight->posted--;
	flight->answer_length = done->length;
	flight->may_land |= done->scope & SLU_MAY_LAND;
	if (flight->status == 0 &&
	    (done->status == -EAGAIN || (done->status == -ECANCELED && !flight->notified)))
		flight->retry = true; /* a neighbour's deadline ended the path, or no room */
	else if (done->status < 0 && flight->status == 0) {
		flight->status = done->status;
		flight->scope = done->scope & (uint8_t)~SLU_MAY_LAND;
	}
	flight_settle(poller, flight);
}

/*
 * One slice, so that short operations never wait for more than one. The next turn goes on with the
 * same operation: to alternate between long ones would only scatter the copies.
 */
static uint32_t post_immediate(struct poller *poller, struct flight *flight, struct path *path)
{
	struct slu_completion done;
	struct slu_op slice;

	if (!next_slice(flight, path->slice_bytes, &slice) ||
	    path->fast->post(path, &slice, 1, &done) == 0) {
		move_to(poller, flight, false); /* held back: another's turn */
		return 0;
	}
	slice_posted(flight, &slice);
	slice_done(poller, &done);
	return 1;
}

/* Slices of pending flights of one path, up to a burst. */
static uint32_t gather(struct poller *poller, struct path *path, struct slu_op *slices)
{
	struct flight *flight;
	uint32_t n = 0;

	TAILQ_FOREACH (flight, &poller->pending, link) {
		if (poller_path(poller, &flight->op) != path)
			continue;
		while (n < POLLER_BURST && next_slice(flight, path->slice_bytes, &slices[n]))
			slice_posted(flight, &slices[n++]);
		if (n == POLLER_BURST)
			break;
	}
	return n;
}

/* @return posted; the flights of the others are as if they had not been tried */
static uint32_t post_slices(struct poller *poller, struct path *path, const struct slu_op *slices,
			    uint32_t n)
{
	uint32_t posted = path->fast->post(path, slices, n, NULL);

	/* It goes again only when what was lost of it can't land any more. */
	for (uint32_t i = 0; i < posted; i++)
		((struct flight *)(uintptr_t)slices[i].user_data)->may_land = false;
	for (uint32_t i = n; i-- > posted;)
		slice_refused((struct flight *)(uintptr_t)slices[i].user_data, &slices[i]);
	if (path->posted == 0 && posted > 0)
		LIST_INSERT_HEAD(&poller->busy, path, busy);
	path->posted += posted;
	return posted;
}

static uint32_t post_burst(struct poller *poller, struct path *path)
{
	struct slu_op slices[POLLER_BURST];
	uint32_t n = gather(poller, path, slices);
	uint32_t posted = n > 0 ? post_slices(poller, path, slices, n) : 0;

	for (uint32_t i = 0; i < posted; i++)
		flight_settle(poller, (struct flight *)(uintptr_t)slices[i].user_data);
	return posted;
}

uint32_t flights_launch(struct poller *poller, struct slu_queue *queue, struct path *path,
			const struct slu_op *ops, uint32_t n)
{
	struct slu_op slices[POLLER_BURST];
	uint32_t count = 0, posted;

	while (count < n && count < POLLER_BURST && poller_path(poller, &ops[count]) == path &&
	       ops[count].length <= path->slice_bytes) {
		struct flight *flight = flight_make(poller, queue, &ops[count]);

		slices[count] = ops[count];
		slices[count].user_data = (uintptr_t)flight;
		slice_posted(flight, &slices[count++]);
	}
	if (count == 0)
		return 0;
	posted = post_slices(poller, path, slices, count);
	for (uint32_t i = 0; i < count; i++)
		insert(poller, (struct flight *)(uintptr_t)slices[i].user_data, i < posted);
	return count;
}

uint32_t flights_post(struct poller *poller)
{
	struct flight *flight = TAILQ_FIRST(&poller->pending);
	struct path *path;
	uint32_t posted;

	if (!flight)
		return 0;
	path = poller_path(poller, &flight->op);
	if (path->immediate)
		return post_immediate(poller, flight, path);
	posted = post_burst(poller, path);
	if (posted == 0) /* full: another path's turn */
		move_to(poller, flight, false);
	return posted;
}

static uint32_t poll_path(struct poller *poller, struct path *path)
{
	struct slu_completion done[POLLER_BURST];
	uint32_t n = path->fast->poll(path, done, POLLER_BURST);

	path->posted -= n;
	if (n > 0 && path->posted == 0)
		LIST_REMOVE(path, busy);
	for (uint32_t i = 0; i < n; i++)
		slice_done(poller, &done[i]);
	return n;
}

uint32_t flights_poll(struct poller *poller)
{
	struct path *path = LIST_FIRST(&poller->busy);
	uint32_t n = 0;

	while (path) {
		struct path *next = LIST_NEXT(path, busy);

		n += poll_path(poller, path);
		path = next;
	}
	return n;
}

/* What is posted may still be touched: the transport lets go of it, and the end comes by poll. */
static void take_back(struct path *path, struct flight *flight)
{
	if (path->fast->cancel)
		path->fast->cancel(path, (uintptr_t)flight);
	else
		path->fast->flush(path);
}

static void flight_fail(struct poller *poller, struct flight *flight, int status)
{
	if (flight->status == 0) {
		flight->status = status;
		flight->scope = SLU_SCOPE_OPERATION;
	}
	if (flight->posted > 0)
		take_back(poller_path(poller, &flight->op), flight);
	flight_settle(poller, flight);
}

static bool is_late(struct flight *flight, uint64_t now_us)
{
	if (!flight->stamped) {
		flight->op.engine = (uint32_t)now_us;
		flight->stamped = true;
	}
	return op_is_late(flight->queue, &flight->op, now_us);
}

static void expire_list(struct poller *poller, struct flight_list *list, uint64_t now_us)
{
	struct flight *flight = TAILQ_FIRST(list);

	while (flight) {
		struct flight *next = TAILQ_NEXT(flight, link);

		if (is_late(flight, now_us) && flight->status == 0)
			flight_fail(poller, flight, -ETIMEDOUT);
		flight = next;
	}
}

void flights_expire(struct poller *poller, uint64_t now_us)
{
	expire_list(poller, &poller->pending, now_us);
	expire_list(poller, &poller->waiting, now_us);
}

static bool concerns(const struct flight *flight, const struct slu_remote *remote,
		     const struct slu_queue *queue)
{
	return remote ? flight->op.remote == remote : flight->queue == queue;
}

static void cancel_list(struct poller *poller, struct flight_list *list,
			const struct slu_remote *remote, const struct slu_queue *queue)
{
	struct flight *flight = TAILQ_FIRST(list);

	while (flight) {
		struct flight *next = TAILQ_NEXT(flight, link);

		if (concerns(flight, remote, queue))
			flight_fail(poller, flight, -ECANCELED);
		flight = next;
	}
}

void flights_cancel(struct poller *poller, const struct slu_remote *remote,
		    const struct slu_queue *queue)
{
	cancel_list(poller, &poller->pending, remote, queue);
	cancel_list(poller, &poller->waiting, remote, queue);
	while (flights_any(poller, remote, queue))
		flights_poll(poller);
}

static bool any_in(const struct flight_list *list, const struct slu_remote *remote,
		   const struct slu_queue *queue)
{
	const struct flight *flight;

	TAILQ_FOREACH (flight, list, link)
		if (concerns(flight, remote, queue))
			return true;
	return false;
}

bool flights_any(const struct poller *poller, const struct slu_remote *remote,
		 const struct slu_queue *queue)
{
	return any_in(&poller->pending, remote, queue) || any_in(&poller->waiting, remote, queue);
}
