/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A connected, non-blocking byte stream: a Unix or TCP socket, plain or under TLS, or a simulated
 * one. The same calls whichever it is; with TLS the kernel does the encryption where it can.
 *
 * A stream has one user at a time; it may be handed from one thread to another between calls. Where
 * streams come from: network.h.
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef struct ssl_st SSL;

struct stream;

/** A kind of streams: what the calls below do. */
struct stream_ops {
	ssize_t (*read)(struct stream *stream, const struct iovec *iov, int iovcnt);
	ssize_t (*write)(struct stream *stream, const struct iovec *iov, int iovcnt);
	bool (*pending)(const struct stream *stream);
	const char *(*describe)(const struct stream *stream);
	void (*close)(struct stream *stream);
};

struct stream {
	const struct stream_ops *ops; /* NULL: plain */
	int fd;                       /* -1: closed; poll and epoll tell of each kind by it */
	SSL *ssl;                     /* NULL: plain */
	bool more;        /* TLS: the last read did not stop for want of the socket */
	bool wants_write; /* TLS: the last call stopped because the socket is full, whatever it was
			   */
};

/**
 * Read what is there into @p iov, front to back.
 *
 * @return bytes, over 0; 0 nothing is there now, or others are to have their turn, and the
 *         descriptor is still readable; -ECONNRESET end of stream, or the peer reset it;
 *         -EPROTO what came is not TLS; -errno. All but -ECONNRESET with slu_last_error().
 */
ssize_t stream_read(struct stream *stream, const struct iovec *iov, int iovcnt);

/**
 * Write as much as the socket takes. Under TLS, what was begun must be offered again, at the same
 * front, when 0 or less than all was returned.
 *
 * @return bytes, 0: full, ask for EPOLLOUT; -ECONNRESET, -EPIPE; -EFAULT pages of the memory were
 *         taken away (memory/guard.h), nothing that was read since is sent; -errno with
 *         slu_last_error()
 */
ssize_t stream_write(struct stream *stream, const struct iovec *iov, int iovcnt);

/** What an errno of a socket comes to: as stream_read(), stream_write(). */
ssize_t stream_error(int error);

/** It carries bulk: under TLS more is read at a time, into a buffer that is kept. */
void stream_expect_bulk(struct stream *stream);

/** Something to read that TLS has already read off the socket: epoll does not know of it. */
bool stream_pending(const struct stream *stream);

/** "plain", "TLS 1.3", "TLS 1.3 in the kernel". Static. */
const char *stream_describe(const struct stream *stream);

/** Say goodbye as TLS wants it, close. Accepts a closed one. Does not block. */
void stream_close(struct stream *stream);

#endif
