/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/limits.h"

#include <stdlib.h>
#include <string.h>

#include "common/doctor/files.h"

static uint64_t parse(const char *text)
{
	return !strncmp(text, "unlimited", 9) ? LIMIT_NONE : strtoull(text, NULL, 10);
}

bool limit_read(const struct doctor *doctor, const char *name, struct limit *limit)
{
	char text[FILE_TEXT];
	const char *hard;

	if (!file_find(doctor, text, "/proc/self/limits", name))
		return false;
	hard = text + strcspn(text, " ");
	hard += strspn(hard, " ");
	*limit = (struct limit){parse(text), parse(hard)};
	return true;
}
