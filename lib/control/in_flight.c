/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Descriptors that were passed and that the client has not received. Until it does they belong to
 * our user, and of those the kernel allows only so many for all: who leaves them in his socket
 * would keep others from getting any. That nothing is unread a socket can tell; how much is, it
 * cannot. So what was passed counts until the socket was empty once, also when the connection has
 * ended meanwhile: only then does the kernel forget it. From a client with half of what its
 * identity may have nothing more is read until then.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/descriptor.h"
#include "base/log.h"
#include "base/work.h"
#include "control/server_internal.h"

#define SETTLE_RUN        256u  /* entries looked at together */
#define LOOK_AGAIN_US_MIN 1000u /* for whom somebody waits */
#define LOOK_AGAIN_US_MAX 100000u

/** What was passed over one connection. */
struct in_flight {
	struct connection *connection; /* NULL: it has ended, the socket is ours */
	int fd;
	uint32_t count;
	struct budget *budget;
	TAILQ_ENTRY(in_flight) link;
};

static void let_go(struct connection *connection)
{
	connection->held = false;
	connection->server->held_count--;
}

static void forget(struct server *server, struct in_flight *entry)
{
	struct connection *connection = entry->connection;

	TAILQ_REMOVE(&server->in_flight, entry, link);
	budget_give(entry->budget, SLU_LIMIT_DESCRIPTORS, entry->count);
	budget_put(entry->budget);
	if (!connection)
		descriptor_close(entry->fd);
	else
		connection->in_flight = NULL;
	if (connection && connection->held) {
		let_go(connection);
		connection_resume(connection);
	}
	free(entry);
}

/* What cannot be asked counts as received. */
static bool is_unread(int fd)
{
	int bytes;

	return ioctl(fd, SIOCOUTQ, &bytes) == 0 && bytes > 0;
}

/* Those that are not received go to the end: the next run sees others. @return some were */
static bool settle(struct server *server)
{
	struct in_flight *entry, *last = TAILQ_LAST(&server->in_flight, in_flight_list);
	uint32_t looked = 0;
	bool settled = false;

	while (looked < SETTLE_RUN && (entry = TAILQ_FIRST(&server->in_flight))) {
		bool ends = entry == last;

		looked++;
		if (is_unread(entry->fd)) {
			TAILQ_REMOVE(&server->in_flight, entry, link);
			TAILQ_INSERT_TAIL(&server->in_flight, entry, link);
		} else {
			settled = true;
			forget(server, entry);
		}
		if (ends)
			break;
	}
	work_count(WORK_ITEMS, looked);
	return settled;
}

/* ---- who waits until he has received ---- */

static void look_again(struct server *server)
{
	watch_start(&server->look_again, server->look_again_us);
}

bool in_flight_holds(struct connection *connection)
{
	struct in_flight *entry = connection->in_flight;
	struct server *server = connection->server;

	if (!entry || !entry->budget ||
	    entry->count + MESSAGE_FDS_MAX <=
		    budget_limit(entry->budget, SLU_LIMIT_DESCRIPTORS) / 2)
		return false;
	if (!is_unread(entry->fd)) {
		forget(server, entry);
		return false;
	}
	if (connection->held)
		return true;
	connection->held = true;
	if (server->held_count++ == 0) {
		server->look_again_us = LOOK_AGAIN_US_MIN;
		look_again(server);
	}
	return true;
}

/* The longer nobody receives, the less often. */
void in_flight_look(struct server *server)
{
	if (settle(server))
		server->look_again_us = LOOK_AGAIN_US_MIN;
	else if (server->look_again_us < LOOK_AGAIN_US_MAX)
		server->look_again_us *= 2;
	if (server->held_count > 0)
		look_again(server);
}

static struct in_flight *create(struct connection *connection)
{
	struct in_flight *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->connection = connection;
	entry->fd = connection->stream.fd;
	entry->budget = budget_get(connection->info.budget);
	TAILQ_INSERT_TAIL(&connection->server->in_flight, entry, link);
	connection->in_flight = entry;
	return entry;
}

int in_flight_expect(struct connection *connection)
{
	struct budget *budget = connection->info.budget;
	int rc = 0;

	if (!connection->info.is_unix)
		return 0;
	if (connection->in_flight && !is_unread(connection->stream.fd))
		forget(connection->server, connection->in_flight);
	if (!budget_try(budget, SLU_LIMIT_DESCRIPTORS, MESSAGE_FDS_MAX)) {
		settle(connection->server);
		rc = budget_take(budget, SLU_LIMIT_DESCRIPTORS, MESSAGE_FDS_MAX);
	}
	if (rc == 0 && !connection->in_flight && !create(connection)) {
		budget_give(budget, SLU_LIMIT_DESCRIPTORS, MESSAGE_FDS_MAX);
		rc = fail(-ENOMEM, "target is out of memory");
	}
	return rc;
}

void in_flight_passed(struct connection *connection, uint32_t count)
{
	struct in_flight *entry = connection->in_flight;

	if (!connection->info.is_unix)
		return;
	budget_give(entry->budget, SLU_LIMIT_DESCRIPTORS, MESSAGE_FDS_MAX - count);
	entry->count += count;
}

/* Where no number is left for it, it is let go. */
void in_flight_part(struct connection *connection)
{
	struct in_flight *entry = connection->in_flight;
	int fd = entry && is_unread(entry->fd) ? fcntl(entry->fd, F_DUPFD_CLOEXEC, 0) : -1;

	if (!entry)
		return;
	if (connection->held)
		let_go(connection);
	if (fd < 0) {
		forget(connection->server, entry);
		return;
	}
	shutdown(fd, SHUT_RDWR);
	entry->fd = descriptor_note(fd);
	entry->connection = NULL;
	connection->in_flight = NULL;
}

void in_flight_sweep(struct server *server)
{
	settle(server);
}

void in_flight_forget_all(struct server *server)
{
	struct in_flight *entry;

	while ((entry = TAILQ_FIRST(&server->in_flight)))
		forget(server, entry);
}
