/* SPDX-License-Identifier: Apache-2.0 */
#include "common/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define PATIENCE_MS 2000 /* with a reader of standard output, see stdio_bound() */

void stdio_guard(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

/* stdout, or a way of our own into its pipe, which then never waits whoever else fills it. */
static int bound_fd = STDOUT_FILENO;

static ssize_t write_in_time(void *cookie, const char *text, size_t size)
{
	static bool stalled;
	size_t written = 0;

	(void)cookie;
	while (written < size) {
		struct pollfd fd = {.fd = bound_fd, .events = POLLOUT};
		size_t left = size - written;
		ssize_t done;

		stalled = poll(&fd, 1, stalled ? 0 : PATIENCE_MS) == 0;
		if (stalled) {
			errno = ETIMEDOUT;
			break;
		}
		/* Not more than poll() promises room for. */
		done = write(bound_fd, text + written, left < PIPE_BUF ? left : PIPE_BUF);
		if (done < 0 && errno != EAGAIN && errno != EINTR)
			break;
		written += done > 0 ? (size_t)done : 0;
	}
	return (ssize_t)written;
}

void stdio_bound(void)
{
	FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_in_time});
	struct stat stat;
	int fd = -1;

	if (!stream)
		return;
	fflush(stdout);
	setvbuf(stream, NULL, _IOLBF, 0);
	if (fstat(STDOUT_FILENO, &stat) == 0 && S_ISFIFO(stat.st_mode))
		fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0)
		bound_fd = fd;
	stdout = stream;
}

void stdio_finish(void)
{
	int lost = ferror(stdout);

	errno = 0;
	if (fflush(stdout) || lost)
		log_say("warning: standard output could not be written (%s): use --json FILE to "
			"keep the report",
			errno ? strerror(errno) : "it was closed");
}
