/* SPDX-License-Identifier: Apache-2.0 */
/* Which of our ports goes with which of the target's, by which GIDs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"

#define PEER_DEVICES_MAX 32u

/* Two addresses that agree so far count as neighbours; whose agree less are reached by routers. */
#define NEAR_BITS_IPV4 24
#define NEAR_BITS_IPV6 64

/* ---- what we say of our devices ---- */

static json_t *describe_gids(const struct verbs_device *device)
{
	json_t *gids = json_array();

	for (uint32_t i = 0; i < device->gid_count; i++) {
		char text[VERBS_GID_HEX];

		json_array_append_new(gids, json_pack("[s, i]",
						      verbs_gid_to_hex(&device->gids[i].gid, text),
						      (int)device->gids[i].type));
	}
	return gids;
}

json_t *verbs_describe_devices(const struct verbs_devices *devices)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < devices->count; i++) {
		const struct verbs_device *device = &devices->devices[i];

		json_array_append_new(list,
				      json_pack("{s:s, s:i, s:b, s:i, s:o}", "name", device->name,
						"port", device->port, "ethernet", device->ethernet,
						"mtu", (int)verbs_mtu_bytes(device->mtu), "gids",
						describe_gids(device)));
	}
	return json_pack("{s:o}", "devices", list);
}

