/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What sysfs shows of RDMA devices: a device (rdma.c) and its ports (rdma_port.c).
 */
#ifndef COMMON_DOCTOR_RDMA_H
#define COMMON_DOCTOR_RDMA_H

#include <stdbool.h>

#include "common/doctor/doctor.h"
#include "common/doctor/files.h"

#define RDMA_DEVICES "/sys/class/infiniband"

struct rdma_device {
	const char *name;
	bool software;            /* it has no hardware of its own, as rxe and siw */
	char hardware[FILE_TEXT]; /* folder of the card, or of the interface that it is made over */
};

/** Look at port @p number of it. @return can it be used: is it active, and has it an address? */
bool rdma_port_check(struct doctor *doctor, const struct rdma_device *device, const char *number);

#endif
