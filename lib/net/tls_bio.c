/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What OpenSSL reads and writes the socket by. It has a system call for each record it sends, and
 * two for each that it receives, for its head and for its body; over 16 KiB that is what TLS costs
 * most. So records are put together here before they go out, and read ahead of OpenSSL, on
 * connections that have so much to say: only those get the buffers.
 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/log.h"
#include "memory/guard.h"
#include "net/net_internal.h"

/* Of openssl/bio.h's internals: the next write is a control record, which the kernel must tag. */
#define KTLS_CONTROL_RECORD 0x1000

/* Eight full records, and a little. */
#define SCRATCH_BYTES (136u << 10)

/* Who reads or writes no more at a time does without. */
#define FEW_BYTES 16384u

/* What TLS adds to a record: its head, the type of what is in it, and a tag. */
#define ADDED_BYTES 22u

struct buffer {
	char *bytes;
	uint32_t begin, end;
};

/** Of one connection. */
struct buffers {
	struct buffer in, out; /* what was left of the scratch, on the heap */
	size_t owed;           /* bytes of the text that the last record in out stands for */
};

/*
 * Of one thread, for the time of one call: what is left of the scratch then is the connection's
 * own. That is little, since no more is read than was asked for, and no more is put together than
 * the socket has room for.
 */
struct call {
	struct buffer in, out;
	size_t wanted;          /* of text, to be read; 0: nothing is read ahead */
	bool gathers;           /* what is written goes to out */
	const uint32_t *deaths; /* of guard_deaths(), before what is written was encrypted */
	uint32_t *reads_left;   /* of a handshake; NULL: any number */
};

static BIO_METHOD *method;
static int buffers_index = -1;
static pthread_key_t scratch_key; /* frees it with its thread */
static _Thread_local char *scratch;
static _Thread_local struct call call;

static struct buffers *buffers_of(const BIO *bio)
{
	return BIO_get_ex_data(bio, buffers_index);
}

static bool holds(const struct buffer *buffer)
{
	return buffer->end > buffer->begin;
}

static bool have_scratch(void)
{
	if (!scratch) {
		scratch = malloc(SCRATCH_BYTES);
		pthread_setspecific(scratch_key, scratch);
	}
	call.in.bytes = call.out.bytes = scratch;
	return scratch;
}

/* @return 0; -ENOMEM, with which the connection is over */
static int keep(struct buffer *rest, struct buffer *of)
{
	if (!holds(of))
		return 0;
	rest->begin = 0;
	rest->end = of->end - of->begin;
	rest->bytes = malloc(rest->end);
	if (rest->bytes)
		memcpy(rest->bytes, of->bytes + of->begin, rest->end);
	else
		rest->end = 0;
	of->begin = of->end = 0;
	return rest->bytes ? 0 : fail(-ENOMEM, "out of memory");
}

