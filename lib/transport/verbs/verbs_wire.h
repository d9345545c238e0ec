/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the two ends of a link send each other beside the bytes of operations, which go by RDMA READ
 * and WRITE and concern nobody. Little-endian, as all machines that we build for are.
 *
 *   client                                       target
 *   SUBJECT {handle, generation}             ->  the notifications that follow are for it
 *   RDMA WRITE, immediate = tag              ->  a notification
 *   CALL {handle, generation, slot} bytes    ->
 *                                            <-  ANSWER {slot, status, taken} bytes
 *                                            <-  CREDITS {taken}
 *
 * Each of the three that the client sends takes a receive of the target's, of which it knows how
 * many there are; the target tells how many it has taken up and put back since it last did.
 *
 * The queue pairs are described in the control session (message.h, "path"):
 *
 *   offer   {"link": "16 hex digits", "incarnation": "16 hex digits",
 *            "instead": "16 hex digits"               a link that has died; may be absent
 *            and for a link that is new:
 *            "device": N, "gid_index": N      in what the target's welcome says
 *            "gid": "32 hex digits", "lid": N, "mtu": BYTES, "reads": N, "queues": [[QPN, PSN],
 * ...]} answer  {"base": "16 hex digits", "keys": [["8 hex digits per slice"], ...], and for a link
 * that is new: "gid": "32 hex digits", "lid": N, "mtu": BYTES, "reads": N, "receives": N, "queues":
 * [[QPN, PSN], ...]}
 *
 * With "cm": true in the offer of a new link the queue pairs are connected by librdmacm instead
 * (verbs_cm.h): "queues" in the answer is empty, there are no keys in it yet, and it has "cm".
 *
 * The first queue pair carries small operations, notifications and calls; the others bulk.
 */
#ifndef VERBS_VERBS_WIRE_H
#define VERBS_VERBS_WIRE_H

#include <assert.h>
#include <stdint.h>

#include <sluice/segment.h>

#define VERBS_QUEUES_MAX (1u + SLU_RDMA_QUEUE_PAIRS_MAX)
#define VERBS_CALLS      16u /* of one link that were not answered */
#define VERBS_RECEIVES   64u /* that the target has for one link, at most */

/* A client's: an answer to each call, and the CREDITS that can be on their way. */
#define VERBS_CLIENT_RECEIVES (VERBS_CALLS + 16u)

enum verbs_message_type {
	VERBS_SUBJECT = 1,
	VERBS_CALL,
	VERBS_ANSWER,
	VERBS_CREDITS,
};

struct verbs_message {
	uint8_t type;
	uint8_t reserved;
	int16_t status;      /* ANSWER: 0 or a negative errno */
	uint32_t length;     /* CALL, ANSWER: bytes that follow */
	uint32_t handle;     /* SUBJECT, CALL */
	uint32_t generation; /* SUBJECT, CALL */
	uint32_t slot;       /* CALL, ANSWER */
	uint32_t taken;      /* ANSWER, CREDITS */
};

#define VERBS_MESSAGE_BYTES ((uint32_t)sizeof(struct verbs_message) + SLU_MESSAGE_MAX)

static_assert(sizeof(struct verbs_message) == 24, "wire layout");
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "wire order");

#endif
