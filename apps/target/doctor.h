/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * "sluice-target doctor": the machine, and whether what the options ask for could be served.
 */
#ifndef TARGET_DOCTOR_H
#define TARGET_DOCTOR_H

#include "common/settings.h"

/** @return exit code */
int doctor_run(struct settings *settings);

#endif
