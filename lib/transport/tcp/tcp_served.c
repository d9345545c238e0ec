/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data connections of a poller, and the turns that it gives them. Those that have been silent
 * for a while are on no list that a turn walks: the kernel tells when there is something.
 */
#include "transport/tcp/tcp_served.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "message/body.h"

/* One turn for all, and TURN_ALL_BYTES: the poller has others to serve. */
#define TURN_CONNECTIONS 256u

/* A connection is looked at in every turn until it was silent for so many, shared by those active.
 */
#define SILENT_TURNS 4096u

/* While some are active, the others are looked for every so many turns, or requests and reads. */
#define LOOK_EVERY 64u
#define LOOK_WORK  32u

/* ---- active, or not ---- */

static void activate(struct tcp_connection *connection)
{
	struct tcp_service *service = connection->service;

	connection->silent = 0;
	if (connection->active)
		return;
	connection->active = true;
	service->active_count++;
	service->patience = SILENT_TURNS / service->active_count;
	TAILQ_INSERT_TAIL(&service->active, connection, active_link);
}

static void deactivate(struct tcp_connection *connection)
{
	struct tcp_service *service = connection->service;

	if (!connection->active)
		return;
	connection->active = false;
	service->active_count--;
	if (service->active_count > 0)
		service->patience = SILENT_TURNS / service->active_count;
	TAILQ_REMOVE(&service->active, connection, active_link);
}

static void watch(struct tcp_connection *connection, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = connection};

	if (connection->events == events)
		return;
	connection->events = events;
	epoll_ctl(connection->service->epoll_fd, EPOLL_CTL_MOD, connection->channel.stream.fd,
		  &event);
}

static bool can_respond(const struct tcp_connection *connection)
{
	return channel_room(&connection->channel, RESPONSE_BYTES, RESPONSE_PIECES);
}

/* Requests while it can respond, room for responses while some are stuck. */
static void watch_both(struct tcp_connection *connection)
{
	watch(connection, (can_respond(connection) ? EPOLLIN : 0u) |
				  (channel_unsent(&connection->channel) ? EPOLLOUT : 0u));
}

/* ---- answers that wait ---- */

/* @return NULL: not now, or never, and then it has failed */
static struct buffer *take_aside(struct tcp_connection *connection)
{
	struct buffer *buffer;

	if (!budget_try(connection->budget, SLU_LIMIT_RESPONSE_BYTES, BUFFER_BYTES)) {
		connection->failed = true;
		return NULL;
	}
	buffer = buffers_take(connection->service->serving.buffers);
	if (!buffer) {
		budget_give(connection->budget, SLU_LIMIT_RESPONSE_BYTES, BUFFER_BYTES);
		return NULL;
	}
	buffer->next = connection->aside;
	connection->aside = buffer;
	return buffer;
}

static void free_sent(struct tcp_connection *connection)
{
	struct body *body;

	while ((body = connection->sent)) {
		connection->sent = body->next;
		body_destroy(body);
	}
}

static void answers_are_sent(struct tcp_connection *connection)
{
	struct serving *serving = &connection->service->serving;
	struct buffer *buffer;

	while ((buffer = connection->aside)) {
		connection->aside = buffer->next;
		buffers_give(serving->buffers, buffer);
		budget_give(connection->budget, SLU_LIMIT_RESPONSE_BYTES, BUFFER_BYTES);
	}
	free_sent(connection);
	for (; connection->waiting > 0; connection->waiting--)
		serving_answered(serving, &connection->served);
}

static void send_some(struct tcp_connection *connection)
{
	struct tcp_service *service = connection->service;
	int64_t sent = channel_send(&connection->channel, tcp_turn_bytes(service));

	connection->failed = sent < 0;
	service->moved += sent < 0 ? 0 : (uint64_t)sent;
	work_count(WORK_BYTES, sent < 0 ? 0 : (uint64_t)sent);
	if (connection->waiting > 0 && !channel_unsent(&connection->channel))
		answers_are_sent(connection);
}

/* ---- life ---- */

int tcp_connection_create(const struct stream *stream, struct budget *budget,
			  struct tcp_connection **out)
{
	struct tcp_connection *connection = calloc(1, sizeof(*connection));
	int rc = connection ? channel_open(&connection->channel, stream) : -ENOMEM;

	if (rc < 0) {
		free(connection);
		return rc;
	}
	connection->budget = budget_get(budget);
	*out = connection;
	return 0;
}

