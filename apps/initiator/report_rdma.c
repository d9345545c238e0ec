/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/report_rdma.h"

#define LABEL "  %-12s" /* of report.c */

bool report_rdma_figures(const struct slu_remote_info *remote, struct rdma_figures *figures)
{
	double operations = (double)(remote->reads + remote->writes);

	if (remote->transport != SLU_TRANSPORT_VERBS || operations <= 0)
		return false;
	figures->doorbells_per_operation = (double)remote->doorbells / operations;
	figures->operations_per_signalled =
		remote->signalled ? operations / (double)remote->signalled : -1;
	figures->bytes_per_operation =
		(double)(remote->bytes_read + remote->bytes_written) / operations;
	return true;
}

static void print_figures(const struct rdma_figures *figures, FILE *out)
{
	fprintf(out, LABEL "%.3f doorbells per operation, ", "", figures->doorbells_per_operation);
	if (figures->operations_per_signalled >= 0)
		fprintf(out, "%.1f operations per signalled completion, ",
			figures->operations_per_signalled);
	fprintf(out, "%.0f bytes per operation\n", figures->bytes_per_operation);
}

void report_rdma_print(const struct slu_remote_info *remote, const struct slu_region_info *buffers,
		       FILE *out)
{
	struct rdma_figures figures;

	if (remote->path[0])
		fprintf(out, LABEL "%s\n", "", remote->path);
	if (remote->connect_ns)
		fprintf(out, LABEL "connected in %.2f ms\n", "", (double)remote->connect_ns / 1e6);
	if (report_rdma_figures(remote, &figures))
		print_figures(&figures, out);
	if (buffers->devices)
		fprintf(out, LABEL "buffers registered with %u RDMA device%s in %.2f ms\n", "",
			buffers->devices, buffers->devices == 1 ? "" : "s",
			(double)buffers->register_ns / 1e6);
}

/* A negative figure means that it is not known. */
static json_t *figure(double value)
{
	return value < 0 ? json_null() : json_real(value);
}

json_t *report_rdma_json(const struct slu_engine_info *engine, const struct slu_remote_info *remote,
			 const struct slu_region_info *buffers)
{
	struct rdma_figures figures = {-1, -1, -1};
	bool verbs = remote->transport == SLU_TRANSPORT_VERBS;

	report_rdma_figures(remote, &figures);
	return json_pack(
		"{s:i, s:s?, s:s?, s:i, s:I, s:I, s:I, s:o, s:o, s:o, s:i, s:I}", "devices_in_use",
		(int)engine->rdma_devices, "devices", engine->rdma, "path",
		remote->path[0] ? remote->path : NULL, "queue_pairs",
		verbs ? (int)remote->connections : 0, "connect_ns", (json_int_t)remote->connect_ns,
		"doorbells", (json_int_t)remote->doorbells, "signalled_completions",
		(json_int_t)remote->signalled, "doorbells_per_operation",
		figure(figures.doorbells_per_operation), "operations_per_signalled_completion",
		figure(figures.operations_per_signalled), "bytes_per_operation",
		figure(figures.bytes_per_operation), "registered_devices", (int)buffers->devices,
		"registration_ns", (json_int_t)buffers->register_ns);
}
