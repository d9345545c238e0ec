/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * An asymmetric store-load barrier: free on the hot side, a system call on the rare side.
 *
 * Two threads each store their flag and then read the other's; at least one must see the other.
 * The hot thread puts barrier_light() between its store and its load, the rare one barrier_heavy()
 * (membarrier(2), private expedited). Where the kernel or a seccomp filter refuses membarrier, both
 * are full fences.
 *
 * Between processes the same with the global expedited command, which reaches the processes that
 * have registered for it. Each side can be refused it for itself: the hot side goes without a fence
 * only if it has registered and the rare side has said that it can issue the command.
 */
#ifndef BASE_BARRIER_H
#define BASE_BARRIER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/tsan.h"

extern bool barrier_is_asymmetric;
extern bool barrier_reaches_us;     /* we have registered for what others issue */
extern bool barrier_reaches_others; /* we can issue it */

/** Once per process, before the first thread uses the barriers. */
void barrier_init(void);

/*
 * ThreadSanitizer knows no fences: what it is told of one here is nothing, and memory that only a
 * fence orders it reports.
 */
static inline void barrier_fence(void)
{
#if WITH_THREAD_SANITIZER
	__asm__ volatile("mfence" ::: "memory");
#else
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void barrier_light(void)
{
	if (barrier_is_asymmetric)
		atomic_signal_fence(memory_order_seq_cst);
	else
		barrier_fence();
}

void barrier_heavy(void);

/**
 * Hot side, towards another process. @p fence: false only if barrier_reaches_us here and
 * barrier_reaches_others there
 */
static inline void barrier_light_shared(bool fence)
{
	if (fence)
		barrier_fence();
	else
		atomic_signal_fence(memory_order_seq_cst);
}

/** Rare side, towards other processes. @return 0; -EPERM the command was taken away since */
int barrier_heavy_shared(void);

#endif
