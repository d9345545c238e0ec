/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory whose pages were taken away: marked, replaced, and no business of ours elsewhere. A page
 * is taken away by truncating the file behind it, which raises the same signal as a hole that no
 * hugepage is left to fill. What ends processes is done in a child.
 */
#include "memory/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "tests/tap.h"

#define PAGES 4u
#define BYTES (PAGES * 4096u)

struct shared {
	int fd;
	volatile char *addr;
	struct guard *guard;
};

static void open_shared(struct shared *shared)
{
	shared->fd = memfd_create("test", MFD_CLOEXEC);
	assert_true(shared->fd >= 0);
	assert_int_equal(ftruncate(shared->fd, BYTES), 0);
	shared->addr = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, shared->fd, 0);
	assert_ptr_not_equal(shared->addr, MAP_FAILED);
	memset((void *)shared->addr, 0x5a, BYTES);
	assert_int_equal(guard_add((void *)shared->addr, BYTES, &shared->guard), 0);
}

static void take_pages(const struct shared *shared)
{
	assert_int_equal(ftruncate(shared->fd, 4096), 0);
}

static void close_shared(struct shared *shared)
{
	guard_remove(shared->guard);
	munmap((void *)shared->addr, BYTES);
	close(shared->fd);
}

/* cmocka puts a handler of its own in place for each test: on with ours, as it would be elsewhere.
 */
static void survive(void)
{
	static struct sigaction ours;
	struct shared any;

	if (ours.sa_sigaction) {
		sigaction(SIGBUS, &ours, NULL);
		return;
	}
	open_shared(&any);
	close_shared(&any);
	sigaction(SIGBUS, NULL, &ours);
}

/* Goal: a read of what is gone goes on, and the mark says so; other ranges are as they were. */
static void test_marks_and_goes_on(void **state)
{
	struct shared lost, kept;
	uint32_t deaths = guard_deaths();

	(void)state;
	survive();
	open_shared(&lost);
	open_shared(&kept);
	take_pages(&lost);
	assert_false(guard_is_dead(lost.guard));
	errno = 77;
	assert_int_equal(lost.addr[2 * 4096], 0);
	assert_int_equal(errno, 77);
	assert_true(guard_is_dead(lost.guard));
	assert_int_not_equal(guard_deaths(), deaths);
	lost.addr[3 * 4096] = 1; /* and so does a write */
	assert_int_equal(lost.addr[0], 0);
	assert_false(guard_is_dead(kept.guard));
	assert_int_equal(kept.addr[2 * 4096], 0x5a);
	close_shared(&kept);
	close_shared(&lost);
}

/* Goal: all who are to be told of it find their descriptors readable, once for each death. */
static void test_tells(void **state)
{
	struct pollfd ready[2] = {{.fd = guard_open(), .events = POLLIN}};
	struct shared lost;

	(void)state;
	survive();
	open_shared(&lost);
	take_pages(&lost);
	assert_int_equal(poll(ready, 1, 0), 0);
	lost.addr[4096] = 1;
	assert_int_equal(poll(ready, 1, 0), 1);
	close_shared(&lost);
	guard_clear(ready[0].fd);
	ready[1] = (struct pollfd){.fd = guard_open(), .events = POLLIN};
	assert_int_equal(poll(ready, 2, 0), 0);
	open_shared(&lost);
	take_pages(&lost);
	lost.addr[2 * 4096] = 1;
	assert_int_equal(poll(ready, 2, 0), 2);
	guard_clear(ready[0].fd);
	assert_int_equal(poll(ready, 2, 0), 1);
	guard_clear(ready[1].fd);
	assert_int_equal(poll(ready, 2, 0), 0);
	close_shared(&lost);
	close(ready[0].fd);
	close(ready[1].fd);
}

/* Goal: a place that is used again begins alive. */
static void test_place_used_again(void **state)
{
	struct shared shared;
	struct guard *first;

	(void)state;
	survive();
	open_shared(&shared);
	first = shared.guard;
	take_pages(&shared);
	(void)shared.addr[4096];
	close_shared(&shared);
	open_shared(&shared);
	assert_ptr_equal(shared.guard, first);
	assert_false(guard_is_dead(shared.guard));
	close_shared(&shared);
}

