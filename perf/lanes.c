/* SPDX-License-Identifier: Apache-2.0 */
#include "lanes.h"

#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"

#define WARM_UP_NS (2 * NS_PER_SECOND / 1000)

/* What the lanes of one slice share: they start together and stop when told to. */
struct slice {
	pthread_barrier_t start;
	atomic_bool stop;
};

struct runner {
	const struct lane *lane;
	struct slice *slice;
	uint64_t start_ns, end_ns;
	uint64_t units;
};

static void *runner_run(void *arg)
{
	struct runner *runner = arg;
	const struct lane *lane = runner->lane;
	uint64_t begin_ns = clock_kernel_ns();
	uint64_t units = 0;

	while (clock_kernel_ns() - begin_ns < WARM_UP_NS)
		lane->step(lane->arg);
	pthread_barrier_wait(&runner->slice->start);
	runner->start_ns = clock_kernel_ns();
	while (!atomic_load_explicit(&runner->slice->stop, memory_order_relaxed))
		units += lane->step(lane->arg);
	runner->end_ns = clock_kernel_ns();
	runner->units = units;
	if (lane->finish)
		lane->finish(lane->arg);
	return NULL;
}

/*
 * The window spans from the first start to the last end: with more lanes than cores some are
 * waiting for a core at either end, but a core never is without a lane.
 */
static double rate_of(const struct runner *runners, unsigned count)
{
	uint64_t start_ns = UINT64_MAX, end_ns = 0, units = 0;

	for (unsigned i = 0; i < count; i++) {
		if (runners[i].start_ns < start_ns)
			start_ns = runners[i].start_ns;
		if (runners[i].end_ns > end_ns)
			end_ns = runners[i].end_ns;
		units += runners[i].units;
	}
	return (double)units * (double)NS_PER_SECOND / (double)(end_ns - start_ns);
}

double lanes_rate(const struct bench *bench, const struct lane *lanes, unsigned count)
{
	struct timespec length = {.tv_sec = (time_t)(bench->slice_ns / NS_PER_SECOND),
				  .tv_nsec = (long)(bench->slice_ns % NS_PER_SECOND)};
	struct runner runners[LANES_MAX] = {0};
	pthread_t threads[LANES_MAX];
	struct slice slice = {.stop = false};

	pthread_barrier_init(&slice.start, NULL, count + 1);
	for (unsigned i = 0; i < count; i++) {
		runners[i] = (struct runner){.lane = &lanes[i], .slice = &slice};
		threads[i] = core_thread_start(bench, lanes[i].core, runner_run, &runners[i]);
	}
	pthread_barrier_wait(&slice.start);
	nanosleep(&length, NULL);
	atomic_store_explicit(&slice.stop, true, memory_order_relaxed);
	for (unsigned i = 0; i < count; i++)
		core_thread_join(threads[i]);
	pthread_barrier_destroy(&slice.start);
	return rate_of(runners, count);
}
