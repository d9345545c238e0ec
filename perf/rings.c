/* SPDX-License-Identifier: Apache-2.0 */
#include "rings.h"

#include <stdatomic.h>
#include <stdlib.h>

#include <rte_ring.h>
#include <rte_ring_elem.h>

#include "lanes.h"
#include "samples.h"

#define RING_SIZE 1024
#define ELEMENT   UINT64_C(0xb5ad4eceda1ce2a9) /* of the round trip */

struct element {
	uint64_t words[RINGS_ELEMENT_BYTES / sizeof(uint64_t)];
};

/* A ring in our own memory: EAL, which an engine in this process may have started, is not asked. */
static struct rte_ring *ring_open(unsigned element_bytes)
{
	ssize_t size = rte_ring_get_memsize_elem(element_bytes, RING_SIZE);
	struct rte_ring *ring;

	if (size < 0)
		die("no rte_ring of %u-byte elements", element_bytes);
	ring = aligned_alloc(4096, ((size_t)size + 4095) / 4096 * 4096);
	if (!ring || rte_ring_init(ring, "perf", RING_SIZE, RING_F_SP_ENQ | RING_F_SC_DEQ) != 0)
		die("no rte_ring of %d elements", RING_SIZE);
	return ring;
}

struct source {
	struct rte_ring *ring;
	struct element burst[RINGS_BURST];
};

static uint64_t enqueue_step(void *arg)
{
	const struct source *source = arg;

	rte_ring_sp_enqueue_burst_elem(source->ring, source->burst, RINGS_ELEMENT_BYTES,
				       RINGS_BURST, NULL);
	return 0;
}

static uint64_t dequeue_step(void *arg)
{
	struct element burst[RINGS_BURST];

	return rte_ring_sc_dequeue_burst_elem(arg, burst, RINGS_ELEMENT_BYTES, RINGS_BURST, NULL);
}

double rings_rate(const struct bench *bench)
{
	struct source source = {.ring = ring_open(RINGS_ELEMENT_BYTES)};
	struct lane lanes[] = {
		{.core = bench->cores[0], .step = enqueue_step, .arg = &source},
		{.core = bench->cores[1], .step = dequeue_step, .arg = source.ring},
	};
	double rate;

	memory_fill(source.burst, sizeof(source.burst), 0);
	rate = lanes_rate(bench, lanes, 2);
	free(source.ring);
	return rate;
}

struct trip {
	struct rte_ring *there, *back;
	uint64_t slice_ns;
	atomic_bool stop;
	double p50_ns;
};

static void trip_once(void *arg)
{
	struct trip *trip = arg;
	uint64_t element = ELEMENT;

	rte_ring_sp_enqueue_bulk_elem(trip->there, &element, sizeof(element), 1, NULL);
	while (rte_ring_sc_dequeue_bulk_elem(trip->back, &element, sizeof(element), 1, NULL) == 0)
		;
}

static void *trip_run(void *arg)
{
	struct trip *trip = arg;

	trip->p50_ns = samples_p50_ns(trip->slice_ns, SAMPLES_BLOCK, trip_once, trip);
	return NULL;
}

static void *echo_run(void *arg)
{
	struct trip *trip = arg;
	uint64_t element;

	while (!atomic_load_explicit(&trip->stop, memory_order_relaxed))
		if (rte_ring_sc_dequeue_bulk_elem(trip->there, &element, sizeof(element), 1, NULL))
			rte_ring_sp_enqueue_bulk_elem(trip->back, &element, sizeof(element), 1,
						      NULL);
	return NULL;
}

double rings_round_trip_ns(const struct bench *bench)
{
	struct trip trip = {.there = ring_open(sizeof(uint64_t)),
			    .back = ring_open(sizeof(uint64_t)),
			    .slice_ns = bench->slice_ns};
	pthread_t echo = core_thread_start(bench, bench->cores[1], echo_run, &trip);

	core_thread_run(bench, bench->cores[0], trip_run, &trip);
	atomic_store_explicit(&trip.stop, true, memory_order_relaxed);
	core_thread_join(echo);
	free(trip.back);
	free(trip.there);
	return trip.p50_ns;
}
