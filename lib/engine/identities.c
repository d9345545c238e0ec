/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The texts of identities as owners of segments get them: each once, for as long as the engine
 * lives. There are as many as have been let in by name, which takes a credential of each. The
 * control thread's.
 */
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine_internal.h"

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

const char *identity_get(struct slu_engine *engine, const char *text)
{
	char **at = tfind(text, &engine->identities, compare);
	char *copy = at ? NULL : strdup(text);

	if (at)
		return *at;
	if (copy && tsearch(copy, &engine->identities, compare))
		return copy;
	free(copy);
	return NULL;
}

void identities_free(struct slu_engine *engine)
{
	tdestroy(engine->identities, free);
	engine->identities = NULL;
}
