/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The fake transport: initiator and target in one process, with seeded loss, delay, reordering and
 * death, so that everything above it can be tried in virtual time and a failing history replayed.
 *
 * Its behaviour is a text, "key=value" separated by commas:
 *   delay_us=LOW-HIGH   each operation takes so long (default 0-0); different delays reorder
 *   loss=CHANCE         an operation never finishes by itself (default 0)
 *   die_after=COUNT     the target dies after so many operations (default: never)
 *   capacity=COUNT      operations under way per path, 1..1024 (default 256)
 *
 * Calls are neither delayed nor lost: an owner that answers late or never does the same.
 */
#ifndef TRANSPORT_FAKE_H
#define TRANSPORT_FAKE_H

#include "message/client_area.h"
#include "transport/calls.h"
#include "transport/transport.h"

#define FAKE_CAPACITY_MAX 1024u
#define FAKE_SLICE_BYTES  (UINT64_C(64) << 10)

struct fake_behaviour {
	uint64_t delay_min_ns;
	uint64_t delay_max_ns;
	double loss;
	uint64_t die_after; /* UINT64_MAX: never */
	uint32_t capacity;
};

/** In place of a mapping: the segment itself. */
struct fake_view {
	char *base;
	const struct slu_region *region;
	struct client_waker waker; /* and the area */
	uint32_t session;          /* its number there */
	bool writes;               /* the right to */
};

struct fake_part {
	struct request *request;
	struct op_part part;
	uint64_t due_ns;
	bool is_vector; /* and begins there */
	struct vector_place at;
};

struct fake_path {
	struct path path;
	struct transport_link link;
	char *base;
	const struct slu_region *region;
	struct notify_sender notify; /* lane NULL without the right to write */
	const struct client_waker *waker;
	uint32_t session;
	struct calls_link calls_link;
	struct calls_path calls;
	const struct clock *clock;
	struct random random;
	struct fake_behaviour behaviour;
	uint64_t posted_total;
	uint32_t count;
	struct fake_part parts[]; /* behaviour.capacity, the first count in use */
};

extern const struct transport_fast fake_fast;
extern const struct link_ops fake_link_ops;

/** @return 0; -EINVAL, slu_last_error() quotes what is wrong */
int fake_parse(const char *text, struct fake_behaviour *behaviour);

#endif
