/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/tcp/tcp_serve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/work.h"
#include "memory/guard.h"
#include "transport/grants.h"
#include "transport/inbox.h"
#include "transport/tcp/channel.h"
#include "transport/tcp/wire.h"

#define CONNECTIONS_MAX 65536u /* of one poller */
#define OWNER_SLOTS     1024u  /* of the tables by control connection */

/* One turn for one connection, and for all: the poller has others to serve. */
#define TURN_BYTES       (UINT64_C(1) << 20)
#define TURN_ALL_BYTES   (UINT64_C(4) << 20)
#define TURN_CONNECTIONS 256u

/* A connection is looked at in every turn until it was silent for so many, shared by those active.
 */
#define SILENT_TURNS 4096u

/* While some are active, the others are looked for every so many turns, or requests and reads. */
#define LOOK_EVERY 64u
#define LOOK_WORK  32u

/* Room for what one request can lead to: DONE for those before it, its own head, a small body. */
#define RESPONSE_BYTES ((uint32_t)sizeof(struct wire_response) * 2 + CHANNEL_STAGE_BYTES)

/* And in pieces; those for the answers that a client can wait for stay free for them. */
#define RESPONSE_PIECES (3 + INBOX_CALLS)

struct connection {
	struct channel channel;
	uint64_t owner; /* control connection */
	uint64_t link;  /* the owner's name for what it belongs to */
	uint32_t cookie;
	uint32_t silent; /* turns */
	bool active;
	bool failed;
	uint32_t events; /* that epoll_fd looks for */

	uint32_t sequence; /* of the next request */
	uint32_t done;     /* carried out, not yet responded to */

	/* The request whose body is on its way. */
	bool receiving;
	struct wire_request request;
	struct grant *grant; /* NULL: refused with status */
	int status;
	char *message; /* body of a call */

	LIST_ENTRY(connection) of_owner;
	TAILQ_ENTRY(connection) active_link;
};

LIST_HEAD(connection_list, connection);

/* A lane with calls that were not answered. */
struct open_lane {
	struct inbox_lane *lane;
	uint32_t calls;
};

struct tcp_service {
	struct transport_service base;
	struct tcp_server *server;
	uint32_t poller;
	int epoll_fd;
	uint32_t count;
	uint32_t active_count;
	uint32_t patience; /* silent turns until a connection is not active any more */
	uint32_t turn;
	uint32_t worked;   /* since others were looked for */
	uint32_t deaths;   /* of memory, as last looked at */
	uint64_t received; /* bytes, in this turn */
	uint32_t next_cookie;
	struct connection_list by_owner[OWNER_SLOTS];
	TAILQ_HEAD(, connection) active;
	struct connection **by_cookie; /* cookie % CONNECTIONS_MAX */
	uint32_t lanes_count;
	struct open_lane lanes[SLU_SEGMENTS_MAX];
};

/* Which pollers have, or had, data connections of a control connection: others are not asked. */
struct owner {
	uint64_t number;
	uint64_t pollers[(SLU_POLLERS_MAX + 63) / 64];
	LIST_ENTRY(owner) entry;
};

struct tcp_server {
	uint32_t pollers;
	uint32_t first_lane;  /* of inboxes */
	uint32_t next_poller; /* counts data connections */
	transport_on_poller on_poller;
	void *arg;
	struct grants *grants;
	LIST_HEAD(, owner) owners[OWNER_SLOTS];
	struct tcp_service *services[SLU_POLLERS_MAX];
};

/* ---- responses ---- */

static void respond(struct connection *connection, uint8_t type, int status, uint32_t length,
		    uint32_t sequence)
{
	struct wire_response response = {
		.type = type, .status = (int16_t)status, .length = length, .sequence = sequence};

	memcpy(channel_stage(&connection->channel, sizeof(response)), &response, sizeof(response));
}

/* Those carried out so far, in one response. */
static void respond_done(struct connection *connection)
{
	if (connection->done == 0)
		return;
	respond(connection, WIRE_DONE, 0, connection->done, connection->sequence - 1);
	connection->done = 0;
}

