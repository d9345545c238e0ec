/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Requests of one segment that its owner has received and not answered. One thread at a time takes
 * places for them (receive.c); any thread answers, and is alone with a request from when it has
 * claimed it until it closes it.
 */
#ifndef ENGINE_REQUESTS_H
#define ENGINE_REQUESTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

struct body;

#define REQUESTS_WORDS (SLU_MESSAGES_MAX / 64)

/** The low two bits of a generation. */
enum request_stage {
	REQUEST_FREE,
	REQUEST_OPEN,
	REQUEST_ANSWERING,
	REQUEST_STAGES = 4,
};

/** By its index; its private copy, if it has one, by the same. */
struct open_request {
	_Alignas(32) _Atomic uint32_t generation; /* while it is open the high half of its id */
	uint32_t lane;
	uint32_t slot;
	uint32_t area;     /* its id; 0: it came through the export's inbox */
	uint32_t place;    /* of the area */
	uint32_t body;     /* in the area, see mailbox.h */
	struct body *copy; /* of a long request; NULL: it has none */
};

struct requests {
	uint8_t (*copies)[SLU_MESSAGE_MAX];
	uint64_t free[REQUESTS_WORDS]; /* by index, a bit each */
	/* Free again, since that was looked at. */
	_Alignas(64) _Atomic uint64_t closed[REQUESTS_WORDS];
	struct open_request open[SLU_MESSAGES_MAX];
};

/** Those that were being answered at some time, by their generations. */
struct claimed_requests {
	uint32_t generations[SLU_MESSAGES_MAX]; /* 0: it was not */
};

/** Memory for them; touched as they come. @return NULL: out of memory */
struct requests *requests_create(void);

/** Accepts NULL. */
void requests_destroy(struct requests *requests);

/** Can one more be taken? Who takes. */
static inline bool requests_any_free(struct requests *requests)
{
	for (uint32_t i = 0; i < REQUESTS_WORDS; i++) {
		/* Pairs with the release in requests_close(). */
		if (atomic_load_explicit(&requests->closed[i], memory_order_relaxed))
			requests->free[i] |= atomic_exchange_explicit(&requests->closed[i], 0,
								      memory_order_acquire);
		if (requests->free[i])
			return true;
	}
	return false;
}

/** The lowest index, whose copy is the likeliest to be in a cache; there is one. Who takes. */
static inline uint32_t requests_take(struct requests *requests)
{
	uint32_t word = 0, bit;

	while (!requests->free[word])
		word++;
	bit = (uint32_t)__builtin_ctzll(requests->free[word]);
	requests->free[word] &= requests->free[word] - 1;
	return 64 * word + bit;
}

/** It was taken for nothing. */
static inline void requests_untake(struct requests *requests, uint32_t index)
{
	requests->free[index / 64] |= UINT64_C(1) << index % 64;
}

/** What was taken is filled. @return its id */
static inline uint64_t requests_open(struct requests *requests, uint32_t index)
{
	struct open_request *request = &requests->open[index];
	uint32_t generation =
		atomic_load_explicit(&request->generation, memory_order_relaxed) + REQUEST_OPEN;

	/* Pairs with the acquire in requests_claim(). */
	atomic_store_explicit(&request->generation, generation, memory_order_release);
	return (uint64_t)generation << 32 | index;
}

/** Any thread, one of those that try. @return NULL: it is not open, or not any more */
static inline struct open_request *requests_claim(struct requests *requests, uint64_t id)
{
	uint32_t index = (uint32_t)id, generation = id >> 32;

	if (index >= SLU_MESSAGES_MAX || generation % REQUEST_STAGES != REQUEST_OPEN)
		return NULL;
	return atomic_compare_exchange_strong_explicit(
		       &requests->open[index].generation, &generation,
		       generation + REQUEST_ANSWERING - REQUEST_OPEN, memory_order_acquire,
		       memory_order_relaxed)
		       ? &requests->open[index]
		       : NULL;
}

/** By whom it was claimed. */
static inline void requests_close(struct requests *requests, struct open_request *request)
{
	uint32_t index = (uint32_t)(request - requests->open);
	uint32_t generation = atomic_load_explicit(&request->generation, memory_order_relaxed);

	/* Pairs with the acquire in requests_are_answering(): it has let go of its area. */
	atomic_store_explicit(&request->generation, generation + REQUEST_STAGES - REQUEST_ANSWERING,
			      memory_order_release);
	atomic_fetch_or_explicit(&requests->closed[index / 64], UINT64_C(1) << index % 64,
				 memory_order_release);
}

/** Any thread: which are being answered now? */
void requests_note_answering(const struct requests *requests, struct claimed_requests *claimed);

/** Any thread: is one of those still at it? */
bool requests_are_answering(const struct requests *requests,
			    const struct claimed_requests *claimed);

#endif
