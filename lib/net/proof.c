/* SPDX-License-Identifier: Apache-2.0 */
#include "net/proof.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>

#include "base/environment.h"
#include "base/log.h"

int secret_make(uint8_t *bytes, size_t count)
{
	if (environment->random(bytes, count, false) < 0)
		return fail(-EAGAIN, "this host has no randomness yet: try again");
	return 0;
}

void secret_format(const uint8_t *bytes, size_t count, char *text)
{
	for (size_t i = 0; i < count; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

bool secret_parse(const char *text, uint8_t *bytes, size_t count)
{
	if (!text || strlen(text) != 2 * count || strspn(text, "0123456789abcdef") != 2 * count)
		return false;
	for (size_t i = 0; i < count; i++) {
		unsigned byte;

		sscanf(text + 2 * i, "%2x", &byte);
		bytes[i] = (uint8_t)byte;
	}
	return true;
}

void secret_wipe(uint8_t *bytes, size_t count)
{
	OPENSSL_cleanse(bytes, count);
}

bool secret_prove(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		  uint8_t proof[static PROOF_BYTES])
{
	uint8_t digest[EVP_MAX_MD_SIZE];

	if (!HMAC(EVP_sha256(), secret, SECRET_BYTES, said, length, digest, NULL))
		return false;
	memcpy(proof, digest, PROOF_BYTES);
	return true;
}

bool secret_prove_text(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		       char text[static PROOF_TEXT])
{
	uint8_t proof[PROOF_BYTES];

	if (!secret_prove(secret, said, length, proof))
		return false;
	secret_format(proof, sizeof(proof), text);
	return true;
}

bool secret_is_proven(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		      const char *text)
{
	uint8_t right[PROOF_BYTES], given[PROOF_BYTES];

	return secret_parse(text, given, sizeof(given)) &&
	       secret_prove(secret, said, length, right) &&
	       secret_equal(right, given, sizeof(right));
}

bool secret_equal(const uint8_t *a, const uint8_t *b, size_t count)
{
	return CRYPTO_memcmp(a, b, count) == 0;
}
