/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The doctor's look at the RDMA devices that an engine could open, beside what sysfs promises.
 */
#ifndef COMMON_DOCTOR_RDMA_IN_USE_H
#define COMMON_DOCTOR_RDMA_IN_USE_H

#include <sluice/sluice.h>

#include "common/doctor/doctor.h"

/** After doctor_examine(). */
void doctor_check_rdma_in_use(struct doctor *doctor, const struct slu_engine_info *engine);

#endif
