/* SPDX-License-Identifier: Apache-2.0 */
/** @file libFuzzer's entry points, and input as text. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sluice/error.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/** A copy that ends in a NUL, so that reading past it is noticed; to be freed. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	if (!text)
		abort();
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/** For slu_log_set(): says nothing. */
static inline void fuzz_log(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	(void)text;
}

/**
 * Control messages: of an input that begins with '=', each line is made a message, its length put
 * before it, and '$' in it is replaced by @p name; any other input is taken as it is.
 *
 * @return bytes written to @p wire, to be freed
 */
static inline size_t fuzz_messages(const uint8_t *data, size_t size, const char *name,
				   uint8_t **wire)
{
	size_t at = 0, name_bytes = strlen(name);

	*wire = (uint8_t *)malloc(size * (5 + name_bytes) + 1);
	if (!*wire)
		abort();
	if (size == 0 || data[0] != '=') {
		if (size > 0)
			memcpy(*wire, data, size);
		return size;
	}
	for (size_t i = 1; i < size; i++) {
		size_t begin = at;
		uint32_t length;

		at += 4;
		for (; i < size && data[i] != '\n'; i++) {
			if (data[i] == '$') {
				memcpy(*wire + at, name, name_bytes);
				at += name_bytes;
			} else {
				(*wire)[at++] = data[i];
			}
		}
		length = (uint32_t)(at - begin - 4);
		memcpy(*wire + begin, &length, sizeof(length));
	}
	return at;
}

#endif
