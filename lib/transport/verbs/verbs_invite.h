/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who may connect queue pairs by librdmacm (verbs_cm.h): an invitation is a secret that a client
 * got in its control session, good for the queue pairs of one link, each once, and for some
 * seconds. What is sent to use it is a proof that says nothing about the secret and is good for one
 * queue pair.
 *
 * Not locked: the caller's lock is held.
 */
#ifndef VERBS_VERBS_INVITE_H
#define VERBS_VERBS_INVITE_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "net/proof.h"

#define INVITATION_NS (10 * NS_PER_SECOND)

#define VERBS_CM_MAGIC 0x43756c53u /* "SluC" */

/** What a request brings along. Little-endian. */
struct verbs_cm_hello {
	uint32_t magic;
	uint32_t queue; /* index in the link */
	uint64_t link;
	uint8_t proof[PROOF_BYTES]; /* HMAC-SHA-256, begun, by the secret of what stands
						  before it and the number of the queue pair */
};

/* Of the 56 bytes that librdmacm has for it. */
static_assert(sizeof(struct verbs_cm_hello) == 32, "wire layout");

struct invitation {
	uint64_t link; /* the client's name for it: two clients may have the same */
	uint64_t until_ns;
	uint32_t queues;
	uint32_t used; /* bit per queue */
	uint8_t secret[SECRET_BYTES];
	LIST_ENTRY(invitation) entry;
};

LIST_HEAD(invitations, invitation);

/**
 * Target: invite.
 *
 * @param queues  1..32
 * @param text    out: SECRET_TEXT bytes, for the client
 * @return        0; -EAGAIN there is no randomness yet
 */
int invitation_issue(struct invitations *invitations, struct invitation *invitation, uint64_t link,
		     uint32_t queues, uint64_t now_ns, char *text);

/** Target: it is good for nothing any more, and nothing is left of its secret. */
void invitation_withdraw(struct invitation *invitation);

/**
 * Target: does somebody who was invited ask for this queue pair? If it comes to nothing, he may ask
 * again; what was connected is to be marked by invitation_use().
 *
 * @param qpn  number of the client's queue pair
 * @return     0; -EACCES nobody who was invited; -ETIMEDOUT the invitation has expired; -EALREADY
 *             that queue pair is connected; -EPROTO there is no such queue
 */
int invitation_find(const struct invitations *invitations, const struct verbs_cm_hello *hello,
		    uint32_t qpn, uint64_t now_ns, struct invitation **invitation);

void invitation_use(struct invitation *invitation, uint32_t queue);

/** Are all queue pairs connected? */
bool invitation_is_used(const struct invitation *invitation);

/** Client: fill @p hello for a queue pair. @return false: out of memory */
bool invitation_prove(const uint8_t secret[static SECRET_BYTES], uint64_t link, uint32_t queue,
		      uint32_t qpn, struct verbs_cm_hello *hello);

#endif
