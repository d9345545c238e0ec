/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices, ports and GIDs are used, and what is said of the others. */
#include "transport/verbs/verbs_device.h"

#include <errno.h>
#include <string.h>

#include "fake_verbs.h"
#include "tests/tap.h"

static struct slu_rdma_options options;
static struct fake_device *const fake = &fake_verbs.devices[0];

static int reset(void **state)
{
	(void)state;
	fake_verbs_reset();
	options = (struct slu_rdma_options){
		.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1};
	return 0;
}

/* Whatever a test has opened it has closed, and so has whoever refused. */
static int expect_closed(void **state)
{
	(void)state;
	assert_int_equal(fake_verbs.contexts, 0);
	assert_int_equal(fake_verbs.pds, 0);
	return 0;
}

static struct verbs_devices *open_devices(void)
{
	struct verbs_devices *devices = NULL;

	assert_int_equal(verbs_devices_open(&options, &devices), 0);
	assert_non_null(devices);
	return devices;
}

static void expect_refused(int error, const char *text)
{
	struct verbs_devices *devices = NULL;

	assert_int_equal(verbs_devices_open(&options, &devices), error);
	assert_null(devices);
	if (!strstr(slu_last_error(), text))
		fail_msg("\"%s\" is not in \"%s\"", text, slu_last_error());
}

/* Opens, but uses nothing, and says why. */
static void expect_unused(const char *text)
{
	struct verbs_devices *devices = open_devices();

	assert_int_equal(devices->count, 0);
	if (!strstr(devices->text, text))
		fail_msg("\"%s\" is not in \"%s\"", text, devices->text);
	verbs_devices_close(devices);
}

/* Goal: a usable port is used, with what is needed later, and told in words. */
static void test_one(void **state)
{
	struct verbs_devices *devices = open_devices();
	const struct verbs_device *device = &devices->devices[0];

	(void)state;
	assert_int_equal(devices->count, 1);
	assert_string_equal(device->name, "fake0");
	assert_int_equal(device->port, 1);
	assert_int_equal(device->mtu, IBV_MTU_4096);
	assert_true(device->ethernet);
	assert_false(device->windows);
	assert_int_equal(device->gid_count, 1);
	assert_non_null(device->pd);
	assert_string_equal(devices->text, "fake0 port 1 GID 0 (RoCE v2, 10.0.0.1) MTU 4096");
	verbs_devices_close(devices);
}

/* Goal: an option that cannot be is refused by itself, before any device is looked at. */
static void test_options(void **state)
{
	static const struct {
		struct slu_rdma_options with;
		const char *text;
	} bad[] = {
		{{.mtu = 1500, .timeout = -1, .retries = -1}, "not 1500"},
		{{.mtu = 8192, .timeout = -1, .retries = -1}, "not 8192"},
		{{.timeout = 0, .retries = -1}, "n from 1 to 31"},
		{{.timeout = 32, .retries = -1}, "n from 1 to 31"},
		{{.timeout = -1, .retries = 7}, "at most 6 times"},
		{{.timeout = -1, .retries = -1, .traffic_class = 256}, "0 to 255"},
		{{.timeout = -1, .retries = -1, .queue_pairs = SLU_RDMA_QUEUE_PAIRS_MAX + 1},
		 "at most 16 queue pairs for bulk, not 17"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		options = bad[i].with;
		expect_refused(-EINVAL, bad[i].text);
	}
}

/* Goal: a name that is none is told from one that is not there; a port of its own each. */
static void test_names(void **state)
{
	static const char too_long[] = "0123456789012345678901234567890123456789"
				       "0123456789012345678901234";
	static const char *const none[] = {"",          ":1",       "fake0:", "fake0:0",
					   "fake0:256", "fake0:1x", too_long};

	(void)state;
	for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
		options.device = none[i];
		expect_refused(-EINVAL, "is not NAME or NAME:PORT of an RDMA device");
	}
	options.device = "fake";
	expect_refused(-ENODEV, "there is no RDMA device \"fake\": see ibv_devices");
	options.device = "fake0:2";
	expect_refused(-ENODEV, "fake0 port 2: it has no such port");
	options.device = "fake0:1";
	verbs_devices_close(open_devices());
	fake->name = NULL;
	options.device = "fake0";
	expect_refused(-ENODEV, "there is no RDMA device \"fake0\": ");
}

