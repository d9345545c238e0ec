/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Events: descriptors that are ready, and timers. libevent's, or those of a simulation in virtual
 * time. What other threads have run there: thread.h.
 *
 * All calls belong to the thread that runs the loop, but for those with nothing started.
 */
#ifndef CONTROL_LOOP_H
#define CONTROL_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

struct loop;
struct watch;

enum watch_kind {
	WATCH_READ,  /* its descriptor can be read, again and again */
	WATCH_WRITE, /* or written to */
	WATCH_ONCE,  /* a timer */
	WATCH_EVERY, /* a timer that begins again */
};

/** What makes a loop; init, start, stop and trigger as the calls of watches below. */
struct loop_ops {
	int (*open)(struct loop **loop);
	void (*close)(struct loop *loop);
	void (*run)(struct loop *loop);
	void (*leave)(struct loop *loop);
	void (*init)(struct watch *watch);
	int (*start)(struct watch *watch, uint64_t after_us);
	void (*stop)(struct watch *watch);
	void (*trigger)(struct watch *watch);
};

/** The process's: libevent's, unless a simulation has put its own here before all else. */
extern const struct loop_ops *loop_ops;

/** In its user's memory, which may be zero: then there is nothing to stop. */
struct watch {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	int fd;
	enum watch_kind kind;
	bool started;
	struct event event; /* libevent's */
};

/** @p fd  of a timer: -1 */
void watch_init(struct watch *watch, struct loop *loop, int fd, enum watch_kind kind,
		void (*fn)(void *arg), void *arg);

/** @param after_us  of a timer, which begins anew. @return 0, also if it was; -ENOMEM */
int watch_start(struct watch *watch, uint64_t after_us);

/** Its function is not called any more: before its descriptor is closed. */
void watch_stop(struct watch *watch);

/** It has been started: have its function called soon, as if it was ready. */
void watch_trigger(struct watch *watch);

/** Is this thread at an event of that loop? */
bool watch_is_running(const struct loop *loop);

/** A loop calls it when what was started is ready, or its time has come. */
void watch_run(struct watch *watch);

#endif