/* The request at hand is over. */
static void finish(struct connection *connection, int status)
{
	if (status < 0) {
		respond_done(connection);
		respond(connection, WIRE_DONE, status, 1, connection->sequence);
	} else {
		connection->done++;
	}
	connection->sequence++;
}

static void respond_data(struct connection *connection, const struct grant *grant, const char *data,
			 uint32_t length)
{
	struct channel *channel = &connection->channel;

	respond_done(connection);
	respond(connection, WIRE_DATA, 0, length, connection->sequence++);
	if (length <= CHANNEL_STAGE_BYTES)
		memcpy(channel_stage(channel, length), data, length);
	else
		channel_refer(channel, data, length, grant);
}

/* ---- requests ---- */

static int hostile(struct connection *connection, const char *what)
{
	log_peer(SLU_LOG_WARNING, "a data connection is closed: its client sent %s", what);
	connection->failed = true;
	return -EPROTO;
}

static int check_form(struct connection *connection, const struct wire_request *request)
{
	uint32_t limit =
		request->type == WIRE_CALL ? SLU_MESSAGE_MAX : (uint32_t)TRANSPORT_SLICE_MAX_BYTES;

	if (request->type < WIRE_READ || request->type > WIRE_CALL || request->reserved[0] ||
	    request->reserved[1] || request->reserved[2])
		return hostile(connection, "an unknown request");
	if (request->length > limit)
		return hostile(connection, "a request that is too long");
	if (request->sequence != connection->sequence)
		return hostile(connection, "a request out of sequence");
	return 0;
}

static int check_right(const struct grant *grant, const struct wire_request *request)
{
	uint32_t needed = request->type == WIRE_READ   ? SLU_RIGHT_READ
			  : request->type == WIRE_CALL ? 0
						       : SLU_RIGHT_WRITE;
	uint64_t length = grant->export->length;

	if (request->type == WIRE_CALL)
		return grant->rights ? 0 : -EACCES;
	if (!(grant->rights & needed))
		return -EACCES;
	if (request->length > length || request->offset > length - request->length)
		return -ERANGE;
	return 0;
}

static struct inbox_lane *lane_of(const struct tcp_service *service, const struct grant *grant)
{
	return inbox_lane(grant->export->inbox, service->server->first_lane + service->poller);
}

static int deliver_notification(struct tcp_service *service, const struct connection *connection)
{
	const struct grant *grant = connection->grant;

	return inbox_notify(lane_of(service, grant), grant->client, connection->request.tag)
		       ? 0
		       : -EAGAIN;
}

static void lane_opened(struct tcp_service *service, struct inbox_lane *lane)
{
	uint32_t i = 0;

	while (i < service->lanes_count && service->lanes[i].lane != lane)
		i++;
	if (i == service->lanes_count)
		service->lanes[service->lanes_count++] = (struct open_lane){.lane = lane};
	service->lanes[i].calls++;
}

static int deliver_call(struct tcp_service *service, const struct connection *connection)
{
	const struct grant *grant = connection->grant;
	struct inbox_lane *lane = lane_of(service, grant);
	uint64_t cookie = (uint64_t)connection->cookie << 32 | connection->request.tag;

	if (service->lanes_count == SLU_SEGMENTS_MAX ||
	    !inbox_call(lane, grant->client, cookie, connection->message,
			connection->request.length))
		return -EAGAIN;
	lane_opened(service, lane);
	return 0;
}

static void body_arrived(struct tcp_service *service, struct connection *connection)
{
	int status = connection->status;

	connection->receiving = false;
	if (status == 0 && connection->request.type == WIRE_NOTIFY)
		status = deliver_notification(service, connection);
	else if (status == 0 && connection->request.type == WIRE_CALL)
		status = deliver_call(service, connection);
	connection->grant = NULL;
	finish(connection, status);
}

