/* SPDX-License-Identifier: Apache-2.0 */
/* The pinned thread around poller_run_once(): calls from other threads, idling, sleeping, waking.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_pause.h>
#include <rte_ring.h>

#include "base/barrier.h"
#include "base/environment.h"
#include "base/log.h"
#include "base/thread.h"
#include "numa/placement.h"
#include "poller/poller.h"
#include "transport/buffers.h"

/* An adaptive poller spins so long after its last work; a sleep and a wake-up cost about as much.
 */
#define SPIN_NS (50 * NS_PER_US)

/* Idle turns between two looks at the clock. */
#define SPIN_TURNS 32u

/* Between two looks at what somebody holds up: the longer he does, the less often. */
#define PAUSE_MIN_NS (50 * NS_PER_US)
#define PAUSE_MAX_NS (12800 * NS_PER_US)

static void answer_call(struct poller *poller)
{
	poller_fn fn = atomic_load_explicit(&poller->call, memory_order_acquire);

	if (__builtin_expect(!fn, 1))
		return;
	fn(poller, poller->call_arg);
	pthread_mutex_lock(&poller->call_lock);
	atomic_store_explicit(&poller->call, NULL, memory_order_relaxed);
	pthread_cond_signal(&poller->called);
	pthread_mutex_unlock(&poller->call_lock);
}

void poller_call(struct poller *poller, poller_fn fn, void *arg)
{
	if (!poller->is_thread) {
		fn(poller, arg);
		return;
	}
	pthread_mutex_lock(&poller->call_turn);
	pthread_mutex_lock(&poller->call_lock);
	poller->call_arg = arg;
	atomic_store_explicit(&poller->call, fn, memory_order_release);
	eventfd_write(poller->eventfd, 1);
	while (atomic_load_explicit(&poller->call, memory_order_relaxed))
		pthread_cond_wait(&poller->called, &poller->call_lock);
	pthread_mutex_unlock(&poller->call_lock);
	pthread_mutex_unlock(&poller->call_turn);
}

void poller_wake(struct poller *poller)
{
	eventfd_write(poller->eventfd, 1);
}

/* Work that no descriptor tells of. */
static bool has_work(const struct poller *poller)
{
	struct transport_service *service;

	LIST_FOREACH (service, &poller->services, link)
		if (service->pending(service))
			return true;
	for (uint32_t i = 0; i < poller->queue_count; i++)
		if (!rte_ring_empty(poller->queues[i]->submissions))
			return true;
	return false;
}

/* For how long may it sleep? */
static uint64_t next_pause(struct poller *poller)
{
	uint64_t pause_ns = poller->pause_ns;
	struct transport_service *service;

	LIST_FOREACH (service, &poller->services, link)
		if (service->held_up && service->held_up(service)) {
			if (pause_ns < PAUSE_MAX_NS)
				poller->pause_ns *= 2;
			return pause_ns;
		}
	return UINT64_MAX;
}

/*
 * Sleep until somebody submits or calls. The heavy barrier pairs with the light one in
 * slu_submit(): either we see its operations or it sees us sleeping.
 */
static void sleep_until_woken(struct poller *poller)
{
	eventfd_t count;

	atomic_store_explicit(&poller->sleeping, true, memory_order_relaxed);
	barrier_heavy();
	if (!has_work(poller) && !atomic_load(&poller->call) && !atomic_load(&poller->stopping) &&
	    poller_sleep(poller, poller->eventfd, next_pause(poller)))
		eventfd_read(poller->eventfd, &count);
	atomic_store_explicit(&poller->sleeping, false, memory_order_relaxed);
}

static void run_adaptive(struct poller *poller)
{
	uint64_t idle_since = 0;
	uint32_t idle_turns = 0;

	poller->pause_ns = PAUSE_MIN_NS;
	while (!atomic_load_explicit(&poller->stopping, memory_order_relaxed)) {
		answer_call(poller);
		if (poller_run_once(poller) > 0) {
			idle_turns = 0;
			poller->pause_ns = PAUSE_MIN_NS;
			continue;
		}
		rte_pause();
		if (++idle_turns % SPIN_TURNS)
			continue;
		if (idle_turns == SPIN_TURNS)
			idle_since = clock_monotonic_ns(NULL);
		else if (clock_monotonic_ns(NULL) - idle_since >= SPIN_NS) {
			sleep_until_woken(poller);
			idle_turns = 0;
		}
	}
}

static void run_busy(struct poller *poller)
{
	while (!atomic_load_explicit(&poller->stopping, memory_order_relaxed)) {
		answer_call(poller);
		poller_run_once(poller);
	}
}

static void *poller_main(void *arg)
{
	struct poller *poller = arg;

	if (poller->mode == SLU_POLL_BUSY)
		run_busy(poller);
	else
		run_adaptive(poller);
	answer_call(poller);
	return NULL;
}

static int pin(struct poller *poller)
{
	cpu_set_t core;
	int error;

	CPU_ZERO(&core);
	CPU_SET(poller->core, &core);
	error = pthread_setaffinity_np(poller->thread, sizeof(core), &core);
	return error ? fail(-error,
			    "cannot pin a poller to core %d: %s (is it in this process's "
			    "CPU set?)",
			    poller->core, strerror(error))
		     : 0;
}

int poller_thread_start(struct poller *poller, int core, int node, enum slu_poll_mode mode)
{
	char name[16];
	int rc;

	poller->core = core;
	poller->node = poller->env.node = poller->env.buffers->node = node;
	poller->mode = mode;
	if (environment_is_stepped())
		return 0; /* whoever steps runs its turns */
	poller->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (poller->eventfd < 0)
		return fail(-errno, "eventfd: %s", strerror(errno));
	pthread_mutex_init(&poller->call_turn, NULL);
	pthread_mutex_init(&poller->call_lock, NULL);
	pthread_cond_init(&poller->called, NULL);
	snprintf(name, sizeof(name), "slu-poll-%u", poller->index);
	rc = thread_start(&poller->thread, name, poller_main, poller);
	if (rc < 0) {
		close(poller->eventfd);
		poller->eventfd = -1;
		return rc;
	}
	poller->is_thread = true;
	rc = pin(poller);
	if (rc < 0)
		poller_thread_stop(poller);
	return rc;
}

void poller_thread_stop(struct poller *poller)
{
	if (!poller || !poller->is_thread)
		return;
	atomic_store(&poller->stopping, true);
	poller_wake(poller);
	pthread_join(poller->thread, NULL);
	poller->is_thread = false;
	close(poller->eventfd);
	poller->eventfd = -1;
	pthread_cond_destroy(&poller->called);
	pthread_mutex_destroy(&poller->call_lock);
	pthread_mutex_destroy(&poller->call_turn);
}
