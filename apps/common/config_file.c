/* SPDX-License-Identifier: Apache-2.0 */
#include "common/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* Without its end, of Debian's inih, which would read the rest as another line. */
#define LINE_MAX_BYTES 198
#define WHERE_MAX      256
#define IDENTITY       "identity"

static const char *const sections[] = {"target", "initiator", IDENTITY, NULL};

enum kind {
	KIND_NONE, /* before the first section */
	KIND_OURS,
	KIND_OTHER, /* the other appliance's */
	KIND_IDENTITY,
};

/* inih splits lines. It neither tells their numbers nor keeps long names of sections: we do. */
struct reader {
	const char *path;
	const char *section;
	struct options *options;
	struct grants *grants;
	struct texts *texts;
	FILE *file;
	char *text; /* of the line */
	size_t size;
	uint32_t line;
	enum kind kind;
	const char *identity;
	uint32_t identity_line;
	uint32_t identity_rights; /* lines in its section */
	int error;
};

bool config_file_can_hold(const char *name, const char *value)
{
	size_t length = strlen(value);

	for (size_t i = 0; i < length; i++)
		if (iscntrl((unsigned char)value[i]) ||
		    (value[i] == ';' && (!i || isspace((unsigned char)value[i - 1]))))
			return false;
	return length && !isspace((unsigned char)value[0]) &&
	       !isspace((unsigned char)value[length - 1]) &&
	       strlen(name) + 3 + length <= LINE_MAX_BYTES;
}

static int no_memory(void)
{
	return fail(-ENOMEM, "out of memory for the configuration");
}

/* An identity without a line would take nothing from "everybody may do everything". */
static int end_section(struct reader *reader)
{
	if (reader->kind != KIND_IDENTITY || reader->identity_rights)
		return 0;
	return fail(-EINVAL,
		    "%s:%u: identity %s has no rights: write SEGMENT = read,write, or * = none",
		    reader->path, reader->identity_line, reader->identity);
}

static int begin_identity(struct reader *reader, const char *name, size_t length)
{
	char where[WHERE_MAX];

	reader->kind = KIND_IDENTITY;
	reader->identity_line = reader->line;
	reader->identity_rights = 0;
	reader->identity = texts_keep(&reader->grants->texts, name, length);
	if (!reader->identity)
		return no_memory();
	snprintf(where, sizeof(where), "%s:%u", reader->path, reader->line);
	return grants_check_identity(reader->identity, where);
}

static int fail_section(const struct reader *reader, const char *name)
{
	const char *near = option_nearest_word(sections, name);

	if (!near)
		return fail(-EINVAL,
			    "%s:%u: unknown section [%.80s]: there are [target], [initiator] and "
			    "[identity NAME]",
			    reader->path, reader->line, name);
	return fail(-EINVAL, "%s:%u: unknown section [%.80s]: did you mean [%s%s]?", reader->path,
		    reader->line, name, near, strcmp(near, IDENTITY) ? "" : " NAME");
}

/* "[target]", "[identity NAME]" */
static int begin_section(struct reader *reader, char *text)
{
	char *end = strchr(text, ']');
	char *name = text + 1;
	size_t word;

	if (!end)
		return fail(-EINVAL, "%s:%u: the name of a section ends in ]", reader->path,
			    reader->line);
	*end = '\0';
	word = strcspn(name, " \t");
	reader->kind = KIND_OTHER;
	if (!strcmp(name, reader->section))
		reader->kind = KIND_OURS;
	else if (word == strlen(IDENTITY) && !strncmp(name, IDENTITY, word) && name[word])
		return begin_identity(reader, name + word + strspn(name + word, " \t"),
				      strlen(name + word + strspn(name + word, " \t")));
	else if (strcmp(name, sections[0]) && strcmp(name, sections[1]))
		return fail_section(reader, name);
	return 0;
}

static int check_line(const struct reader *reader, size_t length)
{
	if (strlen(reader->text) != length)
		return fail(-EINVAL, "%s:%u: a NUL byte: this is no text file", reader->path,
			    reader->line);
	if (strcspn(reader->text, "\n") > LINE_MAX_BYTES)
		return fail(-EINVAL, "%s:%u: the line is longer than %d bytes", reader->path,
			    reader->line, LINE_MAX_BYTES);
	return 0;
}

