/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The RDMA devices of this host: which there are, which ports and GIDs of each can be used, and why
 * the others cannot. Opened once per engine; afterwards constant.
 */
#ifndef VERBS_VERBS_DEVICE_H
#define VERBS_VERBS_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <infiniband/verbs.h>

#include <sluice/engine.h>

#define VERBS_DEVICES_MAX 8u
#define VERBS_GIDS_MAX    16u /* of one port that are considered */
#define VERBS_NAME_MAX    63u
#define VERBS_GID_TEXT    48u
#define VERBS_PLACE_TEXT  128u

/* 7 is 7 to most devices, and for ever to Soft-RoCE: what does not get through has to end. */
#define VERBS_RETRIES_MAX 6

/** A usable entry of a port's GID table. */
struct verbs_gid {
	union ibv_gid gid;
	uint32_t index;
	uint32_t type; /* enum ibv_gid_type */
};

/** One port of one device. */
struct verbs_device {
	uint32_t index; /* in verbs_devices.devices */
	char name[VERBS_NAME_MAX + 1];
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_device_attr attr;
	struct ibv_port_attr port_attr;
	uint8_t port;
	bool ethernet;    /* the link layer */
	bool windows;     /* memory windows of type 2 can be bound */
	enum ibv_mtu mtu; /* the port's, or the smaller one that was asked for */
	int node;         /* NUMA node; -1 unknown */
	uint32_t gid_count;
	struct verbs_gid gids[VERBS_GIDS_MAX]; /* the best one first */
};

struct verbs_devices {
	struct slu_rdma_options options; /* device is not used any more */
	uint32_t count;
	struct verbs_device devices[VERBS_DEVICES_MAX];
	char text[512]; /* what is used; with count 0 why nothing is, and the remedy */
};

/**
 * Open every usable port, or the one that @p options name. Without any it succeeds with count 0 and
 * says why in text, unless a device was named.
 *
 * @return 0; -ENODEV the named one is not there or cannot be used; -EINVAL an option; -ENOMEM
 */
int verbs_devices_open(const struct slu_rdma_options *options, struct verbs_devices **devices);

/** Everything that was made on them has gone. Accepts NULL. */
void verbs_devices_close(struct verbs_devices *devices);

/** Bytes of an enum ibv_mtu. */
static inline uint32_t verbs_mtu_bytes(enum ibv_mtu mtu)
{
	return 128u << mtu;
}

/** "10.77.0.1" or "fe80::1". @p text has VERBS_GID_TEXT bytes. */
const char *verbs_gid_format(const union ibv_gid *gid, char *text);

/** Of an IPv4 address? */
bool verbs_gid_is_ipv4(const union ibv_gid *gid);

/** "mlx5_0 port 1 GID 3 (RoCE v2, 10.0.0.1)". @p text has VERBS_PLACE_TEXT bytes. */
const char *verbs_describe(const struct verbs_device *device, const struct verbs_gid *gid,
			   char *text);

#endif
