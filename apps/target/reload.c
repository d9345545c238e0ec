/* SPDX-License-Identifier: Apache-2.0 */
#include "target/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "target/config.h"

/* The values of an option as one text, for comparing. @return NULL out of memory */
static char *value_text(const struct options *options, const struct option_spec *spec)
{
	uint32_t count = options_value_count(options, spec);
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (uint32_t i = 0; i < count; i++) {
		options_print_value(options, spec, i, out);
		fputc('\n', out);
	}
	if (fclose(out)) {
		free(text);
		return NULL;
	}
	return text;
}

static void print_unapplied(const struct settings *old, const struct settings *new)
{
	for (uint32_t i = 0; i < old->command->specs_count; i++) {
		const struct option_spec *spec = &old->command->specs[i];
		char *before = value_text(&old->options, spec);
		char *after = value_text(&new->options, spec);

		if (before && after && strcmp(before, after))
			printf("  option %s: the new value counts when the target is started "
			       "again\n",
			       spec->name);
		free(before);
		free(after);
	}
}

static int apply(struct slu_engine *engine, const struct settings *old, const struct settings *new)
{
	const struct config *config = old->config;
	int rc = 0;

	if (security_tls(&config->security))
		rc = slu_engine_reload_tls(engine);
	if (!rc)
		rc = slu_engine_set_limits(engine, config->limits, new->grants.limits,
					   new->grants.limits_count);
	if (!rc)
		rc = slu_engine_set_grants(engine, new->grants.items, new->grants.count);
	return rc;
}

/* Who writes the file may be in the middle of it: what is missing could be what takes a right. */
static int check_whole(const char *path)
{
	FILE *file = fopen(path, "re");
	int last = '\n';

	if (!file)
		return fail(-errno, "%s cannot be opened: %s", path, strerror(errno));
	if (fseek(file, -1, SEEK_END) == 0)
		last = fgetc(file);
	fclose(file);
	if (last != '\n')
		return fail(-EINVAL,
			    "%s ends in the middle of a line, as one that is being "
			    "written does: end it with a newline",
			    path);
	return 0;
}

/* An empty file is one that somebody is writing, or that a full disk has made. */
static int check_grants(const struct settings *old, const struct settings *new)
{
	if (!old->grants.count || new->grants.count)
		return 0;
	if (!new->path)
		return fail(-ENOENT, "the file %s with the identities is gone", old->path);
	return fail(-EINVAL,
		    "%s has no [identity NAME] any more, and without one whoever is let in may do "
		    "everything: if that is meant, write [identity *] with the line * = read,write",
		    new->path);
}

static void report(const struct settings *old, const struct settings *new)
{
	printf("reloaded %s: %u rights of identities\n", new->path ? new->path : "keys, no file",
	       new->grants.count);
	if (!grants_print_changes(&old->grants, &new->grants, stdout))
		puts("  no right has changed");
	if (new->grants.limits_count)
		printf("  %u identities have limits of their own\n", new->grants.limits_count);
	print_unapplied(old, new);
}

int reload(struct slu_engine *engine, struct settings *settings)
{
	struct settings new = {
		.command = settings->command,
		.argc = settings->argc,
		.argv = settings->argv,
	};
	struct grants grants;
	int rc = settings_read(&new);

	if (!rc)
		rc = config_check(new.config, &new.options);
	if (!rc && new.path)
		rc = check_whole(new.path);
	if (!rc)
		rc = check_grants(settings, &new);
	if (!rc)
		rc = apply(engine, settings, &new);
	if (!rc) {
		report(settings, &new);
		grants = settings->grants;
		settings->grants = new.grants;
		new.grants = grants;
	}
	settings_fini(&new);
	return rc;
}
