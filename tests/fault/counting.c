/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fault/counting.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "tests/tap.h"

#define THREADS_MAX    64
#define NAME_MAX_BYTES 16

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH  59
#define PR_SYS_DISPATCH_ON            1
#define SYSCALL_DISPATCH_FILTER_ALLOW 0
#define SYSCALL_DISPATCH_FILTER_BLOCK 1
#endif

/* The kernel reads selector at each system call of the thread. */
struct watched {
	volatile char selector;
	volatile bool counting;
	pid_t tid;
};

static _Thread_local struct watched self;

static struct watched *threads[THREADS_MAX];
static unsigned thread_count;
static pthread_mutex_t threads_mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *name_prefix;
static bool dispatch_works;
static unsigned long restorer; /* where signal handlers return: its system call must pass */
static struct sigaction outside;
static struct counts now;

static int (*real_mutex_lock)(pthread_mutex_t *mutex);
static int (*real_mutex_trylock)(pthread_mutex_t *mutex);
static int (*real_spin_lock)(pthread_spinlock_t *lock);
static int (*real_rwlock_rdlock)(pthread_rwlock_t *lock);
static int (*real_rwlock_wrlock)(pthread_rwlock_t *lock);
static int (*real_thread_create)(pthread_t *thread, const pthread_attr_t *attr,
				 void *(*start)(void *), void *arg);

__attribute__((constructor)) static void find_real(void)
{
	*(void **)&real_mutex_trylock = dlsym(RTLD_NEXT, "pthread_mutex_trylock");
	*(void **)&real_spin_lock = dlsym(RTLD_NEXT, "pthread_spin_lock");
	*(void **)&real_rwlock_rdlock = dlsym(RTLD_NEXT, "pthread_rwlock_rdlock");
	*(void **)&real_rwlock_wrlock = dlsym(RTLD_NEXT, "pthread_rwlock_wrlock");
	*(void **)&real_thread_create = dlsym(RTLD_NEXT, "pthread_create");
	*(void **)&real_mutex_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
}

/* ---- allocations ---- */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

#if !WITH_ADDRESS_SANITIZER && !WITH_THREAD_SANITIZER /* their malloc has to stay */

static void count_allocation(void)
{
	if (self.counting)
		atomic_fetch_add(&now.allocations, 1);
}

void *malloc(size_t size)
{
	count_allocation();
	return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	count_allocation();
	return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
	count_allocation();
	return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	count_allocation();
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	count_allocation();
	*memory = __libc_memalign(alignment, size);
	return *memory ? 0 : ENOMEM;
}

void free(void *memory)
{
	if (memory)
		count_allocation();
	__libc_free(memory);
}

#endif

/* ---- locks ---- */

/* Constructors of libraries take locks before ours finds the real functions. */
static void count_lock(void)
{
	if (!real_mutex_lock)
		find_real();
	if (self.counting)
		atomic_fetch_add(&now.locks, 1);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	count_lock();
	return real_mutex_lock(mutex);
}

int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	count_lock();
	return real_mutex_trylock(mutex);
}

