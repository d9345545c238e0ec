/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/requests.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "message/body.h"

#define COPIES_BYTES ((size_t)SLU_MESSAGES_MAX * SLU_MESSAGE_MAX)

static_assert(SLU_MESSAGES_MAX % 64 == 0, "REQUESTS_WORDS");

struct requests *requests_create(void)
{
	struct requests *requests = aligned_alloc(64, sizeof(*requests));
	void *copies;

	if (!requests)
		return NULL;
	copies = mmap(NULL, COPIES_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (copies == MAP_FAILED) {
		free(requests);
		return NULL;
	}
	memset(requests, 0, sizeof(*requests));
	memset(requests->free, 0xff, sizeof(requests->free));
	requests->copies = copies;
	return requests;
}

void requests_destroy(struct requests *requests)
{
	if (!requests)
		return;
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++)
		body_destroy(requests->open[i].copy);
	munmap(requests->copies, COPIES_BYTES);
	free(requests);
}

static uint32_t generation_of(const struct requests *requests, uint32_t index)
{
	return atomic_load_explicit(&requests->open[index].generation, memory_order_acquire);
}

void requests_note_answering(const struct requests *requests, struct claimed_requests *claimed)
{
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++) {
		uint32_t generation = generation_of(requests, i);

		claimed->generations[i] =
			generation % REQUEST_STAGES == REQUEST_ANSWERING ? generation : 0;
	}
}

bool requests_are_answering(const struct requests *requests, const struct claimed_requests *claimed)
{
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++)
		if (claimed->generations[i] &&
		    claimed->generations[i] == generation_of(requests, i))
			return true;
	return false;
}
