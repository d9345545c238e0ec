/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that somebody else has made, by its descriptor: shared memory (memfd, with hugepages or
 * without, shm_open) or a dmabuf. Its pages can be taken away, so it is guarded from the start;
 * what it is allowed to be is settled when it is to be passed on.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/descriptor.h"
#include "memory/arena.h"
#include "memory/keep.h"
#include "memory/prefault.h"

/* What a descriptor stands for. */
struct file {
	enum arena_origin origin;
	uint64_t bytes;
	uint64_t page_bytes;
};

static const char *kind_of(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a file of a file system";
	case S_IFIFO:
		return "a pipe";
	case S_IFSOCK:
		return "a socket";
	case S_IFDIR:
		return "a directory";
	default:
		return "a device, or something that has no memory";
	}
}

static int identify(int fd, struct file *file)
{
	struct statfs fs;
	struct stat stat;

	if (fstat(fd, &stat) < 0 || fstatfs(fd, &fs) < 0)
		return fail(-errno, "descriptor %d: %s", fd, strerror(errno));
	file->bytes = (uint64_t)stat.st_size;
	file->page_bytes = PAGE_ORDINARY_BYTES;
	file->origin = ARENA_IMPORTED;
	if (fs.f_type == DMA_BUF_MAGIC)
		file->origin = ARENA_DMABUF;
	else if (S_ISREG(stat.st_mode) && fs.f_type == HUGETLBFS_MAGIC)
		file->page_bytes = (uint64_t)fs.f_bsize;
	else if (!S_ISREG(stat.st_mode) || fs.f_type != TMPFS_MAGIC)
		return fail(-EINVAL,
			    "descriptor %d is %s: what can be imported is shared memory (memfd, "
			    "shm_open) and dmabufs",
			    fd, kind_of(stat.st_mode));
	return 0;
}

/* Operations read and write it, so we must be able to. */
static int check_access(int fd, const struct file *file)
{
	int flags = fcntl(fd, F_GETFL);
	int seals = file->origin == ARENA_DMABUF ? 0 : fcntl(fd, F_GET_SEALS);

	if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) != O_RDWR)
		return fail(-EACCES,
			    "descriptor %d is not open for reading and writing: open it O_RDWR",
			    fd);
	if (seals > 0 && seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))
		return fail(-EACCES,
			    "descriptor %d is sealed against writing: import it before it is", fd);
	return 0;
}

static int check_range(const struct file *file, uint64_t offset, uint64_t length)
{
	if (offset % file->page_bytes)
		return fail(-EINVAL, "offset %lu is not a multiple of its pages, of %lu KiB each",
			    offset, file->page_bytes >> 10);
	if (offset + length < offset)
		return fail(-EINVAL, "offset %lu and length %lu wrap", offset, length);
	if (offset >= file->bytes || offset + length > file->bytes)
		return fail(-ERANGE, "%lu bytes from byte %lu on are not in it: it has %lu", length,
			    offset, file->bytes);
	return 0;
}

/* Where it lies, and on which pages, was decided by whoever made it. */
static int check_options(const struct file *file, const struct slu_region_options *options)
{
	bool huge = file->page_bytes == PAGE_2M_BYTES;

	if (options->private_memory || options->node != -1)
		return fail(-EINVAL, "what is imported has its place, and cannot be private: leave "
				     "node and private_memory alone");
	if ((options->page == SLU_PAGE_2M && !huge) ||
	    (options->page == SLU_PAGE_ORDINARY && file->page_bytes != PAGE_ORDINARY_BYTES))
		return fail(-EINVAL,
			    "its pages are of %lu KiB, and others were asked for: make it so, or "
			    "leave page alone",
			    file->page_bytes >> 10);
	return 0;
}

/* The CPU owns it from the first to the last moment; a device that snoops needs to know no more. */
static int sync_dmabuf(int fd, uint64_t flags)
{
	struct dma_buf_sync sync = {.flags = flags | DMA_BUF_SYNC_RW};

	if (ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync) < 0)
		return fail(-errno, "cannot take the dmabuf for the CPU: %s", strerror(errno));
	return 0;
}

