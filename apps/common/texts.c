/* SPDX-License-Identifier: Apache-2.0 */
#include "common/texts.h"

#include <stdlib.h>
#include <string.h>

const char *texts_keep(struct texts *texts, const char *text, size_t length)
{
	char **items = reallocarray(texts->items, texts->count + 1, sizeof(*items));
	char *copy;

	if (!items)
		return NULL;
	texts->items = items;
	copy = strndup(text, length);
	if (copy)
		items[texts->count++] = copy;
	return copy;
}

void texts_fini(struct texts *texts)
{
	for (size_t i = 0; i < texts->count; i++)
		free(texts->items[i]);
	free(texts->items);
	*texts = (struct texts){0};
}
