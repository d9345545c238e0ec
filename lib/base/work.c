/* SPDX-License-Identifier: Apache-2.0 */
#include "base/work.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* What this thread's event or turn has done so far. */
static _Thread_local struct {
	enum work_place place;
	const char *function; /* NULL: none has begun */
	uint64_t done[WORK_KINDS];
} now;

static struct {
	_Atomic uint64_t most;
	_Atomic(const char *) function;
} greatest[WORK_PLACES][WORK_KINDS];

void work_begin_in(enum work_place place, const char *function)
{
	now.place = place;
	now.function = function;
	for (int kind = 0; kind < WORK_KINDS; kind++)
		now.done[kind] = 0;
}

/* Between its two stores another thread's may come: the name is for people. */
void work_count(enum work_kind kind, uint64_t n)
{
	_Atomic uint64_t *most = &greatest[now.place][kind].most;
	uint64_t before = atomic_load_explicit(most, memory_order_relaxed);

	if (!now.function)
		return;
	now.done[kind] += n;
	while (now.done[kind] > before)
		if (atomic_compare_exchange_weak(most, &before, now.done[kind]))
			atomic_store(&greatest[now.place][kind].function, now.function);
}

uint64_t work_greatest(enum work_place place, enum work_kind kind)
{
	return atomic_load(&greatest[place][kind].most);
}

const char *work_culprit(enum work_place place, enum work_kind kind)
{
	return atomic_load(&greatest[place][kind].function);
}

void work_forget(void)
{
	for (int place = 0; place < WORK_PLACES; place++)
		for (int kind = 0; kind < WORK_KINDS; kind++) {
			atomic_store(&greatest[place][kind].most, 0);
			atomic_store(&greatest[place][kind].function, NULL);
		}
}

static void write_place(FILE *file, enum work_place place)
{
	static const char *const kinds[] = {"items", "bytes", "waits"};

	for (int kind = 0; kind < WORK_KINDS; kind++) {
		const char *function = work_culprit(place, kind);

		fprintf(file, "%s\"%s\": [%llu, \"%s\"]", kind > 0 ? ", " : "", kinds[kind],
			(unsigned long long)work_greatest(place, kind), function ? function : "");
	}
}

void work_report(void)
{
	const char *path = getenv("SLUICE_WORK");
	FILE *file = path ? fopen(path, "we") : NULL;

	if (!file)
		return;
	fputs("{\"event\": {", file);
	write_place(file, WORK_EVENT);
	fputs("}, \"turn\": {", file);
	write_place(file, WORK_TURN);
	fputs("}}\n", file);
	fclose(file);
}
