/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The doctor's look at the configuration file.
 */
#ifndef COMMON_DOCTOR_CONFIG_H
#define COMMON_DOCTOR_CONFIG_H

#include "common/doctor/doctor.h"
#include "common/settings.h"

/** Which file is in force, and who could change it? */
void doctor_check_config(struct doctor *doctor, const struct settings *settings);

#endif
