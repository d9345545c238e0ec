/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wrap.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define TEXT_MIN 20 /* columns below which a wrapped text is worse to read than a long one */

uint32_t wrap_width(void)
{
	struct winsize size;

	return isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) ? size.ws_col : 0;
}

/* Bytes of @p text that go on a line of @p room: whole words, and of a longer one all. */
static size_t line_length(const char *text, size_t room)
{
	size_t length = strlen(text);

	if (length <= room)
		return length;
	for (length = room; length && text[length] != ' '; length--)
		;
	return length ? length : strcspn(text, " ");
}

void wrap_print(FILE *out, uint32_t width, uint32_t indent, const char *text)
{
	size_t room = width > indent ? width - indent : 0;
	size_t length;

	if (room < TEXT_MIN)
		room = SIZE_MAX;
	for (;;) {
		length = line_length(text, room);
		fprintf(out, "%.*s\n", (int)length, text);
		text += length + strspn(text + length, " ");
		if (!*text)
			return;
		fprintf(out, "%*s", (int)indent, "");
	}
}