const char *verbs_gid_to_hex(const union ibv_gid *gid, char *text)
{
	for (int i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", gid->raw[i]);
	return text;
}

bool verbs_gid_from_hex(const char *text, union ibv_gid *gid)
{
	if (!text || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return false;
	for (int i = 0; i < 16; i++) {
		unsigned byte;

		sscanf(text + 2 * i, "%2x", &byte);
		gid->raw[i] = (uint8_t)byte;
	}
	return true;
}

enum ibv_mtu verbs_mtu_from_bytes(json_int_t bytes)
{
	for (int mtu = IBV_MTU_256; mtu <= IBV_MTU_4096; mtu++)
		if (bytes == verbs_mtu_bytes((enum ibv_mtu)mtu))
			return (enum ibv_mtu)mtu;
	return 0;
}

/* ---- one pair of GIDs ---- */

static int common_bits(const uint8_t *a, const uint8_t *b, int bytes)
{
	int bits = 0;

	for (int i = 0; i < bytes; i++) {
		uint8_t difference = a[i] ^ b[i];

		if (difference)
			return bits + __builtin_clz(difference) - 24;
		bits += 8;
	}
	return bits;
}

/* @return how well they go together, 0: not at all */
static int rate(const struct verbs_gid *ours, const union ibv_gid *theirs, uint32_t type)
{
	bool ipv4 = verbs_gid_is_ipv4(&ours->gid);
	int kind, bits;

	if (ours->type != type || ipv4 != verbs_gid_is_ipv4(theirs))
		return 0;
	kind = type == IBV_GID_TYPE_ROCE_V1 ? 1 : 2; /* v2 and InfiniBand before it */
	if (ipv4) {
		bits = common_bits(ours->gid.raw + 12, theirs->raw + 12, 4);
		return kind * 1000 + (bits >= NEAR_BITS_IPV4 ? 400 : 200) + bits;
	}
	bits = common_bits(ours->gid.raw, theirs->raw, 16);
	return kind * 1000 + (bits >= NEAR_BITS_IPV6 ? 300 : 100);
}

/* ---- the target's list ---- */

struct peer_port {
	const char *name;
	int port;
	int ethernet;
	enum ibv_mtu mtu;
	json_t *gids;
};

/* It is shown to people: no spaces, and nothing that a terminal obeys. */
static bool is_name(const char *text)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < length; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	return length > 0 && length <= VERBS_NAME_MAX;
}

static bool parse_port(json_t *text, struct peer_port *port)
{
	int mtu;

	if (json_unpack(text, "{s:s, s:i, s:b, s:i, s:o}", "name", &port->name, "port", &port->port,
			"ethernet", &port->ethernet, "mtu", &mtu, "gids", &port->gids) < 0 ||
	    !is_name(port->name) || port->port < 1 || port->port > UINT8_MAX ||
	    !json_is_array(port->gids) || json_array_size(port->gids) > VERBS_GIDS_MAX)
		return false;
	port->mtu = verbs_mtu_from_bytes(mtu);
	return port->mtu != 0;
}

/* The best pair of our port and theirs. @return its rate, 0: none; -EPROTO */
static int match(const struct verbs_device *device, const struct peer_port *port,
		 struct verbs_pair *pair)
{
	int best = 0;
	json_t *entry;
	size_t i;

	if (device->ethernet != port->ethernet)
		return 0;
	json_array_foreach (port->gids, i, entry) {
		union ibv_gid gid;
		const char *text;
		int type;

		if (json_unpack(entry, "[s, i]", &text, &type) < 0 ||
		    !verbs_gid_from_hex(text, &gid))
			return -EPROTO;
		for (uint32_t k = 0; k < device->gid_count; k++) {
			int rated = rate(&device->gids[k], &gid, (uint32_t)type);

			if (rated <= best)
				continue;
			best = rated;
			pair->gid = k;
			pair->peer_gid = (uint32_t)i;
			pair->peer_address = gid;
		}
	}
	return best;
}

/* The best of the target's ports for @p device. */
static int match_all(const struct verbs_device *device, const json_t *ports,
		     struct verbs_pair *pair)
{
	json_t *text;
	size_t i;
	int best = 0;

	json_array_foreach ((json_t *)(uintptr_t)ports, i, text) {
		struct verbs_pair with = {.device = device->index, .peer_device = (uint32_t)i};
		struct peer_port port;
		int rated = parse_port(text, &port) ? match(device, &port, &with) : -EPROTO;

		if (rated < 0)
			return fail(-EPROTO, "what the target says of its RDMA devices cannot be");
		if (rated <= best)
			continue;
		best = rated;
		with.mtu = port.mtu < device->mtu ? port.mtu : device->mtu;
		snprintf(with.peer_name, sizeof(with.peer_name), "%s port %d", port.name,
			 port.port);
		*pair = with;
	}
	return best;
}

/* Of those as good as the best, the ones on the poller's node; of these the nth. */
static uint32_t pick(const struct verbs_devices *devices, const int *rated, int best, int node,
		     uint32_t nth)
{
	uint32_t good[VERBS_DEVICES_MAX], near[VERBS_DEVICES_MAX];
	uint32_t good_count = 0, near_count = 0;

	for (uint32_t i = 0; i < devices->count; i++) {
		if (rated[i] / 100 != best / 100)
			continue;
		good[good_count++] = i;
		if (node >= 0 && devices->devices[i].node == node)
			near[near_count++] = i;
	}
	return near_count ? near[nth % near_count] : good[nth % good_count];
}

int verbs_pair_choose(const struct verbs_devices *devices, const json_t *welcome, int node,
		      uint32_t nth, struct verbs_pair *out)
{
	const json_t *ports = json_object_get(welcome, "devices");
	struct verbs_pair pairs[VERBS_DEVICES_MAX];
	int rated[VERBS_DEVICES_MAX], best = 0;

	if (devices->count == 0)
		return fail(-ENODEV, "%s", devices->text);
	if (!json_is_array(ports) || json_array_size(ports) == 0)
		return fail(-ENODEV, "the target serves no RDMA: it has no RDMA device that can be "
				     "used, or does not listen on TCP (see its first lines)");
	if (json_array_size(ports) > PEER_DEVICES_MAX)
		return fail(-EPROTO, "what the target says of its RDMA devices cannot be");
	for (uint32_t i = 0; i < devices->count; i++) {
		rated[i] = match_all(&devices->devices[i], ports, &pairs[i]);
		if (rated[i] < 0)
			return rated[i];
		best = rated[i] > best ? rated[i] : best;
	}
	if (best == 0)
		return fail(-ENODEV,
			    "no GID of ours is of the same kind as one of the target's (%s): give "
			    "both an address of the same family",
			    devices->text);
	*out = pairs[pick(devices, rated, best, node, nth)];
	return 0;
}

const char *verbs_pair_describe(const struct verbs_devices *devices, const struct verbs_pair *pair,
				char *text)
{
	const struct verbs_device *device = &devices->devices[pair->device];
	char ours[VERBS_PLACE_TEXT], theirs[VERBS_GID_TEXT];

	snprintf(text, VERBS_PAIR_TEXT, "%s to %s (%s), MTU %u",
		 verbs_describe(device, &device->gids[pair->gid], ours), pair->peer_name,
		 verbs_gid_format(&pair->peer_address, theirs), verbs_mtu_bytes(pair->mtu));
	return text;
}
