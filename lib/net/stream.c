/* SPDX-License-Identifier: Apache-2.0 */
#include "net/stream.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "memory/guard.h"
#include "net/net_internal.h"

/* What TLS puts into one record; more is cut, less costs as much to seal. */
#define RECORD_BYTES 16384u

/* Opened in one call: a record of one byte costs nearly as much as one of a thousand. */
#define RECORDS_READ 256u

/* ---- plain ---- */

/* That the other side has gone is frequent, and known by the number. */
ssize_t stream_error(int error)
{
	if (error == EAGAIN || error == EINTR)
		return 0;
	if (error == ECONNRESET || error == EPIPE)
		return -error;
	if (error == ETIMEDOUT)
		return fail(-ETIMEDOUT, "the other end did not confirm what it was sent, or that "
					"it is there: is its host up, and the network?");
	return fail(-error, "the connection broke: %s", strerror(error));
}

/* Pages of this memory were taken away: of whose? */
static ssize_t fault(const struct iovec *iov, int iovcnt)
{
	for (int i = 0; i < iovcnt; i++)
		guard_check(iov[i].iov_base, iov[i].iov_len);
	return -EFAULT;
}

static ssize_t plain_error(const struct iovec *iov, int iovcnt)
{
	return errno == EFAULT ? fault(iov, iovcnt) : stream_error(errno);
}

/*
 * By the system call itself: libc's functions are cancellation points, which costs a locked
 * instruction before and one after, a tenth of a small message's time. One piece is the common
 * case, and for it recvfrom() and sendto() copy less in.
 */
static ssize_t plain_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	struct msghdr header = {.msg_iov = (struct iovec *)(uintptr_t)iov,
				.msg_iovlen = (size_t)iovcnt};
	const int fd = stream->fd;
	ssize_t got;

	do
		got = iovcnt == 1 ? syscall(SYS_recvfrom, fd, iov->iov_base, iov->iov_len,
					    MSG_DONTWAIT, NULL, NULL)
				  : syscall(SYS_recvmsg, fd, &header, MSG_DONTWAIT);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -ECONNRESET;
	return got < 0 ? plain_error(iov, iovcnt) : got;
}

static ssize_t plain_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	const struct msghdr header = {.msg_iov = (struct iovec *)(uintptr_t)iov,
				      .msg_iovlen = (size_t)iovcnt};
	const int flags = MSG_NOSIGNAL | MSG_DONTWAIT;
	const int fd = stream->fd;
	ssize_t sent;

	do
		sent = iovcnt == 1 ? syscall(SYS_sendto, fd, iov->iov_base, iov->iov_len, flags,
					     NULL, 0)
				   : syscall(SYS_sendmsg, fd, &header, flags);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? plain_error(iov, iovcnt) : sent;
}

static bool plain_pending(const struct stream *stream)
{
	(void)stream;
	return false;
}

static const char *plain_describe(const struct stream *stream)
{
	(void)stream;
	return "plain";
}

static void plain_close(struct stream *stream)
{
	if (stream->fd >= 0)
		close(stream->fd);
}

static const struct stream_ops plain = {.read = plain_read,
					.write = plain_write,
					.pending = plain_pending,
					.describe = plain_describe,
					.close = plain_close};

/* ---- TLS ---- */

static size_t bytes_of(const struct iovec *iov, int iovcnt)
{
	size_t bytes = 0;

	for (int i = 0; i < iovcnt; i++)
		bytes += iov[i].iov_len;
	return bytes;
}

/*
 * Stops short of all where the socket is empty, at an error that the next call repeats, and where
 * others are to have their turn: after many records, or one that has nothing for us. Then there is
 * more to be read.
 */
static ssize_t decrypt_all(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	uint32_t records = 0;
	ssize_t total = 0;

	for (int i = 0; i < iovcnt; i++) {
		size_t done = 0;

		while (done < iov[i].iov_len) {
			size_t left = iov[i].iov_len - done;
			int rc;

			if (records++ == RECORDS_READ)
				return total;
			ERR_clear_error();
			rc = SSL_read(stream->ssl, (char *)iov[i].iov_base + done,
				      left > INT_MAX ? INT_MAX : (int)left);
			if (rc <= 0) {
				rc = tls_explain(stream->ssl, rc, &stream->wants_write);
				return total > 0 ? total : rc;
			}
			done += (size_t)rc;
			total += rc;
		}
	}
	return total;
}

static ssize_t tls_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	BIO *bio = SSL_get_rbio(stream->ssl);
	ssize_t total;
	int rc;

	tls_bio_read_begin(bio, bytes_of(iov, iovcnt));
	total = decrypt_all(stream, iov, iovcnt);
	rc = tls_bio_read_end(bio);
	return rc < 0 ? rc : total;
}

/*
 * Sixty small pieces would be sixty records: they are put together. What is put together depends on
 * the front of @p iov alone, so that a record that was begun is offered again as it was.
 */
