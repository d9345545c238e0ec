/* SPDX-License-Identifier: Apache-2.0 */
#include "common/json_file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define FORMAT (JSON_INDENT(2) | JSON_REAL_PRECISION(12))

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