/* Where the body goes; NULL: nowhere. */
static char *destination(struct connection *connection)
{
	if (connection->status < 0)
		return NULL;
	if (connection->request.type != WIRE_CALL)
		return connection->grant->export->region->addr + connection->request.offset;
	if (!connection->message)
		connection->message = malloc(SLU_MESSAGE_MAX);
	if (!connection->message)
		connection->status = -ENOMEM;
	return connection->message;
}

/* Its pages were taken away by somebody who may write to it: what is there now is not its content.
 */
static bool is_dead(const struct grant *grant)
{
	return region_is_dead(grant->export->region);
}

static void begin(struct tcp_service *service, struct connection *connection)
{
	const struct wire_request *request = &connection->request;
	struct grant *grant = NULL;
	int status = grants_find(service->server->grants, connection->owner, request->handle,
				 request->generation, &grant);

	if (status == 0)
		status = check_right(grant, request);
	if (status == 0 && service->deaths != 0 && is_dead(grant))
		status = -EFAULT;
	if (status == 0 && request->type == WIRE_NOTIFY &&
	    !inbox_notify_room(lane_of(service, grant)))
		status = -EAGAIN;
	if (request->type == WIRE_READ) {
		if (status < 0 || request->length == 0)
			finish(connection, status);
		else
			respond_data(connection, grant,
				     grant->export->region->addr + request->offset,
				     request->length);
		return;
	}
	connection->grant = grant;
	connection->status = status;
	connection->receiving = true;
	if (channel_body(&connection->channel, destination(connection), request->length))
		body_arrived(service, connection);
}

/* @return was there something to do? */
static bool step(struct tcp_service *service, struct connection *connection)
{
	struct channel *channel = &connection->channel;
	const void *head;

	if (!channel_room(channel, RESPONSE_BYTES, RESPONSE_PIECES))
		return false;
	if (connection->receiving) {
		if (channel->body_left > 0)
			return false;
		body_arrived(service, connection);
		return true;
	}
	head = channel_peek(channel, sizeof(connection->request));
	if (!head)
		return false;
	memcpy(&connection->request, head, sizeof(connection->request));
	if (check_form(connection, &connection->request) < 0)
		return false;
	channel_consume(channel, sizeof(connection->request));
	begin(service, connection);
	return true;
}

/* ---- a connection's turn ---- */

static struct connection_list *of_owner(struct tcp_service *service, uint64_t owner)
{
	return &service->by_owner[owner % OWNER_SLOTS];
}

static void activate(struct tcp_service *service, struct connection *connection)
{
	connection->silent = 0;
	if (connection->active)
		return;
	connection->active = true;
	service->active_count++;
	service->patience = SILENT_TURNS / service->active_count;
	TAILQ_INSERT_TAIL(&service->active, connection, active_link);
}

static void deactivate(struct tcp_service *service, struct connection *connection)
{
	if (!connection->active)
		return;
	connection->active = false;
	service->active_count--;
	if (service->active_count > 0)
		service->patience = SILENT_TURNS / service->active_count;
	TAILQ_REMOVE(&service->active, connection, active_link);
}

