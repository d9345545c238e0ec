/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_invite.h"

#include <errno.h>
#include <string.h>

#include "tests/tap.h"

#define NOW  (5 * NS_PER_SECOND)
#define LINK UINT64_C(0x1122334455667788)
#define QPN  4711u

static struct invitations invitations;
static struct invitation guest;
static uint8_t secret[SECRET_BYTES]; /* the guest's copy of it */

static int invite(void **state)
{
	char text[SECRET_TEXT];

	(void)state;
	LIST_INIT(&invitations);
	assert_int_equal(invitation_issue(&invitations, &guest, LINK, 3, NOW, text), 0);
	assert_true(secret_parse(text, secret, SECRET_BYTES));
	return 0;
}

/* As the guest would, but for what a test changes afterwards. */
static struct verbs_cm_hello hello_for(uint32_t queue)
{
	struct verbs_cm_hello hello;

	assert_true(invitation_prove(secret, LINK, queue, QPN + queue, &hello));
	return hello;
}

static int find(const struct verbs_cm_hello *hello, uint32_t qpn)
{
	struct invitation *found = NULL;
	int rc = invitation_find(&invitations, hello, qpn, NOW + 1, &found);

	assert_ptr_equal(found, rc == 0 ? &guest : NULL);
	return rc;
}

/* Goal: the guest is found for each of its queue pairs, once, in any order. */
static void test_guest(void **state)
{
	static const uint32_t order[] = {2, 0, 1};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct verbs_cm_hello hello = hello_for(order[i]);

		assert_false(invitation_is_used(&guest));
		assert_int_equal(find(&hello, QPN + order[i]), 0);
		assert_int_equal(find(&hello, QPN + order[i]), 0); /* it came to nothing: again */
		invitation_use(&guest, order[i]);
		assert_int_equal(find(&hello, QPN + order[i]), -EALREADY);
	}
	assert_true(invitation_is_used(&guest));
}

/* Goal: not one bit of a request may differ from what the secret proves. */
static void test_forged(void **state)
{
	const struct verbs_cm_hello right = hello_for(1);

	(void)state;
	for (unsigned bit = 0; bit < 8 * sizeof(right); bit++) {
		struct verbs_cm_hello forged = right;

		((uint8_t *)&forged)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(find(&forged, QPN + 1), -EACCES);
	}
	assert_int_equal(find(&right, QPN + 1), 0);
}

/* Goal: a request that was seen on its way is good for no queue pair but its own. */
static void test_replayed(void **state)
{
	const struct verbs_cm_hello seen = hello_for(0);
	struct verbs_cm_hello other = seen;

	(void)state;
	assert_int_equal(find(&seen, QPN + 1), -EACCES);
	other.queue = 1;
	assert_int_equal(find(&other, QPN), -EACCES);
	assert_int_equal(find(&other, QPN + 1), -EACCES);
}

/* Goal: without the secret there is no proof, and of another link's none for this one. */
static void test_stranger(void **state)
{
	struct invitation neighbour;
	uint8_t other[SECRET_BYTES];
	char text[SECRET_TEXT];
	struct verbs_cm_hello hello = {.magic = VERBS_CM_MAGIC, .link = LINK};

	(void)state;
	assert_int_equal(find(&hello, QPN), -EACCES);
	assert_int_equal(invitation_issue(&invitations, &neighbour, LINK + 1, 3, NOW, text), 0);
	assert_true(secret_parse(text, other, SECRET_BYTES));
	assert_true(invitation_prove(other, LINK, 0, QPN, &hello));
	assert_int_equal(find(&hello, QPN), -EACCES);
	hello = hello_for(0);
	assert_int_equal(find(&hello, QPN), 0);
	invitation_withdraw(&neighbour);
}

/* Goal: links of two clients may have one number; each is found by its own secret. */
static void test_same_link(void **state)
{
	struct invitation neighbour, *found;
	uint8_t other[SECRET_BYTES];
	char text[SECRET_TEXT];
	struct verbs_cm_hello hello = hello_for(0);

	(void)state;
	assert_int_equal(invitation_issue(&invitations, &neighbour, LINK, 3, NOW, text), 0);
	assert_true(secret_parse(text, other, SECRET_BYTES));
	assert_memory_not_equal(other, secret, sizeof(secret));
	assert_int_equal(find(&hello, QPN), 0);
	assert_true(invitation_prove(other, LINK, 0, QPN, &hello));
	assert_int_equal(invitation_find(&invitations, &hello, QPN, NOW, &found), 0);
	assert_ptr_equal(found, &neighbour);
	invitation_withdraw(&neighbour);
}

/* Goal: an invitation ends, by itself or when it is withdrawn, and leaves no secret behind. */
static void test_end(void **state)
{
	static const uint8_t nothing[SECRET_BYTES];
	const struct verbs_cm_hello hello = hello_for(0);
	struct invitation *found;

	(void)state;
	assert_int_equal(
		invitation_find(&invitations, &hello, QPN, NOW + INVITATION_NS - 1, &found), 0);
	assert_int_equal(invitation_find(&invitations, &hello, QPN, NOW + INVITATION_NS, &found),
			 -ETIMEDOUT);
	invitation_withdraw(&guest);
	assert_int_equal(find(&hello, QPN), -EACCES);
	assert_memory_equal(guest.secret, nothing, sizeof(nothing));
	LIST_INSERT_HEAD(&invitations, &guest, entry); /* for the end of the test */
}

/* Goal: a guest cannot ask for more than it was invited to. */
static void test_too_many(void **state)
{
	const struct verbs_cm_hello hello = hello_for(3), far = hello_for(UINT32_MAX);

	(void)state;
	assert_int_equal(find(&hello, QPN + 3), -EPROTO);
	assert_int_equal(find(&far, QPN + UINT32_MAX), -EPROTO);
}

/* Goal: all 32 that there can be. */
static void test_most(void **state)
{
	struct invitation many;
	char text[SECRET_TEXT];

	(void)state;
	assert_int_equal(invitation_issue(&invitations, &many, 1, 32, NOW, text), 0);
	for (uint32_t i = 0; i < 32; i++) {
		assert_false(invitation_is_used(&many));
		invitation_use(&many, i);
	}
	assert_true(invitation_is_used(&many));
	invitation_withdraw(&many);
}

static int leave(void **state)
{
	(void)state;
	invitation_withdraw(&guest);
	assert_true(LIST_EMPTY(&invitations));
	return 0;
}

#define INVITED(test) cmocka_unit_test_setup_teardown(test, invite, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		INVITED(test_guest),    INVITED(test_forged),    INVITED(test_replayed),
		INVITED(test_stranger), INVITED(test_same_link), INVITED(test_end),
		INVITED(test_too_many), INVITED(test_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
