/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A poller's buffers for messages: what is received, and answers and calls while they wait for a
 * device or a socket. One size: what is longer goes from and to the memory of segments and regions,
 * what is much shorter is taken along inline or beside its head.
 *
 * They lie in rte_mempools over regions on the poller's node, which devices know. There are more of
 * them as peers come, up to BUFFERS_MAX, and never fewer. A buffer is
 *
 *   lent    to a link, for as long as it lasts: its receives, and one to send with. Any thread
 *           lends and takes back; what may block, memory and registration, is done then.
 *   shared  between the poller's peers, for what they have under way beyond the first. That is the
 *           poller's alone, and never blocks.
 *
 * Whoever wants a shared one has it promised first, and is promised one while he has no more of
 * them than are left: who hoards leaves half to the others. Who is refused waits, at the worst for
 * the one that is his own.
 *
 * buffers_create -> buffers_lend -> (buffers_promise -> buffers_take -> buffers_give ->
 * buffers_release) -> buffers_return -> buffers_put
 */
#ifndef TRANSPORT_BUFFERS_H
#define TRANSPORT_BUFFERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

#include "base/counter.h"
#include "memory/region.h"

/** The longest message, with the longest head that a transport puts before it. */
#define BUFFER_BYTES (SLU_MESSAGE_MAX + 24u)

#define BUFFERS_MAX    65536u /* of one poller */
#define BUFFERS_SHARED 128u   /* of them, at most */
#define BUFFERS_CACHED 64u

struct transport_env;

struct buffer {
	const struct slu_region *region; /* that it lies in */
	struct buffer *next;             /* whoever has it */
	char bytes[BUFFER_BYTES];
};

#define BUFFERS_POOLS 48u /* each a quarter of those before it */

struct buffers {
	/* The poller's. */
	uint32_t cached;
	void *cache[BUFFERS_CACHED];
	counter promised;
	counter refused; /* how often there was none to promise */

	_Atomic uint32_t room;  /* for promises; others add */
	_Atomic uint32_t count; /* of pools */
	struct {
		struct slu_region *region;
		struct slu_pool *pool;
	} pools[BUFFERS_POOLS];

	/* Of those who lend, under the lock; what is atomic is read by anyone. */
	pthread_mutex_t lock;
	const struct transport_env *env;
	int node; /* -1: any */
	_Atomic uint32_t holders;
	uint32_t spare; /* neither lent nor shared */
	_Atomic uint32_t made;
	_Atomic uint32_t lent;
	_Atomic uint32_t shared; /* what room began with */
	_Atomic uint32_t most;   /* that were lent and promised */
};

/** What a peer sends with: one of its own, and what it has of the shared ones. The poller's. */
struct sending {
	struct buffer *own; /* while nothing is out */
	uint32_t out;       /* buffers of it, all but one of them shared */
};

/** None yet. @p env  whose devices are to know them @return NULL: out of memory */
struct buffers *buffers_create(const struct transport_env *env);

/** For paths and links, which may outlive their poller; and the end of that. Any thread. Accepts
 * NULL. */
struct buffers *buffers_get(struct buffers *buffers);
void buffers_put(struct buffers *buffers);

/** How many are lent and promised. Any thread. */
uint32_t buffers_used(const struct buffers *buffers);

/* ---- any thread; blocks ---- */

/**
 * @param n       to be lent, 0: none
 * @param shared  how many more there are to be for all, up to BUFFERS_SHARED
 * @param first   out: a chain of them; left alone where there is none
 * @return        0; -ENOSPC there are BUFFERS_MAX; -ENOMEM; as transports_add()
 */
int buffers_lend(struct buffers *buffers, uint32_t n, uint32_t shared, struct buffer **first);

/**
 * Take back a chain.
 *
 * @param lent      how many of it were lent
 * @param promised  and how many are shared, of a peer that the poller has let go of
 */
void buffers_return(struct buffers *buffers, struct buffer *first, uint32_t lent,
		    uint32_t promised);

/* ---- the poller ---- */

/** May a peer have one more that has @p has of the shared ones? */
static inline bool buffers_may(const struct buffers *buffers, uint32_t has)
{
	uint32_t left = atomic_load_explicit(&buffers->room, memory_order_relaxed) -
			(uint32_t)counter_read(&buffers->promised);

	return left > 0 && has <= left;
}

/** It has. */
void buffers_promise(struct buffers *buffers);

static inline void buffers_release(struct buffers *buffers, uint32_t n)
{
	counter_add(&buffers->promised, -(uint64_t)n);
}

/** A shared one. @return NULL: none just now, although it was promised: another thread is giving
 * some back */
struct buffer *buffers_take(struct buffers *buffers);

void buffers_give(struct buffers *buffers, struct buffer *buffer);

/** Its own one, or a shared one, which was promised. @return as buffers_take() */
static inline struct buffer *sending_take(struct sending *sending, struct buffers *buffers)
{
	struct buffer *buffer = sending->out == 0 ? sending->own : buffers_take(buffers);

	sending->own = NULL;
	sending->out += buffer != NULL;
	return buffer;
}

/** The last one is its own again, whichever it was. */
static inline void sending_give(struct sending *sending, struct buffers *buffers,
				struct buffer *buffer)
{
	if (--sending->out == 0)
		sending->own = buffer;
	else
		buffers_give(buffers, buffer);
}

#endif
