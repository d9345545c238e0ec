/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the report says of RDMA: the path, how well the devices were used, and what registering
 * memory took.
 */
#ifndef INITIATOR_REPORT_RDMA_H
#define INITIATOR_REPORT_RDMA_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include <sluice/sluice.h>

/** Since the remote was opened, warming up included. */
struct rdma_figures {
	double doorbells_per_operation;
	double operations_per_signalled; /* completion that the device wrote; below 0: it wrote none
					  */
	double bytes_per_operation;
};

/** @return are there any: is the path one of verbs, and was anything moved? */
bool report_rdma_figures(const struct slu_remote_info *remote, struct rdma_figures *figures);

/** Print lines of the report's path; none without RDMA. */
void report_rdma_print(const struct slu_remote_info *remote, const struct slu_region_info *buffers,
		       FILE *out);

/** The same for programs, with all keys also without RDMA. @return NULL out of memory */
json_t *report_rdma_json(const struct slu_engine_info *engine, const struct slu_remote_info *remote,
			 const struct slu_region_info *buffers);

#endif
