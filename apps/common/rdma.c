/* SPDX-License-Identifier: Apache-2.0 */
#include "common/rdma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define DEVICE_NAME_MAX 63 /* bytes; the kernel's own limit, IB_DEVICE_NAME_MAX, less the NUL */

const char *const rdma_mtus[] = {"auto", "256", "512", "1024", "2048", "4096", NULL};

/* "NAME" or "NAME:PORT"; a name has neither ':' nor '/', being one of a folder's. */
static bool is_device(const char *text)
{
	size_t length = strcspn(text, ":/");
	const char *port = text + length + 1;
	size_t digits;

	if (!length || length > DEVICE_NAME_MAX || text[length] == '/')
		return false;
	if (!text[length])
		return true;
	digits = strspn(port, "0123456789");
	return digits && digits <= 3 && !port[digits] && atoi(port) >= 1 && atoi(port) <= 255;
}

int rdma_check(const struct rdma *rdma)
{
	if (rdma->device && !is_device(rdma->device))
		return fail(-EINVAL,
			    "--rdma-device: \"%.80s\" is not NAME or NAME:PORT with a port of 1 to "
			    "255: `rdma link` lists them, mlx5_0/1 is written mlx5_0:1 here",
			    rdma->device);
	if (rdma->timeout == 0)
		return fail(-EINVAL, "--rdma-timeout 0 would wait for ever for a packet that was "
				     "lost: 1 to 31, where 14 is 67 ms, or -1 to have it chosen");
	return 0;
}

void rdma_apply(const struct rdma *rdma, struct slu_rdma_options *options)
{
	options->off = !rdma->on;
	options->device = rdma->device;
	options->gid_index = rdma->gid;
	options->mtu = rdma->mtu ? (uint32_t)atoi(rdma_mtus[rdma->mtu]) : 0;
	options->timeout = rdma->timeout;
	options->retries = rdma->retries;
	options->traffic_class = rdma->traffic_class;
	options->plain = rdma->plain;
}