int pthread_spin_lock(pthread_spinlock_t *lock)
{
	count_lock();
	return real_spin_lock(lock);
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	count_lock();
	return real_rwlock_rdlock(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	count_lock();
	return real_rwlock_wrlock(lock);
}

/* ---- system calls ---- */

static long make_system_call(const greg_t *regs)
{
	register long r10 __asm__("r10") = regs[REG_R10];
	register long r8 __asm__("r8") = regs[REG_R8];
	register long r9 __asm__("r9") = regs[REG_R9];
	long ret = regs[REG_RAX];

	__asm__ volatile("syscall"
			 : "+a"(ret)
			 : "D"(regs[REG_RDI]), "S"(regs[REG_RSI]), "d"(regs[REG_RDX]), "r"(r10),
			   "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* The dispatched call was not made: count it, make it, and let the thread see its result. */
static void on_system_call(int signal, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signal;
	(void)info;
	self.selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	if (self.counting && atomic_fetch_add(&now.system_calls, 1) == 0)
		atomic_store(&now.first_system_call, (int)regs[REG_RAX]);
	regs[REG_RAX] = make_system_call(regs);
	if (self.counting)
		self.selector = SYSCALL_DISPATCH_FILTER_BLOCK;
}

/* struct kernel_sigaction of x86-64; only the restorer matters. */
static unsigned long find_restorer(void)
{
	struct {
		void (*handler)(int signal);
		unsigned long flags;
		void (*restorer)(void);
		uint64_t mask;
	} action = {0};

	syscall(SYS_rt_sigaction, SIGSYS, NULL, &action, sizeof(action.mask));
	return (unsigned long)action.restorer;
}

/* Threads of the library take no signals; the ones watched must take this one. */
static int watch_this_thread(void)
{
	sigset_t sigsys;
	int ret = 0;

	sigemptyset(&sigsys);
	sigaddset(&sigsys, SIGSYS);
	pthread_sigmask(SIG_UNBLOCK, &sigsys, NULL);
	self.tid = (pid_t)syscall(SYS_gettid);
	self.selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	/* mov $15,%eax; syscall: the address after the call is the one compared. */
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, restorer, 16, &self.selector) <
	    0)
		ret = -errno;
	real_mutex_lock(&threads_mutex);
	if (thread_count < THREADS_MAX)
		threads[thread_count++] = &self;
	pthread_mutex_unlock(&threads_mutex);
	return ret;
}

static void forget_thread(void *thread)
{
	real_mutex_lock(&threads_mutex);
	for (unsigned i = 0; i < thread_count; i++) {
		if (threads[i] != thread)
			continue;
		threads[i] = threads[--thread_count];
		break;
	}
	pthread_mutex_unlock(&threads_mutex);
}

struct start {
	void *(*routine)(void *);
	void *arg;
};

static void *start_watched(void *arg)
{
	struct start start = *(struct start *)arg;
	void *ret;

	free(arg);
	watch_this_thread();
	pthread_cleanup_push(forget_thread, &self);
	ret = start.routine(start.arg);
	pthread_cleanup_pop(1);
	return ret;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*routine)(void *),
		   void *arg)
{
	struct start *start;
	int ret;

	if (!name_prefix)
		return real_thread_create(thread, attr, routine, arg);
	start = malloc(sizeof(*start));
	if (!start)
		return EAGAIN;
	*start = (struct start){.routine = routine, .arg = arg};
	ret = real_thread_create(thread, attr, start_watched, start);
	if (ret != 0)
		free(start);
	return ret;
}

/* cmocka sets a handler of its own around each test, so ours is set around each window. */
static void handle_system_calls(struct sigaction *before)
{
	struct sigaction action = {.sa_sigaction = on_system_call, .sa_flags = SA_SIGINFO};

	sigaction(SIGSYS, &action, before);
}

int counting_init(const char *prefix)
{
	int ret;

	handle_system_calls(&outside);
	restorer = find_restorer();
	sigaction(SIGSYS, &outside, NULL);
	ret = watch_this_thread();
	dispatch_works = ret == 0;
	name_prefix = prefix;
	return ret;
}

/* ---- windows ---- */

static bool is_named(const struct watched *thread)
{
	char path[64], name[NAME_MAX_BYTES + 1] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/comm", (int)thread->tid);
	file = fopen(path, "r");
	if (!file)
		return false;
	if (!fgets(name, sizeof(name), file))
		name[0] = '\0';
	fclose(file);
	return strncmp(name, name_prefix, strlen(name_prefix)) == 0;
}

unsigned counting_threads(void)
{
	unsigned count = 0;

	for (unsigned i = 0; i < thread_count; i++)
		count += threads[i] != &self && is_named(threads[i]);
	return count;
}

void counting_open(void)
{
	memset(&now, 0, sizeof(now));
	handle_system_calls(&outside);
	for (unsigned i = 0; i < thread_count; i++) {
		struct watched *thread = threads[i];

		if (thread == &self || !is_named(thread))
			continue;
		thread->counting = true;
		thread->selector = dispatch_works ? SYSCALL_DISPATCH_FILTER_BLOCK : 0;
	}
	self.counting = true;
	self.selector = dispatch_works ? SYSCALL_DISPATCH_FILTER_BLOCK : 0;
}

void counting_close(struct counts *counts)
{
	self.selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	self.counting = false;
	for (unsigned i = 0; i < thread_count; i++) {
		threads[i]->counting = false;
		threads[i]->selector = SYSCALL_DISPATCH_FILTER_ALLOW;
	}
	sigaction(SIGSYS, &outside, NULL);
	memcpy(counts, &now, sizeof(*counts));
}
