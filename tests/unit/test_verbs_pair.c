/* SPDX-License-Identifier: Apache-2.0 */
/* Which port goes with which, from lists alone: no device is asked anything. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include <sluice/error.h>

#include "tests/tap.h"
#include "transport/verbs/verbs.h"

#define V1 IBV_GID_TYPE_ROCE_V1
#define V2 IBV_GID_TYPE_ROCE_V2
#define IB IBV_GID_TYPE_IB

/* An address of either family as a GID. */
static union ibv_gid gid_of(const char *address)
{
	union ibv_gid gid = {.raw = {[10] = 0xff, [11] = 0xff}};

	if (!strchr(address, ':'))
		assert_int_equal(inet_pton(AF_INET, address, gid.raw + 12), 1);
	else
		assert_int_equal(inet_pton(AF_INET6, address, gid.raw), 1);
	return gid;
}

static struct verbs_device *add_device(struct verbs_devices *devices, enum ibv_mtu mtu, int node)
{
	struct verbs_device *device = &devices->devices[devices->count];

	device->index = devices->count++;
	snprintf(device->name, sizeof(device->name), "dev%u", device->index);
	device->port = 1;
	device->ethernet = true;
	device->mtu = mtu;
	device->node = node;
	return device;
}

static void add_gid(struct verbs_device *device, const char *address, uint32_t type)
{
	struct verbs_gid *gid = &device->gids[device->gid_count];

	*gid = (struct verbs_gid){
		.gid = gid_of(address), .index = 10 + device->gid_count, .type = type};
	device->gid_count++;
}

/* One device of each end, with one GID each. @return 0 or an error; the welcome has gone */
static int choose_one(const char *ours, uint32_t our_type, const char *theirs, uint32_t their_type,
		      struct verbs_pair *pair)
{
	struct verbs_devices near = {.count = 0}, far = {.count = 0};
	json_t *welcome;
	int rc;

	add_gid(add_device(&near, IBV_MTU_4096, -1), ours, our_type);
	add_gid(add_device(&far, IBV_MTU_1024, -1), theirs, their_type);
	welcome = verbs_describe_devices(&far);
	rc = verbs_pair_choose(&near, welcome, -1, 0, pair);
	json_decref(welcome);
	return rc;
}

/* Goal: one port of each end go together, by the smaller MTU, and can be told in words. */
static void test_one(void **state)
{
	struct verbs_devices near = {.count = 0};
	struct verbs_pair pair;
	char text[VERBS_PAIR_TEXT];

	(void)state;
	assert_int_equal(choose_one("10.0.0.1", V2, "10.0.0.2", V2, &pair), 0);
	assert_int_equal(pair.mtu, IBV_MTU_1024);
	assert_string_equal(pair.peer_name, "dev0 port 1");
	add_gid(add_device(&near, IBV_MTU_4096, -1), "10.0.0.1", V2);
	assert_string_equal(
		verbs_pair_describe(&near, &pair, text),
		"dev0 port 1 GID 10 (RoCE v2, 10.0.0.1) to dev0 port 1 (10.0.0.2), MTU 1024");
}

/* Goal: GIDs of different kinds, families or link layers never go together, and it is said why. */
static void test_kinds(void **state)
{
	static const struct {
		const char *ours, *theirs;
		uint32_t our_type, their_type;
	} apart[] = {
		{"10.0.0.1", "10.0.0.2", V2, V1}, {"10.0.0.1", "fe80::2", V2, V2},
		{"fe80::1", "10.0.0.2", V2, V2},  {"fe80::1", "fe80::2", V1, V2},
		{"fe80::1", "fe80::2", IB, V2},   {"fe80::1", "fe80::2", V2, 7},
		{"10.0.0.1", "10.0.0.2", V1, IB},
	};
	struct verbs_pair pair;

	(void)state;
	for (size_t i = 0; i < sizeof(apart) / sizeof(apart[0]); i++) {
		assert_int_equal(choose_one(apart[i].ours, apart[i].our_type, apart[i].theirs,
					    apart[i].their_type, &pair),
				 -ENODEV);
		assert_non_null(strstr(slu_last_error(), "an address of the same family"));
	}
	assert_int_equal(choose_one("fe80::1", V1, "fe80::2", V1, &pair), 0);
	assert_int_equal(choose_one("2001:db8::1", V2, "fe80::2", V2, &pair), 0);
}

/* Goal: an InfiniBand port does not go with an Ethernet one, whatever the GIDs say. */
static void test_link_layers(void **state)
{
	struct verbs_devices near = {.count = 0}, far = {.count = 0};
	struct verbs_pair pair;
	json_t *welcome;

	(void)state;
	add_gid(add_device(&near, IBV_MTU_4096, -1), "10.0.0.1", V2);
	add_gid(add_device(&far, IBV_MTU_4096, -1), "10.0.0.2", V2);
	far.devices[0].ethernet = false;
	welcome = verbs_describe_devices(&far);
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), -ENODEV);
	json_decref(welcome);
	near.devices[0].ethernet = false;
	welcome = verbs_describe_devices(&far);
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), 0);
	json_decref(welcome);
}

