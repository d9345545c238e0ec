/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up by librdmacm, as far as it goes without a device; the rest is tests/lab's sluice-cm. */
#include "transport/verbs/verbs_cm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/tap.h"

#define TOKEN "00112233445566778899aabbccddeeff"

static struct ibv_device kernel_device = {.name = "rxe9"};
static struct ibv_context context = {.device = &kernel_device};
static struct verbs_device device = {.name = "rxe9", .context = &context, .port = 1};
static const struct verbs_gid ours = {
	.gid.raw = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = 1}};
static const union ibv_gid peer = {
	.raw = {[10] = 0xff, [11] = 0xff, [12] = 192, [13] = 0, [14] = 2, [15] = 2}};

static int connect_with(const char *token)
{
	const struct verbs_connection connection = {.mtu = IBV_MTU_1024};
	struct ibv_qp qp = {.qp_num = 17};
	struct verbs_queue queue = {.qp = &qp};
	struct verbs_queue *queues[] = {&queue};
	const struct verbs_cm_link link = {.id = 1,
					   .device = &device,
					   .connection = &connection,
					   .queues = queues,
					   .count = 1};
	struct verbs_cm *cm = NULL;
	int rc = verbs_cm_connect(&link, &ours, &peer, 7471, token,
				  clock_monotonic_ns(NULL) + NS_PER_SECOND / 10, &cm);

	assert_null(cm);
	return rc;
}

/* Goal: what is no token is the target's mistake, whatever this host has. */
static void test_bad_token(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  TOKEN "0",
					  "0011223344556677 899aabbccddeeff",
					  "00112233445566778899AABBCCDDEEFF",
					  "00112233445566778899aabbccddeef"};

	(void)state;
	device.ethernet = true;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(connect_with(bad[i]), -EPROTO);
		assert_non_null(strstr(slu_last_error(), "token"));
	}
}

/* Goal: GIDs that are no IP addresses are refused with the way out. */
static void test_infiniband(void **state)
{
	(void)state;
	device.ethernet = false;
	assert_int_equal(connect_with(TOKEN), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "leave --connect cm out"));
}

/* Goal: a host without the module, or a user who may not open its device, is told what to do. */
static void test_without_module(void **state)
{
	struct verbs_cm_server *server = NULL;

	(void)state;
	if (access("/dev/infiniband/rdma_cm", R_OK | W_OK) == 0)
		skip_because("this host has /dev/infiniband/rdma_cm");
	device.ethernet = true;
	assert_int_equal(connect_with(TOKEN), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "modprobe rdma_ucm"));
	assert_int_equal(verbs_cm_server_create(&server), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "modprobe rdma_ucm"));
	assert_null(server);
	verbs_cm_server_destroy(NULL);
	verbs_cm_destroy(NULL);
}

/* Goal: a listener is on a port of its own, and ends without a client. */
static void test_listener(void **state)
{
	struct verbs_cm_server *servers[2];

	(void)state;
	if (access("/dev/infiniband/rdma_cm", R_OK | W_OK) != 0)
		skip_because("no /dev/infiniband/rdma_cm here");
	assert_int_equal(verbs_cm_server_create(&servers[0]), 0);
	assert_int_equal(verbs_cm_server_create(&servers[1]), 0);
	assert_int_not_equal(verbs_cm_server_port(servers[0]), 0);
	assert_int_not_equal(verbs_cm_server_port(servers[0]), verbs_cm_server_port(servers[1]));
	verbs_cm_server_destroy(servers[0]);
	verbs_cm_server_destroy(servers[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_token),
		cmocka_unit_test(test_infiniband),
		cmocka_unit_test(test_without_module),
		cmocka_unit_test(test_listener),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
