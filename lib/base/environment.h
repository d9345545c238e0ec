/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Time, chance and waiting of the process. They are the kernel's, unless a simulation has put its
 * own in their place before all else: then there is one thread, which runs in turn what would else
 * run in several, and waiting is to run the others.
 *
 * Not of it: the log, whose writer is a thread that waits for the world; the CPU time that is
 * reported; keys that OpenSSL makes.
 */
#ifndef BASE_ENVIRONMENT_H
#define BASE_ENVIRONMENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct environment {
	/** Nanoseconds, monotonic. */
	uint64_t (*now_ns)(void);
	/** @return 0; -EAGAIN there is no randomness yet, and @p waits is not set */
	int (*random)(void *bytes, size_t count, bool waits);
	/**
	 * Let others go on: until something has happened, or @p until_ns. NULL: they are threads
	 * and go on by themselves.
	 */
	void (*step)(uint64_t until_ns);
};

extern const struct environment *environment;

/** Is this a simulation? */
static inline bool environment_is_stepped(void)
{
	return __builtin_expect(environment->step != NULL, 0);
}

/** A condition for condition_wait(). */
void condition_init(pthread_cond_t *condition);

/** It may return early. @return false: @p until_ns has passed */
bool condition_wait(pthread_cond_t *condition, pthread_mutex_t *lock, uint64_t until_ns);

/** Between two looks at what others do. */
void pause_us(uint32_t us);

/**
 * Wait until a descriptor is ready.
 *
 * @param events  POLLIN, POLLOUT
 * @return        0; -ETIMEDOUT; -errno of poll()
 */
int wait_ready(int fd, short events, uint64_t until_ns);

#endif
