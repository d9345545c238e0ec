/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * TLS 1.3 over a stream, always mutual: by pre-shared key (with an ephemeral Diffie-Hellman
 * exchange) or by certificates. A server may offer both.
 *
 * Order of calls: tls_open; for each connection tls_start on a plain stream and tls_handshake until
 * it is done, then the stream's own calls. tls_close may come while streams live.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include <stdbool.h>

#include <sluice/security.h>

#include "net/stream.h"

struct tls;

#define TLS_BINDING_BYTES 32u

enum tls_role {
	TLS_CLIENT,
	TLS_SERVER,
};

/** Is TLS asked for at all? */
bool tls_wanted(const struct slu_tls_options *options);

/**
 * Read keys and certificates.
 *
 * @return 0; -EINVAL a file or a line that cannot be used, or options that do not go together;
 *         -EPERM a key file that others may read; -ENOKEY no such identity in psk_file;
 *         -EKEYEXPIRED our certificate has; -EKEYREJECTED the key does not fit the certificate;
 *         -ENOENT, -EACCES and others of open; -ENOMEM
 */
int tls_open(enum tls_role role, const struct slu_tls_options *options, struct tls **tls);

/** Accepts NULL. */
void tls_close(struct tls *tls);

/**
 * Read the files again; new connections use what they hold now. Any thread.
 *
 * @return 0; as tls_open(), and the old keys stay in force
 */
int tls_reload(struct tls *tls);

/**
 * Put TLS onto a connected plain stream.
 *
 * @param host  client: what the target's certificate must be for, unless options.name says it
 * @return      0; -ENOMEM
 */
int tls_start(struct tls *tls, struct stream *stream, const char *host);

/**
 * Go on with the handshake as far as the socket allows.
 *
 * A client learns only from its first read that the target refuses its certificate.
 *
 * @return 1 done; 0 wait: for writing if stream->wants_write, else for reading; -EPERM the peer
 *         does not speak TLS; -ENOKEY unknown identity, or the peer shows none; -EKEYREJECTED wrong
 *         key, untrusted certificate, wrong name; -EKEYEXPIRED; -EPROTO; -ECONNRESET
 */
int tls_handshake(struct stream *stream);

/** Is there a channel through which a refusal can be told, though tls_handshake() has failed? */
bool tls_shaken(const struct stream *stream);

/** Who the peer is, after the handshake: PSK identity or common name. Lives with the stream. */
const char *tls_identity(const struct stream *stream);

/**
 * What the two ends of one connection have in common and no other two (RFC 9266), also where one of
 * them relays all that another connection says; of a plain stream zeros.
 *
 * @return false: out of memory
 */
bool tls_binding(const struct stream *stream, uint8_t binding[static TLS_BINDING_BYTES]);

/**
 * Would the peer still be let in, with the files as they were last read? Cheap while they have not
 * been read again. One thread at a time for one stream.
 */
bool tls_still_valid(struct tls *tls, const struct stream *stream);

#endif
