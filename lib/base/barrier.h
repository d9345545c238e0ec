/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * An asymmetric store-load barrier: free on the hot side, a system call on the rare side.
 *
 * Two threads each store their flag and then read the other's; at least one must see the other.
 * The hot thread puts barrier_light() between its store and its load, the rare one barrier_heavy()
 * (membarrier(2), private expedited). Where the kernel or a seccomp filter refuses membarrier, both
 * are full fences.
 */
#ifndef BASE_BARRIER_H
#define BASE_BARRIER_H

#include <stdatomic.h>
#include <stdbool.h>

extern bool barrier_is_asymmetric;

/** Once per process, before the first thread uses the barriers. */
void barrier_init(void);

static inline void barrier_light(void)
{
	if (barrier_is_asymmetric)
		atomic_signal_fence(memory_order_seq_cst);
	else
		atomic_thread_fence(memory_order_seq_cst);
}

void barrier_heavy(void);

#endif
