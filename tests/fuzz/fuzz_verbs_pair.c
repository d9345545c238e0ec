/* SPDX-License-Identifier: Apache-2.0 */
/* What a target says of its RDMA devices: a pair that is chosen from it is within both lists, of
 * the same kind, and can be printed. The first byte is the poller's node and number. */
#include <errno.h>

#include "base/log.h"
#include "tests/fuzz/fuzz.h"
#include "transport/verbs/verbs.h"

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition))                                                                  \
			abort();                                                                   \
	} while (0)

static struct verbs_devices devices = {
	.count = 3,
	.devices = {{.index = 0,
		     .name = "mlx5_0",
		     .port = 1,
		     .ethernet = true,
		     .mtu = IBV_MTU_4096,
		     .node = 0,
		     .gid_count = 2,
		     .gids = {{.gid.raw = {[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1},
			       .index = 3,
			       .type = IBV_GID_TYPE_ROCE_V2},
			      {.gid.raw = {[0] = 0xfe, [1] = 0x80, [15] = 1},
			       .index = 0,
			       .type = IBV_GID_TYPE_ROCE_V1}}},
		    {.index = 1,
		     .name = "mlx5_1",
		     .port = 1,
		     .ethernet = true,
		     .mtu = IBV_MTU_1024,
		     .node = 1,
		     .gid_count = 1,
		     .gids = {{.gid.raw = {[0] = 0x20, [1] = 1, [15] = 1},
			       .index = 1,
			       .type = IBV_GID_TYPE_ROCE_V2}}},
		    {.index = 2,
		     .name = "ib0",
		     .port = 2,
		     .mtu = IBV_MTU_2048,
		     .node = -1,
		     .gid_count = 1,
		     .gids = {{.gid.raw = {[0] = 0xfe, [1] = 0x80, [15] = 2},
			       .index = 0,
			       .type = IBV_GID_TYPE_IB}}}}};

static void check(const json_t *welcome, const struct verbs_pair *pair)
{
	const json_t *port = json_array_get(json_object_get(welcome, "devices"), pair->peer_device);
	const json_t *gid = json_array_get(json_object_get(port, "gids"), pair->peer_gid);
	const struct verbs_device *ours = &devices.devices[pair->device];
	char text[VERBS_PAIR_TEXT];

	must(pair->device < devices.count && pair->gid < ours->gid_count && gid);
	/* jansson takes the low bits of a number that is too large. */
	must((uint32_t)json_integer_value(json_array_get(gid, 1)) == ours->gids[pair->gid].type);
	must(json_is_true(json_object_get(port, "ethernet")) == ours->ethernet);
	must(pair->mtu >= IBV_MTU_256 && pair->mtu <= ours->mtu);
	must(verbs_mtu_bytes(pair->mtu) <=
	     (uint32_t)json_integer_value(json_object_get(port, "mtu")));
	verbs_pair_describe(&devices, pair, text);
	for (const char *at = text; *at; at++)
		must(*at >= ' ' && *at <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct verbs_pair pair;
	json_t *welcome;
	int rc;

	if (size == 0)
		return 0;
	welcome = json_loadb((const char *)data + 1, size - 1, 0, NULL);
	rc = verbs_pair_choose(&devices, welcome, data[0] % 4 - 1, data[0] / 4, &pair);
	if (rc == 0)
		check(welcome, &pair);
	else
		must((rc == -ENODEV || rc == -EPROTO) && slu_last_error()[0]);
	json_decref(welcome);
	return 0;
}
