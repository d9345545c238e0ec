/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table is read by the handler, which can wait for nobody: each range has a version, odd while
 * it is being changed. The range that a thread has just faulted in does not change meanwhile,
 * others may.
 */
#include "memory/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fork.h"
#include "base/log.h"
#include "memory/keep.h"

#define TOUCH_BYTES 4096u

struct guard {
	_Atomic uint32_t version;
	_Atomic bool dead;
	_Atomic uintptr_t begin;
	_Atomic uintptr_t end; /* begin: free */
	struct guard *next_free;
};

_Atomic uint32_t guard_death_count;

/* Zeroed pages until they are used. */
static struct guard ranges[GUARD_RANGES_MAX];
static _Atomic uint32_t ranges_used;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows, and of all changes */
static struct guard *free_ranges;
static bool installed;
static struct sigaction before;
static _Atomic int deaths_fd = -1; /* never read nor closed: the handler writes to it */

/* ---- the handler: async-signal-safe ---- */

/* @return the range of @p at, as it is now; NULL: none of ours */
static struct guard *find(uintptr_t at)
{
	uint32_t used = atomic_load_explicit(&ranges_used, memory_order_acquire);

	for (uint32_t i = 0; i < used; i++) {
		struct guard *guard = &ranges[i];
		uint32_t version = atomic_load_explicit(&guard->version, memory_order_acquire);
		uintptr_t begin = atomic_load_explicit(&guard->begin, memory_order_acquire);
		uintptr_t end = atomic_load_explicit(&guard->end, memory_order_acquire);

		if (version & 1 || at < begin || at >= end)
			continue;
		if (atomic_load_explicit(&guard->version, memory_order_relaxed) == version)
			return guard;
	}
	return NULL;
}

/*
 * The mark comes first: whoever then reads emptiness finds it. Two threads may do this at once,
 * and both put memory there: neither has to wait for the other.
 *
 * @return false: there is no memory to be put there
 */
static bool bury(struct guard *guard)
{
	const uint64_t one = 1;
	void *begin = (void *)atomic_load_explicit(&guard->begin, memory_order_relaxed);
	size_t length = atomic_load_explicit(&guard->end, memory_order_relaxed) - (uintptr_t)begin;
	bool known = atomic_exchange(&guard->dead, true);

	atomic_fetch_add(&guard_death_count, 1);
	/* The system call itself: libc's may be a tool's, which is not for signal handlers. */
	if (syscall(SYS_mmap, begin, length, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) < 0)
		return false;
	memory_keep(begin, length);
	if (!known && write(atomic_load(&deaths_fd), &one, sizeof(one)) < 0)
		return true; /* it is readable already */
	return true;
}

/* What would have happened without us. */
static void chain(int signal, siginfo_t *info, void *context)
{
	struct sigaction action = {.sa_handler = SIG_DFL};

	if (before.sa_handler == SIG_IGN && info->si_code <= 0)
		return;                                                     /* somebody sent it */
	if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) { /* whatever the flags */
		sigaction(signal, &action, NULL);
		if (info->si_code <= 0)
			raise(signal); /* comes when we return; a fault comes again by itself */
	} else if (before.sa_flags & SA_SIGINFO) {
		before.sa_sigaction(signal, info, context);
	} else {
		before.sa_handler(signal);
	}
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
	int saved = errno;
	struct guard *guard = info->si_code > 0 ? find((uintptr_t)info->si_addr) : NULL;

	if (!guard || !bury(guard))
		chain(signal, info, context);
	errno = saved;
}

/* ---- registering ---- */

/* The parent's ranges are not mapped here, what is put in their place is the program's own. */
static void forget_all(struct fork_hook *hook)
{
	(void)hook;
	atomic_store_explicit(&ranges_used, 0, memory_order_relaxed);
}