void tcp_connection_close(struct tcp_connection *connection)
{
	channel_close(&connection->channel);
	body_destroy(connection->body);
	budget_give(connection->budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
	budget_put(connection->budget);
	free(connection);
}

int tcp_service_adopt(struct tcp_service *service, struct tcp_connection *connection,
		      struct tcp_connection_list *of_owner)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
	int fd = connection->channel.stream.fd;
	int rc = serving_add(&service->serving, &connection->served);

	if (rc < 0)
		return rc;
	if (epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		serving_remove(&service->serving, &connection->served, 0);
		return -errno;
	}
	connection->service = service;
	connection->events = EPOLLIN;
	LIST_INSERT_HEAD(of_owner, connection, of_owner);
	activate(connection); /* TLS may have read ahead */
	return 0;
}

void tcp_service_drop(struct tcp_connection *connection)
{
	struct tcp_service *service = connection->service;

	deactivate(connection);
	LIST_REMOVE(connection, of_owner);
	answers_are_sent(connection);
	serving_remove(&service->serving, &connection->served, 0);
	epoll_ctl(service->epoll_fd, EPOLL_CTL_DEL, connection->channel.stream.fd, NULL);
	tcp_connection_close(connection);
}

/* ---- a connection's turn ---- */

static bool is_for_the_dead(const struct tcp_connection *connection)
{
	const struct channel *channel = &connection->channel;

	if (connection->grant && tcp_is_dead(connection->grant))
		return true;
	for (uint32_t i = channel->first; i < channel->count; i++)
		if (channel->owners[i] && tcp_is_dead(channel->owners[i]))
			return true;
	return false;
}

/* Nothing that was copied goes out, and nothing is acknowledged, before this says no. */
static bool has_died(const struct tcp_connection *connection)
{
	return __builtin_expect(guard_deaths() != connection->deaths, 0);
}

/* What is half received into the dead, or half sent from it, cannot be told from good. */
static void note_deaths(struct tcp_connection *connection)
{
	connection->deaths = guard_deaths();
	connection->failed |= is_for_the_dead(connection);
}

/*
 * That responses which were stuck go on leaving is work as well: requests may stand in the buffer
 * that could not be begun for want of room, and no descriptor tells of them.
 */
static uint32_t serve(struct tcp_connection *connection)
{
	struct channel *channel = &connection->channel;
	bool stuck = channel_unsent(channel);
	uint32_t work = 0;

	if (has_died(connection))
		note_deaths(connection);
	if (stuck && !connection->failed)
		send_some(connection);
	if (!connection->failed)
		work = tcp_carry_out(connection);
	connection->failed |= has_died(connection); /* meanwhile: what it has got, nobody knows */
	if (!connection->failed) {
		tcp_respond_done(connection);
		if (channel_unsent(channel))
			send_some(connection);
	}
	work += connection->failed || (stuck && !channel->full);
	connection->silent = work > 0 ? 0 : connection->silent + 1;
	if (connection->failed)
		tcp_service_drop(connection);
	return work;
}

/* ---- answers of the segments' owners ---- */

/* Beside the heads where there is room. @return NULL: as take_aside() */
static char *answer_place(struct tcp_connection *connection, uint32_t n, uint32_t pieces)
{
	struct channel *channel = &connection->channel;
	struct buffer *aside;

	if (channel_room(channel, n, pieces))
		return channel_stage(channel, n);
	connection->failed |= !channel_room(channel, 0, pieces);
	aside = connection->failed ? NULL : take_aside(connection);
	if (!aside)
		return NULL;
	channel_refer(channel, aside->bytes, n, NULL);
	return aside->bytes;
}

/* It goes from where it lies, and is kept until all is sent. */
static void refer_body(struct tcp_connection *connection, const struct inbox_answer *answer)
{
	struct body *body = *answer->body;

	*answer->body = NULL;
	channel_refer(&connection->channel, body->data, answer->length, NULL);
	body->next = connection->sent;
	connection->sent = body;
	connection->waiting++;
}

/* A client that takes no more answers in than it has asked for always leaves pieces for them. */
static bool send_answer(struct served *served, uint32_t slot, const struct inbox_answer *answer)
{
	struct tcp_connection *connection = (struct tcp_connection *)served;
	struct serving *serving = &connection->service->serving;
	struct wire_response head = {.type = WIRE_ANSWER,
				     .status = (int16_t)answer->status,
				     .length = answer->length,
				     .sequence = slot};
	bool is_long = answer->length > SLU_MESSAGE_MAX;
	uint32_t beside = is_long ? 0 : answer->length;
	char *at = answer_place(connection, (uint32_t)sizeof(head) + beside, 1 + is_long);

	activate(connection);
	if (!at)
		return connection->failed;
	memcpy(at, &head, sizeof(head));
	if (beside > 0)
		memcpy(at + sizeof(head), answer->data, beside);
	if (is_long)
		refer_body(connection, answer);
	else if (channel_room(&connection->channel, ANSWER_BYTES, 1))
		serving_answered(serving, served);
	else
		connection->waiting++;
	return true;
}