/* The next line without leading blanks, which inih would take for the last line's continuation. */
static int read_line(struct reader *reader, const char **line)
{
	ssize_t length = getline(&reader->text, &reader->size, reader->file);
	char *text = reader->text;
	char copy[LINE_MAX_BYTES + 1];
	int rc;

	*line = NULL;
	if (length < 0)
		return ferror(reader->file)
			       ? fail(-EIO, "%s cannot be read: %s", reader->path, strerror(errno))
			       : end_section(reader);
	reader->line++;
	text += strspn(text, " \t");
	*line = text;
	if (*text == '#' || *text == ';')
		*text = '\0';
	rc = *text ? check_line(reader, (size_t)length) : 0;
	if (rc || *text != '[')
		return rc;
	rc = end_section(reader);
	snprintf(copy, sizeof(copy), "%s", text);
	return rc ? rc : begin_section(reader, copy);
}

/* ini_reader */
static char *next_line(char *into, int size, void *stream)
{
	struct reader *reader = stream;
	const char *line = NULL;

	if (!reader->error)
		reader->error = read_line(reader, &line);
	if (reader->error || !line)
		return NULL;
	snprintf(into, (size_t)size, "%s", line);
	return into;
}

static int fail_key(const struct reader *reader, const char *name)
{
	const char *near = options_nearest(reader->options, name);

	return fail(-EINVAL, "%s:%u: unknown option \"%.80s\" in [%s]%s%s%s", reader->path,
		    reader->line, name, reader->section, near ? ": did you mean " : "",
		    near ? near : ": --help lists them all", near ? "?" : "");
}

static int set_option(struct reader *reader, const char *name, const char *value)
{
	const struct option_spec *spec = options_find(reader->options, name);
	const struct option_origin *origin;
	char where[WHERE_MAX];
	const char *kept;

	if (!spec)
		return fail_key(reader, name);
	origin = &reader->options->origins[spec - reader->options->specs];
	if (origin->source == OPTION_FROM_FILE && spec->type != OPTION_LIST)
		return fail(-EINVAL, "%s:%u: %s is set in line %u already", reader->path,
			    reader->line, name, origin->line);
	kept = texts_keep(reader->texts, value, strlen(value));
	if (!kept)
		return no_memory();
	snprintf(where, sizeof(where), "%s:%u: %s", reader->path, reader->line, name);
	options_source(reader->options, OPTION_FROM_FILE, reader->line);
	return options_set(reader->options, name, kept, where);
}

static int add_grant(struct reader *reader, const char *name, const char *value)
{
	char where[WHERE_MAX];

	reader->identity_rights++;
	snprintf(where, sizeof(where), "%s:%u", reader->path, reader->line);
	if (grants_is_limit(name))
		return grants_add_limit(reader->grants, reader->identity, name, value, where);
	return grants_add_line(reader->grants, reader->identity, name, value, reader->line, where);
}

/* ini_handler */
static int take(void *user, const char *section, const char *name, const char *value)
{
	struct reader *reader = user;

	(void)section;
	if (reader->error)
		return 1;
	if (reader->kind == KIND_OURS)
		reader->error = set_option(reader, name, value);
	else if (reader->kind == KIND_IDENTITY)
		reader->error = add_grant(reader, name, value);
	else if (reader->kind == KIND_NONE)
		reader->error = fail(-EINVAL,
				     "%s:%u: \"%.80s\" stands before the first section: "
				     "write [%s] above it",
				     reader->path, reader->line, name, reader->section);
	return 1;
}

static int read_all(struct reader *reader)
{
	int bad_line = ini_parse_stream(next_line, reader, take, reader);

	if (!reader->error && bad_line > 0)
		return fail(-EINVAL, "%s:%d: neither [SECTION] nor NAME = VALUE", reader->path,
			    bad_line);
	if (!reader->error && bad_line < 0)
		return no_memory();
	return reader->error ? reader->error : grants_check_unique(reader->grants, reader->path);
}

int config_file_read(const char *path, const char *section, struct options *options,
		     struct grants *grants, struct texts *texts)
{
	struct reader reader = {
		.path = path,
		.section = section,
		.options = options,
		.grants = grants,
		.texts = texts,
		.file = fopen(path, "re"),
	};
	int rc;

	if (!reader.file)
		return fail(-errno, "the configuration file %s cannot be opened: %s", path,
			    strerror(errno));
	rc = read_all(&reader);
	free(reader.text);
	fclose(reader.file);
	return rc;
}
