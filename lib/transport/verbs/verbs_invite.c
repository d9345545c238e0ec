/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_invite.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"

int invitation_issue(struct invitations *invitations, struct invitation *invitation, uint64_t link,
		     uint32_t queues, uint64_t now_ns, char *text)
{
	*invitation = (struct invitation){
		.link = link, .queues = queues, .until_ns = now_ns + INVITATION_NS};
	if (getrandom(invitation->secret, sizeof(invitation->secret), GRND_NONBLOCK) !=
	    sizeof(invitation->secret))
		return fail(-EAGAIN, "the target has no randomness yet: try again");
	for (uint32_t i = 0; i < INVITATION_SECRET_BYTES; i++)
		snprintf(text + 2 * i, 3, "%02x", invitation->secret[i]);
	LIST_INSERT_HEAD(invitations, invitation, entry);
	return 0;
}

void invitation_withdraw(struct invitation *invitation)
{
	LIST_REMOVE(invitation, entry);
	OPENSSL_cleanse(invitation->secret, sizeof(invitation->secret));
}

/* Both ends: what proves that @p hello comes from who has the secret. */
static bool prove(const uint8_t *secret, const struct verbs_cm_hello *hello, uint32_t qpn,
		  uint8_t proof[static INVITATION_PROOF_BYTES])
{
	uint8_t said[offsetof(struct verbs_cm_hello, proof) + sizeof(qpn)];
	uint8_t digest[EVP_MAX_MD_SIZE];

	memcpy(said, hello, offsetof(struct verbs_cm_hello, proof));
	memcpy(said + offsetof(struct verbs_cm_hello, proof), &qpn, sizeof(qpn));
	if (!HMAC(EVP_sha256(), secret, INVITATION_SECRET_BYTES, said, sizeof(said), digest, NULL))
		return false;
	memcpy(proof, digest, INVITATION_PROOF_BYTES);
	return true;
}

static bool is_proved(const struct invitation *invitation, const struct verbs_cm_hello *hello,
		      uint32_t qpn)
{
	uint8_t right[INVITATION_PROOF_BYTES];

	return prove(invitation->secret, hello, qpn, right) &&
	       CRYPTO_memcmp(right, hello->proof, sizeof(right)) == 0;
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

bool invitation_parse(const char *text, uint8_t secret[static INVITATION_SECRET_BYTES])
{
	if (strlen(text) != 2 * INVITATION_SECRET_BYTES ||
	    strspn(text, "0123456789abcdef") != 2 * INVITATION_SECRET_BYTES)
		return false;
	for (uint32_t i = 0; i < INVITATION_SECRET_BYTES; i++) {
		unsigned byte;

		sscanf(text + 2 * i, "%2x", &byte);
		secret[i] = (uint8_t)byte;
	}
	return true;
}

bool invitation_prove(const uint8_t secret[static INVITATION_SECRET_BYTES], uint64_t link,
		      uint32_t queue, uint32_t qpn, struct verbs_cm_hello *hello)
{
	*hello = (struct verbs_cm_hello){.magic = VERBS_CM_MAGIC, .queue = queue, .link = link};
	return prove(secret, hello, qpn, hello->proof);
}
