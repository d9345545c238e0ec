/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who may connect over TCP, and who may do what: credentials and grants.
 *
 * Everybody who connects has an identity:
 *   over a Unix socket      user:NAME (user:UID where the user has no name)
 *   over TCP with TLS       the identity of the pre-shared key, or the certificate's common name
 *   over TCP without TLS    tcp:anonymous
 *
 * TLS is version 1.3 and always mutual. It is on when psk_file or cert_file is given.
 */
#ifndef SLUICE_SECURITY_H
#define SLUICE_SECURITY_H

#include <stddef.h>
#include <stdint.h>

#include <sluice/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_IDENTITY_MAX  63 /* bytes, without the NUL */
#define SLU_GRANTS_MAX    65536
#define SLU_LIMITS_MAX    16 /* kinds of limits that there is room for, those to come included */
#define SLU_PSK_BYTES_MIN 16
#define SLU_PSK_BYTES_MAX 64

/** NULL or empty texts: not given. Read when the engine is opened, and by slu_engine_reload_tls. */
struct slu_tls_options {
	const char *psk_file;  /* lines IDENTITY:HEX, not readable by group or others */
	const char *identity;  /* initiator: which line of psk_file; NULL = its first */
	const char *cert_file; /* PEM: our certificate and its chain */
	const char *key_file;  /* PEM: its private key */
	const char *ca_file;   /* PEM: who must have signed the peer's certificate */
	const char
		*crl_file; /* PEM: revocation lists, one of each authority; NULL = none is asked */
	const char *name;  /* initiator: name in the target's certificate; NULL = the address */
	uint8_t reserved[64]; /* zero */
};

/** @p identity has @p rights (of enum slu_right; 0 = none) on @p segment. */
struct slu_grant {
	const char *identity; /* "*" = every one without a grant of its own for that segment */
	const char *segment;  /* "*" = every one without a grant of its own for that identity */
	uint32_t rights;
	uint8_t reserved[12]; /* zero */
};

/**
 * What one identity may have of a target at once. Each kind has a default, which the target's
 * options replace for all and slu_identity_limits for one. What exceeds it is refused with -EDQUOT.
 */
enum slu_limit {
	SLU_LIMIT_CONNECTIONS,      /* control connections */
	SLU_LIMIT_DATA_CONNECTIONS, /* over TCP */
	SLU_LIMIT_SESSIONS,         /* on all its connections */
	SLU_LIMIT_LINKS,            /* over RDMA */
	SLU_LIMIT_RESPONSE_BYTES,   /* of answers to calls, held for clients that do not read */
	SLU_LIMIT_REQUESTS,         /* for a path, not answered yet */
	SLU_LIMIT_DESCRIPTORS,      /* passed and not received yet, over Unix sockets */
	SLU_LIMIT_CALL_BYTES,       /* of calls longer than SLU_MESSAGE_MAX, until answered */
	SLU_LIMIT_CONTROL_BYTES, /* of control messages in a second; more wait, none is refused */
	SLU_LIMIT_COUNT,         /* so many are known; the room behind them is zero */
};

/** Limits of one identity by enum slu_limit; 0: what all have. */
struct slu_identity_limits {
	const char *identity;
	uint64_t limits[SLU_LIMITS_MAX];
	uint8_t reserved[24]; /* zero */
};

/** The option that sets it, such as "max-sessions". Any thread; the text is static. */
SLU_API const char *slu_limit_name(enum slu_limit limit);

/** What is limited, in words, such as "sessions". Any thread; the text is static. */
SLU_API const char *slu_limit_text(enum slu_limit limit);

/** What all have where nothing else was said. Any thread. */
SLU_API uint64_t slu_limit_default(enum slu_limit limit);

#ifdef __cplusplus
}
#endif

#endif
