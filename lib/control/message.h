/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Control messages: a 32-bit little-endian length and that many bytes of JSON, an object with a
 * string "type"; over a Unix socket descriptors may ride along. Everything read is input.
 *
 * A connection is authenticated once and carries many sessions, one per segment that the client has
 * opened; the client numbers them.
 *
 *   client                                 target
 *   hello {versions:[low,high], name}  ->
 *                                      <-  welcome {version, name, incarnation, pid, boot_id,
 *                                              identity, connection, secret,
 *                                              socket: path or null,
 *                                              tcp: {host, port, tls, plain} or null,
 *                                              transports: {verbs: {..}, ..}, or not there}
 *   open {session, segment, rights,    ->
 *       transports:[..]}
 *                                      <-  opened {session, transport, length, rights,
 *                                              page_bytes, node, grant:{..}} + descriptors
 *                                      <-  or refused {session, error, text}
 *   path {session, request,            ->  several may be open; what is in offer and answer is
 *       offer:{..}}                            the transport's
 *                                      <-  path {session, request, answer:{..}}
 *                                      <-  or refused {session, request, error, text}: the session
 *                                              stays as it was
 *   invite {request,                   ->  for data connections, while a session is open
 *       offer: {link, count}}
 *                                      <-  invite {request, answer: {secret}}
 *   fence {request, offer: {link}      ->  what that link of ours has brought is over, or all of
 *       or {connection, binding,               that earlier connection of ours
 *           proof}}
 *                                      <-  fence {request, answer: {} or {proof}}  when it is so
 *   same {request,                     ->  was it you who gave that connection of ours its secret?
 *       offer: {connection, binding,
 *           nonce}}
 *                                      <-  same {request, answer: {proof}}
 *                                      <-  to each: refused {request, error, text}
 *   moved {totals:[[session,           ->  about once a second
 *       operations, bytes_read,
 *       bytes_written], ..]}
 *   usage {}                           ->
 *                                      <-  usage {cpu_ns}
 *                                      <-  closing {sessions:[..], error}, all without a list:
 *                                              their operations fail from now on
 *   close {session, operations,        ->
 *       bytes_read, bytes_written}
 *   ping {}                           <->  pong {}
 *   bye {}                             ->
 *
 * A data connection of the transports begins with another first message. What follows the answer is
 * not the control plane's:
 *
 *   attach {connection, link}          ->
 *                                      <-  challenge {nonce}
 *   proof {proof}                      ->
 *                                      <-  attached {}
 *
 * The proof is made with the secret of an invitation (invitation.h), of the nonce and of what was
 * said with attach: who overhears it can use it for nothing else. Links are numbered by the client;
 * a link is the data connections, or queue pairs, of one of its pollers.
 *
 * The secret of a control connection is said in its welcome and never again. With it the client
 * proves (FENCE_END) that it may have the connection ended, on another one, and the target
 * (FENCE_OVER) that it has ended the connection that it had given that secret: nobody else can; and
 * (struct same_claim) that it is the one that gave it, on the connection where it is asked. Under
 * TLS it is a secret of that very connection, which both ends name by what they see of it (struct
 * connection_name): said by somebody else on another one, it is not what the target would give
 * there.
 *
 * Instead of an answer that is not to a session: refused {error, text}, then the target closes. So
 * it answers a type that it does not know.
 *
 * Version 6 is the only one that is spoken; the welcome says which is.
 */
#ifndef CONTROL_MESSAGE_H
#define CONTROL_MESSAGE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "net/stream.h"
#include "net/tls.h"

#define MESSAGE_VERSION_LOW  6
#define MESSAGE_VERSION_HIGH 6

#define FENCE_END  "end"
#define FENCE_OVER "over"

/** A control connection; of this its target makes its secret. */
struct connection_name {
	uint64_t number;                    /* the target's */
	uint8_t binding[TLS_BINDING_BYTES]; /* tls_binding() */
};

static_assert(sizeof(struct connection_name) == 8 + TLS_BINDING_BYTES, "no padding is proven");

#define SAME_NONCE_BYTES 16u

struct same_claim {
	uint8_t nonce[SAME_NONCE_BYTES];
	uint8_t binding[TLS_BINDING_BYTES]; /* of the connection on which it is asked */
};

static_assert(sizeof(struct same_claim) == SAME_NONCE_BYTES + TLS_BINDING_BYTES,
	      "no padding is proven");

#define MESSAGE_MAX_BYTES            16384u
#define MESSAGE_FDS_MAX              4u
#define MESSAGE_TRANSPORTS_MAX_BYTES 8192u /* of what the welcome says of transports */

/** Assembles one message from a stream; nothing is allocated while no message is begun. */
struct message_reader {
	uint32_t have; /* bytes of header and body read */
	uint8_t header[4];
	char *body;
	uint32_t body_bytes;
	bool takes_fds; /* a Unix socket that may pass some; else descriptors that a peer sends are
			   closed by the kernel */
	uint32_t fd_count;
	int fds[MESSAGE_FDS_MAX];
};

/** Read the body of a message. @return 0; -EPROTO, slu_last_error() says what is wrong */
int message_parse(const char *body, size_t length, json_t **message);

/** @p message's type, never NULL once message_parse() took it. */
const char *message_type(const json_t *message);

/** Messages that a full socket did not take; nothing is allocated while there is none. */
struct message_writer {
	struct message_queued *first;
	struct message_queued **last; /* NULL: empty */
	size_t queued_bytes;
	size_t limit_bytes; /* of what is queued */
};

/**
 * Read what is there of the next message, and not one byte more.
 *
 * @return 1 @p message is complete, its descriptors are in reader->fds (the caller's now, if it
 *         sets fd_count to 0 before the next call, else closed by it); 0 more must come,
 *         or is to be read when others have had their turn;
 *         -ECONNRESET end of stream; -EPROTO; -ENOMEM; others as stream_read()
 */
int message_read(struct message_reader *reader, struct stream *stream, json_t **message);

/** Free what is half read, close what was not taken. */
void message_reader_reset(struct message_reader *reader);

/**
 * Write @p message and free it, or queue what the socket does not take. NULL (out of memory while
 * it was packed) is -ENOMEM.
 *
 * @param fds  stay the caller's
 * @return     0; -EAGAIN the peer does not read and the queue is full; -EMSGSIZE; -ENOMEM; as
 *             stream_write()
 */
int message_send(struct message_writer *writer, struct stream *stream, json_t *message,
		 const int *fds, uint32_t fd_count);

/** Go on with what is queued. @return 0, see message_writer_busy(); as stream_write() */
int message_flush(struct message_writer *writer, struct stream *stream);

/** Is something queued? Then flush when the socket can be written to. */
bool message_writer_busy(const struct message_writer *writer);

/** Forget what is queued. */
void message_writer_reset(struct message_writer *writer);

/** The 16 hexadecimal digits at @p key. @return false: there are none */
bool message_number(const json_t *message, const char *key, uint64_t *number);

/** The same at "connection" and "binding". */
bool message_connection(const json_t *message, struct connection_name *name);

/** A JSON string of @p text, whatever bytes are in it: those of broken UTF-8 become '?'. */
json_t *message_text(const char *text);

#endif
