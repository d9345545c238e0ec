/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What becomes of the library in a process that is forked off one which has opened an engine: its
 * threads are not there, what it shares with others belongs to the parent, and EAL cannot be
 * started anew. So every call on what was opened says -ECHILD from then on, or does nothing, and
 * touches nothing that is shared.
 */
#ifndef BASE_FORK_H
#define BASE_FORK_H

#include <stdbool.h>
#include <sys/queue.h>

/** Of something whose hot calls do not look whether there was a fork: how it is made to fail. */
struct fork_hook {
	void (*in_child)(struct fork_hook *hook); /* async-signal-safe; no lock is of any use */
	LIST_ENTRY(fork_hook) link;
};

extern bool fork_has_happened;

/** Before an engine is opened: forks are noticed from now on. Any thread, again and again. */
void fork_prepare(void);

/** Any thread; hooks are called in the child, before fork() returns there. */
void fork_watch(struct fork_hook *hook);

/** Accepts one that is all zero. */
void fork_unwatch(struct fork_hook *hook);

/** Is this the child? */
static inline bool fork_is_child(void)
{
	return __builtin_expect(fork_has_happened, 0);
}

/** The child: say so. @return -ECHILD */
int fork_refuse(void);

/** Whatever is done with what was opened. @return 0; -ECHILD */
static inline int fork_check(void)
{
	return fork_is_child() ? fork_refuse() : 0;
}

#endif
