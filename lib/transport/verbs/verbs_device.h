/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The RDMA devices of this host: which there are, which port and GID of each is used, and why the
 * others are not. Opened once per engine; afterwards constant.
 */
#ifndef VERBS_VERBS_DEVICE_H
#define VERBS_VERBS_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#include <infiniband/verbs.h>

#include <sluice/engine.h>

#define VERBS_DEVICES_MAX 8u
#define VERBS_NAME_MAX    63u

struct verbs_device {
	uint32_t index; /* in verbs_devices.devices */
	char name[VERBS_NAME_MAX + 1];
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_device_attr attr;
	uint8_t port;
	struct ibv_port_attr port_attr;
	int gid_index;
	union ibv_gid gid;
	char gid_text[64]; /* "10.77.0.1" or "fe80::1" */
	char gid_type[16]; /* "RoCE v2", "RoCE v1", "IB" */
	bool ethernet;     /* the link layer */
	enum ibv_mtu mtu;  /* of the port, or as asked for */
	int node;          /* NUMA node; -1 unknown */
	bool windows;      /* memory windows of type 2 can be bound */
	char reason[192];  /* why this port and GID */
};

struct verbs_devices {
	uint32_t count;
	struct verbs_device devices[VERBS_DEVICES_MAX];
	struct slu_rdma_options options; /* texts are copies */
	char device_name[VERBS_NAME_MAX + 8];
	char text[512]; /* what is used; or, with count 0, why nothing is, and the remedy */
};

/**
 * Open every usable device, or those that @p options name.
 *
 * Without a device it succeeds with count 0 and says why in text, unless one was named.
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

/** "mlx5_0 port 1 GID 3 (RoCE v2, 10.0.0.1)"; @p text has VERBS_PLACE_MAX bytes. */
#define VERBS_PLACE_MAX 192u
const char *verbs_device_describe(const struct verbs_device *device, char *text);

#endif
