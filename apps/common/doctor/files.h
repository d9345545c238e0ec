/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Reading /proc, /sys and /dev below the doctor's root. Paths are absolute, as on the machine.
 */
#ifndef COMMON_DOCTOR_FILES_H
#define COMMON_DOCTOR_FILES_H

#include <stddef.h>

#include "common/doctor/doctor.h"

#define FILE_TEXT 512

/** First line of a file, without its newline and blanks at the end. @return was there one? */
bool file_line(const struct doctor *doctor, char text[static FILE_TEXT], const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** First number of a file's first line. @return was there one? */
bool file_number(const struct doctor *doctor, uint64_t *number, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/** What follows @p prefix and blanks in the first line of @p path that begins so. */
bool file_find(const struct doctor *doctor, char text[static FILE_TEXT], const char *path,
	       const char *prefix);

/** Up to @p size bytes. @return how many; 0 also when it cannot be read */
size_t file_bytes(const struct doctor *doctor, void *bytes, size_t size, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

bool file_exists(const struct doctor *doctor, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/** May we read and write it? */
bool file_usable(const struct doctor *doctor, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/**
 * Names in a folder that begin with @p prefix, in the order of numbers in them.
 *
 * @param names  out: free() each, and the array
 * @return       how many; 0 also when there is no such folder
 */
int file_names(const struct doctor *doctor, const char *folder, const char *prefix, char ***names);

#endif