/* Under lock. What the handler before asked for stays in force: its mask, and whether it nests. */
static int install(void)
{
	static struct fork_hook hook = {.in_child = forget_all};
	struct sigaction action;

	if (installed)
		return 0;
	if (sigaction(SIGBUS, NULL, &before) < 0)
		return fail(-errno, "sigaction: %s", strerror(errno));
	action = before;
	action.sa_sigaction = on_sigbus;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART | (before.sa_flags & SA_NODEFER);
	if (sigaction(SIGBUS, &action, NULL) < 0)
		return fail(-errno, "sigaction: %s", strerror(errno));
	fork_watch(&hook);
	installed = true;
	return 0;
}

/* Under lock. */
static int open_fd(void)
{
	int fd = atomic_load(&deaths_fd);

	if (fd >= 0)
		return fd;
	fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (fd < 0)
		return fail(-errno, "eventfd: %s", strerror(errno));
	atomic_store(&deaths_fd, fd);
	return fd;
}

static int open_watch(int deaths)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET};
	int fd = epoll_create1(EPOLL_CLOEXEC);

	if (fd >= 0 && epoll_ctl(fd, EPOLL_CTL_ADD, deaths, &event) == 0) {
		guard_clear(fd); /* of those before */
		return fd;
	}
	deaths = fail(-errno, "epoll: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
	return deaths;
}

int guard_open(void)
{
	int fd;

	pthread_mutex_lock(&lock);
	fd = open_fd();
	pthread_mutex_unlock(&lock);
	return fd < 0 ? fd : open_watch(fd);
}

void guard_clear(int fd)
{
	struct epoll_event event;

	epoll_wait(fd, &event, 1, 0);
}

/*
 * Under lock. Whoever finds a new bound finds the odd version before it as well: each release pairs
 * with the acquire of the same word in find().
 */
static void set(struct guard *guard, uintptr_t begin, uintptr_t end)
{
	uint32_t version = atomic_load_explicit(&guard->version, memory_order_relaxed);

	atomic_store_explicit(&guard->version, version + 1, memory_order_relaxed);
	atomic_store_explicit(&guard->dead, false, memory_order_release);
	atomic_store_explicit(&guard->begin, begin, memory_order_release);
	atomic_store_explicit(&guard->end, end, memory_order_release);
	atomic_store_explicit(&guard->version, version + 2, memory_order_release);
}

/* Under lock. */
static struct guard *take(void)
{
	uint32_t used = atomic_load_explicit(&ranges_used, memory_order_relaxed);
	struct guard *guard = free_ranges;

	if (guard) {
		free_ranges = guard->next_free;
		return guard;
	}
	if (used == GUARD_RANGES_MAX)
		return NULL;
	atomic_store_explicit(&ranges_used, used + 1, memory_order_release);
	return &ranges[used];
}

int guard_add(void *addr, uint64_t length_bytes, struct guard **out)
{
	struct guard *guard = NULL;
	int rc;

	pthread_mutex_lock(&lock);
	rc = open_fd();
	if (rc >= 0)
		rc = install();
	if (rc >= 0)
		guard = take();
	if (guard)
		set(guard, (uintptr_t)addr, (uintptr_t)addr + length_bytes);
	pthread_mutex_unlock(&lock);
	if (rc < 0)
		return rc;
	if (!guard)
		return fail(-ENOSPC, "%u pieces of shared memory are mapped: close some",
			    GUARD_RANGES_MAX);
	*out = guard;
	return 0;
}

void guard_remove(struct guard *guard)
{
	if (!guard)
		return;
	pthread_mutex_lock(&lock);
	set(guard, 0, 0);
	guard->next_free = free_ranges;
	free_ranges = guard;
	pthread_mutex_unlock(&lock);
}

bool guard_is_dead(const struct guard *guard)
{
	atomic_signal_fence(memory_order_acquire);
	return guard && atomic_load_explicit(&guard->dead, memory_order_relaxed);
}

bool guard_check(const void *addr, uint64_t length_bytes)
{
	const volatile char *bytes = addr;

	for (uint64_t at = 0; at < length_bytes; at += TOUCH_BYTES)
		(void)bytes[at];
	if (length_bytes > 0)
		(void)bytes[length_bytes - 1];
	return guard_is_dead(find((uintptr_t)addr));
}
