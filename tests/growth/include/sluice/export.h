/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What leaves the shared library: every other symbol is hidden.
 */
#ifndef SLUICE_EXPORT_H
#define SLUICE_EXPORT_H

#define SLU_API __attribute__((visibility("default")))

#endif
