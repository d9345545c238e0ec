/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Those who have not proved who they are: whether one is let in at all, and who makes room for a
 * newcomer. Whatever comes is accepted and, when it is too much, closed at once: what stayed in the
 * kernel's backlog would keep everybody waiting, and this costs next to nothing.
 *
 * Each origin has a rate of its own, a higher one where somebody has proved himself lately; all
 * others together have one as well. Of the places, those who are known have a reserve.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "base/work.h"
#include "control/server_internal.h"

#define LAST_WORDS_SECONDS 2
#define CLOSED_IN_A_SWEEP  1024u
#define TURNED_AWAY_EVERY  10 /* seconds, then they are told of in one line */
#define RESERVE            4u /* a quarter of the places, for those who are known */

/* The oldest that are looked at for one to make room: a newcomer must not cost much. */
#define VICTIMS_LOOKED_AT 64u

/* ---- who is let in ---- */

static bool rate_allows(struct server *server, struct origin *origin, bool is_tcp, uint64_t now_ns)
{
	const struct server_limits *limits = &server->options.limits;

	if (origin_is_known(origin, now_ns) && (origin->shared || !is_tcp))
		return rate_take(&origin->connects, limits->local_accepts_per_second,
				 limits->local_accepts_burst, now_ns);
	if (origin_is_known(origin, now_ns))
		return rate_take(&origin->connects, limits->known_accepts_per_second,
				 limits->known_accepts_burst, now_ns);
	if (!is_tcp)
		return rate_take(&origin->connects, SERVER_USER_ACCEPTS_PER_SECOND,
				 SERVER_USER_ACCEPTS_BURST, now_ns);
	return rate_take(&origin->connects, limits->address_accepts_per_second,
			 limits->address_accepts_burst, now_ns) &&
	       rate_take(&server->accepts, limits->accepts_per_second, limits->accepts_burst,
			 now_ns);
}

static struct origin *find_origin(const struct listener *listener, const struct stream *stream,
				  const union address *address, uint64_t now_ns)
{
	struct origins *origins = &listener->server->origins;
	socklen_t length = sizeof(struct ucred);
	struct ucred peer;

	if (listener->is_tcp)
		return origins_of_address(origins, address, now_ns);
	if (getsockopt(stream->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return NULL;
	return origins_of_user(origins, peer.uid, now_ns);
}

struct origin *strangers_admit(const struct listener *listener, const struct stream *stream,
			       const union address *address)
{
	struct server *server = listener->server;
	uint64_t now_ns = clock_monotonic_ns(NULL);
	struct origin *origin = find_origin(listener, stream, address, now_ns);

	if (origin &&
	    !origin_fails(origin, SERVER_FAILURES_MAX, SERVER_FAILURES_SECONDS * NS_PER_SECOND,
			  now_ns) &&
	    rate_allows(server, origin, listener->is_tcp, now_ns))
		return origin;
	server->turned_away++;
	if (listener->is_tcp)
		server->turned_away_last = *address;
	return NULL;
}

void strangers_turn_away(struct stream *stream)
{
	/* By a reset: the kernel keeps nothing of it. */
	const struct linger at_once = {.l_onoff = 1};

	setsockopt(stream->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	stream_close(stream);
}

/* ---- who makes room ---- */

static bool is_protected(const struct server *server, const struct connection *connection)
{
	return connection->known &&
	       server->known_strangers <= server->options.limits.unauthenticated / RESERVE;
}

/* Who comes from where most come from, then who has said the least. */
static uint64_t rank(const struct server *server, const struct connection *connection)
{
	uint64_t silent = connection->state == CONNECTION_PEEKED ||
			  connection->state == CONNECTION_CLOSING ||
			  (connection->state == CONNECTION_NEW && connection->info.is_unix);

	if (is_protected(server, connection))
		return 0;
	return (uint64_t)connection->origin->strangers << 1 | silent;
}

bool strangers_make_room(struct server *server, const struct connection *spared)
{
	struct connection *connection, *victim = NULL;
	uint64_t highest = 0;
	uint32_t looked = 0;

	TAILQ_FOREACH (connection, &server->strangers, link) {
		uint64_t this = rank(server, connection);

		if (connection != spared && (!victim || this > highest)) {
			victim = connection;
			highest = this;
		}
		if (++looked == VICTIMS_LOOKED_AT)
			break;
	}
	work_count(WORK_ITEMS, looked);
	if (victim)
		connection_close(victim);
	return victim;
}

void strangers_add(struct connection *connection, struct origin *origin)
{
	struct server *server = connection->server;

	if (server->stranger_count >= server->options.limits.unauthenticated)
		strangers_make_room(server, NULL);
	connection->origin = origin;
	connection->known = origin_is_known(origin, clock_monotonic_ns(NULL));
	connection->since = server->seconds;
	origin->strangers++;
	server->stranger_count++;
	server->known_strangers += connection->known;
	TAILQ_INSERT_TAIL(&server->strangers, connection, link);
}

void strangers_remove(struct connection *connection)
{
	struct server *server = connection->server;

	TAILQ_REMOVE(&server->strangers, connection, link);
	connection->origin->strangers--;
	connection->origin = NULL;
	server->stranger_count--;
	server->known_strangers -= connection->known;
}

/* ---- once a second ---- */

static void sweep_strangers(struct server *server)
{
	struct connection *connection, *next;
	char who[CONNECTION_TEXT_MAX];

	for (connection = TAILQ_FIRST(&server->strangers); connection; connection = next) {
		uint64_t age = server->seconds - connection->since;

		work_count(WORK_ITEMS, 1);
		next = TAILQ_NEXT(connection, link);
		if (connection->state == CONNECTION_CLOSING) {
			if (age > LAST_WORDS_SECONDS)
				connection_close(connection);
		} else if (age > SERVER_HANDSHAKE_SECONDS) {
			fail(-ETIMEDOUT, "no handshake within %d s", SERVER_HANDSHAKE_SECONDS);
			connection_suspect(connection);
			log_debug("%s is disconnected", connection_describe(connection, who));
			connection_close(connection);
		}
	}
}

/* The oldest are first. */
static void sweep_closing(struct server *server)
{
	struct connection *connection;
	uint32_t left = CLOSED_IN_A_SWEEP;

	while (left-- > 0 && (connection = TAILQ_FIRST(&server->closing)) &&
	       server->seconds - connection->since > LAST_WORDS_SECONDS) {
		work_count(WORK_ITEMS, 1);
		connection_close(connection);
	}
}

static void tell_of_turned_away(struct server *server)
{
	char text[ADDRESS_TEXT_MAX] = "on this host";

	if (server->turned_away == 0 || ++server->turned_away_seconds < TURNED_AWAY_EVERY)
		return;
	if (server->turned_away_last.any.sa_family)
		address_format(&server->turned_away_last, text);
	log_warning("security: %u connections were closed at once: too many from one address or "
		    "user, or too many failed from there (the last address: %s)",
		    server->turned_away, text);
	server->turned_away = 0;
	server->turned_away_seconds = 0;
}

void strangers_sweep(struct server *server)
{
	sweep_strangers(server);
	sweep_closing(server);
	tell_of_turned_away(server);
}
