/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/report_rdma.h"

#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

static const struct slu_remote_info verbs = {
	.transport = SLU_TRANSPORT_VERBS,
	.path = "mlx5_0 port 1 GID 3 (RoCE v2, 10.0.0.1) to mlx5_1 port 1, MTU 4096",
	.connections = 3,
	.connect_ns = 3456789,
	.reads = 600,
	.writes = 400,
	.bytes_read = 600 * 4096,
	.bytes_written = 400 * 4096,
	.doorbells = 125,
	.signalled = 40,
};

static char *printed(const struct slu_remote_info *remote, const struct slu_region_info *buffers)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	report_rdma_print(remote, buffers, out);
	fclose(out);
	return text;
}

/* Goal: path, figures and registration each have a line. */
static void test_text(void **state)
{
	struct slu_region_info buffers = {.devices = 2, .register_ns = 1234567};
	char *text = printed(&verbs, &buffers);

	(void)state;
	assert_non_null(strstr(text, "(RoCE v2, 10.0.0.1) to mlx5_1 port 1, MTU 4096\n"));
	assert_non_null(strstr(text, "connected in 3.46 ms\n"));
	assert_non_null(strstr(text, "0.125 doorbells per operation, 25.0 operations per signalled "
				     "completion, 4096 bytes per operation\n"));
	assert_non_null(strstr(text, "registered with 2 RDMA devices in 1.23 ms\n"));
	free(text);
}

/* Goal: nothing was moved, or the device wrote no completion yet: no figure is made up. */
static void test_unknown(void **state)
{
	struct slu_remote_info remote = verbs;
	struct slu_region_info buffers = {0};
	struct rdma_figures figures;
	char *text;

	(void)state;
	remote.signalled = 0;
	assert_true(report_rdma_figures(&remote, &figures));
	assert_true(figures.operations_per_signalled < 0);
	text = printed(&remote, &buffers);
	assert_null(strstr(text, "signalled"));
	free(text);
	remote.reads = remote.writes = 0;
	assert_false(report_rdma_figures(&remote, &figures));
}

/* Goal: another transport has nothing to say of RDMA, and its connections are no queue pairs. */
static void test_other_transport(void **state)
{
	struct slu_remote_info remote = verbs;
	struct slu_region_info buffers = {0};
	struct slu_engine_info engine = {.rdma = "no RDMA device"};
	json_t *json;
	char *text;

	(void)state;
	remote.transport = SLU_TRANSPORT_TCP;
	remote.path[0] = '\0';
	remote.connect_ns = 0;
	text = printed(&remote, &buffers);
	assert_string_equal(text, "");
	free(text);
	json = report_rdma_json(&engine, &remote, &buffers);
	assert_non_null(json);
	assert_int_equal(json_object_size(json), 12);
	assert_int_equal(json_integer_value(json_object_get(json, "queue_pairs")), 0);
	assert_true(json_is_null(json_object_get(json, "path")));
	assert_true(json_is_null(json_object_get(json, "doorbells_per_operation")));
	assert_string_equal(json_string_value(json_object_get(json, "devices")), "no RDMA device");
	json_decref(json);
}

/* Goal: programs find the same figures. */
static void test_json(void **state)
{
	struct slu_region_info buffers = {.devices = 1, .register_ns = 5000};
	struct slu_engine_info engine = {.rdma = "mlx5_0", .rdma_devices = 1};
	json_t *json = report_rdma_json(&engine, &verbs, &buffers);

	(void)state;
	assert_non_null(json);
	assert_int_equal(json_integer_value(json_object_get(json, "devices_in_use")), 1);
	assert_int_equal(json_integer_value(json_object_get(json, "queue_pairs")), 3);
	assert_int_equal(json_integer_value(json_object_get(json, "connect_ns")), 3456789);
	assert_int_equal(json_integer_value(json_object_get(json, "doorbells")), 125);
	assert_int_equal(json_integer_value(json_object_get(json, "signalled_completions")), 40);
	assert_true(json_real_value(json_object_get(json, "operations_per_signalled_completion")) ==
		    25);
	assert_int_equal(json_integer_value(json_object_get(json, "registered_devices")), 1);
	assert_int_equal(json_integer_value(json_object_get(json, "registration_ns")), 5000);
	assert_string_equal(json_string_value(json_object_get(json, "path")), verbs.path);
	json_decref(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_other_transport),
		cmocka_unit_test(test_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
