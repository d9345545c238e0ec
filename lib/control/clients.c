/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections of an engine to targets. Whoever asks for one that is open, or just being made,
 * shares it: a target holds memory for each connection, and many sessions go over one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/boot_id.h"
#include "control/client_internal.h"

int client_pool_create(const struct client_pool_options *options, struct client_pool **out)
{
	struct client_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return fail(-ENOMEM, "out of memory");
	pool->options = *options;
	boot_id_read(pool->boot_id);
	pthread_mutex_init(&pool->lock, NULL);
	condition_init(&pool->connected);
	LIST_INIT(&pool->clients);
	TAILQ_INIT(&pool->fences);
	*out = pool;
	return 0;
}

void client_pool_destroy(struct client_pool *pool)
{
	if (!pool)
		return;
	fences_destroy(pool);
	pthread_cond_destroy(&pool->connected);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* ---- one connection ---- */

static struct client *client_create(struct client_pool *pool, const struct endpoint *endpoint)
{
	struct client *client = calloc(1, sizeof(*client));

	if (!client || transports_meet(&client->peer) < 0) {
		free(client);
		return NULL;
	}
	client->peer.dial = handshake_dial;
	client->peer.ask = session_ask;
	client->peer.ask_async = session_ask_async;
	client->peer.ticket = fence_ticket;
	client->peer.raise = fence_raise;
	client->peer.forgo = fence_forgo;
	for (unsigned i = 0; i < TRANSPORTS; i++)
		repair_lane_init(&client->peer.lanes[i]);
	client->pool = pool;
	client->endpoint = *endpoint;
	client->stream.fd = -1;
	client->reader.takes_fds = endpoint->is_unix;
	client->writer.limit_bytes = CLIENT_OUTPUT_MAX_BYTES;
	client->references = 1;
	TAILQ_INIT(&client->asks);
	pthread_mutex_init(&client->lock, NULL);
	condition_init(&client->answered);
	return client;
}

static void client_destroy(struct client *client)
{
	client_end(client);
	fence_leave(client);
	secret_wipe(client->secret.bytes, SECRET_BYTES);
	stream_close(&client->stream);
	message_reader_reset(&client->reader);
	message_writer_reset(&client->writer);
	json_decref(client->welcome.transports);
	free(client->slots);
	pthread_cond_destroy(&client->answered);
	transports_leave(&client->peer);
	pthread_mutex_destroy(&client->lock);
	free(client);
}

/* Under lock. */
static struct client *find(const struct client_pool *pool, const struct endpoint *endpoint)
{
	struct client *client;

	LIST_FOREACH (client, &pool->clients, link)
		if (client->state != CLIENT_DEAD && endpoint_equal(&client->endpoint, endpoint))
			return client;
	return NULL;
}

/* Under lock. @return 0 with NULL: nobody is at it, the caller makes one */
static int share(struct client_pool *pool, const struct endpoint *endpoint, uint64_t until_ns,
		 struct client **out)
{
	struct client *client;

	while ((client = find(pool, endpoint)) && client->state == CLIENT_CONNECTING)
		if (!condition_wait(&pool->connected, &pool->lock, until_ns))
			return fail(-ETIMEDOUT, "the target did not answer in time");
	if (client)
		client->references++;
	*out = client;
	return 0;
}

static int make(struct client *client, const char *segment, uint64_t until_ns)
{
	int rc = handshake_connect(client, segment, until_ns);

	if (rc == 0)
		rc = client_watch(client);
	return rc < 0 ? rc : fence_join(client, until_ns);
}

/* @p rc: how making it went */
static void announce(struct client *client, int rc)
{
	struct client_pool *pool = client->pool;

	pthread_mutex_lock(&pool->lock);
	if (rc < 0)
		LIST_REMOVE(client, link);
	else if (client->state == CLIENT_CONNECTING) /* it may have died already */
		client->state = CLIENT_OPEN;
	pthread_cond_broadcast(&pool->connected);
	pthread_mutex_unlock(&pool->lock);
}

int client_connect(struct client_pool *pool, const struct endpoint *endpoint, const char *segment,
		   uint64_t until_ns, struct client **out)
{
	struct client *client = NULL;
	bool made = false;
	int rc;

	pthread_mutex_lock(&pool->lock);
	rc = share(pool, endpoint, until_ns, &client);
	if (rc == 0 && !client) {
		client = client_create(pool, endpoint);
		made = client;
		rc = made ? 0 : fail(-ENOMEM, "out of memory");
	}
	if (made)
		LIST_INSERT_HEAD(&pool->clients, client, link);
	pthread_mutex_unlock(&pool->lock);
	if (made) {
		rc = make(client, segment, until_ns);
		announce(client, rc);
		if (rc < 0)
			client_destroy(client);
	}
	if (rc < 0)
		return rc;
	*out = client;
	return 0;
}

void client_release(struct client *client)
{
	struct client_pool *pool;
	bool last;

	if (!client)
		return;
	pool = client->pool;
	pthread_mutex_lock(&pool->lock);
	last = --client->references == 0;
	if (last)
		LIST_REMOVE(client, link);
	pthread_mutex_unlock(&pool->lock);
	if (last)
		client_destroy(client);
}

void client_retire(struct client *client)
{
	pthread_mutex_lock(&client->pool->lock);
	client->state = CLIENT_DEAD;
	pthread_mutex_unlock(&client->pool->lock);
}

const struct client_welcome *client_welcome(const struct client *client)
{
	return &client->welcome;
}

struct transport_peer *client_peer(struct client *client)
{
	return &client->peer;
}
