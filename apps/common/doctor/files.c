/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/files.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAKE_PATH(path, doctor, format)                                                            \
	do {                                                                                       \
		va_list args;                                                                      \
		int used = snprintf(path, sizeof(path), "%s", (doctor)->root);                     \
		va_start(args, format);                                                            \
		if (used >= 0 && used < (int)sizeof(path))                                         \
			vsnprintf(path + used, sizeof(path) - (size_t)used, format, args);         \
		va_end(args);                                                                      \
	} while (0)

static void trim(char *text)
{
	size_t length = strlen(text);

	while (length && isspace((unsigned char)text[length - 1]))
		text[--length] = '\0';
}

static bool read_line(const char *path, char text[static FILE_TEXT])
{
	FILE *file = fopen(path, "re");
	bool read;

	if (!file)
		return false;
	read = fgets(text, FILE_TEXT, file) != NULL;
	fclose(file);
	if (read)
		trim(text);
	return read;
}

bool file_line(const struct doctor *doctor, char text[static FILE_TEXT], const char *format, ...)
{
	char path[PATH_MAX];

	MAKE_PATH(path, doctor, format);
	return read_line(path, text);
}

bool file_number(const struct doctor *doctor, uint64_t *number, const char *format, ...)
{
	char path[PATH_MAX], text[FILE_TEXT];

	MAKE_PATH(path, doctor, format);
	if (!read_line(path, text) || !isdigit((unsigned char)text[0]))
		return false;
	*number = strtoull(text, NULL, 10);
	return true;
}

bool file_find(const struct doctor *doctor, char text[static FILE_TEXT], const char *path,
	       const char *prefix)
{
	char whole[PATH_MAX], line[FILE_TEXT];
	bool found = false;
	FILE *file;

	snprintf(whole, sizeof(whole), "%s%s", doctor->root, path);
	file = fopen(whole, "re");
	while (file && !found && fgets(line, sizeof(line), file))
		found = !strncmp(line, prefix, strlen(prefix));
	if (file)
		fclose(file);
	if (!found)
		return false;
	trim(line);
	snprintf(text, FILE_TEXT, "%s",
		 line + strlen(prefix) + strspn(line + strlen(prefix), " \t"));
	return true;
}

size_t file_bytes(const struct doctor *doctor, void *bytes, size_t size, const char *format, ...)
{
	char path[PATH_MAX];
	size_t length;
	FILE *file;

	MAKE_PATH(path, doctor, format);
	file = fopen(path, "re");
	if (!file)
		return 0;
	length = fread(bytes, 1, size, file);
	fclose(file);
	return length;
}

bool file_exists(const struct doctor *doctor, const char *format, ...)
{
	char path[PATH_MAX];

	MAKE_PATH(path, doctor, format);
	return access(path, F_OK) == 0;
}

bool file_usable(const struct doctor *doctor, const char *format, ...)
{
	char path[PATH_MAX];

	MAKE_PATH(path, doctor, format);
	return access(path, R_OK | W_OK) == 0;
}

static int keep_names(struct dirent **entries, int count, const char *prefix, char **names)
{
	int kept = 0;

	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;

		if (name[0] != '.' && !strncmp(name, prefix, strlen(prefix)))
			names[kept] = strdup(name);
		kept += names[kept] != NULL;
		free(entries[i]);
	}
	return kept;
}

int file_names(const struct doctor *doctor, const char *folder, const char *prefix, char ***names)
{
	struct dirent **entries;
	char path[PATH_MAX];
	int count;

	*names = NULL;
	snprintf(path, sizeof(path), "%s%s", doctor->root, folder);
	count = scandir(path, &entries, NULL, versionsort);
	if (count < 0)
		return 0;
	*names = calloc((size_t)count + 1, sizeof(**names));
	if (*names)
		count = keep_names(entries, count, prefix, *names);
	free(entries);
	return *names ? count : 0;
}
