/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Options of a program, by a table: flags on the command line, the same names from a configuration
 * file or the environment through options_set(), and the text of --help.
 *
 * Spelling: --name value, --name=value; '_' and '-' in a name are the same. Booleans: --name,
 * --name=true|false, --name true|false, --no-name. When a flag is repeated the last one counts,
 * except for OPTION_LIST, which collects.
 *
 * Nothing here exits or prints by itself: errors are returned, their text by slu_last_error().
 * Order of calls: options_init, then for each source, weakest first, options_source and
 * options_set; at last options_parse. Each value remembers where it came from; a list from a
 * stronger source takes the place of a weaker one's.
 */
#ifndef COMMON_OPTIONS_H
#define COMMON_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_MAX      64 /* options in one table */
#define OPTION_LIST_MAX  64 /* values of one OPTION_LIST */
#define OPTION_NAME_MAX  48 /* bytes of a name */
#define OPTION_SIZE_TEXT 32 /* room for option_format_size() */

enum option_type {                /* the field in the program's struct */
		   OPTION_BOOL,   /* bool */
		   OPTION_U64,    /* uint64_t: decimal, or hexadecimal after 0x */
		   OPTION_INT,    /* int */
		   OPTION_SIZE,   /* uint64_t: bytes, suffix K, M, G, T of 1024 */
		   OPTION_RATE,   /* double: suffix k, M, G of 1000 */
		   OPTION_DOUBLE, /* double */
		   OPTION_STRING, /* const char *, the caller's text itself */
		   OPTION_ENUM,   /* int: index into option_spec.values */
		   OPTION_LIST,   /* struct option_list */
};

struct option_list {
	uint32_t count;
	const char *items[OPTION_LIST_MAX];
	uint32_t lines[OPTION_LIST_MAX]; /* of the file that the item came from, or 0 */
};

/** Where a value came from, weakest first. */
enum option_source {
	OPTION_FROM_DEFAULT,
	OPTION_FROM_FILE,
	OPTION_FROM_ENVIRONMENT,
	OPTION_FROM_COMMAND_LINE,
};

struct option_origin {
	enum option_source source;
	uint32_t line; /* of a file, or 0 */
};

/** One row of the table. Texts are static. */
struct option_spec {
	const char *section; /* heading in --help of this and the following rows, or NULL */
	const char *name;    /* as --help spells it */
	char letter;         /* also -x, or 0 */
	enum option_type type;
	size_t offset;             /* of the field in the program's struct */
	const char *initial;       /* default, as it would be typed; NULL: the field stays zero */
	int64_t min;               /* of numbers; 0 and 0: any that the type holds */
	int64_t max;               /* 0: only min counts */
	const char *const *values; /* OPTION_ENUM: NULL-terminated words */
	const char *argument;      /* what --help calls the value; NULL for booleans and words */
	const char *help;
	bool flag_only; /* on the command line and nowhere else */
};

struct options {
	const struct option_spec *specs;
	uint32_t count;
	void *values;             /* the program's struct */
	struct option_origin now; /* of what options_set() sets */
	struct option_origin origins[OPTIONS_MAX];
};

/**
 * Set every field of @p values that has a default to it.
 *
 * @param specs   table of 1..OPTIONS_MAX rows whose defaults are valid (asserted)
 * @param values  the program's struct, zeroed; it and the table must outlive @p options
 */
void options_init(struct options *options, const struct option_spec *specs, uint32_t count,
		  void *values);

/** Say where the following options_set() take their values from: @p line of a file, or 0. */
void options_source(struct options *options, enum option_source source, uint32_t line);

/**
 * Set one option from text.
 *
 * @param name   as in the table, in either spelling
 * @param value  kept by reference for OPTION_STRING and OPTION_LIST
 * @param where  what messages start with, such as "--size" or "sluice.conf:3: size"
 * @return       0; -ENOENT no such option; -EINVAL not a value of it, or only a flag; -ERANGE
 *               outside its limits; -E2BIG over OPTION_LIST_MAX values
 */
int options_set(struct options *options, const char *name, const char *value, const char *where);

/**
 * Set options from a command line, argv[0] left out. What was set before an error stays set.
 *
 * @return 0; as options_set(); -EINVAL also for a missing value or an argument that is no flag
 */
int options_parse(struct options *options, int argc, char *const *argv);

/** Was @p name (in either spelling, in the table) set by anything but its default? */
bool options_given(const struct options *options, const char *name);

/** Write the options by section, with their defaults. */
void options_print_help(const struct options *options, FILE *out);

/** The option that @p name, in either spelling, stands for, or else NULL. */
const struct option_spec *options_find(const struct options *options, const char *name);

/** The option whose name looks most like @p name, or NULL when none does. */
const char *options_nearest(const struct options *options, const char *name);

/** The one of @p words (NULL-terminated) that looks most like @p text, or NULL. */
const char *option_nearest_word(const char *const *words, const char *text);

/** How many values options_print_value() has: of a list its items, of a text that is unset 0. */
uint32_t options_value_count(const struct options *options, const struct option_spec *spec);

/** Write a value as options_set() reads it. @param item  0..options_value_count()-1 */
void options_print_value(const struct options *options, const struct option_spec *spec,
			 uint32_t item, FILE *out);

/**
 * Read a number of bytes: digits and an optional K, M, G or T (of 1024), also written KiB, MiB, ...
 *
 * @return 0; -EINVAL; -ERANGE over 64 bits
 */
int option_parse_size(const char *text, uint64_t *bytes);

/** Write @p bytes in the largest unit that holds it exactly: "64 KiB", "1000 B". */
void option_format_size(uint64_t bytes, char text[static OPTION_SIZE_TEXT]);

#endif
