/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * SLU_FETCH_ADD and SLU_COMPARE_SWAP, by a CPU: atomic with all others that CPUs carry out on the
 * same memory, whichever process maps it.
 */
#ifndef TRANSPORT_ATOMIC_OP_H
#define TRANSPORT_ATOMIC_OP_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <sluice/queue.h>

#define ATOMIC_BYTES 8u

static inline bool opcode_is_atomic(uint8_t opcode)
{
	return opcode == SLU_FETCH_ADD || opcode == SLU_COMPARE_SWAP;
}

/** @param at  aligned to ATOMIC_BYTES. @return what was there before */
static inline uint64_t atomic_op(void *at, uint8_t opcode, uint64_t operand, uint64_t expected)
{
	uint64_t *word = at;

	if (opcode == SLU_FETCH_ADD)
		return __atomic_fetch_add(word, operand, __ATOMIC_SEQ_CST);
	__atomic_compare_exchange_n(word, &expected, operand, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	return expected;
}

/** The same, where the caller's word, of any alignment, is what was expected and gets what was. */
static inline void atomic_op_with(void *at, uint8_t opcode, uint64_t operand, char *local)
{
	uint64_t word;

	memcpy(&word, local, sizeof(word));
	word = atomic_op(at, opcode, operand, word);
	memcpy(local, &word, sizeof(word));
}

#endif
