/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Resource limits of this process, as /proc tells them.
 */
#ifndef COMMON_DOCTOR_LIMITS_H
#define COMMON_DOCTOR_LIMITS_H

#include "common/doctor/doctor.h"

#define LIMIT_NONE UINT64_MAX

struct limit {
	uint64_t soft;
	uint64_t hard;
};

/** @param name  as in /proc/self/limits: "Max open files". @return could it be read? */
bool limit_read(const struct doctor *doctor, const char *name, struct limit *limit);

#endif
