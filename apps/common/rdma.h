/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Flags of both appliances about RDMA.
 */
#ifndef COMMON_RDMA_H
#define COMMON_RDMA_H

#include <stdbool.h>
#include <stddef.h>

#include <sluice/sluice.h>

#include "common/options.h"

/** Their values; a field of the program's struct. */
struct rdma {
	bool on;
	const char *device; /* "NAME[:PORT]"; NULL = every usable one */
	int gid;            /* -1 = chosen, and so below */
	int mtu;            /* index in rdma_mtus */
	int timeout;
	int retries;
	int traffic_class;
	bool plain;
};

/** "auto", "256", ... "4096", NULL. */
extern const char *const rdma_mtus[];

/* clang-format off */
/** The rows for them. @p rdma is a struct rdma in @p type */
#define RDMA_FLAGS(type, rdma) \
	{"RDMA", "rdma", 0, OPTION_BOOL, offsetof(type, rdma.on), "true", \
	 .help = "use RDMA devices where there are some; --no-rdma: none, and no flag below counts"}, \
	{NULL, "rdma-device", 0, OPTION_STRING, offsetof(type, rdma.device), \
	 .argument = "NAME[:PORT]", \
	 .help = "that device and port only, such as mlx5_0 or mlx5_0:2; every usable one when not " \
		 "given"}, \
	{NULL, "rdma-gid", 0, OPTION_INT, offsetof(type, rdma.gid), "-1", -1, 255, NULL, "INDEX", \
	 "our address: index in the port's table of GIDs; -1: chosen, RoCE v2 with an IPv4 " \
	 "address before others"}, \
	{NULL, "rdma-mtu", 0, OPTION_ENUM, offsetof(type, rdma.mtu), "auto", .values = rdma_mtus, \
	 .help = "bytes of data in a packet; auto: what the ports of both ends can"}, \
	{NULL, "rdma-timeout", 0, OPTION_INT, offsetof(type, rdma.timeout), "-1", -1, 31, NULL, "N", \
	 "wait 4.096 us times 2^N for an acknowledgement before sending again: 14 is 67 ms, and " \
	 "each step doubles it; -1: chosen"}, \
	{NULL, "rdma-retries", 0, OPTION_INT, offsetof(type, rdma.retries), "-1", -1, 6, NULL, "N", \
	 "send again so often before the path fails; -1: chosen"}, \
	{NULL, "rdma-traffic-class", 0, OPTION_INT, offsetof(type, rdma.traffic_class), "-1", -1, \
	 255, NULL, "N", \
	 "of our packets; the upper six bits are the DSCP, so 104 is DSCP 26; -1: chosen"}, \
	{NULL, "rdma-plain", 0, OPTION_BOOL, offsetof(type, rdma.plain), "false", \
	 .help = "with TLS: let RDMA, which does not encrypt, carry the data all the same"}
/* clang-format on */

/** Are they what they can be? @return 0; -EINVAL: a usage error */
int rdma_check(const struct rdma *rdma);

/** Put them where the engine reads them. */
void rdma_apply(const struct rdma *rdma, struct slu_rdma_options *options);

#endif