/* Goal: of the GIDs that go together RoCE v2 is before v1, and a neighbour before a router's. */
static void test_preference(void **state)
{
	struct verbs_devices near = {.count = 0}, far = {.count = 0};
	struct verbs_device *device = add_device(&near, IBV_MTU_4096, -1);
	struct verbs_pair pair;
	json_t *welcome;

	(void)state;
	add_gid(device, "10.0.0.1", V1);
	add_gid(device, "192.0.2.1", V2);
	add_gid(device, "10.0.0.1", V2);
	device = add_device(&far, IBV_MTU_4096, -1);
	add_gid(device, "10.0.0.2", V1);
	add_gid(device, "10.0.0.2", V2);
	welcome = verbs_describe_devices(&far);
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), 0);
	assert_int_equal(pair.gid, 2);
	assert_int_equal(pair.peer_gid, 1);
	near.devices[0].gid_count = 2; /* then by a router, but v2 */
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), 0);
	assert_int_equal(pair.gid, 1);
	near.devices[0].gid_count = 1;
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), 0);
	assert_int_equal(pair.gid, 0);
	assert_int_equal(pair.peer_gid, 0);
	json_decref(welcome);
}

/* Two rails, each with a network of its own, at both ends; theirs the other way round. */
static json_t *make_rails(struct verbs_devices *near)
{
	struct verbs_devices far = {.count = 0};

	*near = (struct verbs_devices){.count = 0};
	add_gid(add_device(near, IBV_MTU_4096, 0), "10.0.1.1", V2);
	add_gid(add_device(near, IBV_MTU_4096, 1), "10.0.2.1", V2);
	add_gid(add_device(&far, IBV_MTU_4096, -1), "10.0.2.2", V2);
	add_gid(add_device(&far, IBV_MTU_4096, -1), "10.0.1.2", V2);
	return verbs_describe_devices(&far);
}

/* Goal: each port goes with that of its own network; pollers are spread over both. */
static void test_rails(void **state)
{
	struct verbs_devices near;
	json_t *welcome = make_rails(&near);
	struct verbs_pair pair;

	(void)state;
	for (uint32_t nth = 0; nth < 4; nth++) {
		assert_int_equal(verbs_pair_choose(&near, welcome, -1, nth, &pair), 0);
		assert_int_equal(pair.device, nth % 2);
		assert_int_equal(pair.peer_device, 1 - nth % 2);
	}
	json_decref(welcome);
}

/* Goal: of ports that are as good the one on the poller's node is taken, and only of those. */
static void test_nodes(void **state)
{
	struct verbs_devices near;
	json_t *welcome = make_rails(&near);
	struct verbs_pair pair;

	(void)state;
	for (int node = 0; node < 2; node++)
		for (uint32_t nth = 0; nth < 3; nth++) {
			assert_int_equal(verbs_pair_choose(&near, welcome, node, nth, &pair), 0);
			assert_int_equal(pair.device, node);
		}
	assert_int_equal(verbs_pair_choose(&near, welcome, 5, 1, &pair), 0); /* none is near */
	assert_int_equal(pair.device, 1);
	near.devices[0].gids[0].gid = gid_of("203.0.113.1"); /* near, but by a router */
	assert_int_equal(verbs_pair_choose(&near, welcome, 0, 0, &pair), 0);
	assert_int_equal(pair.device, 1);
	json_decref(welcome);
}

/* Goal: an end without devices gives its reason. */
static void test_none(void **state)
{
	struct verbs_devices near = {.count = 0, .text = "RDMA is switched off (--no-rdma)"};
	json_t *empty = json_pack("{s:[]}", "devices");
	struct verbs_pair pair;

	(void)state;
	assert_int_equal(verbs_pair_choose(&near, empty, -1, 0, &pair), -ENODEV);
	assert_string_equal(slu_last_error(), "RDMA is switched off (--no-rdma)");
	add_gid(add_device(&near, IBV_MTU_4096, -1), "10.0.0.1", V2);
	assert_int_equal(verbs_pair_choose(&near, empty, -1, 0, &pair), -ENODEV);
	assert_non_null(strstr(slu_last_error(), "the target serves no RDMA"));
	assert_int_equal(verbs_pair_choose(&near, NULL, -1, 0, &pair), -ENODEV);
	json_decref(empty);
}

#define GID "\"00000000000000000000ffff0a000002\""

