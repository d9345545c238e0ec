/* SPDX-License-Identifier: Apache-2.0 */
#include "fake_verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#undef ibv_get_device_list
#undef ibv_reg_mr

struct fake_verbs fake_verbs;

static struct ibv_device ibv_devices[FAKE_DEVICES];

void fake_verbs_reset(void)
{
	fake_verbs = (struct fake_verbs){
		.devices[0] = {.name = "fake0",
			       .port_count = 1,
			       .max_mr = 100,
			       .ports[0] = {.state = IBV_PORT_ACTIVE,
					    .mtu = IBV_MTU_4096,
					    .link_layer = IBV_LINK_LAYER_ETHERNET,
					    .gid_table = 4,
					    .gids = {{"10.0.0.1", IBV_GID_TYPE_ROCE_V2}}}},
		.mr_error = ENOMEM,
		.mr_room = UINT32_MAX};
}

static void *no(int error)
{
	errno = error;
	return NULL;
}

static const struct fake_device *of(const struct ibv_device *ibv)
{
	return &fake_verbs.devices[ibv - ibv_devices];
}

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = calloc(FAKE_DEVICES + 1, sizeof(*list));

	*count = 0;
	for (int i = 0; list && i < FAKE_DEVICES; i++) {
		if (!fake_verbs.devices[i].name)
			continue;
		strcpy(ibv_devices[i].name, fake_verbs.devices[i].name);
		list[(*count)++] = &ibv_devices[i];
	}
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *ibv)
{
	return ibv->name;
}

/* ---- one device ---- */

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
		      size_t size)
{
	const struct fake_device *device = of(context->device);
	struct ibv_port_attr answer = {.state = IBV_PORT_NOP};

	if (port < 1 || port > device->port_count)
		return EINVAL;
	answer.state = device->ports[port - 1].state;
	answer.active_mtu = answer.max_mtu = device->ports[port - 1].mtu;
	answer.link_layer = device->ports[port - 1].link_layer;
	answer.gid_tbl_len = device->ports[port - 1].gid_table;
	memcpy(attr, &answer, size < sizeof(answer) ? size : sizeof(answer));
	return 0;
}

struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	struct verbs_context *context;

	if (of(ibv)->open_error)
		return no(of(ibv)->open_error);
	context = calloc(1, sizeof(*context));
	if (!context)
		return no(ENOMEM);
	context->sz = sizeof(*context);
	context->query_port = query_port;
	context->context.device = ibv;
	context->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	fake_verbs.contexts++;
	return &context->context;
}

int ibv_close_device(struct ibv_context *context)
{
	free(verbs_get_ctx(context));
	fake_verbs.contexts--;
	return 0;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	const struct fake_device *device = of(context->device);

	*attr = (struct ibv_device_attr){.phys_port_cnt = device->port_count,
					 .max_mw = device->max_mw,
					 .max_mr = device->max_mr,
					 .max_pd = 3,
					 .device_cap_flags = device->flags};
	return 0;
}

static void make_gid(const char *address, union ibv_gid *gid)
{
	*gid = (union ibv_gid){.raw = {[10] = 0xff, [11] = 0xff}};
	if (strchr(address, ':'))
		inet_pton(AF_INET6, address, gid->raw);
	else
		inet_pton(AF_INET, address, gid->raw + 12);
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max,
			     uint32_t flags, size_t size)
{
	const struct fake_device *device = of(context->device);
	size_t n = 0;

	if (flags || size != sizeof(*entries))
		return -EINVAL;
	for (uint32_t port = 0; port < device->port_count; port++)
		for (uint32_t i = 0; i < FAKE_GIDS && n < max; i++) {
			const struct fake_gid *gid = &device->ports[port].gids[i];

			if (!gid->address)
				continue;
			entries[n] = (struct ibv_gid_entry){
				.gid_index = i, .port_num = port + 1, .gid_type = gid->type};
			make_gid(gid->address, &entries[n++].gid);
		}
	return (ssize_t)n;
}

/* ---- memory ---- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	struct ibv_pd *pd;

	if (of(context->device)->pd_error)
		return no(of(context->device)->pd_error);
	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return no(ENOMEM);
	pd->context = context;
	fake_verbs.pds++;
	return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	fake_verbs.pds--;
	return 0;
}

struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
				 int fd, int access)
{
	fake_verbs.dmabuf_offset = offset;
	fake_verbs.dmabuf_fd = fd;
	return ibv_reg_mr_iova2(pd, (void *)(uintptr_t)iova, length, iova, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				unsigned access)
{
	static uint32_t key;
	struct ibv_mr *mr;

	if (fake_verbs.mr_room == 0 || iova != (uintptr_t)addr)
		return no(fake_verbs.mr_error);
	mr = calloc(1, sizeof(*mr));
	if (!mr)
		return no(ENOMEM);
	key += 2;
	*mr = (struct ibv_mr){.context = pd->context,
			      .pd = pd,
			      .addr = addr,
			      .length = length,
			      .lkey = key,
			      .rkey = key + 1};
	fake_verbs.mr_room--;
	fake_verbs.mrs++;
	fake_verbs.mr_length = length;
	fake_verbs.mr_access = access;
	return mr;
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	free(mr);
	fake_verbs.mr_room++;
	fake_verbs.mrs--;
	return 0;
}