static int map(struct arena *arena)
{
	void *addr = mmap(NULL, arena->mapped_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, arena->fd,
			  (off_t)arena->offset);

	if (addr == MAP_FAILED && arena->origin == ARENA_DMABUF)
		return fail(-EOPNOTSUPP,
			    "cannot map the dmabuf: %s: its exporter keeps it from the CPU, which "
			    "has to reach it",
			    strerror(errno));
	if (addr == MAP_FAILED)
		return fail(-ENOMEM, "cannot map %lu KiB of it: %s", arena->mapped_bytes >> 10,
			    strerror(errno));
	arena->addr = addr;
	memory_keep(addr, arena->mapped_bytes);
	return guard_add(addr, arena->mapped_bytes, &arena->guard);
}

/* The pages of a dmabuf are there, and not the kernel's to touch or lock. */
static int settle(struct arena *arena, const struct slu_region_options *options)
{
	int rc = 0;

	if (arena->origin == ARENA_DMABUF)
		return sync_dmabuf(arena->fd, DMA_BUF_SYNC_START);
	if (options->lock && arena->page_bytes == PAGE_ORDINARY_BYTES)
		rc = arena_lock(arena);
	return rc < 0 ? rc
		      : prefault(arena->addr, arena->mapped_bytes, options->progress,
				 options->progress_arg);
}

int arena_import(int fd, uint64_t offset, uint64_t *length_bytes,
		 const struct slu_region_options *options, struct arena *arena)
{
	struct file file;
	uint64_t length;
	int rc = identify(fd, &file);

	if (rc == 0)
		rc = check_access(fd, &file);
	if (rc == 0)
		rc = check_range(&file, offset, *length_bytes);
	if (rc == 0)
		rc = check_options(&file, options);
	if (rc < 0)
		return rc;
	length = *length_bytes ? *length_bytes : file.bytes - offset;
	*arena = (struct arena){.origin = file.origin,
				.offset = offset,
				.page_bytes = file.page_bytes,
				.fd = descriptor_note(fcntl(fd, F_DUPFD_CLOEXEC, 0))};
	arena->mapped_bytes = (length + file.page_bytes - 1) / file.page_bytes * file.page_bytes;
	if (arena->fd < 0)
		return fail(-errno, "cannot keep descriptor %d: %s (raise ulimit -n)", fd,
			    strerror(errno));
	rc = map(arena);
	if (rc == 0)
		rc = settle(arena, options);
	if (rc < 0) {
		arena_destroy(arena);
		return rc;
	}
	*length_bytes = length;
	return 0;
}

void arena_return(const struct arena *arena)
{
	if (arena->origin == ARENA_DMABUF && arena->addr)
		sync_dmabuf(arena->fd, DMA_BUF_SYNC_END);
}

/*
 * Whoever is passed a descriptor for reading could open the file again through /proc if its mode
 * lets him. A file that has no name is opened in no other way, so its mode is ours to mend.
 */
static int keep_others_from_writing(int fd)
{
	const mode_t others = S_IWGRP | S_IWOTH;
	struct stat stat;

	if (fstat(fd, &stat) < 0)
		return fail(-errno, "fstat: %s", strerror(errno));
	if (!(stat.st_mode & others) ||
	    (stat.st_nlink == 0 && fchmod(fd, stat.st_mode & 07777 & ~others) == 0))
		return 0;
	return fail(-EOPNOTSUPP,
		    "whoever gets its descriptor for reading could open it for writing (mode %o): "
		    "chmod go-w",
		    stat.st_mode & 07777);
}

int arena_seal_import(const struct arena *arena, unsigned wanted)
{
	int more = F_SEAL_SHRINK | F_SEAL_GROW | (wanted & ARENA_WRITTEN ? F_SEAL_SEAL : 0);
	int seals, rc;

	if (arena->origin == ARENA_DMABUF)
		return fail(-EOPNOTSUPP, "it is a dmabuf, which cannot be sealed");
	rc = keep_others_from_writing(arena->fd);
	if (rc < 0)
		return rc;
	seals = fcntl(arena->fd, F_GET_SEALS);
	if (seals >= 0 && (seals & more) == more)
		return seals;
	if (seals < 0 || fcntl(arena->fd, F_ADD_SEALS, more) < 0)
		return fail(-EOPNOTSUPP,
			    "it was imported, and cannot be sealed against shrinking and growing: "
			    "make it by memfd_create() with MFD_ALLOW_SEALING");
	return seals | more;
}

uint64_t arena_import_end(const struct arena *arena)
{
	struct stat stat;

	return fstat(arena->fd, &stat) < 0 ? 0 : (uint64_t)stat.st_size;
}
