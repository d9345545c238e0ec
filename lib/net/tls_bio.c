/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What OpenSSL reads and writes the socket by. It has a system call for each record it sends, and
 * two for each that it receives, for its head and for its body; over 16 KiB that is what TLS costs
 * most. So records are put together here before they go out, and read ahead of OpenSSL, on
 * connections that have so much to say: only those get the buffers.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "memory/guard.h"
#include "net/net_internal.h"

/* Of openssl/bio.h's internals: the next write is a control record, which the kernel must tag. */
#define KTLS_CONTROL_RECORD 0x1000

/* Eight full records, and a little. */
#define BUFFER_BYTES (136u << 10)

/* Who reads or writes no more at a time does without. */
#define FEW_BYTES 16384u

struct buffer {
	char *bytes; /* NULL: there is none */
	uint32_t begin, end;
};

struct buffers {
	struct buffer in, out;
	bool gathers;
	const uint32_t *deaths; /* of guard_deaths(), before what is written was encrypted */
	size_t owed;            /* bytes of the text that the last record in it stands for */
};

static BIO_METHOD *method;
static int buffers_index = -1;

static struct buffers *buffers_of(const BIO *bio)
{
	return BIO_get_ex_data(bio, buffers_index);
}

static bool holds(const struct buffer *buffer)
{
	return buffer->end > buffer->begin;
}

static bool have(struct buffer *buffer)
{
	if (!buffer->bytes)
		buffer->bytes = malloc(BUFFER_BYTES);
	return buffer->bytes;
}

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

static int write_now(BIO *bio, const char *bytes, uint32_t length)
{
	const uint32_t *deaths = buffers_of(bio)->deaths;
	ssize_t sent;
	int fd = -1;

	if (deaths && guard_deaths() != *deaths) {
		errno = EFAULT;
		return -1;
	}
	BIO_get_fd(bio, &fd);
	sent = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)sent;
}

/* @return 1 all has gone; 0 the socket is full; -1 with errno */
static int write_out(BIO *bio, struct buffers *buffers)
{
	struct buffer *out = &buffers->out;

	while (holds(out)) {
		int sent = write_now(bio, out->bytes + out->begin, out->end - out->begin);

		if (sent < 0)
			return BIO_should_retry(bio) ? 0 : -1;
		out->begin += (uint32_t)sent;
	}
	out->begin = out->end = 0;
	return 1;
}

static int bio_write(BIO *bio, const char *bytes, int length)
{
	struct buffers *buffers = buffers_of(bio);
	struct buffer *out = &buffers->out;

	if (BIO_test_flags(bio, KTLS_CONTROL_RECORD))
		return write_control_record(bio, bytes, length);
	BIO_clear_retry_flags(bio);
	if (!buffers->gathers && !holds(out))
		return write_now(bio, bytes, (uint32_t)length);
	if ((uint32_t)length > BUFFER_BYTES - out->end && write_out(bio, buffers) <= 0)
		return -1;
	memcpy(out->bytes + out->end, bytes, (size_t)length);
	out->end += (uint32_t)length;
	return length;
}

/* @return is there something? */
static bool read_in(BIO *bio, struct buffer *in, int *rc)
{
	int fd = -1;
	ssize_t got;

	BIO_get_fd(bio, &fd);
	got = recv(fd, in->bytes, BUFFER_BYTES, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	else if (got == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	in->begin = 0;
	in->end = got > 0 ? (uint32_t)got : 0;
	*rc = (int)got;
	return got > 0;
}

static int bio_read(BIO *bio, char *to, int length)
{
	struct buffer *in = &buffers_of(bio)->in;
	uint32_t n = (uint32_t)length;
	int rc;

	if (!in->bytes)
		return BIO_meth_get_read(BIO_s_socket())(bio, to, length);
	BIO_clear_retry_flags(bio);
	if (!holds(in) && !read_in(bio, in, &rc))
		return rc;
	if (n > in->end - in->begin)
		n = in->end - in->begin;
	memcpy(to, in->bytes + in->begin, n);
	in->begin += n;
	return (int)n;
}

static void free_buffers(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long argl,
			 void *argp)
{
	struct buffers *buffers = data;

	(void)parent;
	(void)all;
	(void)index;
	(void)argl;
	(void)argp;
	if (!buffers)
		return;
	free(buffers->in.bytes);
	free(buffers->out.bytes);
	free(buffers);
}

/* OpenSSL's own socket BIO but for reading and writing. */
static void make_method(void)
{
	const BIO_METHOD *socket = BIO_s_socket();
	BIO_METHOD *made =
		BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR,
			     "socket without SIGPIPE");

	buffers_index = BIO_get_ex_new_index(0, NULL, NULL, NULL, free_buffers);
	if (!made || buffers_index < 0)
		return;
	BIO_meth_set_read(made, bio_read);
	BIO_meth_set_write(made, bio_write);
	BIO_meth_set_puts(made, BIO_meth_get_puts(socket));
	BIO_meth_set_ctrl(made, BIO_meth_get_ctrl(socket));
	BIO_meth_set_create(made, BIO_meth_get_create(socket));
	BIO_meth_set_destroy(made, BIO_meth_get_destroy(socket));
	method = made;
}

BIO *tls_bio(int fd)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct buffers *buffers;
	BIO *bio;

	pthread_once(&once, make_method);
	bio = method ? BIO_new(method) : NULL;
	if (!bio)
		return NULL;
	buffers = calloc(1, sizeof(*buffers));
	if (!buffers || BIO_set_ex_data(bio, buffers_index, buffers) != 1) {
		free(buffers);
		BIO_free(bio);
		return NULL;
	}
	BIO_set_fd(bio, fd, BIO_NOCLOSE);
	return bio;
}

int tls_bio_gather(BIO *bio, size_t wanted, const uint32_t *deaths, size_t *owed)
{
	struct buffers *buffers = buffers_of(bio);
	int rc = holds(&buffers->out) ? write_out(bio, buffers) : 1;

	if (rc <= 0)
		return rc < 0 ? (int)stream_error(errno) : 0;
	buffers->gathers = wanted > FEW_BYTES && have(&buffers->out);
	buffers->deaths = deaths;
	*owed = buffers->owed;
	buffers->owed = 0;
	return 1;
}

int tls_bio_flush(BIO *bio, size_t owed)
{
	struct buffers *buffers = buffers_of(bio);
	int rc = write_out(bio, buffers);

	buffers->gathers = false;
	buffers->deaths = NULL;
	buffers->owed = rc == 0 ? owed : 0;
	return rc < 0 ? (int)stream_error(errno) : rc;
}

void tls_bio_read_ahead(BIO *bio, size_t wanted)
{
	if (wanted > FEW_BYTES && !BIO_get_ktls_recv(bio))
		have(&buffers_of(bio)->in);
}

bool tls_bio_pending(const BIO *bio)
{
	return holds(&buffers_of(bio)->in);
}
