/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a target prints when it is ready: where it listens, and the command that reaches it.
 */
#ifndef TARGET_ANNOUNCE_H
#define TARGET_ANNOUNCE_H

#include "target/config.h"
#include "target/serving.h"

/**
 * Print it to stdout. The last line is for scripts to wait for:
 * "ready: pid=N segments=A,B", over TCP with " listen=ADDRESS:PORT" behind it.
 */
void announce(const struct serving *serving, const struct config *config,
	      const struct grants *grants);

#endif