/* Goal: what a target cannot say of its devices is its mistake, not taken for something else. */
static void test_bad_lists(void **state)
{
	static const char *const bad[] = {
		"[7]",
		"[{}]",
		"[{\"name\":7,\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[]}]",
		"[{\"name\":\"d\",\"ethernet\":true,\"mtu\":1024,\"gids\":[]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":1,\"mtu\":1024,\"gids\":[]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1000,\"gids\":[]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":-1,\"gids\":[]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":{}}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[]]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[1,2]]}]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[\"00\",2]]}"
		"]",
		"[{\"name\":\"d\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[" GID
		",\"2\"]]}]",
		"[{\"name\":\"a\\u001b[2J\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":["
		"[" GID ",2]]}]",
		"[{\"name\":\"a\\nb\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[" GID
		",2]]}]",
		"[{\"name\":\"\",\"port\":1,\"ethernet\":true,\"mtu\":1024,\"gids\":[[" GID
		",2]]}]",
		"[{\"name\":\"d\",\"port\":0,\"ethernet\":true,\"mtu\":1024,\"gids\":[[" GID
		",2]]}]",
		"[{\"name\":\"d\",\"port\":256,\"ethernet\":true,\"mtu\":1024,\"gids\":[[" GID
		",2]]}]",
	};
	struct verbs_devices near = {.count = 0};
	struct verbs_pair pair;

	(void)state;
	add_gid(add_device(&near, IBV_MTU_4096, -1), "10.0.0.1", V2);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		json_t *welcome = json_pack("{s:o}", "devices", json_loads(bad[i], 0, NULL));

		assert_non_null(welcome);
		if (verbs_pair_choose(&near, welcome, -1, 0, &pair) != -EPROTO)
			fail_msg("taken: %s", bad[i]);
		json_decref(welcome);
	}
}

/* Goal: lists are bounded: more devices or GIDs than any target of ours tells are refused. */
static void test_long_lists(void **state)
{
	struct verbs_devices near = {.count = 0};
	json_t *port, *ports = json_array(), *gids = json_array();
	json_t *welcome = json_pack("{s:o}", "devices", ports);
	struct verbs_pair pair;

	(void)state;
	add_gid(add_device(&near, IBV_MTU_4096, -1), "10.0.0.1", V2);
	port = json_pack("{s:s, s:i, s:b, s:i, s:o}", "name", "d", "port", 1, "ethernet", 1, "mtu",
			 1024, "gids", gids);
	for (uint32_t i = 0; i < VERBS_GIDS_MAX; i++)
		json_array_append_new(
			gids, json_pack("[s, i]", "00000000000000000000ffff0a000002", (int)V2));
	json_array_append_new(ports, port);
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), 0);
	json_array_append_new(gids,
			      json_pack("[s, i]", "00000000000000000000ffff0a000002", (int)V2));
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), -EPROTO);
	json_array_clear(gids);
	for (uint32_t i = 0; i < 32; i++)
		json_array_append(ports, port);
	assert_int_equal(verbs_pair_choose(&near, welcome, -1, 0, &pair), -EPROTO);
	json_decref(welcome);
}

/* Goal: GIDs go through their text unchanged; what is not 32 digits is none. */
static void test_hex(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  "00000000000000000000ffff0a00000",
					  "00000000000000000000ffff0a0000020",
					  "00000000000000000000FFFF0a000002",
					  "0x000000000000000000ffff0a000002",
					  " 0000000000000000000ffff0a000002"};
	union ibv_gid gid = gid_of("2001:db8::ff"), back;
	char text[VERBS_GID_HEX];

	(void)state;
	assert_string_equal(verbs_gid_to_hex(&gid, text), "20010db80000000000000000000000ff");
	assert_true(verbs_gid_from_hex(text, &back));
	assert_memory_equal(&gid, &back, sizeof(gid));
	assert_false(verbs_gid_from_hex(NULL, &back));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(verbs_gid_from_hex(bad[i], &back));
}

/* Goal: only the five MTUs that there are. */
static void test_mtu(void **state)
{
	(void)state;
	for (int mtu = IBV_MTU_256; mtu <= IBV_MTU_4096; mtu++)
		assert_int_equal(verbs_mtu_from_bytes(verbs_mtu_bytes((enum ibv_mtu)mtu)), mtu);
	assert_int_equal(verbs_mtu_from_bytes(0), 0);
	assert_int_equal(verbs_mtu_from_bytes(1500), 0);
	assert_int_equal(verbs_mtu_from_bytes(8192), 0);
	assert_int_equal(verbs_mtu_from_bytes(INT64_C(0x100000100)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one),         cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_link_layers), cmocka_unit_test(test_preference),
		cmocka_unit_test(test_rails),       cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_none),        cmocka_unit_test(test_bad_lists),
		cmocka_unit_test(test_long_lists),  cmocka_unit_test(test_hex),
		cmocka_unit_test(test_mtu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
