/* SPDX-License-Identifier: Apache-2.0 */
#include "control/invitation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "tests/tap.h"

#define LINK   UINT64_C(0xfedcba9876543210)
#define NOW    (1000 * NS_PER_SECOND)
#define EXPIRY (NOW + INVITATION_SECONDS * NS_PER_SECOND)

static struct data_invitations invitations;

static int set_up(void **state)
{
	(void)state;
	LIST_INIT(&invitations);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	data_uninvite_all(&invitations);
	return !LIST_EMPTY(&invitations);
}

struct invited {
	uint8_t secret[SECRET_BYTES];
	struct data_claim claim;
};

static struct invited invite(uint64_t link, uint32_t count, uint64_t now_ns)
{
	struct invited invited = {.claim = {.connection = 7, .link = link, .nonce = "nonce"}};
	char text[SECRET_TEXT];

	assert_int_equal(data_invite(&invitations, link, count, now_ns, text), 0);
	assert_true(secret_parse(text, invited.secret, SECRET_BYTES));
	return invited;
}

static bool prove(const uint8_t *secret, const struct data_claim *claim, char proof[PROOF_TEXT])
{
	return secret_prove_text(secret, claim, sizeof(*claim), proof);
}

static bool use(const struct invited *invited)
{
	char proof[PROOF_TEXT];
	struct data_invitation *invitation =
		data_invitation_find(&invitations, invited->claim.link, NOW);

	assert_true(prove(invited->secret, &invited->claim, proof));
	return invitation && data_invitation_use(invitation, &invited->claim, proof);
}

/* Goal: an invitation lets as many in as were invited, and is gone then. */
static void test_count(void **state)
{
	struct invited invited = invite(LINK, 3, NOW);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(use(&invited));
	assert_false(use(&invited));
	assert_true(LIST_EMPTY(&invitations));
}

/* Goal: a proof of other words, with another secret, or that is none, is wrong, and costs nothing.
 */
static void test_wrong(void **state)
{
	static const char *const none[] = {NULL, "", "00", "000102030405060708090a0b0c0d0e0f00",
					   "000102030405060708090a0b0c0d0e0f"};
	struct invited invited = invite(LINK, 1, NOW), other = invite(LINK + 1, 1, NOW);
	struct data_invitation *invitation = data_invitation_find(&invitations, LINK, NOW);
	char proof[PROOF_TEXT];
	struct data_claim wrong[3];

	(void)state;
	for (int i = 0; i < 3; i++)
		wrong[i] = invited.claim;
	wrong[0].connection++;
	wrong[1].link++;
	wrong[2].nonce[INVITATION_NONCE_BYTES - 1] ^= 1;
	for (int i = 0; i < 3; i++) {
		assert_true(prove(invited.secret, &wrong[i], proof));
		assert_false(data_invitation_use(invitation, &invited.claim, proof));
	}
	assert_true(prove(other.secret, &invited.claim, proof));
	assert_false(data_invitation_use(invitation, &invited.claim, proof));
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		assert_false(data_invitation_use(invitation, &invited.claim, none[i]));
	assert_true(use(&invited));
	assert_true(use(&other));
}

/* Goal: an invitation is good until its time is up, not a moment longer. */
static void test_expiry(void **state)
{
	(void)state;
	invite(LINK, 1, NOW);
	assert_non_null(data_invitation_find(&invitations, LINK, EXPIRY - 1));
	assert_null(data_invitation_find(&invitations, LINK, EXPIRY));
	assert_null(data_invitation_find(&invitations, LINK, NOW)); /* it has gone */
}

/* Goal: inviting again withdraws what was said before, also when it could let in more. */
static void test_again(void **state)
{
	struct invited first = invite(LINK, INVITED_MAX, NOW), second = invite(LINK, 1, NOW);

	(void)state;
	assert_memory_not_equal(first.secret, second.secret, SECRET_BYTES);
	assert_false(use(&first));
	assert_true(use(&second));
	assert_false(use(&second));
}

/* Goal: a link is withdrawn, the others are not; one that there is not does no harm. */
static void test_withdrawn(void **state)
{
	struct invited invited = invite(LINK, 1, NOW), other = invite(0, 1, NOW);

	(void)state;
	data_uninvite(&invitations, LINK);
	data_uninvite(&invitations, LINK);
	assert_false(use(&invited));
	assert_true(use(&other));
}

/* Goal: the bound holds whatever the links are called; those that have expired make room, and one
 * that is invited again needs none. */
static void test_bound(void **state)
{
	char text[SECRET_TEXT] = "untouched";

	(void)state;
	for (uint32_t i = 0; i < INVITATIONS_MAX; i++)
		invite(i * LINK, 1, i == 0 ? NOW - 1 : NOW);
	assert_int_equal(data_invite(&invitations, 1, 1, NOW, text), -ENOSPC);
	assert_non_null(strstr(slu_last_error(), "have not come"));
	assert_string_equal(text, "untouched");
	invite(LINK, 2, NOW);
	assert_int_equal(data_invite(&invitations, 1, 1, NOW, text), -ENOSPC);
	assert_int_equal(data_invite(&invitations, 1, 1, EXPIRY - 1, text), 0);
	assert_int_equal(data_invite(&invitations, 2, 1, EXPIRY - 1, text), -ENOSPC);
	assert_int_equal(data_invite(&invitations, 2, 1, EXPIRY, text), 0);
	assert_int_equal(data_invite(&invitations, 3, 1, EXPIRY, text), 0);
}

#define inviting(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		inviting(test_count), inviting(test_wrong),     inviting(test_expiry),
		inviting(test_again), inviting(test_withdrawn), inviting(test_bound),
	};

	slu_log_set(SLU_LOG_ERROR, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
