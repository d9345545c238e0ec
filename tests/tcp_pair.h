/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Both sides of tcp in one thread, over socket pairs: the target's service and a client's path take
 * their turns when they are told to. For the unit test and the fuzz targets.
 */
#ifndef TESTS_TCP_PAIR_H
#define TESTS_TCP_PAIR_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <rte_ring_elem.h>

#include "base/budget.h"
#include "env/eal.h"
#include "memory/region.h"
#include "message/inbox.h"
#include "message/sender.h"
#include "poller/poller.h"
#include "transport/buffers.h"
#include "transport/grants.h"
#include "transport/tcp/tcp.h"
#include "transport/tcp/tcp_serve.h"

#define PAIR_BYTES      (UINT64_C(1) << 20)
#define PAIR_CONNECTION 7u
#define PAIR_DEPTH      4096u
#define PAIR_TIMEOUT_US 5000u /* of operations that are to time out, see pair_expire() */

/** A poller with an inline queue, and its path. */
struct pair_client {
	struct poller *poller;
	struct slu_queue *queue;
	struct path *path;
};

struct tcp_pair {
	struct clock clock;
	uint64_t now_ns;
	struct transport_env env;
	struct tcp_host host;
	struct transport_peer peer; /* first of what dial() needs */
	struct tcp_server *server;
	struct buffers *buffers; /* of its poller */
	struct transport_service *service;
	struct slu_region *segment;
	struct slu_region *local;
	struct export export;
	struct slu_remote *remote;
	struct pair_client client;
	struct grant *granted;
	int eventfd;
	int raw; /* target's end of the next connection goes here instead, if not -1 */
	bool keep_raw;
	pthread_t thread;      /* only here connections are made */
	struct budget *budget; /* of connections from now on; NULL: without limits */
	struct fence fence;
	uint64_t raised; /* the link that was fenced last */
};

struct fence_ticket {
	struct tcp_pair *pair;
	uint64_t link;
};

static inline void pair_must(bool good)
{
	if (!good)
		abort();
}

static inline void pair_on_poller(void *arg, uint32_t poller, void (*fn)(void *), void *fn_arg)
{
	(void)arg;
	(void)poller;
	fn(fn_arg);
}

static inline struct tcp_pair *pair_of(struct transport_peer *peer)
{
	return (struct tcp_pair *)(void *)((char *)peer - offsetof(struct tcp_pair, peer));
}

static inline void pair_attach(struct tcp_pair *pair, const struct stream *stream, uint64_t link)
{
	if (pair->budget)
		pair_must(budget_take(pair->budget, SLU_LIMIT_DATA_CONNECTIONS, 1) == 0);
	tcp_server_attach(pair->server, stream, PAIR_CONNECTION, link, pair->budget);
}

/* Links are mended when the test says so: see pair_mend(). */
static inline int pair_dial(struct transport_peer *peer, uint64_t link, uint32_t count,
			    uint64_t until_ns, struct stream *streams)
{
	struct tcp_pair *pair = pair_of(peer);

	(void)until_ns;
	if (!pthread_equal(pthread_self(), pair->thread))
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++) {
		struct stream far_end = {0};
		int ends[2];

		pair_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
				     ends) == 0);
		streams[i] = (struct stream){.fd = ends[0]};
		far_end.fd = ends[1];
		if (pair->keep_raw && pair->raw < 0)
			pair->raw = ends[1];
		else
			pair_attach(pair, &far_end, link);
	}
	return 0;
}

static inline struct fence_ticket *pair_ticket(struct transport_peer *peer, uint64_t link)
{
	struct fence_ticket *ticket = malloc(sizeof(*ticket));

	pair_must(ticket != NULL);
	*ticket = (struct fence_ticket){.pair = pair_of(peer), .link = link};
	return ticket;
}

static inline void pair_raise(struct fence_ticket *ticket)
{
	ticket->pair->raised = ticket->link;
	atomic_fetch_add(&ticket->pair->fence.pending, 1);
	free(ticket);
}

