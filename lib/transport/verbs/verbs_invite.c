/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_invite.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

int invitation_issue(struct invitations *invitations, struct invitation *invitation, uint64_t link,
		     uint32_t queues, uint64_t now_ns, char *text)
{
	int rc;

	*invitation = (struct invitation){
		.link = link, .queues = queues, .until_ns = now_ns + INVITATION_NS};
	rc = secret_make(invitation->secret, sizeof(invitation->secret));
	if (rc < 0)
		return rc;
	secret_format(invitation->secret, sizeof(invitation->secret), text);
	LIST_INSERT_HEAD(invitations, invitation, entry);
	return 0;
}

void invitation_withdraw(struct invitation *invitation)
{
	LIST_REMOVE(invitation, entry);
	secret_wipe(invitation->secret, sizeof(invitation->secret));
}

/* Both ends: what proves that @p hello comes from who has the secret. */
static bool prove(const uint8_t *secret, const struct verbs_cm_hello *hello, uint32_t qpn,
		  uint8_t proof[static PROOF_BYTES])
{
	uint8_t said[offsetof(struct verbs_cm_hello, proof) + sizeof(qpn)];

	memcpy(said, hello, offsetof(struct verbs_cm_hello, proof));
	memcpy(said + offsetof(struct verbs_cm_hello, proof), &qpn, sizeof(qpn));
	return secret_prove(secret, said, sizeof(said), proof);
}

static bool is_proved(const struct invitation *invitation, const struct verbs_cm_hello *hello,
		      uint32_t qpn)
{
	uint8_t right[PROOF_BYTES];

	return prove(invitation->secret, hello, qpn, right) &&
	       secret_equal(right, hello->proof, sizeof(right));
}

int invitation_find(const struct invitations *invitations, const struct verbs_cm_hello *hello,
		    uint32_t qpn, uint64_t now_ns, struct invitation **out)
{
	struct invitation *invitation;

	LIST_FOREACH (invitation, invitations, entry)
		if (hello->magic == VERBS_CM_MAGIC && invitation->link == hello->link &&
		    is_proved(invitation, hello, qpn))
			break;
	if (!invitation)
		return -EACCES;
	if (now_ns >= invitation->until_ns)
		return -ETIMEDOUT;
	if (hello->queue >= invitation->queues)
		return -EPROTO;
	if (invitation->used >> hello->queue & 1)
		return -EALREADY;
	*out = invitation;
	return 0;
}

void invitation_use(struct invitation *invitation, uint32_t queue)
{
	invitation->used |= 1u << queue;
}

bool invitation_is_used(const struct invitation *invitation)
{
	return invitation->used == (uint32_t)((UINT64_C(1) << invitation->queues) - 1);
}

bool invitation_prove(const uint8_t secret[static SECRET_BYTES], uint64_t link, uint32_t queue,
		      uint32_t qpn, struct verbs_cm_hello *hello)
{
	*hello = (struct verbs_cm_hello){.magic = VERBS_CM_MAGIC, .queue = queue, .link = link};
	return prove(secret, hello, qpn, hello->proof);
}
