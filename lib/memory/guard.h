/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Memory whose pages another process can take away, and what is left when one does.
 *
 * Whoever may write to a memfd may also punch holes into it (fallocate), and where no page is free
 * to fill a hole the next access is a SIGBUS, in every process that maps it. So such ranges are
 * registered here. A SIGBUS in one of them marks it dead, then puts empty memory in its place and
 * goes on: nobody crashes, and nobody takes what was read or written for good who looks at the mark
 * afterwards. The same holds for a page that the machine has found broken.
 *
 * The look is cheap: guard_deaths() changes with each death, and only then single ranges have to be
 * asked. System calls do not raise the signal, they say EFAULT: guard_check().
 *
 * The handler is installed with the first range and stays. For every other address it does what was
 * in force before: the program's handler, or the end of the process. A program that installs a
 * handler of its own later gets the signals, and has to call for addresses that it does not know
 * the one that sigaction() gave it; it is not displaced. No thread that touches a range may block
 * SIGBUS: the kernel kills a process for that.
 */
#ifndef MEMORY_GUARD_H
#define MEMORY_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/** Ranges at once: each segment, and each session in shared memory at either end. */
#define GUARD_RANGES_MAX 262144u

struct guard;

/* Of guard_deaths(), which is hot: to be reached in one load. */
extern _Atomic uint32_t guard_death_count __attribute__((visibility("hidden")));

/**
 * From now on a SIGBUS in there is survived. Any thread.
 *
 * @param addr, length_bytes  a whole mapping
 * @return                    0; -ENOSPC over GUARD_RANGES_MAX; -EMFILE, -errno
 */
int guard_add(void *addr, uint64_t length_bytes, struct guard **guard);

/** Before it is unmapped. Any thread. Accepts NULL. */
void guard_remove(struct guard *guard);

/**
 * Is its memory gone? What was read from it before this said no was there. Any thread.
 *
 * @param guard  NULL: no
 */
bool guard_is_dead(const struct guard *guard);

/**
 * Changes whenever a range dies, and is 0 until the first does. To be asked after a copy: as long
 * as it says what it said before, all is well.
 */
static inline uint32_t guard_deaths(void)
{
	/* Pairs with the store in the handler, before which no empty memory is there to be read. */
	atomic_signal_fence(memory_order_acquire);
	return atomic_load_explicit(&guard_death_count, memory_order_relaxed);
}

/**
 * A system call that was given this memory said EFAULT: was it because of it? Touches each page, so
 * that what is missing is missed here.
 *
 * @return true: it is in a range that is dead. false: it is all there (again)
 */
bool guard_check(const void *addr, uint64_t length_bytes);

/**
 * A descriptor that becomes readable with each death, of whatever range of the process. The caller
 * closes it.
 *
 * @return -EMFILE, -errno
 */
int guard_open(void);

/** It is readable no more, until the next death. Its owner. */
void guard_clear(int fd);

#endif
