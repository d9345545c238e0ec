/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Who may do what, and have how much of it: the [identity NAME] sections of a configuration file.
 */
#ifndef COMMON_GRANTS_H
#define COMMON_GRANTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <sluice/sluice.h>

#include "common/texts.h"

struct grants {
	struct slu_grant *items; /* for slu_engine_options.grants */
	uint32_t *lines;         /* where each of them stands */
	uint32_t count;
	struct slu_identity_limits *limits; /* for slu_engine_options.identity_limits */
	uint32_t limits_count;
	struct texts texts; /* that the items refer to */
};

/** Is @p identity one that a file can name? @return 0; -EINVAL, @p where begins the message */
int grants_check_identity(const char *identity, const char *where);

/**
 * Add the line "SEGMENT = RIGHTS" of an identity.
 *
 * @param identity  of grants->texts
 * @param segment   is copied
 * @param rights    "read,write", "read", "write" or "none"
 * @param where     what messages start with
 * @return          0; -EINVAL; -E2BIG over SLU_GRANTS_MAX; -ENOMEM
 */
int grants_add_line(struct grants *grants, const char *identity, const char *segment,
		    const char *rights, uint32_t line, const char *where);

/** Is @p name that of a limit? Then a line with it grants nothing. */
bool grants_is_limit(const char *name);

/**
 * Add the line "LIMIT = NUMBER" of an identity; bytes may have a suffix.
 *
 * @param identity  of grants->texts
 * @param where     what messages start with
 * @return          0; -EINVAL no number, or the limit twice; -ENOMEM
 */
int grants_add_limit(struct grants *grants, const char *identity, const char *name,
		     const char *value, const char *where);

/** Is nothing granted twice? @param path  of the file, for the message. @return 0; -EINVAL; -ENOMEM
 */
int grants_check_unique(const struct grants *grants, const char *path);

/** "read,write", "none", ... */
const char *grants_rights_name(uint32_t rights);

/**
 * Print a line for each right that differs.
 *
 * @return how many; -ENOMEM
 */
int grants_print_changes(const struct grants *before, const struct grants *after, FILE *out);

void grants_fini(struct grants *grants);

#endif