static void drop(struct buffer *rest)
{
	free(rest->bytes);
	*rest = (struct buffer){0};
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

static bool has_faulted(void)
{
	return call.deaths && guard_deaths() != *call.deaths;
}

static int write_now(BIO *bio, const char *bytes, uint32_t length)
{
	ssize_t sent;
	int fd = -1;

	if (has_faulted()) {
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
static int write_out(BIO *bio, struct buffer *out)
{
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
	if (BIO_test_flags(bio, KTLS_CONTROL_RECORD))
		return write_control_record(bio, bytes, length);
	BIO_clear_retry_flags(bio);
	if (!call.gathers)
		return write_out(bio, &buffers_of(bio)->out) > 0
			       ? write_now(bio, bytes, (uint32_t)length)
			       : -1;
	if ((uint32_t)length > SCRATCH_BYTES - call.out.end) {
		BIO_set_retry_write(bio);
		return -1;
	}
	memcpy(call.out.bytes + call.out.end, bytes, (size_t)length);
	call.out.end += (uint32_t)length;
	return length;
}

/* Of the socket, as much as the text that is asked for can take. @return is there something? */
static bool read_in(BIO *bio, int *rc)
{
	size_t most = call.wanted + (call.wanted / FEW_BYTES + 1) * ADDED_BYTES;
	struct buffer *in = &call.in;
	int fd = -1;
	ssize_t got;

	BIO_get_fd(bio, &fd);
	got = recv(fd, in->bytes, most < SCRATCH_BYTES ? most : SCRATCH_BYTES, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(bio);
	else if (got == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	in->begin = 0;
	in->end = got > 0 ? (uint32_t)got : 0;
	*rc = (int)got;
	return got > 0;
}

static int take(struct buffer *in, char *to, uint32_t n)
{
	if (n > in->end - in->begin)
		n = in->end - in->begin;
	memcpy(to, in->bytes + in->begin, n);
	in->begin += n;
	return (int)n;
}

static int take_rest(BIO *bio, char *to, uint32_t length)
{
	struct buffer *rest = &buffers_of(bio)->in;
	int taken = take(rest, to, length);

	BIO_clear_retry_flags(bio);
	if (!holds(rest))
		drop(rest);
	return taken;
}

static int read_ahead(BIO *bio, char *to, uint32_t length)
{
	int rc;

	BIO_clear_retry_flags(bio);
	if (!holds(&call.in) && !read_in(bio, &rc))
		return rc;
	return take(&call.in, to, length);
}

static int read_counted(BIO *bio, char *to, int length)
{
	int rc;

	if (call.reads_left && *call.reads_left == 0) {
		BIO_clear_retry_flags(bio);
		errno = EPROTO;
		return -1;
	}
	rc = BIO_meth_get_read(BIO_s_socket())(bio, to, length);
	if (call.reads_left && rc > 0)
		--*call.reads_left;
	return rc;
}

static int bio_read(BIO *bio, char *to, int length)
{
	if (holds(&buffers_of(bio)->in))
		return take_rest(bio, to, (uint32_t)length);
	if (call.wanted > 0)
		return read_ahead(bio, to, (uint32_t)length);
	return read_counted(bio, to, length);
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
	if (!made || buffers_index < 0 || pthread_key_create(&scratch_key, free))
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

/* What the socket takes now, as its kernel counts. */
static size_t room_of(BIO *bio)
{
	uint32_t memory[SK_MEMINFO_VARS] = {0};
	socklen_t length = sizeof(memory);
	int fd = -1;

	BIO_get_fd(bio, &fd);
	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &length) < 0 ||
	    memory[SK_MEMINFO_SNDBUF] < memory[SK_MEMINFO_WMEM_QUEUED])
		return 0;
	return memory[SK_MEMINFO_SNDBUF] - memory[SK_MEMINFO_WMEM_QUEUED];
}

int tls_bio_write_begin(BIO *bio, size_t *wanted, const uint32_t *deaths, size_t *owed)
{
	struct buffers *buffers = buffers_of(bio);
	size_t most = SCRATCH_BYTES / (FEW_BYTES + ADDED_BYTES) * FEW_BYTES, room;
	int rc = write_out(bio, &buffers->out);

	if (rc <= 0)
		return rc < 0 ? (int)stream_error(errno) : 0;
	drop(&buffers->out);
	*owed = buffers->owed;
	buffers->owed = 0;
	call.deaths = deaths;
	if (*wanted <= FEW_BYTES || !have_scratch())
		return 1;
	room = room_of(bio);
	if (most > room)
		most = room > FEW_BYTES ? room : FEW_BYTES;
	if (*wanted > most)
		*wanted = most;
	call.gathers = *wanted > FEW_BYTES;
	return 1;
}

/* What was encrypted of lost memory is not sent. */
static int send_gathered(BIO *bio, struct buffers *buffers)
{
	int rc;

	if (has_faulted())
		return -EFAULT; /* the next call would not see it */
	if (!call.gathers)
		return 1;
	rc = write_out(bio, &call.out);
	if (rc < 0)
		return (int)stream_error(errno);
	return rc == 0 && keep(&buffers->out, &call.out) < 0 ? -ENOMEM : rc;
}

int tls_bio_write_end(BIO *bio, size_t owed)
{
	struct buffers *buffers = buffers_of(bio);
	int rc = send_gathered(bio, buffers);

	buffers->owed = rc == 0 ? owed : 0;
	call = (struct call){0}; /* also what was not sent: the next call is another connection's */
	return rc;
}

void tls_bio_read_begin(BIO *bio, size_t wanted)
{
	if (wanted > FEW_BYTES && !BIO_get_ktls_recv(bio) && have_scratch())
		call.wanted = wanted;
}

int tls_bio_read_end(BIO *bio)
{
	int rc = keep(&buffers_of(bio)->in, &call.in);

	call = (struct call){0};
	return rc;
}

bool tls_bio_pending(const BIO *bio)
{
	return holds(&buffers_of(bio)->in);
}

int tls_bio_shake(SSL *ssl, uint32_t *reads)
{
	int rc;

	call.reads_left = reads;
	rc = SSL_do_handshake(ssl);
	call = (struct call){0};
	return rc;
}
