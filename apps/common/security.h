/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Flags of both appliances about TCP and TLS.
 */
#ifndef COMMON_SECURITY_H
#define COMMON_SECURITY_H

#include <stdbool.h>
#include <stddef.h>

#include <sluice/sluice.h>

#include "common/options.h"

/** Their values; a field of the program's struct. */
struct security {
	const char *psk;
	const char *tls_cert;
	const char *tls_key;
	const char *tls_ca;
	const char *tls_crl;
	bool insecure;
	bool tcp_plain;
};

/* clang-format off */
/** The rows for them. @p security is a struct security in @p type */
#define SECURITY_FLAGS(type, security) \
	{"TCP and TLS", "psk", 0, OPTION_STRING, offsetof(type, security.psk), .argument = "FILE", \
	 .help = "pre-shared keys, lines IDENTITY:HEX; not readable by group or others"}, \
	{NULL, "tls-cert", 0, OPTION_STRING, offsetof(type, security.tls_cert), \
	 .argument = "FILE", .help = "our certificate and its chain, PEM"}, \
	{NULL, "tls-key", 0, OPTION_STRING, offsetof(type, security.tls_key), \
	 .argument = "FILE", .help = "its private key, PEM"}, \
	{NULL, "tls-ca", 0, OPTION_STRING, offsetof(type, security.tls_ca), \
	 .argument = "FILE", .help = "who must have signed the peer's certificate, PEM"}, \
	{NULL, "tls-crl", 0, OPTION_STRING, offsetof(type, security.tls_crl), \
	 .argument = "FILE", .help = "revocation lists of these authorities, PEM; read again at SIGHUP"}, \
	{NULL, "insecure", 0, OPTION_BOOL, offsetof(type, security.insecure), "false", \
	 .help = "let TCP leave this host without TLS: anybody on the way can read and write"}, \
	{NULL, "tcp-plain", 0, OPTION_BOOL, offsetof(type, security.tcp_plain), "false", \
	 .help = "with TLS: data connections are authenticated, but not encrypted"}
/* clang-format on */

/** Do the flags fit together? @return 0; -EINVAL: a usage error */
int security_check(const struct security *security);

/** Is TLS on? */
bool security_tls(const struct security *security);

/** Put them where the engine reads them. */
void security_apply(const struct security *security, struct slu_engine_options *options);

#endif
