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
 * is read at so many polls, or at each where so many would take longer.
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
	hot->areas[hot->count++] = (struct hot_area){area, area->inbox.id, place};
	if (!hot->armed)
		set_armed(area, false);
}

/* What has gone is not touched: it may be another's memory. */
static void drop_gone(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t kept = 0;

	work_count(WORK_ITEMS, hot->count);
	for (uint32_t i = 0; i < hot->count; i++) {
		const struct segment_area *area =
			place_set_at(&segment->areas, hot->areas[i].place);

		if (area && area == hot->areas[i].area && area->inbox.id == hot->areas[i].id)
			hot->areas[kept++] = hot->areas[i];
	}
	hot->count = kept;
}

/* Is there anybody who rings, or who is to? */
static void settle(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;

	hot->looking =
		hot->count > HOT_FEW ||
		atomic_load_explicit(&segment->areas.used, memory_order_relaxed) > hot->count;
}

/* Of more than are few the last ones that came are hot; the others ring. */
void hot_catch_up(struct slu_segment *segment, uint32_t changes)
{
	uint32_t added = atomic_load_explicit(&segment->added, memory_order_acquire);
	struct hot_areas *hot = &segment->hot;

	hot->changes = changes;
	drop_gone(segment);
	if (added - hot->seen > HOT_FEW)
		hot->seen = added - HOT_FEW;
	while (hot->seen != added)
		heat(segment, atomic_load_explicit(&segment->fresh[hot->seen++ % HOT_FEW],
						   memory_order_relaxed));
	settle(segment);
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
static bool is_time(struct hot_areas *hot)
{
	uint64_t now;

	if (hot->polls_left > 0) {
		hot->polls_left--;
		return false;
	}
	now = __rdtsc();
	hot->polls_left = now - hot->clock < LOOK_CYCLES / LOOK_POLLS ? LOOK_POLLS : 0;
	hot->clock = now;
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

static uint32_t lanes_of(const struct segment_area *area)
{
	return area->inbox.notifications.lanes.count + area->inbox.calls.lanes.count;
}

/* Of those that do nothing a few may stay, with the few lanes that they have. */
static uint32_t few(const struct hot_areas *hot, uint32_t first)
{
	uint32_t lanes = 0, kept = 0;

	for (; kept < hot->count && kept < HOT_FEW; kept++) {
		lanes += lanes_of(hot->areas[kept].area);
		if (kept >= first && lanes > HOT_LANES)
			break;
	}
	return kept;
}

/* The active first. @return from where on they are not needed among the hot */
static uint32_t sort(struct hot_areas *hot)
{
	uint32_t first = 0;

	work_count(WORK_ITEMS, hot->count);
	for (uint32_t i = 0; i < hot->count; i++) {
		struct hot_area area = hot->areas[i];

		if (!area.area->active)
			continue;
		area.area->active = false;
		hot->areas[i] = hot->areas[first];
		hot->areas[first++] = area;
	}
	return first < HOT_FEW ? few(hot, first) : first;
}

/* Of them it is known that they are armed, and that nothing has come. */
static void cool(struct slu_segment *segment, uint32_t first)
{
	while (segment->hot.count > first)
		segment->hot.areas[--segment->hot.count].area->hot = false;
	settle(segment);
}

/*
 * The barriers pair with the light one in client_stored(): of whom nothing is seen then, he rings
 * for the next. Where they are not to be had all stay as they are, from then on.
 */
static void cool_idle(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t first = sort(hot), last = hot->count;

	if (last <= first || hot->keeps)
		return;
	for (uint32_t i = first; i < last; i++)
		set_armed(hot->areas[i].area, true);
	barrier_heavy();
	hot->keeps = barrier_heavy_shared() < 0;
	if (hot->keeps)
		return;
	for (uint32_t i = first; i < last; i++) {
		struct hot_area area = hot->areas[i];

		if (!is_pending(area.area, true))
			continue;
		set_armed(area.area, false);
		hot->areas[i] = hot->areas[first];
		hot->areas[first++] = area;
	}
	cool(segment, first);
}

/* A wake-up that was asked for, and is taken here, comes all the same. */
void hot_look(struct slu_segment *segment)
{
	struct hot_areas *hot = &segment->hot;

	if (!is_time(hot))
		return;
	if (heat_rung(segment) > 0 && hot->armed) {
		hot->armed = false;
		eventfd_write(wake_set_eventfd(segment->wake), 1);
	}
	if (!hot->armed && ++hot->looks % COOL_LOOKS == 0)
		cool_idle(segment);
	settle(segment);
}

/* After arming the next poll looks who has rung, whenever it comes. */
void hot_arm(struct slu_segment *segment, bool armed)
{
	struct hot_areas *hot = &segment->hot;
	uint32_t n = armed ? WAKE_TAKEN : 0;

	for (int i = 0; i < ROUNDS && n >= WAKE_TAKEN - 1; i++)
		n = heat_rung(segment);
	for (uint32_t i = 0; i < hot->count; i++)
		set_armed(hot->areas[i].area, armed);
	hot->armed = armed;
	hot->looked = 0;
	hot->polls_left = 0;
}

bool hot_pending(struct slu_segment *segment, bool calls)
{
	for (uint32_t i = 0; i < segment->hot.count; i++)
		if (is_pending(segment->hot.areas[i].area, calls))
			return true;
	if (calls)
		cool(segment, sort(&segment->hot));
	return false;
}
