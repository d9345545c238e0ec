/* SPDX-License-Identifier: Apache-2.0 */
#include "control/message.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/proof.h"

#define HEADER_BYTES 4u

int message_parse(const char *body, size_t length, json_t **out)
{
	json_error_t error;
	json_t *message = json_loadb(body, length, JSON_REJECT_DUPLICATES, &error);

	if (!message)
		return fail(-EPROTO, "control message is not JSON: %s", error.text);
	if (!json_is_object(message) || !json_is_string(json_object_get(message, "type"))) {
		json_decref(message);
		return fail(-EPROTO, "control message is not an object with a type");
	}
	*out = message;
	return 0;
}

const char *message_type(const json_t *message)
{
	return json_string_value(json_object_get(message, "type"));
}

static void close_fds(struct message_reader *reader)
{
	for (uint32_t i = 0; i < reader->fd_count; i++)
		close(reader->fds[i]);
	reader->fd_count = 0;
}

void message_reader_reset(struct message_reader *reader)
{
	close_fds(reader);
	free(reader->body);
	reader->body = NULL;
	reader->have = 0;
}

static void keep_fds(struct message_reader *reader, struct msghdr *header)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		uint32_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (uint32_t)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (uint32_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (reader->fd_count < MESSAGE_FDS_MAX)
				reader->fds[reader->fd_count++] = fd;
			else
				close(fd);
		}
	}
}

/* @return as stream_read() */
static ssize_t receive_with_fds(struct message_reader *reader, int fd, struct iovec *iov)
{
	char control[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	struct msghdr header = {.msg_iov = iov,
				.msg_iovlen = 1,
				.msg_control = control,
				.msg_controllen = sizeof(control)};
	ssize_t got;

	do
		got = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -ECONNRESET;
	if (got < 0)
		return stream_error(errno);
	keep_fds(reader, &header);
	/* The kernel drops descriptors for which this process has no number left. */
	if (header.msg_flags & MSG_CTRUNC)
		return fail(-EMFILE,
			    "no room for the descriptors that the target passes: raise the limit "
			    "with ulimit -n");
	return got;
}

static ssize_t receive(struct message_reader *reader, struct stream *stream, void *into,
		       size_t length)
{
	struct iovec iov = {.iov_base = into, .iov_len = length};

	return reader->takes_fds ? receive_with_fds(reader, stream->fd, &iov)
				 : stream_read(stream, &iov, 1);
}

static int begin_body(struct message_reader *reader)
{
	uint32_t length;

	memcpy(&length, reader->header, sizeof(length));
	length = le32toh(length);
	if (length == 0 || length > MESSAGE_MAX_BYTES)
		return fail(-EPROTO, "control message of %u bytes, 1 to %u are allowed", length,
			    MESSAGE_MAX_BYTES);
	reader->body = malloc(length);
	if (!reader->body)
		return fail(-ENOMEM, "out of memory");
	reader->body_bytes = length;
	return 0;
}

static int finish(struct message_reader *reader, json_t **message)
{
	int rc = message_parse(reader->body, reader->body_bytes, message);

	free(reader->body);
	reader->body = NULL;
	reader->have = 0;
	return rc < 0 ? rc : 1;
}

int message_read(struct message_reader *reader, struct stream *stream, json_t **message)
{
	if (reader->have == 0)
		close_fds(reader);
	for (;;) {
		bool in_header = reader->have < HEADER_BYTES;
		uint32_t at = in_header ? reader->have : reader->have - HEADER_BYTES;
		uint32_t end = in_header ? HEADER_BYTES : reader->body_bytes;
		char *into = in_header ? (char *)reader->header : reader->body;
		ssize_t got = receive(reader, stream, into + at, end - at);
		int rc = 0;

		if (got <= 0)
			return (int)got;
		reader->have += (uint32_t)got;
		if (at + (uint32_t)got < end)
			return 0; /* what else has come by now can wait: others are waiting */
		if (!in_header)
			return finish(reader, message);
		rc = begin_body(reader);
		if (rc < 0)
			return rc;
	}
}

/* ---- writing ---- */

struct message_queued {
	struct message_queued *next;
	uint32_t length;
	uint32_t sent;
	uint32_t fd_count; /* not sent yet; ours */
	int fds[MESSAGE_FDS_MAX];
	char bytes[];
};

/* Descriptors ride on the first byte. @return as stream_write() */
static ssize_t send_with_fds(int fd, const char *bytes, size_t length, const int *fds,
			     uint32_t fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (char *)(uintptr_t)bytes, .iov_len = length};
	const struct msghdr header = {.msg_iov = &iov,
				      .msg_iovlen = 1,
				      .msg_control = control.bytes,
				      .msg_controllen = CMSG_SPACE(fd_count * sizeof(int))};
	ssize_t sent;

	control.align.cmsg_level = SOL_SOCKET;
	control.align.cmsg_type = SCM_RIGHTS;
	control.align.cmsg_len = CMSG_LEN(fd_count * sizeof(int));
	memcpy(CMSG_DATA(&control.align), fds, fd_count * sizeof(int));
	do
		sent = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? stream_error(errno) : sent;
}

static ssize_t send_some(struct stream *stream, const struct message_queued *message)
{
	struct iovec iov = {.iov_base = (char *)(uintptr_t)message->bytes + message->sent,
			    .iov_len = message->length - message->sent};

	if (message->fd_count > 0)
		return send_with_fds(stream->fd, iov.iov_base, iov.iov_len, message->fds,
				     message->fd_count);
	return stream_write(stream, &iov, 1);
}