static void connection_close(struct connection *connection)
{
	struct budget *budget = connection->channel.budget;

	channel_close(&connection->channel);
	budget_give(budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
	budget_put(budget);
	free(connection->message);
	free(connection);
}

static void drop(struct tcp_service *service, struct connection *connection)
{
	deactivate(service, connection);
	LIST_REMOVE(connection, of_owner);
	service->count--;
	service->by_cookie[connection->cookie % CONNECTIONS_MAX] = NULL;
	epoll_ctl(service->epoll_fd, EPOLL_CTL_DEL, connection->channel.stream.fd, NULL);
	connection_close(connection);
}

static bool is_for_the_dead(const struct connection *connection)
{
	const struct channel *channel = &connection->channel;

	if (connection->grant && is_dead(connection->grant))
		return true;
	for (uint32_t i = channel->first; i < channel->count; i++)
		if (channel->owners[i] && is_dead(channel->owners[i]))
			return true;
	return false;
}

/*
 * What is half received into it, or half sent from it, cannot be told from good: the connections
 * end. Rare, so that all may be looked at.
 */
static void note_deaths(struct tcp_service *service)
{
	struct connection *connection;

	service->deaths = guard_deaths();
	for (uint32_t i = 0; i < OWNER_SLOTS; i++)
		LIST_FOREACH (connection, &service->by_owner[i], of_owner)
			if (is_for_the_dead(connection)) {
				connection->failed = true;
				activate(service, connection);
			}
}

/* Nothing that was copied goes out, and nothing is acknowledged, before this says no. */
static bool has_died(const struct tcp_service *service)
{
	return __builtin_expect(guard_deaths() != service->deaths, 0);
}

/* Reads and carries out, until nothing is there, the responses back up, or others wait. */
static uint32_t take_requests(struct tcp_service *service, struct connection *connection)
{
	struct channel *channel = &connection->channel;
	uint64_t bytes = 0;
	uint32_t work = 0;
	ssize_t got;

	for (;;) {
		while (step(service, connection))
			work++;
		if (connection->failed || !channel_room(channel, RESPONSE_BYTES, RESPONSE_PIECES) ||
		    (bytes > 0 && channel->drained) || bytes >= TURN_BYTES)
			return work;
		got = channel_receive(channel);
		if (got <= 0) {
			connection->failed |= got < 0;
			return work;
		}
		bytes += (uint64_t)got;
		service->received += (uint64_t)got;
		work_count(WORK_BYTES, (uint64_t)got);
		work++;
	}
}

/*
 * That responses which were stuck go on leaving is work as well: requests may stand in the buffer
 * that could not be begun for want of room, and no descriptor tells of them.
 */
static uint32_t serve(struct tcp_service *service, struct connection *connection)
{
	struct channel *channel = &connection->channel;
	bool stuck = channel_unsent(channel);
	uint32_t work = 0;

	if (has_died(service))
		note_deaths(service);
	if (stuck && !connection->failed)
		connection->failed = channel_send(channel) < 0;
	if (!connection->failed)
		work = take_requests(service, connection);
	connection->failed |= has_died(service); /* meanwhile: what it has got, nobody knows */
	if (!connection->failed) {
		respond_done(connection);
		if (channel_unsent(channel))
			connection->failed = channel_send(channel) < 0;
	}
	work += connection->failed || (stuck && !channel->full);
	connection->silent = work > 0 ? 0 : connection->silent + 1;
	if (connection->failed)
		drop(service, connection);
	return work;
}

/* ---- answers of the segments' owners ---- */

/* A client that takes no more answers in than it has asked for always leaves room for them. */
static void send_answer(struct tcp_service *service, const struct inbox_answer *answer)
{
	uint32_t cookie = (uint32_t)(answer->cookie >> 32);
	struct connection *connection = service->by_cookie[cookie % CONNECTIONS_MAX];
	struct wire_response head = {.type = WIRE_ANSWER,
				     .status = (int16_t)answer->status,
				     .length = answer->length,
				     .sequence = (uint32_t)answer->cookie};
	char *at;

	if (!connection || connection->cookie != cookie)
		return; /* its client has left */
	at = channel_stage_aside(&connection->channel, (uint32_t)sizeof(head) + answer->length);
	if (!at) {
		connection->failed = true;
	} else {
		memcpy(at, &head, sizeof(head));
		if (answer->length > 0)
			memcpy(at + sizeof(head), answer->data, answer->length);
	}
	activate(service, connection);
}

static uint32_t take_answers(struct tcp_service *service)
{
	struct inbox_answer answer;
	uint32_t work = 0;

	for (uint32_t i = 0; i < service->lanes_count;) {
		struct open_lane *open = &service->lanes[i];

		while (open->calls > 0 && inbox_answer(open->lane, &answer)) {
			send_answer(service, &answer);
			inbox_answer_done(open->lane);
			open->calls--;
			work++;
		}
		if (open->calls > 0)
			i++;
		else
			*open = service->lanes[--service->lanes_count];
	}
	return work;
}

/* ---- the service ---- */

static uint32_t look_for_more(struct tcp_service *service)
{
	struct epoll_event events[64];
	int n = epoll_wait(service->epoll_fd, events, 64, 0);

	for (int i = 0; i < n; i++)
		activate(service, events[i].data.ptr);
	return n > 0 ? (uint32_t)n : 0;
}

/* What the connection waits for: requests while it can respond, room while it cannot. */
static void watch(struct tcp_service *service, struct connection *connection, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = connection};

	if (connection->events == events)
		return;
	connection->events = events;
	epoll_ctl(service->epoll_fd, EPOLL_CTL_MOD, connection->channel.stream.fd, &event);
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
static void rotate(struct tcp_service *service, const struct connection *next)
{
	struct connection *first = TAILQ_FIRST(&service->active);

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
	return served < TURN_CONNECTIONS && service->received < TURN_ALL_BYTES;
}

static uint32_t serve_active(struct tcp_service *service)
{
	struct connection *connection, *next;
	uint32_t work = 0, served = 0;

	service->received = 0;
	for (connection = TAILQ_FIRST(&service->active); connection && has_turn(service, served);
	     connection = next, served++) {
		next = TAILQ_NEXT(connection, active_link);
		watch(service, connection, EPOLLIN);
		if (connection->silent > service->patience && !channel_unsent(&connection->channel))
			deactivate(service, connection);
		else
			work += serve(service, connection);
	}
	work_count(WORK_ITEMS, served);
	rotate(service, connection);
	return work;
}

static uint32_t run(struct transport_service *base)
{
	struct tcp_service *service = (struct tcp_service *)base;
	uint32_t work = 0;

	if (service->count == 0)
		return 0;
	work_begin(WORK_TURN);
	if (service->lanes_count > 0)
		work += take_answers(service);
	if (time_to_look(service)) {
		work += look_for_more(service);
		service->worked = 0;
	}
	work += serve_active(service);
	service->worked += work;
	return work;
}

/* Before a sleep: what is stuck for want of room must wake us as well. */
static bool pending(struct transport_service *base)
{
	struct tcp_service *service = (struct tcp_service *)base;
	struct connection *connection;

	for (uint32_t i = 0; i < service->lanes_count; i++)
		if (inbox_answers_pending(service->lanes[i].lane))
			return true;
	TAILQ_FOREACH (connection, &service->active, active_link) {
		const struct channel *channel = &connection->channel;
		bool full = !channel_room(channel, RESPONSE_BYTES, RESPONSE_PIECES);

		if (!full && stream_pending(&channel->stream))
			return true;
		if (channel_unsent(channel))
			watch(service, connection, EPOLLOUT | (full ? 0u : EPOLLIN));
	}
	return false;
}

static int service_create(struct tcp_server *server, uint32_t poller)
{
	struct tcp_service *service = calloc(1, sizeof(*service));

	if (!service)
		return fail(-ENOMEM, "out of memory");
	server->services[poller] = service;
	service->base.run = run;
	service->base.pending = pending;
	service->server = server;
	service->poller = poller;
	TAILQ_INIT(&service->active);
	service->base.fd = service->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (service->epoll_fd < 0)
		return fail(-errno, "epoll_create1: %s", strerror(errno));
	service->by_cookie = calloc(CONNECTIONS_MAX, sizeof(service->by_cookie[0]));
	return service->by_cookie ? 0 : fail(-ENOMEM, "out of memory");
}

static void service_destroy(struct tcp_service *service)
{
	struct connection *connection;

	if (!service)
		return;
	for (uint32_t i = 0; i < OWNER_SLOTS; i++)
		while ((connection = LIST_FIRST(&service->by_owner[i])))
			drop(service, connection);
	if (service->epoll_fd >= 0)
		close(service->epoll_fd);
	free(service->by_cookie);
	free(service);
}

struct transport_service *tcp_server_service(void *server, uint32_t poller)
{
	return &((struct tcp_server *)server)->services[poller]->base;
}

/* ---- the server: control thread ---- */

static struct owner *owner_find(struct tcp_server *server, uint64_t number)
{
	struct owner *owner;

	LIST_FOREACH (owner, &server->owners[number % OWNER_SLOTS], entry)
		if (owner->number == number)
			break;
	return owner;
}

/* @return NULL: out of memory */
static struct owner *owner_get(struct tcp_server *server, uint64_t number)
{
	struct owner *owner = owner_find(server, number);

	if (owner)
		return owner;
	owner = calloc(1, sizeof(*owner));
	if (!owner)
		return NULL;
	owner->number = number;
	LIST_INSERT_HEAD(&server->owners[number % OWNER_SLOTS], owner, entry);
	return owner;
}

static void owner_destroy(struct owner *owner)
{
	LIST_REMOVE(owner, entry);
	free(owner);
}

/* What the pollers that serve an owner are asked to do with its connections, one after the other.
 */
struct errand {
	struct tcp_service *service;
	uint64_t owner;
	void (*fn)(struct errand *errand, struct connection *connection);
	uint64_t link;
	const struct grant *grant;
	int reason;
};

static void run_errand(void *arg)
{
	struct errand *errand = arg;
	struct connection_list *list = of_owner(errand->service, errand->owner);
	struct connection *connection = LIST_FIRST(list);

	while (connection) {
		struct connection *next = LIST_NEXT(connection, of_owner);

		work_count(WORK_ITEMS, 1);
		if (connection->owner == errand->owner)
			errand->fn(errand, connection);
		if (connection->failed)
			drop(errand->service, connection);
		connection = next;
	}
}

/* When it returns, all of them have done it. */
static void ask_pollers(struct tcp_server *server, struct errand *errand)
{
	const struct owner *owner = owner_find(server, errand->owner);

	for (uint32_t i = 0; owner && i < server->pollers; i++) {
		if (!(owner->pollers[i / 64] >> i % 64 & 1))
			continue;
		errand->service = server->services[i];
		server->on_poller(server->arg, i, run_errand, errand);
	}
}

int tcp_server_create(const struct serving_env *env, void **out)
{
	struct tcp_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return fail(-ENOMEM, "out of memory");
	server->pollers = env->pollers;
	server->first_lane = env->first_lane;
	server->on_poller = env->on_poller;
	server->arg = env->arg;
	rc = grants_create(&server->grants);
	for (uint32_t i = 0; rc == 0 && i < env->pollers; i++)
		rc = service_create(server, i);
	if (rc < 0) {
		tcp_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

void tcp_server_destroy(void *arg)
{
	struct tcp_server *server = arg;

	if (!server)
		return;
	for (uint32_t i = 0; i < server->pollers; i++)
		service_destroy(server->services[i]);
	for (uint32_t i = 0; i < OWNER_SLOTS; i++)
		while (!LIST_EMPTY(&server->owners[i]))
			owner_destroy(LIST_FIRST(&server->owners[i]));
	grants_destroy(server->grants);
	free(server);
}

struct adopt_call {
	struct tcp_service *service;
	struct connection *connection;
	int result;
};

static int adopt(struct tcp_service *service, struct connection *connection)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};

	if (service->count == CONNECTIONS_MAX / 2)
		return -ENOSPC;
	while (service->by_cookie[service->next_cookie % CONNECTIONS_MAX])
		service->next_cookie++;
	connection->cookie = service->next_cookie++;
	connection->events = EPOLLIN;
	if (epoll_ctl(service->epoll_fd, EPOLL_CTL_ADD, connection->channel.stream.fd, &event) < 0)
		return -errno;
	service->by_cookie[connection->cookie % CONNECTIONS_MAX] = connection;
	LIST_INSERT_HEAD(of_owner(service, connection->owner), connection, of_owner);
	service->count++;
	activate(service, connection); /* TLS may have read ahead */
	return 0;
}

static void adopt_on_poller(void *arg)
{
	struct adopt_call *call = arg;

	call->result = adopt(call->service, call->connection);
}

/*
 * In turn, but each round begins one further on: clients connect in pairs, for small operations and
 * for bulk, and else every bulk connection could come to the same poller.
 */
static uint32_t next_poller(struct tcp_server *server)
{
	uint32_t n = server->next_poller++;

	return (n + n / server->pollers) % server->pollers;
}

static int attach(struct tcp_server *server, struct connection *connection)
{
	struct owner *owner = owner_get(server, connection->owner);
	uint32_t poller = next_poller(server);
	struct adopt_call call = {.service = server->services[poller], .connection = connection};

	if (!owner)
		return -ENOMEM;
	owner->pollers[poller / 64] |= UINT64_C(1) << poller % 64;
	server->on_poller(server->arg, poller, adopt_on_poller, &call);
	return call.result;
}

void tcp_server_attach(void *server, const struct stream *stream, uint64_t owner, uint64_t link,
		       struct budget *budget)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct stream refused = *stream;
	int rc = connection ? channel_open(&connection->channel, stream) : -ENOMEM;

	if (rc < 0) {
		stream_close(&refused);
		budget_give(budget, SLU_LIMIT_DATA_CONNECTIONS, 1);
		free(connection);
	} else {
		connection->owner = owner;
		connection->link = link;
		connection->channel.budget = budget ? budget_get(budget) : NULL;
		rc = attach(server, connection);
		if (rc < 0)
			connection_close(connection);
	}
	if (rc < 0)
		log_peer(SLU_LOG_ERROR, "a data connection is refused: %s", strerror(-rc));
}

