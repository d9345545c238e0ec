/* SPDX-License-Identifier: Apache-2.0 */
#include "base/environment.h"

#include <errno.h>
#include <poll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

static int kernel_random(void *bytes, size_t count, bool waits)
{
	ssize_t got;

	do
		got = getrandom(bytes, count, waits ? 0 : GRND_NONBLOCK);
	while (got < 0 && errno == EINTR);
	return got == (ssize_t)count ? 0 : -EAGAIN;
}

static const struct environment kernel = {.now_ns = clock_kernel_ns, .random = kernel_random};

const struct environment *environment = &kernel;

void condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t monotonic;

	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ns)
{
	const struct timespec until = {.tv_sec = (time_t)(until_ns / NS_PER_SECOND),
				       .tv_nsec = (long)(until_ns % NS_PER_SECOND)};

	if (!environment_is_stepped())
		return pthread_cond_timedwait(condition, lock, &until) != ETIMEDOUT;
	pthread_mutex_unlock(lock);
	environment->step(until_ns);
	pthread_mutex_lock(lock);
	return clock_monotonic_ns(NULL) < until_ns;
}

void pause_us(uint32_t us)
{
	if (environment_is_stepped())
		environment->step(clock_monotonic_ns(NULL) + us * NS_PER_US);
	else
		usleep(us);
}

int wait_ready(int fd, short events, uint64_t until_ns)
{
	struct pollfd ready = {.fd = fd, .events = events};

	for (;;) {
		uint64_t now = clock_monotonic_ns(NULL);
		bool waits = now < until_ns && !environment_is_stepped();
		int rc = poll(&ready, 1, waits ? (int)((until_ns - now) / 1000000) + 1 : 0);

		if (rc > 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return -errno;
		if (rc == 0 && (waits || now >= until_ns))
			return -ETIMEDOUT;
		if (!waits)
			environment->step(until_ns);
	}
}
