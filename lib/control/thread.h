/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The control thread: one event loop per engine for listeners, sessions and timers. Pollers never
 * wait for it.
 */
#ifndef CONTROL_THREAD_H
#define CONTROL_THREAD_H

#include <pthread.h>
#include <sys/queue.h>

struct control_thread;
struct loop;

typedef int (*control_fn)(void *arg);

/** What control_post() hands over: the thread's until it is run, which may free it. */
struct control_task {
	void (*run)(struct control_task *task);
	STAILQ_ENTRY(control_task) link;
};

/** @return 0; -ENOMEM, -EMFILE, -EAGAIN */
int control_thread_start(struct control_thread **thread);

/** Nothing may be registered with its loop any more. Accepts NULL. */
void control_thread_stop(struct control_thread *thread);

/** Run @p fn on the thread and return what it returned. Any other thread; also from the thread. */
int control_call(struct control_thread *thread, control_fn fn, void *arg);

/**
 * Have @p task run on the thread, once, without waiting for it: after those that were posted before
 * and before any control_call() that another thread makes later. Never fails. Any thread.
 */
void control_post(struct control_thread *thread, struct control_task *task);

/** Its loop (loop.h); to be used on the thread only. */
struct loop *control_loop(struct control_thread *thread);

#endif
