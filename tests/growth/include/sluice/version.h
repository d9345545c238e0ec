/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Version of the library.
 *
 * A program runs with every library of its own major number: one that is newer does what it did,
 * one that is older does all that it knows and refuses the rest, a call or an option at a time
 * (-E2BIG, see engine.h); a function that it lacks is missed when the program is started. Another
 * major number is another library, libsluice.so.MAJOR.
 */
#ifndef SLUICE_VERSION_H
#define SLUICE_VERSION_H

#include <sluice/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_VERSION_MAJOR 1
#define SLU_VERSION_MINOR 0
#define SLU_VERSION_PATCH 0

/** "1.0.0", of the library that is loaded (not of the headers compiled against). Any thread. */
SLU_API const char *slu_version(void);

#ifdef __cplusplus
}
#endif

#endif
