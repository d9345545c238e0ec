/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Counted work: how much one event of the control thread, or one turn of a poller, does at most. A
 * single one that walks, copies or waits for too much holds up everybody else, which no average
 * shows. Builds with tests count, and a test fails beyond the bound; in others all this vanishes.
 *
 * Whoever is called back by the event loop, each turn of a poller, and each call by which a
 * segment's owner takes what was left for it, begins with work_begin();
 * what it then counts on the same thread is its work. A thread that has begun nothing counts
 * nothing.
 *
 * A program with SLUICE_WORK=FILE in its environment keeps the greatest in FILE, as JSON, when its
 * engine closes: {"event": {"items": [N, "FUNCTION"], ...}, "turn": ...}.
 */
#ifndef BASE_WORK_H
#define BASE_WORK_H

#include <stdint.h>

enum work_place {
	WORK_EVENT, /* of the control thread */
	WORK_TURN,  /* of a poller */
	WORK_OWNER, /* one call of a segment's owner */
	WORK_PLACES,
};

enum work_kind {
	WORK_ITEMS, /* walked, ended, sent */
	WORK_BYTES, /* copied */
	WORK_WAITS, /* for another thread, a disk, a name service */
	WORK_KINDS,
};

/** What one event may do; of bytes a message at a time, whatever it holds. */
#define WORK_EVENT_ITEMS_MAX 4096u
#define WORK_EVENT_WAITS_MAX 64u

/** And one turn, of the connections that it serves over TCP; the last one may go beyond a little.
 */
#define WORK_TURN_ITEMS_MAX 256u
#define WORK_TURN_BYTES_MAX (6u << 20)

#ifdef SLUICE_COUNT_WORK

#define work_begin(place) work_begin_in(place, __func__)

/** An event or a turn begins; what was counted before belonged to the one before. */
void work_begin_in(enum work_place place, const char *function);

void work_count(enum work_kind kind, uint64_t n);

/** The most that one of @p place has done so far. Any thread. */
uint64_t work_greatest(enum work_place place, enum work_kind kind);

/** Which function began the one that did the most; NULL: none did anything. Any thread. */
const char *work_culprit(enum work_place place, enum work_kind kind);

/** Begin anew. */
void work_forget(void);

/** Write SLUICE_WORK's file, if it is asked for. */
void work_report(void);

#else

#define work_begin(place)   ((void)0)
#define work_count(kind, n) ((void)0)
#define work_report()       ((void)0)

#endif
#endif
