/* SPDX-License-Identifier: Apache-2.0 */
#include "net/stream.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "memory/guard.h"
#include "net/net_internal.h"

/* What TLS puts into one record; more is cut, less costs as much to seal. */
#define RECORD_BYTES 16384u

/* Of several records, which are read off the socket together where bulk is expected. */
#define BULK_BYTES (5 * RECORD_BYTES)

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
static ssize_t receive_pieces(int fd, const struct iovec *iov, int iovcnt)
{
	struct msghdr header = {.msg_iov = (struct iovec *)(uintptr_t)iov,
				.msg_iovlen = (size_t)iovcnt};

	return syscall(SYS_recvmsg, fd, &header, MSG_DONTWAIT);
}

static ssize_t plain_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	ssize_t got;

	do
		got = iovcnt == 1 ? syscall(SYS_recvfrom, stream->fd, iov->iov_base, iov->iov_len,
					    MSG_DONTWAIT, NULL, NULL)
				  : receive_pieces(stream->fd, iov, iovcnt);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -ECONNRESET;
	return got < 0 ? plain_error(iov, iovcnt) : got;
}

#define SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)

static ssize_t send_pieces(int fd, const struct iovec *iov, int iovcnt)
{
	const struct msghdr header = {.msg_iov = (struct iovec *)(uintptr_t)iov,
				      .msg_iovlen = (size_t)iovcnt};

	return syscall(SYS_sendmsg, fd, &header, SEND_FLAGS);
}

static ssize_t plain_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	ssize_t sent;

	do
		sent = iovcnt == 1 ? syscall(SYS_sendto, stream->fd, iov->iov_base, iov->iov_len,
					     SEND_FLAGS, NULL, 0)
				   : send_pieces(stream->fd, iov, iovcnt);
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
		descriptor_close(stream->fd);
}

static const struct stream_ops plain = {.read = plain_read,
					.write = plain_write,
					.pending = plain_pending,
					.describe = plain_describe,
					.close = plain_close};

/* ---- TLS ---- */

/* What this thread encrypts. */
static _Thread_local struct {
	const uint32_t *deaths; /* of guard_deaths(), before it was read; NULL: nothing */
	bool more;              /* another record follows at once: the kernel sends them together */
} encrypting;

/*
 * OpenSSL reads by itself, so that lost memory is no error but emptiness (guard.h): of what was
 * encrypted meanwhile bio_write() sends nothing.
 */
static int encrypt(struct stream *stream, const char *front, size_t length, size_t left,
		   const uint32_t *deaths)
{
	int rc;

	if (length > RECORD_BYTES)
		length = RECORD_BYTES;
	ERR_clear_error();
	encrypting.deaths = deaths;
	encrypting.more = left > length;
	rc = SSL_write(stream->ssl, front, (int)length);
	encrypting.deaths = NULL;
	encrypting.more = false;
	if (rc > 0)
		return rc;
	if (guard_deaths() != *deaths)
		return -EFAULT;
	return tls_explain(stream->ssl, rc, &stream->wants_write);
}

/*
 * Stops short of all where nothing whole is there, at an error that the next call repeats, and
 * where others are to have their turn: after many records, or one that had nothing for us. Then
 * there is more, in the socket or read off it already.
 */
static ssize_t tls_read(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	uint32_t records = 0;
	ssize_t total = 0;

	stream->more = true;
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
				stream->more =
					!SSL_want_read(stream->ssl) && !SSL_want_write(stream->ssl);
				rc = tls_explain(stream->ssl, rc, &stream->wants_write);
				return total > 0 ? total : rc;
			}
			done += (size_t)rc;
			total += rc;
			if (tls_peer(stream->ssl)->asides > 0) {
				tls_peer(stream->ssl)->asides = 0;
				return total;
			}
		}
	}
	return total;
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