/* @return 1 all of it is gone; 0 the socket is full; as stream_write() */
static int send_message(struct stream *stream, struct message_queued *message)
{
	while (message->sent < message->length) {
		ssize_t sent = send_some(stream, message);

		if (sent <= 0)
			return (int)sent;
		message->sent += (uint32_t)sent;
		message->fd_count = 0;
	}
	return 1;
}

static int no_memory(void)
{
	return fail(-ENOMEM, "out of memory");
}

static struct message_queued *encode(const json_t *message, const int *fds, uint32_t fd_count,
				     int *error)
{
	size_t length = json_dumpb(message, NULL, 0, JSON_COMPACT);
	uint32_t wire_length = htole32((uint32_t)length);
	struct message_queued *encoded;

	if (length == 0 || length > MESSAGE_MAX_BYTES || fd_count > MESSAGE_FDS_MAX) {
		*error = fail(-EMSGSIZE, "control message of %zu bytes, at most %u are allowed",
			      length, MESSAGE_MAX_BYTES);
		return NULL;
	}
	encoded = malloc(sizeof(*encoded) + HEADER_BYTES + length);
	if (!encoded) {
		*error = no_memory();
		return NULL;
	}
	*encoded = (struct message_queued){.length = HEADER_BYTES + (uint32_t)length,
					   .fd_count = fd_count};
	if (fd_count > 0)
		memcpy(encoded->fds, fds, fd_count * sizeof(*fds));
	memcpy(encoded->bytes, &wire_length, HEADER_BYTES);
	json_dumpb(message, encoded->bytes + HEADER_BYTES, length, JSON_COMPACT);
	return encoded;
}

/* The caller closes its descriptors: what waits needs its own. */
static int keep_own_fds(struct message_queued *message)
{
	for (uint32_t i = 0; i < message->fd_count; i++) {
		int fd = fcntl(message->fds[i], F_DUPFD_CLOEXEC, 0);

		if (fd < 0) {
			int error = fail(-errno,
					 "no descriptor for what waits to be passed: %s; raise it "
					 "with ulimit -n",
					 strerror(errno));

			while (i > 0)
				close(message->fds[--i]);
			return error;
		}
		message->fds[i] = fd;
	}
	return 0;
}

static void free_queued(struct message_queued *message)
{
	for (uint32_t i = 0; i < message->fd_count; i++)
		close(message->fds[i]);
	free(message);
}

static int enqueue(struct message_writer *writer, struct message_queued *message)
{
	int rc;

	if (writer->queued_bytes + message->length > writer->limit_bytes)
		return fail(-EAGAIN, "it does not read what it is told");
	rc = keep_own_fds(message);
	if (rc < 0)
		return rc;
	if (!writer->first)
		writer->last = &writer->first;
	*writer->last = message;
	writer->last = &message->next;
	writer->queued_bytes += message->length;
	return 0;
}

static int send_or_queue(struct message_writer *writer, struct stream *stream,
			 struct message_queued *message)
{
	int rc = writer->first ? 0 : send_message(stream, message);

	if (rc == 0) {
		rc = enqueue(writer, message);
		if (rc == 0)
			return 0;
	}
	free(message); /* its descriptors are still the caller's */
	return rc < 0 ? rc : 0;
}

int message_send(struct message_writer *writer, struct stream *stream, json_t *message,
		 const int *fds, uint32_t fd_count)
{
	struct message_queued *encoded;
	int rc;

	if (!message)
		return no_memory();
	encoded = encode(message, fds, fd_count, &rc);
	json_decref(message);
	return encoded ? send_or_queue(writer, stream, encoded) : rc;
}

int message_flush(struct message_writer *writer, struct stream *stream)
{
	struct message_queued *message;

	while ((message = writer->first)) {
		uint32_t fd_count = message->fd_count;
		int rc = send_message(stream, message);

		if (message->fd_count < fd_count)
			for (uint32_t i = 0; i < fd_count; i++)
				close(message->fds[i]);
		if (rc <= 0)
			return rc;
		writer->first = message->next;
		writer->queued_bytes -= message->length;
		free(message);
	}
	return 0;
}

bool message_writer_busy(const struct message_writer *writer)
{
	return writer->first;
}

void message_writer_reset(struct message_writer *writer)
{
	struct message_queued *message;

	while ((message = writer->first)) {
		writer->first = message->next;
		free_queued(message);
	}
	writer->queued_bytes = 0;
}

json_t *message_text(const char *text)
{
	json_t *string = json_string(text);
	char *plain;

	if (string)
		return string;
	plain = strdup(text);
	if (!plain)
		return NULL;
	for (char *c = plain; *c; c++)
		if (*c & 0x80)
			*c = '?';
	string = json_string(plain);
	free(plain);
	return string;
}

bool message_number(const json_t *message, const char *key, uint64_t *number)
{
	const char *text = json_string_value(json_object_get(message, key));

	if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
		return false;
	*number = strtoull(text, NULL, 16);
	return true;
}

bool message_connection(const json_t *message, struct connection_name *name)
{
	return message_number(message, "connection", &name->number) &&
	       secret_parse(json_string_value(json_object_get(message, "binding")), name->binding,
			    sizeof(name->binding));
}
