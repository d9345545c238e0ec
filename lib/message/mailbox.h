/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Calls through shared memory: requests of the sessions of an area to a segment's owner, and the
 * answers. Like the notification ring it has a lane for each poller of the client, and like there
 * what the other side wrote is input.
 *
 *   line 0              lanes in use: raised by the client, read by the target
 *   lane[poller]
 *     line 0            saved position and open slots (client, between two owners of the lane)
 *     line 1..2         request words (client), as in lanes.h
 *     slots             answer word (target) and the message, SLU_MESSAGE_MAX bytes
 *   bodies              of SLU_CALL_MAX bytes each, for what is longer; all lanes have them
 * together
 *
 * A request is written into a free slot, then announced by a request word. The target copies it out
 * before anyone looks at it, and answers
 * later, in any order, in the same slot: message first, then the answer word, which the client had
 * zeroed. The client keeps to itself which slots are free; the one of a call that was given up is
 * free only when its late answer has come.
 *
 * A call that is longer, or has room for an answer that is, has a body as well, which its client
 * takes and gives back with the slot, and which the slot names. A longer message lies there.
 *
 * A hostile client can only send nonsense, a hostile target only answer it.
 */
#ifndef MESSAGE_MAILBOX_H
#define MESSAGE_MAILBOX_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sluice/segment.h>

#include "message/lanes.h"

#define MAILBOX_SLOTS ((uint32_t)SLU_CALLS_MAX)
#define MAILBOX_LANES ((uint32_t)SLU_POLLERS_MAX)

/** Longer calls of all sessions of an area that are not answered. */
#define MAILBOX_BODIES 16u

struct mailbox_slot {
	_Alignas(64) _Atomic uint64_t answer;
	_Atomic uint32_t body;   /* of it, and 1; 0: none */
	_Atomic uint32_t length; /* of a request that lies there */
	uint8_t data[SLU_MESSAGE_MAX];
};

struct mailbox_lane {
	_Alignas(64) uint32_t saved_position;
	uint32_t saved_open;
	uint8_t saved_bodies[SLU_CALLS_MAX];
	_Alignas(64) _Atomic uint64_t requests[SLU_CALLS_MAX];
	struct mailbox_slot slots[SLU_CALLS_MAX];
};

struct mailbox {
	_Alignas(64) _Atomic uint32_t lanes;
	_Alignas(64) _Atomic uint32_t bodies_taken; /* a bit each; the client's */
	struct mailbox_lane lane[SLU_POLLERS_MAX];
	_Alignas(64) uint8_t bodies[MAILBOX_BODIES][SLU_CALL_MAX];
};

static_assert(sizeof(struct mailbox_slot) == 64 + SLU_MESSAGE_MAX, "shared layout");
static_assert(sizeof(struct mailbox_lane) ==
		      64 + 8 * SLU_CALLS_MAX + SLU_CALLS_MAX * sizeof(struct mailbox_slot),
	      "shared layout");
static_assert((SLU_CALLS_MAX & (SLU_CALLS_MAX - 1)) == 0 && SLU_CALLS_MAX <= 32,
	      "a power of two, and a bit each in saved_open");
static_assert(MAILBOX_BODIES < 32, "a bit each in bodies_taken");

/** One poller's end of its lane. */
struct mailbox_sender {
	struct mailbox *box;
	struct mailbox_lane *lane;     /* NULL until it is used: most remotes never see a call */
	uint32_t index;                /* of the lane */
	uint32_t position;             /* next request */
	uint32_t open;                 /* slots with the target, a bit each */
	uint8_t bodies[SLU_CALLS_MAX]; /* that slots have, and 1; 0: none */
};

/** The target's end. Positions are its own count, never read back from the memory. */
struct mailbox_receiver {
	struct mailbox *box;
	uint32_t next_lane; /* round robin */
	struct lanes lanes;
	uint32_t positions[SLU_POLLERS_MAX];
};

/** A request as the target takes it; not yet copied, so not to be believed. */
struct mailbox_request {
	uint32_t session; /* as it says */
	uint32_t lane;
	uint32_t slot;
	uint32_t body;       /* for mailbox_reply() */
	uint32_t length;     /* 0..SLU_MESSAGE_MAX; with a body 0..SLU_CALL_MAX */
	const uint8_t *data; /* the client can still change it */
};

struct mailbox_answer {
	int32_t status;  /* 0 or a negative errno that an owner may give, -EAGAIN, else -EPROTO */
	uint32_t length; /* 0..SLU_MESSAGE_MAX; with a body 0..SLU_CALL_MAX */
	const uint8_t *data;
};

/** May an owner answer with @p status? Not with those that mean to a poller: post it again. */
bool mailbox_status_allowed(int status);

/* ---- the client's poller ---- */

/** Lane @p index will be used; nothing is touched yet. Control path. */
void mailbox_attach(struct mailbox_sender *sender, struct mailbox *box, uint32_t index);

/** Leave the lane to the next poller of that index. Control path. */
void mailbox_detach(struct mailbox_sender *sender);

/**
 * Send a request of @p session. @p busy: slots that the caller still keeps for other reasons.
 *
 * @param length  up to SLU_CALL_MAX; likewise @p room for the answer
 * @return        the slot; -1: none is free, or no body that it takes
 */
int mailbox_send(struct mailbox_sender *sender, uint32_t session, uint32_t busy, const void *data,
		 uint32_t length, uint32_t room);

/**
 * Has the request in @p slot been answered? Then mailbox_done() ends it, until when the message
 * stays.
 */
bool mailbox_answered(struct mailbox_sender *sender, uint32_t slot, struct mailbox_answer *answer);

/** Could one be sent that takes a body, were there a slot? */
static inline bool mailbox_has_body(const struct mailbox_sender *sender)
{
	return ~atomic_load_explicit(&sender->box->bodies_taken, memory_order_relaxed) &
	       ((1u << MAILBOX_BODIES) - 1);
}

/** Its slot is free. */
void mailbox_done(struct mailbox_sender *sender, uint32_t slot);

/* ---- the segment's owner ---- */

/** Take the next request, each lane in turn. @return false: none */
bool mailbox_receive(struct mailbox_receiver *receiver, struct mailbox_request *request);

/** Is there a request? */
bool mailbox_pending(struct mailbox_receiver *receiver);

/**
 * Any thread, once for each request.
 *
 * @param body    as it was received
 * @param status  allowed, or -EAGAIN: it is to be sent again
 * @param length  up to SLU_CALL_MAX, 0 with a status; more than there is place for is -EMSGSIZE
 */
void mailbox_reply(struct mailbox_receiver *receiver, uint32_t lane, uint32_t slot, uint32_t body,
		   int32_t status, const void *data, uint32_t length);

#endif
