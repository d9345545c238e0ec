/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a core can encrypt: the limit of TLS, where all else costs nothing.
 */
#ifndef PERF_CIPHER_H
#define PERF_CIPHER_H

#include <openssl/ssl.h>

#include "bench.h"

/**
 * Seal full records of TLS 1.3 with the cipher that @p ssl has negotiated, through OpenSSL, on the
 * first core.
 *
 * @return bytes of plain text a second
 */
double cipher_rate(const struct bench *bench, const SSL *ssl);

#endif
