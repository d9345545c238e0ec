/* SPDX-License-Identifier: Apache-2.0 */
#include "message/wake.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"

/* Taken in one call, and calls at most: who rings all the time is not waited for. */
#define EVENTS 64
#define ROUNDS 16

/* Of one connection. */
struct doorbell {
	uint64_t connection; /* first: the key */
	uint32_t users;
	int fd;
};

struct wake_set {
	int epoll_fd;
	int eventfd;
	void *doorbells; /* tree by connection */
};

/* Edges, since nothing is ever read that would end a level. */
static int watch(const struct wake_set *set, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};

	if (epoll_ctl(set->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return fail(-errno, "epoll_ctl: %s%s", strerror(errno),
			    errno == ENOSPC ? " (raise sysctl fs.epoll.max_user_watches)" : "");
	return 0;
}

int wake_set_create(struct wake_set **out)
{
	struct wake_set *set = malloc(sizeof(*set));
	int rc = 0;

	if (!set)
		return fail(-ENOMEM, "out of memory");
	*set = (struct wake_set){.epoll_fd = epoll_create1(EPOLL_CLOEXEC),
				 .eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (set->epoll_fd < 0 || set->eventfd < 0)
		rc = fail(-errno, "epoll or eventfd: %s", strerror(errno));
	if (rc == 0)
		rc = watch(set, set->eventfd);
	if (rc < 0) {
		wake_set_destroy(set);
		return rc;
	}
	*out = set;
	return 0;
}

static void free_doorbell(void *arg)
{
	struct doorbell *doorbell = arg;

	close(doorbell->fd);
	free(doorbell);
}

void wake_set_destroy(struct wake_set *set)
{
	if (!set)
		return;
	tdestroy(set->doorbells, free_doorbell);
	if (set->eventfd >= 0)
		close(set->eventfd);
	if (set->epoll_fd >= 0)
		close(set->epoll_fd);
	free(set);
}

int wake_set_fd(const struct wake_set *set)
{
	return set->epoll_fd;
}

int wake_set_eventfd(const struct wake_set *set)
{
	return set->eventfd;
}

static int compare(const void *a, const void *b)
{
	const struct doorbell *one = a, *other = b;

	return (one->connection > other->connection) - (one->connection < other->connection);
}

static struct doorbell *find(const struct wake_set *set, uint64_t connection)
{
	const struct doorbell wanted = {.connection = connection};
	void *at = tfind(&wanted, &set->doorbells, compare);

	return at ? *(struct doorbell **)at : NULL;
}

static int add(struct wake_set *set, uint64_t connection)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	struct doorbell *doorbell;
	int rc;

	if (fd < 0)
		return fail(-errno, "timerfd: %s", strerror(errno));
	rc = watch(set, fd);
	doorbell = rc == 0 ? malloc(sizeof(*doorbell)) : NULL;
	if (doorbell) {
		*doorbell = (struct doorbell){.connection = connection, .users = 1, .fd = fd};
		if (tsearch(doorbell, &set->doorbells, compare))
			return fd;
	}
	free(doorbell);
	close(fd);
	return rc < 0 ? rc : fail(-ENOMEM, "out of memory");
}

int wake_set_get(struct wake_set *set, uint64_t connection)
{
	struct doorbell *doorbell = find(set, connection);

	if (!doorbell)
		return add(set, connection);
	doorbell->users++;
	return doorbell->fd;
}

/* The client has the timer still: closing our descriptor would leave it in the set. */
void wake_set_put(struct wake_set *set, uint64_t connection)
{
	struct doorbell *doorbell = find(set, connection);

	if (!doorbell || --doorbell->users > 0)
		return;
	epoll_ctl(set->epoll_fd, EPOLL_CTL_DEL, doorbell->fd, NULL);
	tdelete(doorbell, &set->doorbells, compare);
	free_doorbell(doorbell);
}

void wake_set_clear(struct wake_set *set)
{
	struct epoll_event events[EVENTS];

	for (int i = 0; i < ROUNDS; i++)
		if (epoll_wait(set->epoll_fd, events, EVENTS, 0) < EVENTS)
			return;
}

int wake_check(int fd)
{
	struct itimerspec ignored;

	if (timerfd_gettime(fd, &ignored) < 0)
		return fail(-EPROTO, "the target passed something else than a timer to wake it by");
	return 0;
}

void wake_ring(int fd)
{
	const struct itimerspec at_once = {.it_value.tv_nsec = 1};

	timerfd_settime(fd, 0, &at_once, NULL);
}
