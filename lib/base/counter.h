/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A count that one thread makes and any other may read. One instruction, of which nobody sees half;
 * it orders nothing.
 */
#ifndef BASE_COUNTER_H
#define BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t counter;

/** Its one writer. C11's relaxed load, addition and store would be three instructions. */
static inline void counter_add(counter *counter, uint64_t n)
{
	__asm__("addq %1, %0" : "+m"(*counter) : "er"(n) : "cc");
}

/** Any thread. */
static inline uint64_t counter_read(const counter *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
