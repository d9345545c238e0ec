/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who may attach data connections: an invitation is a secret that a client got in its control
 * session, good for so many connections of one link and for some seconds. Each is proven on its
 * own, by an answer to what the target asks on it.
 *
 * Control thread.
 */
#ifndef CONTROL_INVITATION_H
#define CONTROL_INVITATION_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "net/proof.h"

#define INVITATION_SECONDS 10
#define INVITATIONS_MAX    256u /* of one control connection, not used up */
#define INVITED_MAX        16u  /* data connections by one */

#define INVITATION_NONCE_BYTES 16u

struct data_invitation {
	uint64_t link;
	uint64_t until_ns;
	uint32_t left;
	uint8_t secret[SECRET_BYTES];
	LIST_ENTRY(data_invitation) entry;
};

LIST_HEAD(data_invitations, data_invitation);

/** What a data connection is asked, and claims to be: it proves these bytes. */
struct data_claim {
	uint64_t connection;
	uint64_t link;
	uint8_t nonce[INVITATION_NONCE_BYTES];
};

/**
 * Target: invite; an earlier invitation to the same link is withdrawn.
 *
 * @param count  1..INVITED_MAX
 * @param text   out: SECRET_TEXT bytes
 * @return       0; -ENOSPC, -EAGAIN, -ENOMEM
 */
int data_invite(struct data_invitations *invitations, uint64_t link, uint32_t count,
		uint64_t now_ns, char *text);

/** Target: there is one to that link that has not expired. */
struct data_invitation *data_invitation_find(struct data_invitations *invitations, uint64_t link,
					     uint64_t now_ns);

/** Target: if @p proof is right, one connection less is invited. @return was it? */
bool data_invitation_use(struct data_invitation *invitation, const struct data_claim *claim,
			 const char *proof);

/** Target: nobody is invited to that link any more. */
void data_uninvite(struct data_invitations *invitations, uint64_t link);

void data_uninvite_all(struct data_invitations *invitations);

#endif