static void end_connection(struct errand *errand, struct connection *connection)
{
	(void)errand;
	connection->failed = true;
}

void tcp_server_gone(void *server, uint64_t number)
{
	struct errand errand = {.owner = number, .fn = end_connection};
	struct owner *owner = owner_find(server, number);

	if (!owner)
		return;
	ask_pollers(server, &errand);
	owner_destroy(owner);
}

static void end_if_of_link(struct errand *errand, struct connection *connection)
{
	connection->failed |= connection->link == errand->link;
}

void tcp_server_fence(void *server, uint64_t owner, uint64_t link)
{
	struct errand errand = {.owner = owner, .fn = end_if_of_link, .link = link};

	ask_pollers(server, &errand);
}

int tcp_server_grant(struct tcp_server *server, const struct grant *grant, json_t *description,
		     struct grant **out)
{
	return grants_add(server->grants, grant, description, out);
}

/*
 * What arrives for it goes nowhere. What is half sent from its memory can't be taken back, and a
 * copy of it would be memory that a client has at our expense by not reading: the connection ends.
 * A client of good faith has nothing under way when it closes, and connects again when not.
 */
static void forget(struct errand *errand, struct connection *connection)
{
	if (connection->receiving && connection->grant == errand->grant) {
		connection->grant = NULL;
		connection->status = errand->reason;
		connection->channel.body = NULL;
	}
	connection->failed |= channel_refers(&connection->channel, errand->grant);
}

void tcp_server_revoke(struct tcp_server *server, struct grant *grant, int reason)
{
	struct errand errand;

	if (!grant)
		return;
	errand = (struct errand){
		.owner = grant->connection, .fn = forget, .grant = grant, .reason = reason};
	grants_end(server->grants, grant, reason);
	ask_pollers(server, &errand);
	grants_free(server->grants, grant);
}

struct close_call {
	struct tcp_service *service;
	const struct export *export;
};

static void close_lane_on_poller(void *arg)
{
	struct close_call *call = arg;
	struct tcp_service *service = call->service;
	const struct inbox_lane *lane =
		inbox_lane(call->export->inbox, service->server->first_lane + service->poller);

	for (uint32_t i = 0; i < service->lanes_count; i++)
		if (service->lanes[i].lane == lane)
			service->lanes[i--] = service->lanes[--service->lanes_count];
}

void tcp_server_close(void *arg, const struct export *export)
{
	struct tcp_server *server = arg;

	for (uint32_t i = 0; i < server->pollers; i++) {
		struct close_call call = {.service = server->services[i], .export = export};

		server->on_poller(server->arg, i, close_lane_on_poller, &call);
	}
}
