/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Threads of the library.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <sched.h>

/**
 * Start a thread that takes no signals but SIGBUS: they are the application's.
 *
 * @param name  at most 15 characters
 * @return      0; -EAGAIN with a text
 */
int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg);

/** The same, for the log itself: says nothing. */
int thread_try(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg);

/**
 * Threads that are started from now on run on @p cpus, wherever their starter does. Once, before
 * the first of them.
 */
void thread_keep_to(const cpu_set_t *cpus);

/** @return NULL: on those of their starter */
const cpu_set_t *thread_cpus(void);

#endif
