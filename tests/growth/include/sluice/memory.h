/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Regions: memory that operations read from and write to, and that segments are made of; and pools
 * of equal buffers inside a region.
 */
#ifndef SLUICE_MEMORY_H
#define SLUICE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sluice/engine.h>
#include <sluice/export.h>

#ifdef __cplusplus
extern "C" {
#endif

struct slu_region;
struct slu_pool;

/** Kinds of memory. Which of them a transport moves is in slu_candidate.memories, a bit for each.
 */
enum slu_memory {
	SLU_MEMORY_HOST, /* what the CPU reads and writes */
};

enum slu_page {
	SLU_PAGE_AUTO, /* 2 MiB pages when enough are free, else ordinary ones, said in the log */
	SLU_PAGE_ORDINARY,
	SLU_PAGE_2M, /* 2 MiB pages or -ENOMEM */
};

/** Called about four times a second while pages are touched, when that takes over a second. */
typedef void (*slu_progress_fn)(void *arg, uint64_t done_bytes, uint64_t total_bytes);

struct slu_region_options {
	size_t size;
	enum slu_page page;
	int node;                 /* NUMA node to bind to; -1 = where the touching thread runs */
	bool lock;                /* keep it from being swapped (mlock); hugepages always are */
	bool private_memory;      /* anonymous memory: cheaper, but never shared (segment.h) */
	uint8_t reserved[6];      /* zero */
	slu_progress_fn progress; /* NULL = silence */
	void *progress_arg;
};

struct slu_region_info {
	size_t size;
	uint64_t length_bytes;
	uint64_t page_bytes;
	int node;         /* where its first page is; -1 unknown */
	uint32_t devices; /* RDMA devices that it is registered with, as buffers or as a segment */
	uint64_t register_ns; /* what that took, altogether */
	enum slu_memory memory;
	bool shareable; /* segments of it can be in shared memory; of others not, see segment.h */
	bool lost;      /* pages of it were taken away (segment.h): what it holds is no good */
	uint8_t reserved[2];
};

/** Fill @p options with the defaults: automatic pages, any node. */
SLU_API void slu_region_options_init(struct slu_region_options *options, size_t size);

/**
 * Allocate zeroed, prefaulted memory: a sealed memfd that can be exported.
 *
 * @param length_bytes  1 or more; rounded up to whole pages inside, not in slu_region_info
 * @return 0; -EINVAL; -E2BIG an option that this library does not know; -ENOMEM out of memory, of
 *         hugepages (SLU_PAGE_2M), over the memlock limit
 */
SLU_API int slu_region_alloc(struct slu_engine *engine, uint64_t length_bytes,
			     const struct slu_region_options *options, struct slu_region **region);

/**
 * Use the caller's memory. It must stay mapped until slu_region_close(). Segments can be made of
 * it, but not in shared memory, since there is no descriptor of it. Nothing guards it: if others
 * can take pages of it away, import its descriptor instead.
 *
 * @return 0; -EINVAL empty or wrapping range; -ENOMEM
 */
SLU_API int slu_region_register(struct slu_engine *engine, void *addr, uint64_t length_bytes,
				struct slu_region **region);

/**
 * Use memory that others have made and pass by a descriptor: a memfd, with 2 MiB pages or without,
 * what shm_open() gave, or a dmabuf that the CPU can map.
 *
 * Nothing of the file is changed by it, and its pages are touched as those of slu_region_alloc().
 * Others may write it meanwhile, and may take pages of it away: then operations with the region end
 * with -EFAULT (see segment.h), where an RDMA device does not keep those that it has registered.
 *
 * A segment of it is in shared memory only if its file is, or can be, sealed against shrinking and
 * growing (memfd_create with MFD_ALLOW_SEALING), which the export does, finally where clients
 * write; a dmabuf never. It is not sealed against writing, whatever its rights, since it is others'
 * too: clients that only read cannot write it, but others may. For that the export takes the mode
 * to be written by group and others from a file without a name, and a file that has both is not
 * shared. A region that is not all of its file is a part, as one of a region is.
 *
 * A dmabuf is taken for the CPU (DMA_BUF_IOCTL_SYNC) until slu_region_close(). A device that does
 * not snoop the CPU's caches needs that around each use, by the caller. RDMA devices register it by
 * its descriptor; with one that cannot, calls that would need it end with -EOPNOTSUPP.
 *
 * @param fd            open for reading and writing; it stays the caller's, who may close it
 * @param offset_bytes  of the region in the file: a multiple of its pages, 4 KiB or 2 MiB
 * @param length_bytes  0 = to the end of the file
 * @param options       NULL; or page, which must be what the file has, lock and progress; node and
 *                      private_memory as the init function leaves them
 * @return 0; -EBADF; -EINVAL no memory (a pipe, a socket, a file on a disk, ...), an offset within
 *         a page, a range that wraps, or options that cannot be met; -ERANGE the file is shorter;
 *         -EACCES not open for reading and writing, or sealed against writing; -EOPNOTSUPP a dmabuf
 *         that the CPU cannot map, or a device that is in use cannot register; -ENOMEM, also over
 *         the memlock limit; -EMFILE; -ENOSPC
 */
SLU_API int slu_region_import(struct slu_engine *engine, int fd, uint64_t offset_bytes,
			      uint64_t length_bytes, const struct slu_region_options *options,
			      struct slu_region **region);

/** Give it back; accepts NULL. No operation may name it any more, nor be a segment made of it. */
SLU_API void slu_region_close(struct slu_region *region);

/** First byte. Hugepage memory is 2 MiB aligned, other allocated memory page aligned. */
SLU_API void *slu_region_addr(const struct slu_region *region);

/** Set @p info.size before. @return 0; -EINVAL the size */
SLU_API int slu_region_get_info(const struct slu_region *region, struct slu_region_info *info);

/**
 * Cut part of a region into equal buffers, 64-byte aligned, handed out by an rte_mempool. Each
 * thread finds what it gave back in a cache; others get that too before there is none.
 *
 * @param offset_bytes  64-byte aligned start inside @p region; the pool uses all from there to
 *                      @p offset_bytes + @p length_bytes
 * @param count         buffers wanted; they take (buffer_bytes + about 128) bytes each
 * @return 0; -EINVAL; -ENOSPC the range is too small for @p count buffers; -ENOMEM
 */
SLU_API int slu_pool_open(struct slu_region *region, uint64_t offset_bytes, uint64_t length_bytes,
			  uint32_t buffer_bytes, uint32_t count, struct slu_pool **pool);

/** Every buffer must have been put back; accepts NULL. */
SLU_API void slu_pool_close(struct slu_pool *pool);

/**
 * Take @p n buffers or none; hot, any thread, neither blocks nor allocates.
 *
 * @param offsets  out: offsets of the buffers in the region, as slu_op.local_offset wants them
 * @return 0; -ENOBUFS fewer than @p n are free, or to be had at this moment: others that another
 *         thread is about to take or to put back are not waited for
 */
SLU_API int slu_pool_get(struct slu_pool *pool, uint64_t *offsets, uint32_t n);

/** Put @p n buffers back; hot, any thread. @p offsets came from slu_pool_get on this pool. */
SLU_API void slu_pool_put(struct slu_pool *pool, const uint64_t *offsets, uint32_t n);

#ifdef __cplusplus
}
#endif

#endif
