/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which areas a segment's owner polls. The others are cold: armed, so that their clients ring when
 * they store something, and the kernel's list of who has rung, which no client can write, says of
 * whom something came. So an idle client costs a poll nothing, and one that is busy rings once.
 *
 * While there are few, none is cold.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include "base/barrier.h"
#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"

#define HOT_BYTES (sizeof(struct hot_area) * PLACE_SET_MAX)

/*
 * Who has rung is asked when so much of the time stamp counter has passed, 10 to 60 us; the counter
 * is read at so many polls, or at each where these are far apart.
 */
#define LOOK_CYCLES (UINT64_C(1) << 16)
#define LOOK_POLLS  16u

/* Every so many looks those of whom nothing came since become cold: the barrier is dear. */
#define COOL_LOOKS 64u

/* At most, when all that have rung are wanted: who rings all the time is not waited for. */
#define ROUNDS 16

int hot_init(struct hot_areas *hot)
{
	void *addr = mmap(NULL, HOT_BYTES, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (addr == MAP_FAILED)
		return fail(-ENOMEM, "out of memory");
	hot->areas = addr;
	return 0;
}

void hot_fini(struct hot_areas *hot)
{
	if (hot->areas)
		munmap(hot->areas, HOT_BYTES);
}

/* @return NULL: what was there has gone */
static struct segment_area *area_at(const struct slu_segment *segment, uint32_t index)
{
	const struct hot_area *hot = &segment->hot.areas[index];
	struct segment_area *area = place_set_at(&segment->areas, hot->place);

	return area && area->inbox.id == hot->id ? area : NULL;
}

struct segment_area *hot_next(struct slu_segment *segment, uint32_t *next)
{
	struct hot_areas *hot = &segment->hot;
	struct segment_area *area;

	work_count(WORK_ITEMS, 1);
	if (*next >= hot->count)
		*next = 0;
	area = area_at(segment, *next);
	if (area)
		++*next;
	else
		hot->areas[*next] = hot->areas[--hot->count];
	return area;
}

static void set_armed(struct segment_area *area, bool armed)
{
	atomic_store_explicit(&area->inbox.area->armed, armed, memory_order_relaxed);
}

static void heat(struct slu_segment *segment, uint32_t place)
{
	struct segment_area *area = place_set_at(&segment->areas, place);
	struct hot_areas *hot = &segment->hot;

	work_count(WORK_ITEMS, 1);
	if (!area || area->hot || hot->count == PLACE_SET_MAX)
		return;
	area->hot = area->active = true;
	hot->areas[hot->count++] = (struct hot_area){place, area->inbox.id};
	set_armed(area, false);
}

/* Of more than are few the last ones come; the others ring. */
static void heat_fresh(struct slu_segment *segment)
{
	/* Pairs with the release in area_add(). */
	uint32_t added = atomic_load_explicit(&segment->added, memory_order_acquire);
	struct hot_areas *hot = &segment->hot;

	if (added - hot->seen > HOT_FEW)
		hot->seen = added - HOT_FEW;
	while (hot->seen != added)
		heat(segment, atomic_load_explicit(&segment->fresh[hot->seen++ % HOT_FEW],
						   memory_order_relaxed));
}

/* @return how many have rung */
static uint32_t heat_rung(struct slu_segment *segment)
{
	uint32_t places[WAKE_TAKEN];
	uint32_t n = wake_set_take(segment->wake, places);

	for (uint32_t i = 0; i < n; i++)
		heat(segment, places[i]);
	return n;
}

/* Has it been long enough since it was asked who has rung? */
static bool is_time(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;
	uint64_t now;
	bool often;

	if (hot->count <= HOT_FEW &&
	    atomic_load_explicit(&segment->areas.used, memory_order_relaxed) <= hot->count)
		return false;
	if (hot->polls_left > 0) {
		hot->polls_left--;
		return false;
	}
	now = __rdtsc();
	often = now - hot->clock < LOOK_CYCLES;
	hot->clock = now;
	hot->polls_left = often ? LOOK_POLLS : 0;
	if (now - hot->looked < LOOK_CYCLES)
		return false;
	hot->looked = now;
	return true;
}

static bool is_pending(struct segment_area *area, bool calls)
{
	return notify_pending(&area->inbox.notifications) ||
	       (calls && mailbox_pending(&area->inbox.calls));
}

/* The active first. @return from where on they are not needed among the hot */
static uint32_t sort(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t first = 0;

	for (uint32_t i = 0; i < hot->count; i++) {
		struct segment_area *area = area_at(segment, i);
		struct hot_area other = hot->areas[first];

		work_count(WORK_ITEMS, 1);
		if (!area || !area->active)
			continue;
		area->active = false;
		hot->areas[first++] = hot->areas[i];
		hot->areas[i] = other;
	}
	return first < HOT_FEW ? HOT_FEW : first;
}

/* They are armed, and nothing has come of them. */
static void cool(struct slu_segment *segment, uint32_t first)
{
	while (segment->hot.count > first) {
		struct segment_area *area = area_at(segment, --segment->hot.count);

		if (area)
			area->hot = false;
	}
}

/*
 * The barriers pair with the light one in client_stored(): of whom nothing is seen then, he rings
 * for the next. Where they are not to be had all stay as they are.
 */
static void cool_idle(struct slu_segment *segment)
{
	uint32_t first = sort(segment), last = segment->hot.count;
	struct segment_area *area;

	if (last <= first)
		return;
	for (uint32_t i = first; i < last; i++)
		if ((area = area_at(segment, i)))
			set_armed(area, true);
	barrier_heavy();
	if (barrier_heavy_shared() < 0)
		return;
	for (uint32_t i = first; i < last; i++) {
		area = area_at(segment, i);
		if (!area || !is_pending(area, true))
			continue;
		set_armed(area, false);
		segment->hot.areas[i] = segment->hot.areas[first];
		segment->hot.areas[first++] = (struct hot_area){area->place, area->inbox.id};
	}
	cool(segment, first);
}

/* A wake-up that was asked for, and is taken here, comes all the same. */
static void look(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;

	if (heat_rung(segment) > 0 && hot->armed) {
		hot->armed = false;
		eventfd_write(wake_set_eventfd(segment->wake), 1);
	}
	if (++hot->looks % COOL_LOOKS == 0)
		cool_idle(segment);
}

void hot_begin(struct slu_segment *segment)
{
	if (atomic_load_explicit(&segment->added, memory_order_relaxed) != segment->hot.seen)
		heat_fresh(segment);
	if (is_time(segment))
		look(segment);
}

/* After arming the next poll looks who has rung, whenever it comes. */
void hot_arm(struct slu_segment *segment, bool armed)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t n = WAKE_TAKEN;

	for (int i = 0; armed && i < ROUNDS && n >= WAKE_TAKEN - 1; i++)
		n = heat_rung(segment);
	if (armed)
		heat_fresh(segment);
	for (uint32_t i = 0; i < hot->count;) {
		struct segment_area *area = hot_next(segment, &i);

		if (area)
			set_armed(area, armed);
	}
	hot->armed = armed;
	hot->looked = 0;
	hot->polls_left = 0;
}

bool hot_pending(struct slu_segment *segment, bool calls)
{
	for (uint32_t i = 0; i < segment->hot.count; i++) {
		struct segment_area *area = area_at(segment, i);

		if (area && is_pending(area, calls))
			return true;
	}
	if (calls)
		cool(segment, sort(segment));
	return false;
}
