/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The control thread: one event loop per engine for listeners, sessions and timers. Pollers never
 * wait for it.
 */
#ifndef CONTROL_THREAD_H
#define CONTROL_THREAD_H

#include <pthread.h>

struct event_base;
struct control_thread;

typedef int (*control_fn)(void *arg);

/** @return 0; -ENOMEM, -EMFILE, -EAGAIN */
int control_thread_start(struct control_thread **thread);

/** Nothing may be registered with its loop any more. Accepts NULL. */
void control_thread_stop(struct control_thread *thread);

/** Run @p fn on the thread and return what it returned. Any other thread; also from the thread. */
int control_call(struct control_thread *thread, control_fn fn, void *arg);

/** libevent's loop; to be used on the thread only. */
struct event_base *control_base(struct control_thread *thread);

#endif
