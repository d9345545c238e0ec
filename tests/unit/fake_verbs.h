/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * RDMA devices as a test wants them: a program that is linked with this has libibverbs' functions
 * for finding devices and registering memory in its own image, in place of the library's.
 */
#ifndef TESTS_UNIT_FAKE_VERBS_H
#define TESTS_UNIT_FAKE_VERBS_H

#include <stdint.h>

#include <infiniband/verbs.h>

#define FAKE_DEVICES 3
#define FAKE_PORTS   2
#define FAKE_GIDS    20

struct fake_gid {
	const char *address; /* NULL: empty */
	uint32_t type;       /* enum ibv_gid_type */
};

struct fake_port {
	enum ibv_port_state state;
	enum ibv_mtu mtu;
	uint8_t link_layer;
	int gid_table; /* its length */
	struct fake_gid gids[FAKE_GIDS];
};

struct fake_device {
	const char *name; /* NULL: not there */
	uint8_t port_count;
	struct fake_port ports[FAKE_PORTS]; /* port 1 first */
	int max_mw;
	unsigned flags; /* device_cap_flags */
	int max_mr;
	int open_error; /* errno; 0: it opens */
	int pd_error;
};

struct fake_verbs {
	struct fake_device devices[FAKE_DEVICES];
	int mr_error;      /* errno when there is no more */
	unsigned mr_room;  /* registrations that are left */
	unsigned contexts; /* open now, and so on */
	unsigned pds;
	unsigned mrs;
	uint64_t mr_length;     /* of the latest */
	unsigned mr_access;     /* likewise */
	uint64_t dmabuf_offset; /* of the last one by descriptor */
	int dmabuf_fd;
};

extern struct fake_verbs fake_verbs;

/** One device, "fake0", with one active port of MTU 4096 and the GID of 10.0.0.1 by RoCE v2. */
void fake_verbs_reset(void);

#endif
