/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/serving.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>

#include "base/log.h"

#define COOKIES (2 * SERVED_MAX) /* a free one is soon found */

int serving_init(struct serving *serving, uint32_t lane, struct buffers *buffers)
{
	serving->lane = lane;
	serving->buffers = buffers;
	serving->by_cookie = calloc(COOKIES, sizeof(serving->by_cookie[0]));
	serving->lanes = calloc(SLU_SEGMENTS_MAX, sizeof(serving->lanes[0]));
	return serving->by_cookie && serving->lanes ? 0 : fail(-ENOMEM, "out of memory");
}

void serving_fini(struct serving *serving)
{
	free(serving->by_cookie);
	free(serving->lanes);
}

/* ---- whom it serves ---- */

int serving_add(struct serving *serving, struct served *served)
{
	if (serving->count == SERVED_MAX)
		return -ENOSPC;
	while (serving->by_cookie[serving->next_cookie % COOKIES])
		serving->next_cookie++;
	served->cookie = serving->next_cookie++;
	serving->by_cookie[served->cookie % COOKIES] = served;
	serving->count++;
	return 0;
}

void serving_remove(struct serving *serving, const struct served *served, uint32_t kept)
{
	if (served->calls > 1)
		buffers_release(serving->buffers, served->calls - 1 - kept);
	serving->by_cookie[served->cookie % COOKIES] = NULL;
	serving->count--;
}

struct served *serving_find(const struct serving *serving, uint32_t cookie)
{
	struct served *served = serving->by_cookie[cookie % COOKIES];

	return served && served->cookie == cookie ? served : NULL;
}

/* ---- calls ---- */

static struct open_lane *find_lane(struct serving *serving, struct inbox_lane *lane)
{
	uint32_t i = 0;

	while (i < serving->lanes_count && serving->lanes[i].lane != lane)
		i++;
	if (i == SLU_SEGMENTS_MAX)
		return NULL;
	if (i == serving->lanes_count)
		serving->lanes[serving->lanes_count++] = (struct open_lane){.lane = lane};
	return &serving->lanes[i];
}

/* @return NULL: it may not leave a call */
static struct open_lane *may_call(struct serving *serving, const struct served *served,
				  struct inbox_lane *lane)
{
	if (serving_may_call(serving, served))
		return find_lane(serving, lane);
	counter_add(&serving->buffers->refused, 1);
	return NULL;
}

static void has_called(struct serving *serving, struct served *served, struct open_lane *open)
{
	if (served->calls++ > 0)
		buffers_promise(serving->buffers);
	open->calls++;
}

static uint64_t cookie_of(const struct served *served, uint32_t slot)
{
	return (uint64_t)served->cookie << 32 | slot;
}

bool serving_call(struct serving *serving, struct served *served, struct inbox_lane *lane,
		  struct sender *sender, uint32_t slot, const void *message, uint32_t length)
{
	struct open_lane *open = may_call(serving, served, lane);

	if (!open || !inbox_call(lane, sender, cookie_of(served, slot), message, length))
		return false;
	has_called(serving, served, open);
	return true;
}

bool serving_call_long(struct serving *serving, struct served *served, struct inbox_lane *lane,
		       struct sender *sender, uint32_t slot, struct body *body, uint32_t length)
{
	struct open_lane *open = may_call(serving, served, lane);

	if (!open || !inbox_call_long(lane, sender, cookie_of(served, slot), body, length))
		return false;
	has_called(serving, served, open);
	return true;
}

/* @return false: not now */
static bool pass_on(const struct serving *serving, const struct inbox_answer *answer,
		    serving_send send)
{
	struct served *served = serving_find(serving, (uint32_t)(answer->cookie >> 32));

	return !served || send(served, (uint32_t)answer->cookie, answer);
}

uint32_t serving_answer(struct serving *serving, serving_send send)
{
	struct inbox_answer answer;
	uint32_t work = 0;

	for (uint32_t i = 0; i < serving->lanes_count;) {
		struct open_lane *open = &serving->lanes[i];

		while (open->calls > 0 && inbox_answer(open->lane, &answer) &&
		       pass_on(serving, &answer, send)) {
			inbox_answer_done(open->lane);
			open->calls--;
			work++;
		}
		if (open->calls > 0)
			i++;
		else
			*open = serving->lanes[--serving->lanes_count];
	}
	return work;
}

bool serving_has_answers(const struct serving *serving)
{
	for (uint32_t i = 0; i < serving->lanes_count; i++)
		if (inbox_answers_pending(serving->lanes[i].lane))
			return true;
	return false;
}

/* Their answers will not be sent. */
static void forget_calls(struct serving *serving, const struct inbox_lane *lane)
{
	uint64_t cookies[INBOX_CALLS];
	uint32_t n = inbox_open_calls(lane, cookies);

	for (uint32_t i = 0; i < n; i++) {
		struct served *served = serving_find(serving, (uint32_t)(cookies[i] >> 32));

		if (served)
			serving_answered(serving, served);
	}
}

void serving_forget(struct serving *serving, const struct inbox_lane *lane)
{
	for (uint32_t i = 0; i < serving->lanes_count; i++)
		if (serving->lanes[i].lane == lane) {
			forget_calls(serving, lane);
			serving->lanes[i--] = serving->lanes[--serving->lanes_count];
		}
}

/* ---- owners ---- */

uint32_t poller_set_take(struct poller_set *set)
{
	for (uint32_t i = 0; i < SLU_POLLERS_MAX / 64; i++)
		if (set->bits[i]) {
			uint32_t bit = (uint32_t)__builtin_ctzll(set->bits[i]);

			set->bits[i] &= set->bits[i] - 1;
			return 64 * i + bit;
		}
	return SLU_POLLERS_MAX;
}

static int compare(const void *a, const void *b)
{
	uint64_t one = ((const struct served_owner *)a)->connection;
	uint64_t other = ((const struct served_owner *)b)->connection;

	return one < other ? -1 : one > other;
}

struct served_owner *owners_find(void *const *owners, uint64_t connection)
{
	const struct served_owner key = {.connection = connection};
	struct served_owner **at = tfind(&key, owners, compare);

	return at ? *at : NULL;
}

/* What a node begins with is a pointer to what was entered: tsearch(3). */
struct served_owner *owners_any(void *owners)
{
	return owners ? *(struct served_owner **)owners : NULL;
}

struct served_owner *owners_add(void **owners, struct served_owner *owner)
{
	if (tsearch(owner, owners, compare))
		return owner;
	free(owner);
	return NULL;
}

void owners_remove(void **owners, struct served_owner *owner)
{
	tdelete(owner, owners, compare);
	free(owner);
}
