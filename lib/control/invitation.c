/* SPDX-License-Identifier: Apache-2.0 */
#include "control/invitation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

static_assert(sizeof(struct data_claim) == 16 + INVITATION_NONCE_BYTES, "no padding is proven");

static void withdraw(struct data_invitation *invitation)
{
	LIST_REMOVE(invitation, entry);
	secret_wipe(invitation->secret, sizeof(invitation->secret));
	free(invitation);
}

/* Those that have expired go on the way. @return how many are left */
static uint32_t sweep(struct data_invitations *invitations, uint64_t now_ns)
{
	struct data_invitation *invitation, *next;
	uint32_t count = 0;

	for (invitation = LIST_FIRST(invitations); invitation; invitation = next) {
		next = LIST_NEXT(invitation, entry);
		if (now_ns >= invitation->until_ns)
			withdraw(invitation);
		else
			count++;
	}
	return count;
}

void data_uninvite(struct data_invitations *invitations, uint64_t link)
{
	struct data_invitation *invitation;

	LIST_FOREACH (invitation, invitations, entry)
		if (invitation->link == link)
			break;
	if (invitation)
		withdraw(invitation);
}

void data_uninvite_all(struct data_invitations *invitations)
{
	while (!LIST_EMPTY(invitations))
		withdraw(LIST_FIRST(invitations));
}

int data_invite(struct data_invitations *invitations, uint64_t link, uint32_t count,
		uint64_t now_ns, char *text)
{
	struct data_invitation *invitation;
	int rc;

	data_uninvite(invitations, link);
	if (sweep(invitations, now_ns) >= INVITATIONS_MAX)
		return fail(-ENOSPC,
			    "%u links are invited and have not come: use them, or wait %d s",
			    INVITATIONS_MAX, INVITATION_SECONDS);
	invitation = calloc(1, sizeof(*invitation));
	if (!invitation)
		return fail(-ENOMEM, "target is out of memory");
	rc = secret_make(invitation->secret, sizeof(invitation->secret));
	if (rc < 0) {
		free(invitation);
		return rc;
	}
	invitation->link = link;
	invitation->left = count;
	invitation->until_ns = now_ns + INVITATION_SECONDS * NS_PER_SECOND;
	secret_format(invitation->secret, sizeof(invitation->secret), text);
	LIST_INSERT_HEAD(invitations, invitation, entry);
	return 0;
}

struct data_invitation *data_invitation_find(struct data_invitations *invitations, uint64_t link,
					     uint64_t now_ns)
{
	struct data_invitation *invitation;

	sweep(invitations, now_ns);
	LIST_FOREACH (invitation, invitations, entry)
		if (invitation->link == link)
			break;
	return invitation;
}

bool data_invitation_use(struct data_invitation *invitation, const struct data_claim *claim,
			 const char *proof)
{
	if (!secret_is_proven(invitation->secret, claim, sizeof(*claim), proof))
		return false;
	if (--invitation->left == 0)
		withdraw(invitation);
	return true;
}