/* ---- the service ---- */

static uint32_t look_for_more(struct tcp_service *service)
{
	struct epoll_event events[64];
	int n = epoll_wait(service->epoll_fd, events, 64, 0);

	for (int i = 0; i < n; i++)
		activate(events[i].data.ptr);
	return n > 0 ? (uint32_t)n : 0;
}

static bool time_to_look(struct tcp_service *service)
{
	return service->active_count == 0 || service->worked >= LOOK_WORK ||
	       ++service->turn % LOOK_EVERY == 0;
}

/*
 * Where the next turn begins: at the first that had none, or else at the second, as the first one
 * gets what little room there is for notifications and calls.
 */
static void rotate(struct tcp_service *service, const struct tcp_connection *next)
{
	struct tcp_connection *first = TAILQ_FIRST(&service->active);

	if (service->active_count < 2 || first == next)
		return;
	do {
		TAILQ_REMOVE(&service->active, first, active_link);
		TAILQ_INSERT_TAIL(&service->active, first, active_link);
		first = TAILQ_FIRST(&service->active);
	} while (next && first != next);
}

static bool has_turn(const struct tcp_service *service, uint32_t served)
{
	return served < TURN_CONNECTIONS && service->moved < TURN_ALL_BYTES;
}

static uint32_t give_turn(struct tcp_connection *connection)
{
	if (connection->silent <= connection->service->patience) {
		watch(connection, EPOLLIN);
		return serve(connection);
	}
	watch_both(connection);
	deactivate(connection);
	return 0;
}

static uint32_t serve_active(struct tcp_service *service)
{
	struct tcp_connection *connection, *next;
	uint32_t work = 0, served = 0;

	service->moved = 0;
	for (connection = TAILQ_FIRST(&service->active); connection && has_turn(service, served);
	     connection = next, served++) {
		next = TAILQ_NEXT(connection, active_link);
		work += give_turn(connection);
	}
	work_count(WORK_ITEMS, served);
	rotate(service, connection);
	return work;
}

static uint32_t run(struct transport_service *base)
{
	struct tcp_service *service = (struct tcp_service *)base;
	uint32_t work = 0;

	if (service->serving.count == 0)
		return 0;
	work_begin(WORK_TURN);
	if (service->serving.lanes_count > 0)
		work += serving_answer(&service->serving, send_answer);
	if (time_to_look(service)) {
		work += look_for_more(service);
		service->worked = 0;
	}
	work += serve_active(service);
	service->worked += work;
	return work;
}

/*
 * Before a sleep: what is stuck for want of room must wake us as well. Where very many are active
 * they have their turns first, until most are silent.
 */
static bool pending(struct transport_service *base)
{
	struct tcp_service *service = (struct tcp_service *)base;
	struct tcp_connection *connection;

	work_begin(WORK_TURN);
	if (serving_has_answers(&service->serving) || service->active_count > TURN_CONNECTIONS)
		return true;
	TAILQ_FOREACH (connection, &service->active, active_link) {
		work_count(WORK_ITEMS, 1);
		if (can_respond(connection) && stream_pending(&connection->channel.stream))
			return true;
		watch_both(connection);
	}
	return false;
}

int tcp_service_create(const struct grants *grants, uint32_t lane, struct buffers *buffers,
		       struct tcp_service **out)
{
	struct tcp_service *service = calloc(1, sizeof(*service));
	int rc;

	if (!service)
		return fail(-ENOMEM, "out of memory");
	service->base.run = run;
	service->base.pending = pending;
	service->grants = grants;
	TAILQ_INIT(&service->active);
	service->base.fd = service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	rc = service->epoll_fd < 0 ? fail(-errno, "epoll_create1: %s", strerror(errno))
				   : serving_init(&service->serving, lane, buffers);
	if (rc == 0)
		rc = buffers_lend(buffers, 0, BUFFERS_SHARED, NULL);
	if (rc < 0) {
		tcp_service_destroy(service);
		return rc;
	}
	*out = service;
	return 0;
}

void tcp_service_destroy(struct tcp_service *service)
{
	if (!service)
		return;
	if (service->epoll_fd >= 0)
		close(service->epoll_fd);
	serving_fini(&service->serving);
	free(service);
}
