/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Counts what a hot path must not do: allocate, lock, enter the kernel.
 *
 * The program that links this file replaces malloc and its relatives and the locks of pthread for
 * all code in the process, shared libraries included. System calls are counted with the kernel's
 * syscall user dispatch (Linux 5.11): while a window is open, each one of a watched thread raises
 * SIGSYS, whose handler counts it and then makes the call in the thread's place.
 *
 * Threads that are watched: the one that opens the window and those started by pthread_create after
 * counting_init() under one of the names given to it.
 */
#ifndef TESTS_FAULT_COUNTING_H
#define TESTS_FAULT_COUNTING_H

#include <stdatomic.h>

struct counts {
	_Atomic unsigned long allocations; /* and frees */
	_Atomic unsigned long locks;
	_Atomic unsigned long system_calls;
	_Atomic int first_system_call; /* its number; meaningless when there was none */
};

/**
 * Watch this thread from now on, and later ones by name. Once, before the engine is opened.
 *
 * @param prefix  of the names of the threads to watch beside the calling one
 * @return        0; -errno the kernel has no syscall user dispatch: system calls are not counted
 */
int counting_init(const char *prefix);

/** Threads that are watched beside the one that called counting_init(). */
unsigned counting_threads(void);

/** Count from here, in all watched threads. */
void counting_open(void);

/** Stop; @p counts is what happened in between. */
void counting_close(struct counts *counts);

#endif
