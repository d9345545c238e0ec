/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Calls among operations: a call written as an operation, whose answer goes to remote_offset of its
 * region, where it has room for tag bytes.
 */
#ifndef TESTS_CALLS_H
#define TESTS_CALLS_H

#include <stdint.h>

#include <sluice/queue.h>

#define TEST_CALL 255

static inline struct slu_call call_from(const struct slu_op *op)
{
	return (struct slu_call){.user_data = op->user_data,
				 .remote = op->remote,
				 .region = op->region,
				 .request_offset = op->local_offset,
				 .answer_offset = op->remote_offset,
				 .request_length = (uint32_t)op->length,
				 .answer_room = op->tag,
				 .timeout_us = op->timeout_us,
				 .flags = op->flags};
}

/** As slu_submit(), in order, of operations and calls. */
static inline int submit_any(struct slu_queue *queue, const struct slu_op *ops, uint32_t n)
{
	uint32_t accepted = 0;

	while (accepted < n) {
		const struct slu_op *next = &ops[accepted];
		struct slu_call call = call_from(next);
		uint32_t copies = 0;
		int rc;

		while (accepted + copies < n && next[copies].opcode != TEST_CALL)
			copies++;
		rc = copies > 0 ? slu_submit(queue, next, copies)
				: slu_submit_calls(queue, &call, 1);
		if (rc < 0 && accepted == 0)
			return rc;
		if (rc <= 0)
			break;
		accepted += (uint32_t)rc;
		if (copies > 0 && (uint32_t)rc < copies)
			break;
	}
	return (int)accepted;
}

#endif
