/* SPDX-License-Identifier: Apache-2.0 */
#include "common/doctor/rdma_in_use.h"

void doctor_check_rdma_in_use(struct doctor *doctor, const struct slu_engine_info *engine)
{
	bool wanted = doctor->rdma_devices && !doctor->needs.no_rdma;
	enum verdict verdict = engine->rdma_devices ? VERDICT_OK
			       : wanted             ? VERDICT_WARNING
						    : VERDICT_ABSENT;

	doctor_add(doctor, verdict, "transport verbs",
		   verdict == VERDICT_WARNING ? "what is said of RDMA above" : NULL, "%s",
		   engine->rdma ? engine->rdma : "none");
}
