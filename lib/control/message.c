/* SPDX-License-Identifier: Apache-2.0 */
#include "control/message.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"

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

/* @return bytes, 0: nothing now, or -errno */
static ssize_t receive(struct message_reader *reader, int fd, void *into, size_t length)
{
	char control[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	struct iovec iov = {.iov_base = into, .iov_len = length};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t got;

	if (reader->takes_fds) {
		header.msg_control = control;
		header.msg_controllen = sizeof(control);
	}
	do
		got = recvmsg(fd, &header, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got == 0)
		return -ECONNRESET;
	if (got < 0)
		return errno == EAGAIN ? 0 : -errno;
	keep_fds(reader, &header);
	/* The kernel drops descriptors for which this process has no number left. */
	if (reader->takes_fds && header.msg_flags & MSG_CTRUNC)
		return fail(-EMFILE,
			    "no room for the descriptors that the target passes: raise the limit "
			    "with ulimit -n");
	return got;
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

int message_read(struct message_reader *reader, int fd, json_t **message)
{
	if (reader->have == 0)
		close_fds(reader);
	for (;;) {
		bool in_header = reader->have < HEADER_BYTES;
		uint32_t at = in_header ? reader->have : reader->have - HEADER_BYTES;
		uint32_t end = in_header ? HEADER_BYTES : reader->body_bytes;
		char *into = in_header ? (char *)reader->header : reader->body;
		ssize_t got = receive(reader, fd, into + at, end - at);
		int rc = 0;

		if (got <= 0)
			return (int)got;
		reader->have += (uint32_t)got;
		if (at + (uint32_t)got < end)
			continue;
		if (!in_header)
			return finish(reader, message);
		rc = begin_body(reader);
		if (rc < 0)
			return rc;
	}
}

static int send_all(int fd, const char *bytes, size_t length, const int *fds, uint32_t fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	} control = {0};
	struct iovec iov = {.iov_base = (char *)bytes, .iov_len = length};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd_count > 0) {
		struct cmsghdr *c = &control.align;

		header.msg_control = control.bytes;
		header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
	}
	while (iov.iov_len > 0) {
		ssize_t sent = sendmsg(fd, &header, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return -errno;
		iov.iov_base = (char *)iov.iov_base + sent;
		iov.iov_len -= (size_t)sent;
		header.msg_control = NULL; /* descriptors go once */
		header.msg_controllen = 0;
	}
	return 0;
}

int message_write(int fd, const json_t *message, const int *fds, uint32_t fd_count)
{
	size_t length = json_dumpb(message, NULL, 0, JSON_COMPACT);
	uint32_t wire_length = htole32((uint32_t)length);
	char *bytes;
	int rc;

	if (length == 0 || length > MESSAGE_MAX_BYTES || fd_count > MESSAGE_FDS_MAX)
		return -EMSGSIZE;
	bytes = malloc(HEADER_BYTES + length);
	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, &wire_length, HEADER_BYTES);
	json_dumpb(message, bytes + HEADER_BYTES, length, JSON_COMPACT);
	rc = send_all(fd, bytes, HEADER_BYTES + length, fds, fd_count);
	free(bytes);
	return rc;
}

int message_write_new(int fd, json_t *message, const int *fds, uint32_t fd_count)
{
	int rc = message ? message_write(fd, message, fds, fd_count) : -ENOMEM;

	json_decref(message);
	return rc;
}
