/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What stream.c and the files of TLS share.
 */
#ifndef NET_NET_INTERNAL_H
#define NET_NET_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "net/tls.h"

#define KEY_DIGEST_BYTES 32 /* SHA-256 */

/** One line of a key file. */
struct psk {
	char identity[SLU_IDENTITY_MAX + 1];
	uint8_t key[SLU_PSK_BYTES_MAX];
	uint8_t length;
	uint32_t line;
};

/** A key file; ordered by identity. Lives and dies with the SSL_CTX that uses it. */
struct psk_table {
	uint32_t count;
	uint32_t room;
	uint32_t first;   /* the file's first line */
	struct psk *keys; /* secret.h */
	uint32_t chosen;  /* client: the one it uses */
};

struct tls {
	enum tls_role role;
	pthread_mutex_t lock; /* of ctx and reading */
	SSL_CTX *ctx;
	uint64_t reading;             /* of the files, that ctx comes from; no two are the same */
	struct slu_tls_options files; /* own copies */
	bool has_certificate;
};

/** What we know of one connection; hangs on its SSL. */
struct tls_peer {
	enum tls_role role; /* ours */
	bool offers_key;    /* client: we do; server: the client does */
	bool has_certificate;
	bool unknown;     /* server: of the identity that was offered no key is there */
	bool by_key;      /* authenticated so */
	bool shaken;      /* the handshake is over; OpenSSL forgets that after an error */
	uint32_t reads;   /* that are left for it */
	uint32_t asides;  /* messages of the handshake's kind since the last data */
	uint64_t reading; /* of the files, by which the peer was found valid last */
	char identity[SLU_IDENTITY_MAX + 1]; /* client: which we offer; server: the client's */
	uint8_t key_digest[KEY_DIGEST_BYTES];
	char *host; /* client: for messages */
};

/** So many asides in a row are no good faith: the connection ends. */
#define TLS_ASIDES_MAX 32u

/** @return 0; as tls_open() */
int psk_table_read(const char *path, struct psk_table **table);

/** Accepts NULL. */
void psk_table_free(struct psk_table *table);

/** @return NULL: no such identity */
const struct psk *psk_find(const struct psk_table *table, const char *identity);

void psk_digest(const struct psk *psk, uint8_t digest[KEY_DIGEST_BYTES]);

/** Fit for an identity: letters, digits and . _ @ - */
bool tls_identity_valid(const char *identity);

/** The key table of @p ctx, or NULL. */
struct psk_table *tls_keys(const SSL_CTX *ctx);

/** Install the callbacks that look into the key table. */
void tls_use_keys(SSL_CTX *ctx, enum tls_role role);

struct tls_peer *tls_peer(const SSL *ssl);

/** Accepts NULL. */
void tls_peer_free(struct tls_peer *peer);

/**
 * What a call of OpenSSL that returned @p rc, not success, came to.
 *
 * @return 0 wait, see @p wants_write; as tls_handshake()
 */
int tls_explain(SSL *ssl, int rc, bool *wants_write);

/** tls_start() makes a stream one of these. */
extern const struct stream_ops stream_tls;

/** A BIO over a socket that raises no SIGPIPE. NULL: out of memory. */
BIO *stream_bio(int fd);

/** SSL_do_handshake() over such a BIO, which fails when it has read as often as @p reads says. */
int stream_shake(SSL *ssl, uint32_t *reads);

#endif
