/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Processes that beset a target, and harmless ones that give it as much to do, to be stopped and
 * let go on between measurements.
 *
 * Each does so much a second and no more: what it takes from others by being on this host is the
 * same for both.
 */
#ifndef PERF_HOSTILE_H
#define PERF_HOSTILE_H

#include <sluice/sluice.h>

#include "bench.h"
#include "rig.h"
#include "visitor.h"

/** One process at its work. */
struct intruder;

struct labour {
	unsigned (*work)(struct intruder *intruder); /* @return attempts */
	double pace; /* attempts a second; 0 = it keeps what it holds, and that is all */
};

/** One attack, and what a harmless client does to give the target about as much work. */
struct attack {
	const char *name;
	struct labour attack, neighbour;
	bool newcomers;   /* who waits for an answer is a newcomer, else somebody with a session */
	uint32_t rights;  /* of who attacks, on the segment */
	bool stalled_log; /* the target's log goes to a pipe that nobody reads */
	bool unix_socket; /* it is about the Unix socket, else about TCP */
	bool other_user;  /* carried out by another user of this host */
};

extern const struct attack attacks[];
extern const unsigned attacks_count;

/** Shared with the process. */
struct hostile_book {
	_Atomic uint64_t attempts;
	_Atomic uint64_t paused_ns; /* in all, until it was last resumed */
};

/** A process of either kind. */
struct hostile {
	pid_t pid;
	struct hostile_book *book;
	uint64_t at_work_ns;
	uint64_t paused_at_ns;
};

/** Start one, paused. @param harmless  the neighbour of that attack */
void hostile_start(struct hostile *hostile, const struct attack *attack, bool harmless,
		   const struct rig *rig);

void hostile_resume(struct hostile *hostile);

void hostile_pause(struct hostile *hostile);

/** Attempts a second, while it was not paused. */
double hostile_rate(const struct hostile *hostile);

void hostile_stop(struct hostile *hostile);

#endif
