/* SPDX-License-Identifier: Apache-2.0 */
#include "common/interrupt.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

static atomic_bool pending;
static atomic_bool reload;
static int wakeup = -1; /* readable once a signal has come; only SIGHUP is read away */

static void on_signal(int number)
{
	uint64_t one = 1;
	int saved = errno;

	atomic_store(number == SIGHUP ? &reload : &pending, true);
	(void)!write(wakeup, &one, sizeof(one));
	errno = saved;
}

int interrupt_init(void)
{
	/* SA_RESETHAND: the second signal finds the default action, which ends the process. */
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND | SA_RESTART};

	wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (wakeup < 0)
		return fail(-errno, "no eventfd: raise the limit of open files with ulimit -n");
	sigemptyset(&action.sa_mask);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return 0;
}

void interrupt_catch_reload(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	sigemptyset(&action.sa_mask);
	sigaction(SIGHUP, &action, NULL);
}

bool interrupt_take_reload(void)
{
	uint64_t count;

	/* Before the flag: a signal in between leaves the flag, which the next wait looks at first.
	 */
	(void)!read(wakeup, &count, sizeof(count));
	return atomic_exchange(&reload, false);
}

bool interrupt_pending(void)
{
	return atomic_load_explicit(&pending, memory_order_relaxed);
}

bool interrupt_wait(uint64_t timeout_ns)
{
	struct pollfd fd = {.fd = wakeup, .events = POLLIN};
	struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / NS_PER_SECOND),
				   .tv_nsec = (long)(timeout_ns % NS_PER_SECOND)};

	while (!interrupt_pending() && !atomic_load(&reload)) {
		int ready = ppoll(&fd, 1, timeout_ns == INTERRUPT_FOREVER ? NULL : &timeout, NULL);

		if (ready == 0 || (ready < 0 && errno != EINTR))
			break;
	}
	return interrupt_pending();
}
