/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Texts that live as long as the configuration that refers to them.
 */
#ifndef COMMON_TEXTS_H
#define COMMON_TEXTS_H

#include <stddef.h>

struct texts {
	char **items;
	size_t count;
};

/** Copy the @p length bytes at @p text. @return the copy, until texts_fini(); NULL out of memory */
const char *texts_keep(struct texts *texts, const char *text, size_t length);

void texts_fini(struct texts *texts);

#endif
