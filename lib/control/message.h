/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Control messages: a 32-bit little-endian length and that many bytes of JSON, an object with a
 * string "type"; over a Unix socket descriptors may ride along. Everything read is input.
 *
 *   client                                       target
 *   hello {versions:[low,high], name}        ->
 *                                            <-  welcome {version, name, incarnation, pid}
 *   open {segment, rights, transports:[..]}  ->
 *                                            <-  opened {transport, length, rights, page_bytes,
 * node, grant:{..}}  + descriptors moved {operations, bytes_read, bytes_written}  ->      about
 * once a second, totals usage {}                                 ->
 *                                            <-  usage {cpu_ns}
 *                                            <-  closing {}         operations fail from now on
 *   bye {}                                   ->
 * Instead of any answer: refused {error, text}, then the target closes.
 */
#ifndef CONTROL_MESSAGE_H
#define CONTROL_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#define MESSAGE_VERSION_LOW  1
#define MESSAGE_VERSION_HIGH 1

#define MESSAGE_MAX_BYTES 16384u
#define MESSAGE_FDS_MAX   4u

/** Assembles one message from a stream; nothing is allocated while no message is begun. */
struct message_reader {
	uint32_t have; /* bytes of header and body read */
	uint8_t header[4];
	char *body;
	uint32_t body_bytes;
	bool takes_fds; /* else descriptors that a peer sends are closed by the kernel */
	uint32_t fd_count;
	int fds[MESSAGE_FDS_MAX];
};

/** Read the body of a message. @return 0; -EPROTO, slu_last_error() says what is wrong */
int message_parse(const char *body, size_t length, json_t **message);

/** @p message's type, never NULL once message_parse() took it. */
const char *message_type(const json_t *message);

/**
 * Read what is there of the next message; never blocks on a non-blocking socket.
 *
 * @return 1 @p message is complete, its descriptors are in reader->fds (the caller's now, if it
 *         sets fd_count to 0 before the next call, else closed by it); 0 more must come;
 *         -ECONNRESET end of stream; -EPROTO; -ENOMEM; -errno of recvmsg
 */
int message_read(struct message_reader *reader, int fd, json_t **message);

/** Free what is half read, close what was not taken. */
void message_reader_reset(struct message_reader *reader);

/**
 * Write a whole message. A peer that does not read until the socket is full is given up.
 *
 * @return 0; -EAGAIN the socket is full; -EPIPE and others of sendmsg; -EMSGSIZE; -ENOMEM
 */
int message_write(int fd, const json_t *message, const int *fds, uint32_t fd_count);

/** Write and free @p message; NULL (out of memory while it was packed) is -ENOMEM. */
int message_write_new(int fd, json_t *message, const int *fds, uint32_t fd_count);

#endif