static inline void pair_forgo(struct fence_ticket *ticket)
{
	free(ticket);
}

/** The target confirms that the link which was fenced is over. */
static inline void pair_confirm(struct tcp_pair *pair)
{
	pair_must(atomic_load(&pair->fence.pending) == 1);
	tcp_server_fence(pair->server, PAIR_CONNECTION, pair->raised);
	atomic_store(&pair->fence.pending, 0);
	transport_changed();
}

static inline struct tcp_link *pair_link(struct tcp_pair *pair)
{
	return ((struct tcp_path *)pair->client.path)->link;
}

/** The link is down: one attempt to mend it. */
static inline void pair_mend(struct tcp_pair *pair)
{
	repair_now(pair->env.repair, pair->client.path->making, NULL, UINT64_MAX / 2);
}

static struct sender pair_sender = {.number = 5, .identity = "pair"};

/** Grant @p rights on the segment to @p connection and make what a client imports of it. */
static inline struct grant *pair_grant(struct tcp_pair *pair, uint32_t rights, uint64_t connection,
				       void **view)
{
	const struct grant grant = {.export = &pair->export,
				    .rights = rights,
				    .sender = &pair_sender,
				    .connection = connection};
	json_t *description = json_object();
	struct grant *granted;

	pair_must(tcp_server_grant(pair->server, &grant, description, &granted) == 0);
	pair_must(tcp_transport.client->import(NULL, description, PAIR_BYTES, rights, NULL, 0,
					       view) == 0);
	json_decref(description);
	return granted;
}

static inline uint64_t pair_now(void *arg)
{
	return ((struct tcp_pair *)arg)->now_ns;
}

/** Connect poller @p index to the target. */
static inline void pair_connect(struct tcp_pair *pair, uint32_t index, struct pair_client *client)
{
	const struct slu_queue_options options = {.depth = PAIR_DEPTH, .poller = SLU_POLLER_INLINE};

	pair_must(poller_create(index, &pair->env, 0, 0, &client->poller) == 0);
	pair_must(queue_create(&options, client->poller, -1, &client->queue) == 0);
	client->queue->clock = &pair->clock;
	pair_must(poller_attach(client->poller, client->queue) == 0);
	pair_must(tcp_transport.client->connect(pair->remote, &client->poller->env,
						&client->path) == 0);
	pair->remote->paths[index] = client->path;
	pair_must(repair_now(pair->env.repair, client->path->making, NULL, UINT64_MAX / 2) == 0);
}

/** What it has not finished is given up. */
static inline void pair_disconnect(struct tcp_pair *pair, struct pair_client *client)
{
	requests_cancel(client->poller, NULL, client->queue);
	requests_tell(client->poller);
	poller_detach(client->poller, client->queue);
	pair->remote->paths[client->poller->index] = NULL;
	tcp_transport.client->disconnect(client->path);
	repair_settle(pair->env.repair, &pair->peer.lanes[SLU_TRANSPORT_TCP]);
	queue_destroy(client->queue);
	poller_destroy(client->poller);
}