/* Goal: only what was named is opened. */
static void test_named(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	fake->port_count = 2;
	fake->ports[1] = fake->ports[0];
	fake_verbs.devices[1] = *fake;
	fake_verbs.devices[1].name = "fake1";
	devices = open_devices();
	assert_int_equal(devices->count, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(devices->devices[i].index, i);
	verbs_devices_close(devices);
	options.device = "fake1";
	devices = open_devices();
	assert_int_equal(devices->count, 2);
	assert_string_equal(devices->devices[0].name, "fake1");
	verbs_devices_close(devices);
	options.device = "fake1:2";
	devices = open_devices();
	assert_int_equal(devices->count, 1);
	assert_int_equal(devices->devices[0].port, 2);
	verbs_devices_close(devices);
}

/* Goal: a port that cannot be used is left out with its reason; if it was named, that is an error.
 */
static void test_dead_ports(void **state)
{
	(void)state;
	fake->ports[0].state = IBV_PORT_DOWN;
	expect_unused("fake0 port 1: it is down: bring its link up");
	options.device = "fake0";
	expect_refused(-ENODEV, "it is down: bring its link up");
	fake->ports[0].state = IBV_PORT_ACTIVE;
	fake->ports[0].gids[0].address = NULL;
	expect_refused(-ENODEV, "it has no GID: give its network interface an address");
	options.device = NULL;
	expect_unused("it has no GID");
	reset(NULL);
	fake->open_error = EACCES;
	expect_unused("it cannot be opened: Permission denied");
	fake->open_error = 0;
	fake->pd_error = ENOMEM;
	expect_unused("it has no protection domain for us");
}

/* Goal: one dead port does not take the others along. */
static void test_beside_dead(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	fake_verbs.devices[1] = *fake;
	fake_verbs.devices[1].name = "fake1";
	fake->ports[0].state = IBV_PORT_INIT;
	devices = open_devices();
	assert_int_equal(devices->count, 1);
	assert_string_equal(devices->devices[0].name, "fake1");
	assert_int_equal(devices->devices[0].index, 0);
	verbs_devices_close(devices);
}

/* Goal: an MTU that was asked for is kept to, and one above the port's is an error with both. */
static void test_mtu(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	options.mtu = 512;
	devices = open_devices();
	assert_int_equal(devices->devices[0].mtu, IBV_MTU_512);
	verbs_devices_close(devices);
	fake->ports[0].mtu = IBV_MTU_1024;
	options.mtu = 1024;
	verbs_devices_close(open_devices());
	options.mtu = 2048;
	expect_refused(-EINVAL, "MTU 2048 was asked for and its active MTU is 1024");
	options.device = "fake0";
	expect_refused(-ENODEV, "MTU 2048 was asked for and its active MTU is 1024");
}

/* Goal: a GID index is in the table and has a GID, or is an error that tells which. */
static void test_gid_index(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	fake->ports[0].gids[2] = (struct fake_gid){"fe80::1", IBV_GID_TYPE_ROCE_V1};
	options.gid_index = 2;
	devices = open_devices();
	assert_int_equal(devices->devices[0].gid_count, 1);
	assert_int_equal(devices->devices[0].gids[0].index, 2);
	verbs_devices_close(devices);
	options.gid_index = 3;
	expect_refused(-EINVAL, "its GID 3 is empty");
	options.gid_index = 4;
	expect_refused(-EINVAL, "its GID table has indexes 0 to 3, and 4 was asked for");
	options.gid_index = INT32_MAX;
	expect_refused(-EINVAL, "indexes 0 to 3");
}

/* Goal: what a router forwards comes first, RoCE v1 last; the table is bounded. */
static void test_gid_order(void **state)
{
	static const uint32_t order[] = {3, 2, 1, 0};
	struct verbs_devices *devices;

	(void)state;
	fake->ports[0].gids[0] = (struct fake_gid){"10.0.0.1", IBV_GID_TYPE_ROCE_V1};
	fake->ports[0].gids[1] = (struct fake_gid){"fe80::1", IBV_GID_TYPE_ROCE_V2};
	fake->ports[0].gids[2] = (struct fake_gid){"2001:db8::1", IBV_GID_TYPE_ROCE_V2};
	fake->ports[0].gids[3] = (struct fake_gid){"10.0.0.1", IBV_GID_TYPE_ROCE_V2};
	devices = open_devices();
	assert_int_equal(devices->devices[0].gid_count, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(devices->devices[0].gids[i].index, order[i]);
	verbs_devices_close(devices);
	for (uint32_t i = 4; i < FAKE_GIDS; i++)
		fake->ports[0].gids[i] = fake->ports[0].gids[2];
	devices = open_devices();
	assert_int_equal(devices->devices[0].gid_count, VERBS_GIDS_MAX);
	verbs_devices_close(devices);
}

/* Goal: each port has its own GIDs. */
static void test_gids_of_ports(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	fake->port_count = 2;
	fake->ports[1] = fake->ports[0];
	fake->ports[1].gids[0].address = "10.0.9.9";
	devices = open_devices();
	assert_int_equal(devices->count, 2);
	assert_int_equal(devices->devices[0].gids[0].gid.raw[14], 0);
	assert_int_equal(devices->devices[1].gids[0].gid.raw[14], 9);
	verbs_devices_close(devices);
}

/* Goal: windows are used only where the device has some of the kind that we bind. */
static void test_windows(void **state)
{
	struct verbs_devices *devices;

	(void)state;
	fake->max_mw = 100;
	devices = open_devices();
	assert_false(devices->devices[0].windows);
	verbs_devices_close(devices);
	fake->flags = IBV_DEVICE_MEM_WINDOW_TYPE_2B;
	devices = open_devices();
	assert_true(devices->devices[0].windows);
	verbs_devices_close(devices);
	fake->max_mw = 0;
	devices = open_devices();
	assert_false(devices->devices[0].windows);
	verbs_devices_close(devices);
}

/* Goal: RDMA that is switched off looks at no device; a host without one says so. */
static void test_none(void **state)
{
	(void)state;
	options.off = true;
	expect_unused("switched off (--no-rdma)");
	options.off = false;
	fake->name = NULL;
	expect_unused("RDMA device"); /* the words depend on what this host's kernel has */
}

#define test(name) cmocka_unit_test_setup_teardown(name, reset, expect_closed)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(test_one),           test(test_options),    test(test_names),
		test(test_named),         test(test_dead_ports), test(test_beside_dead),
		test(test_mtu),           test(test_gid_index),  test(test_gid_order),
		test(test_gids_of_ports), test(test_windows),    test(test_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
