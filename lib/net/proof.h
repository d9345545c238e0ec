/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Secrets that one end makes, tells the other over an authenticated session, and has proven to it
 * on a connection of another kind. A proof says nothing about the secret, and is worth nothing for
 * other bytes than those that it was made of.
 */
#ifndef NET_PROOF_H
#define NET_PROOF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECRET_BYTES 16u
#define SECRET_TEXT  (2 * SECRET_BYTES + 1)
#define PROOF_BYTES  16u /* of HMAC-SHA-256, begun */
#define PROOF_TEXT   (2 * PROOF_BYTES + 1)

/** Random bytes for secrets and nonces. @return 0; -EAGAIN the kernel has no randomness yet */
int secret_make(uint8_t *bytes, size_t count);

/** @p text has 2 * @p count + 1 bytes. */
void secret_format(const uint8_t *bytes, size_t count, char *text);

/** The reverse. @return false: @p text, NULL included, is not of that many bytes */
bool secret_parse(const char *text, uint8_t *bytes, size_t count);

/** Nothing is left of it. */
void secret_wipe(uint8_t *bytes, size_t count);

/** @return false: out of memory */
bool secret_prove(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		  uint8_t proof[static PROOF_BYTES]);

/** The same as text. */
bool secret_prove_text(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		       char text[static PROOF_TEXT]);

/** Is @p text, NULL included, that proof? */
bool secret_is_proven(const uint8_t secret[static SECRET_BYTES], const void *said, size_t length,
		      const char *text);

/** In a time that does not depend on where they differ. */
bool secret_equal(const uint8_t *a, const uint8_t *b, size_t count);

#endif
