/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <stdalign.h>
#include <stdatomic.h>

#define BURSTS 41
#define TRIPS  200
#define MOVED  1.6

/* Odd: the line is with the echo; even: with the caller. */
struct line {
	alignas(64) atomic_uint turn;
	alignas(64) double burst_ns[BURSTS];
};

static void *echo_run(void *arg)
{
	struct line *line = arg;

	for (unsigned turn = 1; turn < 2 * BURSTS * TRIPS; turn += 2) {
		/* Pairs with caller_trip(), both ways: the line is all that is exchanged. */
		while (atomic_load_explicit(&line->turn, memory_order_acquire) != turn)
			;
		atomic_store_explicit(&line->turn, turn + 1, memory_order_release);
	}
	return NULL;
}

static void caller_trip(struct line *line, unsigned turn)
{
	atomic_store_explicit(&line->turn, turn, memory_order_release);
	while (atomic_load_explicit(&line->turn, memory_order_acquire) != turn + 1)
		;
}

static void *caller_run(void *arg)
{
	struct line *line = arg;
	unsigned turn = 1;

	for (unsigned burst = 0; burst < BURSTS; burst++) {
		uint64_t start = ticks();

		for (unsigned trip = 0; trip < TRIPS; trip++, turn += 2)
			caller_trip(line, turn);
		line->burst_ns[burst] = (double)(ticks() - start) * tick_ns() / (2 * TRIPS);
	}
	return NULL;
}

double probe_core_to_core_ns(const struct bench *bench)
{
	struct line line = {0};
	pthread_t echo;

	tick_ns();
	echo = core_thread_start(bench, bench->cores[1], echo_run, &line);
	core_thread_run(bench, bench->cores[0], caller_run, &line);
	core_thread_join(echo);
	return median(line.burst_ns, BURSTS);
}

bool probe_moved(double before_ns, double after_ns)
{
	return before_ns > after_ns * MOVED || after_ns > before_ns * MOVED;
}
