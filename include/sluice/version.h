/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Version of the library. Before 1.0 a minor release may change the interface; the changelog says
 * so.
 */
#ifndef SLUICE_VERSION_H
#define SLUICE_VERSION_H

#include <sluice/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_VERSION_MAJOR 0
#define SLU_VERSION_MINOR 1
#define SLU_VERSION_PATCH 0

/** "0.1.0", of the library that is loaded (not of the headers compiled against). Any thread. */
SLU_API const char *slu_version(void);

#ifdef __cplusplus
}
#endif

#endif