static size_t gather(const struct iovec *iov, int iovcnt, size_t skip, char *record)
{
	size_t have = 0;

	for (int i = 0; i < iovcnt && have < RECORD_BYTES; i++) {
		size_t length = iov[i].iov_len - skip;

		if (length > RECORD_BYTES - have)
			length = RECORD_BYTES - have;
		memcpy(record + have, (char *)iov[i].iov_base + skip, length);
		have += length;
		skip = 0;
	}
	return have;
}

/*
 * Then nothing may go through SSL_write(): what it could not send it remembers by address, even
 * where it was told that buffers move (OpenSSL's issue 21202), and ours do. The kernel takes data
 * by the plain call, any number of pieces at once.
 */
static bool kernel_encrypts(const struct stream *stream)
{
	return BIO_get_ktls_send(SSL_get_wbio(stream->ssl));
}

/* @return what SSL_write() took; 0 the socket is full; negative: the connection is over */
static int encrypt(struct stream *stream, const char *front, size_t length)
{
	int rc;

	ERR_clear_error();
	rc = SSL_write(stream->ssl, front, length > INT_MAX ? INT_MAX : (int)length);
	return rc > 0 ? rc : tls_explain(stream->ssl, rc, &stream->wants_write);
}

static void advance(const struct iovec **iov, int *iovcnt, size_t *skip)
{
	for (; *iovcnt > 0 && *skip >= (*iov)->iov_len; (*iovcnt)--)
		*skip -= (*iov)++->iov_len;
}

/*
 * @param most    bytes that are encrypted
 * @param latest  in: bytes at the front that need not be encrypted any more; out: those of the last
 *                record
 * @return        bytes, those included; or as encrypt(), if there are none
 */
static ssize_t encrypt_all(struct stream *stream, const struct iovec *iov, int iovcnt, size_t most,
			   size_t *latest)
{
	ssize_t total = (ssize_t)*latest;
	char record[RECORD_BYTES];
	size_t skip = *latest;

	advance(&iov, &iovcnt, &skip);
	while (iovcnt > 0 && most > 0) {
		const char *front = (const char *)iov->iov_base + skip;
		size_t length = iov->iov_len - skip;
		int rc;

		if (length < RECORD_BYTES && iovcnt > 1) {
			length = gather(iov, iovcnt, skip, record);
			front = record;
		}
		rc = encrypt(stream, front, length < most ? length : most);
		*latest = rc > 0 ? (size_t)rc : 0;
		if (rc <= 0)
			return total > 0 ? total : rc;
		total += rc;
		most -= (size_t)rc;
		skip += (size_t)rc;
		advance(&iov, &iovcnt, &skip);
	}
	return total;
}

/*
 * Records go out together, and what the socket did not take of them later. Until then the last one
 * is said not to have been written, so that somebody comes again.
 *
 * OpenSSL reads by itself, so that lost memory is no error but emptiness (guard.h): of what was
 * encrypted meanwhile nothing is sent.
 */
static ssize_t tls_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	const uint32_t deaths = guard_deaths();
	BIO *bio = SSL_get_wbio(stream->ssl);
	size_t latest, most = bytes_of(iov, iovcnt);
	ssize_t total;
	int rc;

	if (kernel_encrypts(stream))
		return plain_write(stream, iov, iovcnt);
	rc = tls_bio_write_begin(bio, &most, &deaths, &latest);
	if (rc <= 0) {
		stream->wants_write = rc == 0;
		return rc;
	}
	total = encrypt_all(stream, iov, iovcnt, most, &latest);
	rc = tls_bio_write_end(bio, total > 0 ? latest : 0);
	if (rc < 0)
		return rc;
	stream->wants_write |= rc == 0;
	return rc == 0 && total > 0 ? total - (ssize_t)latest : total;
}

static bool tls_pending(const struct stream *stream)
{
	return SSL_pending(stream->ssl) > 0 || tls_bio_pending(SSL_get_rbio(stream->ssl));
}

static const char *tls_describe(const struct stream *stream)
{
	return kernel_encrypts(stream) ? "TLS 1.3 in the kernel" : "TLS 1.3";
}

static void tls_end(struct stream *stream)
{
	ERR_clear_error();
	if (SSL_is_init_finished(stream->ssl))
		SSL_shutdown(stream->ssl);
	tls_peer_free(tls_peer(stream->ssl));
	SSL_free(stream->ssl);
	ERR_clear_error();
	plain_close(stream);
}

const struct stream_ops stream_tls = {.read = tls_read,
				      .write = tls_write,
				      .pending = tls_pending,
				      .describe = tls_describe,
				      .close = tls_end};

/* ---- either ---- */

static const struct stream_ops *ops_of(const struct stream *stream)
{
	return stream->ops ? stream->ops : &plain;
}

ssize_t stream_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	stream->wants_write = false;
	return ops_of(stream)->read(stream, iov, iovcnt);
}

ssize_t stream_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	stream->wants_write = false;
	return ops_of(stream)->write(stream, iov, iovcnt);
}

bool stream_pending(const struct stream *stream)
{
	return ops_of(stream)->pending(stream);
}

const char *stream_describe(const struct stream *stream)
{
	return ops_of(stream)->describe(stream);
}

void stream_close(struct stream *stream)
{
	ops_of(stream)->close(stream);
	*stream = (struct stream){.fd = -1};
}