static size_t bytes_of(const struct iovec *iov, int iovcnt)
{
	size_t bytes = 0;

	for (int i = 0; i < iovcnt; i++)
		bytes += iov[i].iov_len;
	return bytes;
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

static ssize_t tls_write(struct stream *stream, const struct iovec *iov, int iovcnt)
{
	const uint32_t deaths = guard_deaths();
	char record[RECORD_BYTES];
	size_t left = bytes_of(iov, iovcnt);
	ssize_t total = 0;
	size_t skip = 0;

	if (kernel_encrypts(stream))
		return plain_write(stream, iov, iovcnt);
	while (iovcnt > 0) {
		const char *front = (const char *)iov->iov_base + skip;
		size_t length = iov->iov_len - skip;
		int rc;

		if (length == 0) {
			iov++;
			iovcnt--;
			skip = 0;
			continue;
		}
		if (length < RECORD_BYTES && iovcnt > 1) {
			length = gather(iov, iovcnt, skip, record);
			front = record;
		}
		rc = encrypt(stream, front, length, left, &deaths);
		if (rc == -EFAULT)
			return rc; /* the next call would not see it */
		if (rc <= 0)
			return total > 0 ? total : rc;
		total += rc;
		left -= (size_t)rc;
		for (skip += (size_t)rc; iovcnt > 0 && skip >= iov->iov_len; iovcnt--)
			skip -= iov++->iov_len;
	}
	return total;
}

static bool tls_pending(const struct stream *stream)
{
	return stream->more && SSL_has_pending(stream->ssl);
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

/* With more of what was read ahead, OpenSSL goes on to it after such a message: of changes of keys
 * there could be thousands in it. */
static void on_message(int is_ours, int version, int type, const void *bytes, size_t length,
		       SSL *ssl, void *arg)
{
	(void)version, (void)bytes, (void)length, (void)arg;
	if (!is_ours && type == SSL3_RT_HANDSHAKE && ++tls_peer(ssl)->asides > TLS_ASIDES_MAX)
		SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

void stream_expect_bulk(struct stream *stream)
{
	if (!stream->ssl || BIO_get_ktls_recv(SSL_get_rbio(stream->ssl)))
		return;
	tls_peer(stream->ssl)->asides = 0;
	SSL_set_msg_callback(stream->ssl, on_message);
	SSL_clear_mode(stream->ssl, SSL_MODE_RELEASE_BUFFERS);
	SSL_set_default_read_buffer_len(stream->ssl, BULK_BYTES);
	SSL_set_read_ahead(stream->ssl, 1);
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

/* ---- the BIO ---- */

/* Of openssl/bio.h's internals: the next write is a control record, which the kernel must tag. */
#define KTLS_CONTROL_RECORD 0x1000

static BIO_METHOD *bio_method;

/*
 * OpenSSL writes control records to the kernel's TLS with a plain sendmsg, whose SIGPIPE is kept
 * from the application the hard way; such a record is rare.
 */
static int write_control_record(BIO *bio, const char *bytes, int length)
{
	const struct timespec none = {0};
	sigset_t pipe, pending, before;
	int rc;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	rc = BIO_meth_get_write(BIO_s_socket())(bio, bytes, length);
	if (!sigismember(&pending, SIGPIPE))
		while (sigtimedwait(&pipe, NULL, &none) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

static int bio_write(BIO *bio, const char *bytes, int length)
{
	ssize_t sent;
	int fd = -1;

	if (BIO_test_flags(bio, KTLS_CONTROL_RECORD))
		return write_control_record(bio, bytes, length);
	BIO_get_fd(bio, &fd);
	BIO_clear_retry_flags(bio);
	if (encrypting.deaths && guard_deaths() != *encrypting.deaths)
		return -1;
	sent = send(fd, bytes, (size_t)length, SEND_FLAGS | (encrypting.more ? MSG_MORE : 0));
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)sent;
}

/* Of a handshake; NULL: any number. */
static _Thread_local uint32_t *reads_left;

static int bio_read(BIO *bio, char *bytes, int length)
{
	int rc;

	if (reads_left && *reads_left == 0) {
		BIO_clear_retry_flags(bio);
		errno = EPROTO;
		return -1;
	}
	rc = BIO_meth_get_read(BIO_s_socket())(bio, bytes, length);
	if (reads_left && rc > 0)
		--*reads_left;
	return rc;
}

int stream_shake(SSL *ssl, uint32_t *reads)
{
	int rc;

	reads_left = reads;
	rc = SSL_do_handshake(ssl);
	reads_left = NULL;
	return rc;
}

/* OpenSSL's own socket BIO but for reading and writing. */
static void make_bio_method(void)
{
	const BIO_METHOD *socket = BIO_s_socket();
	BIO_METHOD *method =
		BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR,
			     "socket without SIGPIPE");

	if (!method)
		return;
	BIO_meth_set_read(method, bio_read);
	BIO_meth_set_write(method, bio_write);
	BIO_meth_set_puts(method, BIO_meth_get_puts(socket));
	BIO_meth_set_ctrl(method, BIO_meth_get_ctrl(socket));
	BIO_meth_set_create(method, BIO_meth_get_create(socket));
	BIO_meth_set_destroy(method, BIO_meth_get_destroy(socket));
	bio_method = method;
}

BIO *stream_bio(int fd)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, make_bio_method);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (bio)
		BIO_set_fd(bio, fd, BIO_NOCLOSE);
	return bio;
}
