/* SPDX-License-Identifier: Apache-2.0 */
#include "base/barrier.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/tap.h"

#define ROUNDS 20000u

/* On a busy machine a round takes as long as the scheduler wants: after so long fewer will do. */
#define LONG_ENOUGH_NS (2 * NS_PER_SECOND)

/* Both threads meet at the start of each round: light stores its flag and reads the heavy one's. */
static struct {
	_Alignas(64) _Atomic unsigned light_flag;
	_Alignas(64) _Atomic unsigned heavy_flag;
	_Alignas(64) _Atomic unsigned light_at;
	_Alignas(64) _Atomic unsigned heavy_at;
	_Atomic unsigned end; /* the first round that is not played */
	unsigned light_saw[ROUNDS];
} shared;

static void meet(_Atomic unsigned *mine, _Atomic unsigned *theirs, unsigned round)
{
	atomic_store(mine, round);
	for (unsigned spins = 0; atomic_load(theirs) < round; spins++)
		if (spins > 1000)
			sched_yield();
}

/* The heavy side decides, before it comes to a round. */
static bool goes_on(_Atomic unsigned *end, _Atomic unsigned *heavy_at, unsigned round,
		    uint64_t until_ns)
{
	if (round < ROUNDS && clock_monotonic_ns(NULL) < until_ns)
		return true;
	atomic_store(end, round);
	atomic_store(heavy_at, ROUNDS);
	tap_comment("%u rounds", round - 1);
	return false;
}

static void *light_side(void *arg)
{
	(void)arg;
	for (unsigned round = 1;; round++) {
		meet(&shared.light_at, &shared.heavy_at, round);
		if (round >= atomic_load(&shared.end))
			return NULL;
		atomic_store_explicit(&shared.light_flag, round, memory_order_relaxed);
		barrier_light();
		shared.light_saw[round] =
			atomic_load_explicit(&shared.heavy_flag, memory_order_relaxed);
	}
}

static unsigned heavy_side(unsigned round)
{
	meet(&shared.heavy_at, &shared.light_at, round);
	atomic_store_explicit(&shared.heavy_flag, round, memory_order_relaxed);
	barrier_heavy();
	return atomic_load_explicit(&shared.light_flag, memory_order_relaxed);
}

static unsigned missed_rounds(void)
{
	uint64_t until_ns = clock_monotonic_ns(NULL) + LONG_ENOUGH_NS;
	static unsigned heavy_saw[ROUNDS];
	unsigned missed = 0;
	pthread_t thread;

	shared.light_flag = shared.heavy_flag = shared.light_at = shared.heavy_at = 0;
	shared.end = ROUNDS;
	assert_int_equal(pthread_create(&thread, NULL, light_side, NULL), 0);
	for (unsigned round = 1; goes_on(&shared.end, &shared.heavy_at, round, until_ns); round++)
		heavy_saw[round] = heavy_side(round);
	pthread_join(thread, NULL);
	for (unsigned round = 1; round < shared.end; round++)
		missed += heavy_saw[round] < round && shared.light_saw[round] < round;
	return missed;
}

/* Goal: of two threads that store and then look, at least one sees the other: asymmetric. */
static void test_asymmetric(void **state)
{
	(void)state;
	barrier_init();
	if (!barrier_is_asymmetric)
		skip_because("the kernel refuses membarrier");
	assert_int_equal(missed_rounds(), 0);
}

/* Goal: the same with full fences at both ends, where membarrier is refused. */
static void test_full_fences(void **state)
{
	(void)state;
	barrier_is_asymmetric = false;
	assert_int_equal(missed_rounds(), 0);
}

/* ---- between processes ---- */

struct across {
	_Alignas(64) _Atomic unsigned light_flag;
	_Alignas(64) _Atomic unsigned heavy_flag;
	_Alignas(64) _Atomic unsigned light_at;
	_Alignas(64) _Atomic unsigned heavy_at;
	_Atomic unsigned end;
	unsigned light_saw[ROUNDS];
};

static void run_light_process(struct across *across, bool fence)
{
	for (unsigned round = 1;; round++) {
		meet(&across->light_at, &across->heavy_at, round);
		if (round >= atomic_load(&across->end))
			_exit(0);
		atomic_store_explicit(&across->light_flag, round, memory_order_relaxed);
		barrier_light_shared(fence);
		across->light_saw[round] =
			atomic_load_explicit(&across->heavy_flag, memory_order_relaxed);
	}
}

static void no_round_missed_across(bool fence)
{
	struct across *across = mmap(NULL, sizeof(*across), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t until_ns = clock_monotonic_ns(NULL) + LONG_ENOUGH_NS;
	static unsigned heavy_saw[ROUNDS];
	unsigned missed = 0;
	pid_t pid;

	assert_ptr_not_equal(across, MAP_FAILED);
	across->end = ROUNDS;
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		barrier_init();
		run_light_process(across, fence);
	}
	for (unsigned round = 1; goes_on(&across->end, &across->heavy_at, round, until_ns);
	     round++) {
		meet(&across->heavy_at, &across->light_at, round);
		atomic_store_explicit(&across->heavy_flag, round, memory_order_relaxed);
		assert_int_equal(barrier_heavy_shared(), 0);
		heavy_saw[round] = atomic_load_explicit(&across->light_flag, memory_order_relaxed);
	}
	waitpid(pid, NULL, 0);
	for (unsigned round = 1; round < across->end; round++)
		missed += heavy_saw[round] < round && across->light_saw[round] < round;
	munmap(across, sizeof(*across));
	assert_int_equal(missed, 0);
}

/* Goal: the same between two processes, where one is registered and the other can reach it. */
static void test_across_processes(void **state)
{
	(void)state;
	barrier_init();
	if (!barrier_reaches_us || !barrier_reaches_others)
		skip_because("the kernel refuses membarrier between processes");
	no_round_missed_across(false);
}

/* Goal: and with fences at both ends, where that is refused. */
static void test_fences_across_processes(void **state)
{
	(void)state;
	barrier_reaches_others = false;
	no_round_missed_across(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_asymmetric),
		cmocka_unit_test(test_full_fences),
		cmocka_unit_test(test_across_processes),
		cmocka_unit_test(test_fences_across_processes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
