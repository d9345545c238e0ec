/* SPDX-License-Identifier: Apache-2.0 */
#include "common/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

void stdio_guard(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
}

void stdio_finish(void)
{
	int lost = ferror(stdout);

	errno = 0;
	if (fflush(stdout) || lost)
		fprintf(stderr,
			"warning: standard output could not be written (%s): use --json FILE to "
			"keep the report\n",
			errno ? strerror(errno) : "it was closed");
}
