/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The configuration file of both appliances (docs/sluice.conf.5):
 *
 *   [target]                 options by the names of their flags; lists by repeating them
 *   segment = ram0=4G
 *   [initiator]
 *   size = 64K
 *   [identity alice]         what alice may do at the target
 *   ram0 = read,write
 *   * = none
 *   max-sessions = 100       and how much it may have
 */
#ifndef COMMON_CONFIG_FILE_H
#define COMMON_CONFIG_FILE_H

#include <stdbool.h>

#include "common/options.h"
#include "common/grants.h"
#include "common/texts.h"

/** What an option's value can be: a line of the file holds it whole. */
bool config_file_can_hold(const char *name, const char *value);

/**
 * Read a file.
 *
 * Everything is checked but the options of the other appliance.
 *
 * @param section  "target" or "initiator": which options are ours
 * @param options  are set, from source OPTION_FROM_FILE
 * @param grants   the identities are added
 * @param texts    takes what the options refer to
 * @return         0; -ENOENT no such file; -EACCES and others it cannot be read; -EINVAL, -ERANGE,
 *                 -E2BIG a mistake, the message begins with FILE:LINE; -ENOMEM
 */
int config_file_read(const char *path, const char *section, struct options *options,
		     struct grants *grants, struct texts *texts);

#endif
