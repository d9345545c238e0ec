/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * "sluice-initiator doctor": the machine, and whether the segment can be reached.
 */
#ifndef INITIATOR_DOCTOR_H
#define INITIATOR_DOCTOR_H

#include "common/settings.h"

/** @return exit code */
int doctor_run(struct settings *settings);

#endif
