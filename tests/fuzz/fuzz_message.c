/* SPDX-License-Identifier: Apache-2.0 */
/* The stream of control messages; the first byte decides into which pieces it arrives. */
#include <sys/socket.h>
#include <unistd.h>

#include "control/message.h"
#include "tests/fuzz/fuzz.h"

static struct stream from, to;

/* @return the stream is over for this reader */
static int read_all(struct message_reader *reader)
{
	json_t *message;
	int rc;

	while ((rc = message_read(reader, &to, &message)) > 0) {
		if (!message_type(message))
			abort();
		json_decref(message);
	}
	return rc < 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t piece = size > 0 ? data[0] + 1u : 1;
	struct message_reader reader = {.takes_fds = size % 2};

	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0)
		abort();
	from = (struct stream){.fd = ends[0]};
	to = (struct stream){.fd = ends[1]};
	for (size_t at = 1; at < size; at += piece) {
		size_t length = size - at < piece ? size - at : piece;

		if (write(from.fd, data + at, length) != (ssize_t)length || read_all(&reader))
			break;
	}
	message_reader_reset(&reader);
	stream_close(&from);
	stream_close(&to);
	return 0;
}
