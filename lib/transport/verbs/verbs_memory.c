/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"

#define KIB UINT64_C(1024)

/* ---- one registration ---- */

/* A device that cannot order loosely, or a kernel that does not know of it, leaves it out. */
static struct ibv_mr *register_slice(const struct verbs_device *device,
				     const struct slu_region *region, uint64_t offset,
				     uint64_t length, unsigned access)
{
	const struct arena *arena = &region->arena;
	char *addr = region->addr + offset;

	access |= IBV_ACCESS_RELAXED_ORDERING;
	if (arena->origin == ARENA_DMABUF)
		return ibv_reg_dmabuf_mr(device->pd, arena->offset + offset, length,
					 (uintptr_t)addr, arena->fd, (int)access);
	return ibv_reg_mr_iova2(device->pd, addr, length, (uintptr_t)addr, access);
}

static int explain(const struct verbs_device *device, const struct slu_region *region,
		   uint64_t length, int error)
{
	struct rlimit limit = {.rlim_cur = RLIM_INFINITY};

	if (region->arena.origin == ARENA_DMABUF &&
	    (error == EOPNOTSUPP || error == EPROTONOSUPPORT || error == EINVAL))
		return fail(-EOPNOTSUPP,
			    "%s cannot register a dmabuf, or gives out no memory windows on one: "
			    "do without RDMA (--no-rdma), or go by other memory",
			    device->name);
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (error == ENOMEM && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < length)
		return fail(-ENOMEM,
			    "cannot register %llu KiB with %s: the memlock limit is %llu KiB: "
			    "raise it (ulimit -l unlimited, LimitMEMLOCK=infinity), or do "
			    "without RDMA (--no-rdma)",
			    (unsigned long long)(length / KIB), device->name,
			    (unsigned long long)(limit.rlim_cur / KIB));
	if (error == ENOMEM || error == ENOSPC || error == EAGAIN)
		return fail(error == EAGAIN ? -ENOSPC : -error,
			    "cannot register %llu KiB with %s: %s: the memlock limit, the device's "
			    "%d registrations, its memory or the control group's rdma.max are "
			    "used up: use fewer or smaller regions, or larger pages",
			    (unsigned long long)(length / KIB), device->name, strerror(error),
			    device->attr.max_mr);
	return fail(-error, "cannot register %llu KiB with %s: %s",
		    (unsigned long long)(length / KIB), device->name, strerror(error));
}

int verbs_register(const struct verbs_device *device, const struct slu_region *region,
		   uint64_t from, uint64_t length, unsigned access, struct verbs_registration **out)
{
	uint32_t count = (uint32_t)((length + VERBS_SLICE_BYTES - 1) >> VERBS_SLICE_SHIFT);
	struct verbs_registration *made;
	uint64_t begin = clock_monotonic_ns(NULL);

	made = calloc(1, sizeof(*made) + count * sizeof(made->slices[0]));
	if (!made)
		return fail(-ENOMEM, "out of memory");
	for (; made->count < count; made->count++) {
		uint64_t offset = (uint64_t)made->count << VERBS_SLICE_SHIFT;
		uint64_t left = length - offset;
		struct ibv_mr *mr =
			register_slice(device, region, from + offset,
				       left < VERBS_SLICE_BYTES ? left : VERBS_SLICE_BYTES, access);

		if (!mr) {
			int rc = explain(device, region, length, errno);

			verbs_deregister(made);
			return rc;
		}
		made->slices[made->count].mr = mr;
		made->slices[made->count].lkey = mr->lkey;
		made->slices[made->count].rkey = mr->rkey;
	}
	made->ns = clock_monotonic_ns(NULL) - begin;
	*out = made;
	return 0;
}

void verbs_deregister(struct verbs_registration *registration)
{
	if (!registration)
		return;
	for (uint32_t i = 0; i < registration->count; i++)
		ibv_dereg_mr(registration->slices[i].mr);
	free(registration);
}

/* ---- the engine's regions ---- */

void verbs_memory_init(struct verbs_memory *memory, struct verbs_devices *devices)
{
	memory->devices = devices;
	pthread_mutex_init(&memory->lock, NULL);
	LIST_INIT(&memory->regions);
}

void verbs_memory_fini(struct verbs_memory *memory)
{
	pthread_mutex_destroy(&memory->lock);
}

static int enter(struct verbs_region *known, const struct verbs_device *device)
{
	struct verbs_registration **at = &known->registered[device->index];
	struct slu_region *region = known->region;
	int rc;

	if (*at)
		return 0;
	rc = verbs_register(device, region, 0, region->length, IBV_ACCESS_LOCAL_WRITE, at);
	if (rc == 0) {
		region->register_ns += (*at)->ns;
		region->devices++;
	}
	return rc;
}

int verbs_memory_add(struct verbs_memory *memory, struct slu_region *region)
{
	struct verbs_region *known = calloc(1, sizeof(*known));
	int rc = 0;

	if (!known)
		return fail(-ENOMEM, "out of memory");
	known->region = region;
	region->private[SLU_TRANSPORT_VERBS] = known;
	pthread_mutex_lock(&memory->lock);
	LIST_INSERT_HEAD(&memory->regions, known, link);
	for (uint32_t i = 0; rc == 0 && i < memory->devices->count; i++)
		if (memory->used[i])
			rc = enter(known, &memory->devices->devices[i]);
	pthread_mutex_unlock(&memory->lock);
	if (rc < 0)
		verbs_memory_remove(memory, region);
	return rc;
}

void verbs_memory_remove(struct verbs_memory *memory, struct slu_region *region)
{
	struct verbs_region *known = region->private[SLU_TRANSPORT_VERBS];

	if (!known)
		return;
	pthread_mutex_lock(&memory->lock);
	LIST_REMOVE(known, link);
	pthread_mutex_unlock(&memory->lock);
	for (uint32_t i = 0; i < VERBS_DEVICES_MAX; i++)
		verbs_deregister(known->registered[i]);
	region->private[SLU_TRANSPORT_VERBS] = NULL;
	free(known);
}

int verbs_memory_use(struct verbs_memory *memory, const struct verbs_device *device)
{
	struct verbs_region *known;
	int rc = 0;

	pthread_mutex_lock(&memory->lock);
	if (!memory->used[device->index])
		LIST_FOREACH (known, &memory->regions, link)
			if (rc == 0)
				rc = enter(known, device);
	memory->used[device->index] |= rc == 0;
	pthread_mutex_unlock(&memory->lock);
	return rc;
}

int verbs_receive(struct ibv_qp *qp, struct ibv_srq *srq, struct buffer *buffer, uint32_t device)
{
	struct ibv_sge piece = {.addr = (uintptr_t)buffer->bytes,
				.length = BUFFER_BYTES,
				.lkey = verbs_buffer_key(buffer, device)};
	struct ibv_recv_wr request = {.wr_id = (uintptr_t)buffer, .sg_list = &piece, .num_sge = 1},
			   *bad;

	return qp ? ibv_post_recv(qp, &request, &bad) : ibv_post_srq_recv(srq, &request, &bad);
}
