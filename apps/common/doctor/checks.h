/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The groups of checks, each in its own file; each adds its findings.
 */
#ifndef COMMON_DOCTOR_CHECKS_H
#define COMMON_DOCTOR_CHECKS_H

#include "common/doctor/doctor.h"

void check_memory(struct doctor *doctor);     /* hugepages, limits, nodes, balancing */
void check_processors(struct doctor *doctor); /* isolation, governor, clock */
void check_container(struct doctor *doctor);  /* limits of the control group */
void check_network(struct doctor *doctor);    /* sockets, descriptors, kernel TLS */
void check_rdma(struct doctor *doctor);       /* devices and ports; before check_pcie */
void check_pcie(struct doctor *doctor);       /* links, relaxed ordering, IOMMU */
void check_gpu(struct doctor *doctor);        /* driver, peer memory, ACS; after check_rdma */

#endif
