/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What SIGHUP does: identities and keys are read again and take effect at once.
 */
#ifndef TARGET_RELOAD_H
#define TARGET_RELOAD_H

#include <sluice/sluice.h>

#include "common/settings.h"

/**
 * Read the configuration again and apply it, saying on stdout what has changed.
 *
 * Options do not change in a target that runs: those that would are named.
 *
 * @param settings  in force; its grants are replaced
 * A file without any identity, where there were some, is refused: it would let everybody do
 * everything.
 *
 * @return          0; -EINVAL, -ENOENT such a file, half a file or none; errors of settings_read(),
 *                  slu_engine_reload_tls(), slu_engine_set_grants(): the old rules stay in force
 */
int reload(struct slu_engine *engine, struct settings *settings);

#endif
