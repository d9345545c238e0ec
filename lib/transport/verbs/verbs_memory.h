/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Registration of memory with RDMA devices, in slices, since devices and kernels have limits for
 * one: what an operation or a segment touches is found by the slice that it falls into.
 *
 * Local memory: every region of the engine is registered with every device that a path uses. That
 * begins with the first path over the device, and reaches regions that are made later when they are
 * made. The buffers of pollers (transport/buffers.h) are kept in the same way, for links at
 * either end. Exported memory is registered for itself, with the rights that it is exported with.
 */
#ifndef VERBS_VERBS_MEMORY_H
#define VERBS_VERBS_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sluice/segment.h>

#include "memory/region.h"
#include "transport/buffers.h"
#include "transport/verbs/verbs_device.h"

#define VERBS_SLICE_SHIFT 31 /* 2 GiB */
#define VERBS_SLICE_BYTES (UINT64_C(1) << VERBS_SLICE_SHIFT)

/** Memory as one device knows it. */
struct verbs_registration {
	uint64_t ns; /* that it took */
	uint32_t count;
	struct {
		uint32_t lkey;
		uint32_t rkey;
		struct ibv_mr *mr;
	} slices[];
};

/**
 * A part of @p region, or all of it.
 *
 * @param access  enum ibv_access_flags
 * @return        0; -EOPNOTSUPP a dmabuf, and the device knows none, or not as it is wanted;
 * -ENOMEM the memlock limit, or the device's memory; -ENOSPC the device has no more registrations;
 * -EFAULT, -EINVAL, -errno
 */
int verbs_register(const struct verbs_device *device, const struct slu_region *region,
		   uint64_t from, uint64_t length, unsigned access,
		   struct verbs_registration **registration);

/** No operation uses it any more. Accepts NULL. */
void verbs_deregister(struct verbs_registration *registration);

/** A region of the engine, as its devices know it. */
struct verbs_region {
	struct verbs_registration *registered[VERBS_DEVICES_MAX]; /* by device; NULL: not */
	struct slu_region *region;
	LIST_ENTRY(verbs_region) link;
};

/** All of them. */
struct verbs_memory {
	struct verbs_devices *devices;
	pthread_mutex_t lock;
	bool used[VERBS_DEVICES_MAX];
	LIST_HEAD(, verbs_region) regions;
};

void verbs_memory_init(struct verbs_memory *memory, struct verbs_devices *devices);
void verbs_memory_fini(struct verbs_memory *memory);

/** A region was made: it gets its private slot. @return 0; as verbs_register() */
int verbs_memory_add(struct verbs_memory *memory, struct slu_region *region);

/** It goes. Accepts one without. */
void verbs_memory_remove(struct verbs_memory *memory, struct slu_region *region);

/** A path will use @p device. @return 0; as verbs_register() */
int verbs_memory_use(struct verbs_memory *memory, const struct verbs_device *device);

/** What device @p device knows a buffer by. */
static inline uint32_t verbs_buffer_key(const struct buffer *buffer, uint32_t device)
{
	const struct verbs_region *region = buffer->region->private[SLU_TRANSPORT_VERBS];

	return region->registered[device]->slices[0].lkey;
}

/** Post it as a receive of @p qp, or (NULL) of @p srq; it comes back as wr_id. @return 0; an errno
 */
int verbs_receive(struct ibv_qp *qp, struct ibv_srq *srq, struct buffer *buffer, uint32_t device);

#endif
