/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Out of descriptors. The kernel gives the lowest number that is free, so a number near the limit
 * says that nearly all are taken: the last ones are a reserve. In its upper half nobody stays; in
 * the lower one strangers do, so that whoever proves himself gets that far. He then stays, and
 * opens what takes descriptors, at the cost of the identity that has the most, if that has more.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/budget.h"
#include "base/descriptor.h"
#include "base/log.h"
#include "base/work.h"
#include "control/server_internal.h"

#define RESERVE_MIN 8
#define RESERVE_MAX 64
#define LOOKED_AT   1024u /* the newest connections, for one of that identity */

void descriptors_look(struct server *server)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > INT32_MAX)
		limit.rlim_cur = INT32_MAX;
	server->descriptor_limit = (int)limit.rlim_cur;
	server->descriptor_reserve = server->descriptor_limit / 8;
	if (server->descriptor_reserve > RESERVE_MAX)
		server->descriptor_reserve = RESERVE_MAX;
	if (server->descriptor_reserve < RESERVE_MIN)
		server->descriptor_reserve = RESERVE_MIN;
	if (server->spare_fd < 0)
		server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void warn(struct server *server, const char *what)
{
	if (server->descriptors_warned)
		return;
	server->descriptors_warned = true; /* until the next sweep */
	log_warning("%s: %d descriptors are all this process may have: raise it with ulimit -n or "
		    "LimitNOFILE=",
		    what, server->descriptor_limit);
}

/* Who has had his say goes first. */
static bool make_room(struct server *server, const struct connection *spared)
{
	struct connection *closing = TAILQ_FIRST(&server->closing);

	if (!closing)
		return strangers_make_room(server, spared);
	connection_close(closing);
	return true;
}

/* It takes the number that became free: else strangers would fill the reserve bit by bit. */
void descriptors_spare(struct server *server, struct stream *stream)
{
	int lower;

	if (stream->fd < server->descriptor_limit - server->descriptor_reserve / 2)
		return;
	warn(server, "descriptors run short, the least deserving stranger is closed");
	if (!make_room(server, NULL))
		return;
	lower = fcntl(stream->fd, F_DUPFD_CLOEXEC, 0);
	if (lower < 0)
		return;
	descriptor_close(stream->fd);
	stream->fd = descriptor_note(lower);
}

bool descriptors_free_one(struct listener *listener)
{
	struct server *server = listener->server;
	union address from;
	struct stream stream;
	int rc;

	warn(server, "no descriptor for a new client");
	if (make_room(server, NULL))
		return true;
	if (server->spare_fd < 0)
		return false;
	close(server->spare_fd);
	rc = listener_accept(listener, &stream, &from);
	if (rc == 0)
		strangers_turn_away(&stream);
	server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return rc == 0;
}

/* Its newest connection. @return false: none was found among the newest of all */
static bool drop_one_of(struct server *server, const struct budget *budget)
{
	struct connection *connection;
	char who[CONNECTION_TEXT_MAX];
	uint32_t looked = 0;

	TAILQ_FOREACH_REVERSE(connection, &server->connections, connection_list, link)
	{
		if (connection->info.budget == budget)
			break;
		if (++looked == LOOKED_AT)
			return false;
	}
	work_count(WORK_ITEMS, looked);
	if (!connection)
		return false;
	log_peer(SLU_LOG_WARNING,
		 "%s is disconnected: descriptors run short, and its identity has the most",
		 connection_describe(connection, who));
	connection_refuse(connection,
			  fail(-EMFILE,
			       "target %s is out of descriptors and this identity has the "
			       "most: raise its limit with ulimit -n",
			       server->options.name));
	connection_close(connection);
	return true;
}

/* @p fd: the highest number that is taken for it; negative: there was none */
static int stay(const struct connection *connection, int fd, struct budget *budget)
{
	struct server *server = connection->server;
	struct budget *largest = budgets_largest(server->options.budgets, budget);

	if ((fd >= 0 && fd < server->descriptor_limit - server->descriptor_reserve) ||
	    make_room(server, connection))
		return 0;
	if (budget_connections(largest) > budget_connections(budget) + 1 &&
	    drop_one_of(server, largest))
		return 0;
	return fail(-EMFILE,
		    "target %s is out of descriptors: %d is its limit, raise it with ulimit -n",
		    server->options.name, server->descriptor_limit);
}

int descriptors_stay(const struct connection *connection, struct budget *budget)
{
	return budget ? stay(connection, connection->stream.fd, budget) : 0;
}

/* What is passed, and the timer by which the owner is woken, which stays. */
int descriptors_pass(const struct connection *connection)
{
	int fd;

	if (!connection->info.is_unix || !connection->info.budget)
		return 0;
	fd = fcntl(connection->stream.fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return stay(connection, fd, connection->info.budget);
	close(fd);
	return stay(connection, fd + (int)MESSAGE_FDS_MAX, connection->info.budget);
}