/* Goal: EFAULT of a system call is found to be of the range that it is of, and of no other. */
static void test_fault_of_a_system_call(void **state)
{
	struct shared lost, kept;
	int ends[2];

	(void)state;
	survive();
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
	open_shared(&lost);
	open_shared(&kept);
	take_pages(&lost);
	assert_int_equal(send(ends[0], (char *)lost.addr + 4096, 4096, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EFAULT);
	assert_false(guard_is_dead(lost.guard));
	assert_false(guard_check((char *)kept.addr, BYTES));
	assert_false(guard_check((char *)lost.addr, 4096));
	assert_true(guard_check((char *)lost.addr, 4097));
	assert_true(guard_is_dead(lost.guard));
	assert_false(guard_is_dead(kept.guard));
	close_shared(&kept);
	close_shared(&lost);
	close(ends[0]);
	close(ends[1]);
}

static void *touch(void *arg)
{
	struct shared *shared = arg;

	for (uint32_t i = 0; i < BYTES; i++)
		if (shared->addr[i] == 0 && !guard_is_dead(shared->guard))
			return arg; /* emptiness before the mark */
	return NULL;
}

/* Goal: the library's threads survive it as well, several at once, and none sees emptiness before
 * the mark. */
static void test_in_threads(void **state)
{
	(void)state;
	survive();
	for (int round = 0; round < 50; round++) {
		pthread_t threads[4];
		struct shared lost;

		open_shared(&lost);
		for (int i = 0; i < 4; i++)
			assert_int_equal(thread_start(&threads[i], "touch", touch, &lost), 0);
		take_pages(&lost);
		for (int i = 0; i < 4; i++) {
			void *bad;

			pthread_join(threads[i], &bad);
			assert_null(bad);
		}
		close_shared(&lost);
	}
}

/* ---- what is not ours ---- */

static sigjmp_buf back;
static void *volatile seen;
static volatile sig_atomic_t mine;

static void on_bus(int signal)
{
	(void)signal;
	mine++;
	siglongjmp(back, 1);
}

static void on_bus_info(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	mine++;
	seen = info->si_addr;
	siglongjmp(back, 1);
}

static volatile char *foreign; /* a page of the program's own, that is not there */

static bool map_foreign(void)
{
	int fd = memfd_create("foreign", MFD_CLOEXEC);

	foreign = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	return foreign != MAP_FAILED;
}

/* In a child: with @p action in force before the first range, ours and the program's own fault.
 * @return the child's status */
static int in_child(const struct sigaction *action, int (*child)(void))
{
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		if (action)
			sigaction(SIGBUS, action, NULL);
		_exit(child());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static int fault_both(void)
{
	struct shared lost;

	open_shared(&lost);
	take_pages(&lost);
	if (!map_foreign() || lost.addr[4096] != 0 || !guard_is_dead(lost.guard) || mine != 0)
		return 2;
	if (sigsetjmp(back, 1) == 0) {
		(void)*foreign;
		return 3;
	}
	if (mine != 1 || (seen && seen != foreign))
		return 4;
	return lost.addr[8192] == 0 && mine == 1 ? 0 : 5;
}

static int fault_foreign(void)
{
	struct shared kept;

	open_shared(&kept);
	if (map_foreign())
		(void)*foreign;
	return 0;
}

static int send_one(void)
{
	struct shared kept;

	open_shared(&kept);
	raise(SIGBUS);
	return 7;
}

static int replace_handler(void)
{
	const struct sigaction action = {.sa_handler = on_bus};
	struct shared lost;

	open_shared(&lost);
	sigaction(SIGBUS, &action, NULL);
	take_pages(&lost);
	if (sigsetjmp(back, 1) == 0) {
		(void)lost.addr[4096];
		return 2;
	}
	open_shared(&lost); /* does not take it back */
	take_pages(&lost);
	if (sigsetjmp(back, 1) == 0) {
		(void)lost.addr[4096];
		return 3;
	}
	return mine == 2 ? 0 : 4;
}

static bool exited(int status, int code)
{
	return WIFEXITED(status) && WEXITSTATUS(status) == code;
}

static bool killed(int status)
{
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

/* Goal: a program's own handler, of either kind, goes on to get its own faults, and only those. */
static void test_program_has_a_handler(void **state)
{
	const struct sigaction plain = {.sa_handler = on_bus};
	const struct sigaction info = {.sa_sigaction = on_bus_info, .sa_flags = SA_SIGINFO};

	(void)state;
	assert_true(exited(in_child(&plain, fault_both), 0));
	assert_true(exited(in_child(&info, fault_both), 0));
}

/* Goal: a fault that is nobody's, and a signal that was sent, end the process as ever; one that
 * was ignored stays ignored. */
static void test_program_has_none(void **state)
{
	const struct sigaction ignored = {.sa_handler = SIG_IGN};
	const struct sigaction usual = {.sa_handler = SIG_DFL};

	(void)state;
	if (WITH_ADDRESS_SANITIZER)
		skip_because("AddressSanitizer has a handler of its own");
	assert_true(killed(in_child(&usual, fault_foreign)));
	assert_true(killed(in_child(&ignored, fault_foreign)));
	assert_true(killed(in_child(&usual, send_one)));
	assert_true(exited(in_child(&ignored, send_one), 7));
}

/* Goal: a handler that the program installs later is the program's. */
static void test_program_installs_one_later(void **state)
{
	(void)state;
	assert_true(exited(in_child(NULL, replace_handler), 0));
}

int main(void)
{
	/* Those with children first: there the library must not have its handler yet. */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_program_has_a_handler),
		cmocka_unit_test(test_program_has_none),
		cmocka_unit_test(test_program_installs_one_later),
		cmocka_unit_test(test_marks_and_goes_on),
		cmocka_unit_test(test_tells),
		cmocka_unit_test(test_place_used_again),
		cmocka_unit_test(test_fault_of_a_system_call),
		cmocka_unit_test(test_in_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