static inline void pair_open(struct tcp_pair *pair, bool raw)
{
	struct slu_region_options ordinary;

	pair_must(eal_start() == 0);
	slu_region_options_init(&ordinary, sizeof(ordinary));
	ordinary.page = SLU_PAGE_ORDINARY;
	memset(pair, 0, sizeof(*pair));
	pair->raw = -1;
	pair->keep_raw = raw;
	pair->now_ns = NS_PER_SECOND;
	pair->clock = (struct clock){.now = pair_now, .arg = pair};
	pair->env.clock = &pair->clock;
	pair->env.hosts[SLU_TRANSPORT_TCP] = &pair->host;
	pair->host.connections = 1;
	pair->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pair->buffers = buffers_create(&pair->env);
	pair_must(tcp_server_create(&(struct serving_env){.transport = &pair->env,
							  .pollers = 1,
							  .buffers = &pair->buffers,
							  .on_poller = pair_on_poller},
				    &pair->env.servers[SLU_TRANSPORT_TCP]) == 0);
	pair->server = pair->env.servers[SLU_TRANSPORT_TCP];
	pair->service = tcp_server_service(pair->server, 0);
	pair_must(region_create(PAIR_BYTES, &ordinary, &pair->segment) == 0);
	pair_must(region_create(PAIR_BYTES, &ordinary, &pair->local) == 0);
	pair->export = (struct export){.region = pair->segment,
				       .addr = pair->segment->addr,
				       .length = PAIR_BYTES,
				       .rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE};
	pair_must(inbox_create(1, pair->eventfd, &pair->export.inbox) == 0);
	pair->thread = pthread_self();
	pair_must(transports_meet(&pair->peer) == 0);
	pair->peer.dial = pair_dial;
	pair->peer.ticket = pair_ticket;
	pair->peer.raise = pair_raise;
	pair->peer.forgo = pair_forgo;
	repair_lane_init(&pair->peer.lanes[SLU_TRANSPORT_TCP]);
	pair_must(repair_start(&pair->env.repair) == 0);
	pair->remote = calloc(1, sizeof(*pair->remote));
	pair->remote->peer = &pair->peer;
	pair->remote->fence = &pair->fence;
	pair->remote->length = PAIR_BYTES;
	pair->granted = pair_grant(pair, SLU_RIGHT_READ | SLU_RIGHT_WRITE, PAIR_CONNECTION,
				   &pair->remote->view);
	pair_connect(pair, 0, &pair->client);
}

/** A new link in place of the one there is, with new connections. */
static inline void pair_reconnect(struct tcp_pair *pair)
{
	pair_disconnect(pair, &pair->client);
	if (pair->raw >= 0)
		close(pair->raw);
	pair->raw = -1;
	pair->service->run(pair->service); /* sees that they were closed */
	atomic_store(&pair->remote->state, 0);
	atomic_store(&pair->fence.pending, 0);
	pair_connect(pair, 0, &pair->client);
}

/** For slu_log_set(): what hostile ends make us say is not wanted. */
static inline void pair_silence(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

static inline void pair_close(struct tcp_pair *pair)
{
	pair_disconnect(pair, &pair->client);
	repair_stop(pair->env.repair);
	transports_leave(&pair->peer);
	tcp_transport.client->release(pair->remote->view);
	tcp_server_revoke(pair->server, pair->granted, -ESHUTDOWN);
	tcp_server_close(pair->server, &pair->export);
	tcp_server_destroy(pair->server);
	buffers_put(pair->buffers);
	inbox_destroy(pair->export.inbox);
	region_destroy(pair->segment);
	region_destroy(pair->local);
	close(pair->eventfd);
	if (pair->raw >= 0)
		close(pair->raw);
	free(pair->remote);
}

/** The target's turn. */
static inline void pair_serve(struct tcp_pair *pair)
{
	for (int i = 0; i < 20; i++)
		pair->service->run(pair->service);
}

static inline void pair_post(struct tcp_pair *pair, const struct slu_op *ops, uint32_t n)
{
	pair_must(poller_start(pair->client.poller, pair->client.queue, ops, n) == n);
}

static inline uint32_t pair_poll_client(struct pair_client *client, struct slu_completion *done,
					uint32_t n)
{
	poller_run_once(client->poller);
	return queue_take_done(client->queue, done, n);
}

/** The client's turn. */
static inline uint32_t pair_poll(struct tcp_pair *pair, struct slu_completion *done, uint32_t n)
{
	return pair_poll_client(&pair->client, done, n);
}

/** What has a timeout of PAIR_TIMEOUT_US is late, and what was refused may go again. */
static inline void pair_expire(struct tcp_pair *pair)
{
	pair->now_ns += (PAIR_TIMEOUT_US + 1000) * NS_PER_US;
	pair->client.poller->clock_turns = POLLER_CLOCK_TURNS;
}

#endif
