/* SPDX-License-Identifier: Apache-2.0 */
#include "message/wake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/log.h"

#define EVENTFD UINT64_MAX /* among the numbers */

struct wake_set {
	int epoll_fd;
	int eventfd;
};

static int watch(const struct wake_set *set, int fd, uint32_t events, uint64_t number)
{
	struct epoll_event event = {.events = events, .data.u64 = number};

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
		rc = watch(set, set->eventfd, EPOLLIN, EVENTFD);
	if (rc < 0) {
		wake_set_destroy(set);
		return rc;
	}
	*out = set;
	return 0;
}

void wake_set_destroy(struct wake_set *set)
{
	if (!set)
		return;
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

/* Edges, since nothing is ever read that would end a level. */
int wake_set_add(struct wake_set *set, uint32_t number)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int rc;

	if (fd < 0)
		return fail(-errno, "timerfd: %s", strerror(errno));
	rc = watch(set, fd, EPOLLIN | EPOLLET, number);
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/* The client has the timer still: closing our descriptor would leave it in the set. */
void wake_set_remove(struct wake_set *set, int fd)
{
	epoll_ctl(set->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	close(fd);
}

void wake_set_clear(struct wake_set *set)
{
	eventfd_t ignored;

	eventfd_read(set->eventfd, &ignored);
}

uint32_t wake_set_take(struct wake_set *set, uint32_t numbers[WAKE_TAKEN])
{
	struct epoll_event events[WAKE_TAKEN];
	int n = epoll_wait(set->epoll_fd, events, WAKE_TAKEN, 0);
	uint32_t taken = 0;

	for (int i = 0; i < n; i++)
		if (events[i].data.u64 != EVENTFD)
			numbers[taken++] = (uint32_t)events[i].data.u64;
	return taken;
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
