/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Files of keys and certificates for tests, in a directory of their own.
 */
#ifndef TESTS_UNIT_KEYS_H
#define TESTS_UNIT_KEYS_H

#define KEY_ALICE "6161616161616161616161616161616161616161616161616161616161616161"
#define KEY_BOB   "62626262626262626262626262626262"
#define KEY_WRONG "6363636363636363636363636363636363636363636363636363636363636363"

/** Make the directory. @return 0; -1 */
int keys_open(void);

/** Remove it and all in it. */
void keys_close(void);

/** Path of @p name in it; valid for long. */
const char *keys_path(const char *name);

/** Write @p text there, readable by the owner only. @return its path */
const char *keys_write(const char *name, const char *text);

/** Make an authority: NAME.crt and NAME.key. */
void keys_authority(const char *name);

/**
 * Make a revocation list NAME.crl of an authority.
 *
 * @param revoked  a certificate that is on it; NULL: none
 * @param seconds  until it expires; negative: it has
 */
void keys_revocations(const char *name, const char *authority, const char *revoked, long seconds);

/**
 * Make a certificate NAME.crt and its key NAME.key, signed by an authority.
 *
 * @param names    subject alternative names, "DNS:target.test,IP:127.0.0.1"; NULL: none
 * @param seconds  until it expires; negative: it has
 */
void keys_certificate(const char *name, const char *authority, const char *common_name,
		      const char *names, long seconds);

#endif
