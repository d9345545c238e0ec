/* SPDX-License-Identifier: Apache-2.0 */
#include "net/proof.h"

#include <string.h>

#include "base/random.h"
#include "tests/tap.h"

/* Goal: secrets differ, and so do numbers. */
static void test_made(void **state)
{
	uint8_t first[SECRET_BYTES] = {0}, second[SECRET_BYTES] = {0};
	static const uint8_t zero[SECRET_BYTES];

	(void)state;
	assert_int_equal(secret_make(first, sizeof(first)), 0);
	assert_int_equal(secret_make(second, sizeof(second)), 0);
	assert_memory_not_equal(first, second, SECRET_BYTES);
	assert_memory_not_equal(first, zero, SECRET_BYTES);
	assert_true(random_word() != random_word());
	secret_wipe(first, sizeof(first));
	assert_memory_equal(first, zero, SECRET_BYTES);
}

/* Goal: as text a secret is twice as many hexadecimal digits, and comes back whole. */
static void test_text(void **state)
{
	const uint8_t bytes[SECRET_BYTES] = {0x00, 0x0f, 0xf0, 0xff, 0x5a};
	uint8_t back[SECRET_BYTES];
	char text[SECRET_TEXT];

	(void)state;
	secret_format(bytes, sizeof(bytes), text);
	assert_string_equal(text, "000ff0ff5a0000000000000000000000");
	assert_true(secret_parse(text, back, sizeof(back)));
	assert_memory_equal(back, bytes, sizeof(bytes));
}

/* Goal: text of another length or with anything but digits is none, and nothing is written. */
static void test_bad_text(void **state)
{
	static const char *const bad[] = {
		NULL,       "",         "0",        "00ff00f",  "00ff00ff0", "00ff00ff00",
		"00FF00FF", "0x00ff00", " 00ff00f", "00ff00fg", "-0ff00ff",  "00ff\n0ff",
	};
	uint8_t bytes[4] = {1, 2, 3, 4};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(secret_parse(bad[i], bytes, sizeof(bytes)));
	assert_memory_equal(bytes, "\1\2\3\4", 4);
	assert_true(secret_parse("00ff00ff", bytes, sizeof(bytes)));
	assert_memory_equal(bytes, "\0\xff\0\xff", 4);
}

/* Goal: a proof is HMAC-SHA-256 as others compute it, begun. */
static void test_proof(void **state)
{
	static const uint8_t expected[PROOF_BYTES] = {0x8e, 0x03, 0xdd, 0xcb, 0xcf, 0x4c,
						      0x7e, 0xb0, 0x65, 0xad, 0x6f, 0x6c,
						      0x01, 0xa5, 0x10, 0x65};
	uint8_t secret[SECRET_BYTES], proof[PROOF_BYTES];

	(void)state;
	for (uint32_t i = 0; i < SECRET_BYTES; i++)
		secret[i] = (uint8_t)i;
	assert_true(secret_prove(secret, "what is said", 12, proof));
	assert_memory_equal(proof, expected, PROOF_BYTES);
}

/* Goal: a proof depends on each byte of the secret and of what is said, and on its length. */
static void test_other_proofs(void **state)
{
	uint8_t secret[SECRET_BYTES] = {0}, right[PROOF_BYTES], proof[PROOF_BYTES];
	char said[12] = "what is said";

	(void)state;
	assert_true(secret_prove(secret, said, sizeof(said), right));
	for (uint32_t i = 0; i < SECRET_BYTES; i++) {
		secret[i] ^= 1;
		assert_true(secret_prove(secret, said, sizeof(said), proof));
		assert_false(secret_equal(proof, right, PROOF_BYTES));
		secret[i] ^= 1;
	}
	for (size_t i = 0; i < sizeof(said); i++) {
		said[i] ^= 1;
		assert_true(secret_prove(secret, said, sizeof(said), proof));
		assert_false(secret_equal(proof, right, PROOF_BYTES));
		said[i] ^= 1;
	}
	assert_true(secret_prove(secret, said, sizeof(said) - 1, proof));
	assert_false(secret_equal(proof, right, PROOF_BYTES));
	assert_true(secret_prove(secret, said, sizeof(said), proof));
	assert_true(secret_equal(proof, right, PROOF_BYTES));
}

/* Goal: a difference is seen wherever it is. */
static void test_equal(void **state)
{
	uint8_t a[SECRET_BYTES] = {0}, b[SECRET_BYTES] = {0};

	(void)state;
	assert_true(secret_equal(a, b, sizeof(a)));
	for (uint32_t i = 0; i < SECRET_BYTES; i++) {
		b[i] = 0x80;
		assert_false(secret_equal(a, b, sizeof(a)));
		assert_true(secret_equal(a, b, i));
		b[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_made),         cmocka_unit_test(test_text),
		cmocka_unit_test(test_bad_text),     cmocka_unit_test(test_proof),
		cmocka_unit_test(test_other_proofs), cmocka_unit_test(test_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
