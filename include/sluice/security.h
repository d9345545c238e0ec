/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who may connect over TCP, and who may do what: credentials and grants.
 *
 * Everybody who connects has an identity:
 *   over a Unix socket      user:NAME (user:UID where the user has no name)
 *   over TCP with TLS       the identity of the pre-shared key, or the certificate's common name
 *   over TCP without TLS    anonymous
 *
 * TLS is version 1.3 and always mutual. It is on when psk_file or cert_file is given.
 */
#ifndef SLUICE_SECURITY_H
#define SLUICE_SECURITY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_IDENTITY_MAX  63 /* bytes, without the NUL */
#define SLU_GRANTS_MAX    65536
#define SLU_PSK_BYTES_MIN 16
#define SLU_PSK_BYTES_MAX 64

/** NULL or empty texts: not given. Read when the engine is opened, and by slu_engine_reload_tls. */
struct slu_tls_options {
	const char *psk_file;  /* lines IDENTITY:HEX, not readable by group or others */
	const char *identity;  /* initiator: which line of psk_file; NULL = its first */
	const char *cert_file; /* PEM: our certificate and its chain */
	const char *key_file;  /* PEM: its private key */
	const char *ca_file;   /* PEM: who must have signed the peer's certificate */
	const char *name;      /* initiator: name in the target's certificate; NULL = the address */
};

/** @p identity has @p rights (of enum slu_right; 0 = none) on @p segment. */
struct slu_grant {
	const char *identity; /* "*" = every one without a grant of its own for that segment */
	const char *segment;  /* "*" = every one without a grant of its own for that identity */
	uint32_t rights;
};

#ifdef __cplusplus
}
#endif

#endif
