/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

#define FORMAT (JSON_INDENT(2) | JSON_REAL_PRECISION(12))

/* Not by opening it: who reads from a pipe would take the close for the end. @return 0; an errno */
static int check_existing(const char *path)
{
	struct stat status;

	if (stat(path, &status) < 0)
		return errno == ENOENT ? 0 : errno; /* a link to what can still be made */
	if (S_ISDIR(status.st_mode))
		return EISDIR;
	return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0 ? errno : 0;
}

int json_file_check(const char *path)
{
	int error = 0;
	int fd;

	if (!path || !strcmp(path, "-"))
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd >= 0) {
		close(fd);
		unlink(path);
	} else {
		error = errno == EEXIST ? check_existing(path) : errno;
	}
	return error ? fail(-EIO,
			    "--json: %s cannot be written: %s: name a file that we may write, or - "
			    "for standard output",
			    path, strerror(error))
		     : 0;
}

/* @return did all of it go out? */
static int dump(const json_t *object, FILE *out)
{
	return !json_dumpf(object, out, FORMAT) && fputc('\n', out) != EOF && !fflush(out);
}

static int write_to(const json_t *object, const char *path)
{
	FILE *out = fopen(path, "w");
	int written;

	if (!out)
		return 0;
	written = dump(object, out);
	return !fclose(out) && written;
}

int json_file_write(json_t *object, const char *path)
{
	int written;

	if (!object)
		return fail(-ENOMEM, "--json: out of memory");
	written = strcmp(path, "-") ? write_to(object, path) : dump(object, stdout);
	json_decref(object);
	return written ? 0
		       : fail(-EIO, "--json: %s could not be written: %s", path, strerror(errno));
}
