/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory of others by its descriptor. Where there is no dmabuf at hand a memfd is taken for one:
 * the functions below stand before libc's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/falloc.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "env/hugepages.h"
#include "memory/region.h"
#include "tests/tap.h"

#define PAGE  PAGE_ORDINARY_BYTES
#define PAGES 8u

static int dmabuf = -1;       /* a memfd that says that it is one */
static unsigned begun, ended; /* accesses of the CPU */
static bool refuses_sync;

int fstatfs(int fd, struct statfs *out)
{
	int rc = (int)syscall(SYS_fstatfs, fd, out);

	if (rc == 0 && fd == dmabuf)
		out->f_type = DMA_BUF_MAGIC;
	return rc;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list arguments;
	void *argument;

	va_start(arguments, request);
	argument = va_arg(arguments, void *);
	va_end(arguments);
	if (request != DMA_BUF_IOCTL_SYNC)
		return (int)syscall(SYS_ioctl, fd, request, argument);
	if (refuses_sync) {
		errno = EBUSY;
		return -1;
	}
	if (((struct dma_buf_sync *)argument)->flags & DMA_BUF_SYNC_END)
		ended++;
	else
		begun++;
	return 0;
}

static int memory(uint64_t bytes, unsigned flags)
{
	int fd = memfd_create("test", MFD_CLOEXEC | flags);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	return fd;
}

static int import(int fd, uint64_t offset, uint64_t length, struct slu_region **region)
{
	*region = NULL;
	struct slu_region_options options;

	slu_region_options_init(&options, sizeof(options));
	return region_import(fd, offset, length, &options, region);
}

/* Refused, and nothing is kept. */
static void refused(int fd, uint64_t offset, uint64_t length, int error, const char *why)
{
	struct slu_region *region;
	int before = dup(0), after;

	close(before);
	assert_int_equal(import(fd, offset, length, &region), error);
	assert_null(region);
	if (!strstr(slu_last_error(), why))
		fail_msg("\"%s\" in place of \"%s\"", slu_last_error(), why);
	after = dup(0);
	close(after);
	assert_int_equal(before, after);
}

static int share(struct slu_region *region, unsigned wanted)
{
	return arena_share(&region->arena, 0, region->length, wanted);
}

/* Goal: what is imported is the memory of the file, from the offset on; the caller's descriptor is
 * not needed any more. */
static void test_is_the_same_memory(void **state)
{
	struct slu_region_info info = {.size = sizeof(info)};
	int fd = memory(PAGES * PAGE, 0);
	struct slu_region *region, *rest;
	char seen[8];

	(void)state;
	assert_int_equal(pwrite(fd, "theirs", 6, PAGE), 6);
	assert_int_equal(import(fd, PAGE, 100, &region), 0);
	assert_int_equal(import(fd, 2 * PAGE, 0, &rest), 0);
	assert_memory_equal(region->addr, "theirs", 6);
	memcpy(region->addr, "ours..", 6);
	assert_int_equal(pread(fd, seen, 6, PAGE), 6);
	assert_memory_equal(seen, "ours..", 6);
	close(fd);
	region->addr[99] = 1;
	assert_int_equal(slu_region_get_info(region, &info), 0);
	assert_int_equal(info.length_bytes, 100);
	assert_int_equal(info.page_bytes, PAGE);
	assert_int_equal(info.memory, SLU_MEMORY_HOST);
	assert_true(info.shareable);
	assert_false(info.lost);
	assert_int_equal(rest->length, (PAGES - 2) * PAGE);
	region_destroy(region);
	region_destroy(rest);
}

/* Goal: what is no memory is told from what is, and by what it is. */
static void test_refuses_other_kinds(void **state)
{
	char name[] = "/var/tmp/sluice-import-XXXXXX";
	int wires[2], sockets[2], fd;
	struct statfs fs;

	(void)state;
	refused(-1, 0, 0, -EBADF, "descriptor -1");
	assert_int_equal(pipe(wires), 0);
	refused(wires[0], 0, PAGE, -EINVAL, "a pipe");
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	refused(sockets[0], 0, PAGE, -EINVAL, "a socket");
	fd = open("/", O_RDONLY | O_DIRECTORY);
	refused(fd, 0, PAGE, -EINVAL, "a directory");
	close(fd);
	fd = open("/dev/null", O_RDWR);
	refused(fd, 0, PAGE, -EINVAL, "a device");
	close(fd);
	fd = mkstemp(name);
	assert_true(fd >= 0 && ftruncate(fd, PAGE) == 0 && syscall(SYS_fstatfs, fd, &fs) == 0);
	unlink(name);
	if (fs.f_type != TMPFS_MAGIC)
		refused(fd, 0, PAGE, -EINVAL, "a file of a file system");
	close(fd);
	for (int i = 0; i < 2; i++) {
		close(wires[i]);
		close(sockets[i]);
	}
}

/* Goal: memory that we could not write is refused, and why. */
static void test_refuses_what_cannot_be_written(void **state)
{
	int fd = memory(PAGE, MFD_ALLOW_SEALING), other;
	char path[32];

	(void)state;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	other = open(path, O_RDONLY);
	refused(other, 0, PAGE, -EACCES, "open it O_RDWR");
	close(other);
	other = open(path, O_WRONLY);
	refused(other, 0, PAGE, -EACCES, "open it O_RDWR");
	close(other);
	other = open(path, O_PATH);
	refused(other, 0, PAGE, -EACCES, "open it O_RDWR");
	close(other);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	refused(fd, 0, PAGE, -EACCES, "sealed against writing");
	close(fd);
}

/* Goal: a range is inside its file and begins with a page. */
static void test_refuses_other_ranges(void **state)
{
	int fd = memory(2 * PAGE + 100, 0), empty = memory(0, 0);
	struct slu_region *region;

	(void)state;
	refused(fd, 100, 100, -EINVAL, "offset 100 is not a multiple");
	refused(fd, PAGE, UINT64_MAX - 100, -EINVAL, "wrap");
	refused(fd, UINT64_MAX / PAGE * PAGE, PAGE, -EINVAL, "wrap");
	refused(fd, 0, 2 * PAGE + 101, -ERANGE, "it has 8292");
	refused(fd, 3 * PAGE, 1, -ERANGE, "are not in it");
	refused(fd, 3 * PAGE, 0, -ERANGE, "are not in it");
	refused(empty, 0, 0, -ERANGE, "it has 0");
	assert_int_equal(import(fd, 2 * PAGE, 0, &region), 0);
	assert_int_equal(region->length, 100);
	region_destroy(region);
	close(empty);
	close(fd);
}

static int import_with(const struct slu_region_options *options, int fd)
{
	struct slu_region *region;
	int rc = region_import(fd, 0, 0, options, &region);

	if (rc == 0)
		region_destroy(region);
	return rc;
}

/* Goal: options that were decided when the memory was made are refused, unless they are met. */
static void test_options(void **state)
{
	struct slu_region_options options, defaults;
	int fd = memory(PAGE, 0);

	(void)state;
	slu_region_options_init(&defaults, sizeof(defaults));
	options = defaults;
	options.page = SLU_PAGE_ORDINARY;
	options.lock = true;
	assert_int_equal(import_with(&options, fd), 0);
	options = defaults;
	options.page = SLU_PAGE_2M;
	assert_int_equal(import_with(&options, fd), -EINVAL);
	options = defaults;
	options.node = 0;
	assert_int_equal(import_with(&options, fd), -EINVAL);
	options = defaults;
	options.private_memory = true;
	assert_int_equal(import_with(&options, fd), -EINVAL);
	close(fd);
}

/* Goal: 2 MiB pages are seen by the file, and offsets are theirs. */
static void test_hugepages(void **state)
{
	struct slu_region *region;
	int fd;

	(void)state;
	if (hugepages_free() < 2)
		skip_because("no free 2 MiB pages");
	fd = memory(2 * PAGE_2M_BYTES, MFD_HUGETLB | MFD_HUGE_2MB | MFD_ALLOW_SEALING);
	refused(fd, PAGE, 0, -EINVAL, "2048 KiB");
	assert_int_equal(import(fd, PAGE_2M_BYTES, 100, &region), 0);
	assert_int_equal(region->page_bytes, PAGE_2M_BYTES);
	assert_int_equal(region->arena.mapped_bytes, PAGE_2M_BYTES);
	region_destroy(region);
	close(fd);
}

/* Goal: pages that others take away are survived, before it was ever exported. */
static void test_lost_pages(void **state)
{
	struct slu_region *region;
	int fd = memory(2 * PAGE, 0);

	(void)state;
	assert_int_equal(import(fd, 0, 0, &region), 0);
	region->addr[PAGE] = 1;
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_false(region_is_dead(region));
	assert_true(guard_check(region->addr, 2 * PAGE));
	assert_true(region_is_dead(region));
	region_destroy(region);
	close(fd);
}

/* Goal: it is sealed against shrinking and growing when it is shared, not against writing; and
 * finally only for writers. */
static void test_shared(void **state)
{
	int fd = memory(PAGES * PAGE, MFD_ALLOW_SEALING);
	struct slu_region *region;
	void *theirs;

	(void)state;
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(fcntl(fd, F_GET_SEALS), 0);
	assert_int_equal(share(region, ARENA_SEALED), ARENA_WHOLE);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	theirs = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(theirs, MAP_FAILED);
	munmap(theirs, PAGE);
	assert_int_equal(share(region, ARENA_WRITTEN), ARENA_WHOLE | ARENA_WRITTEN);
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	assert_int_equal(share(region, ARENA_SEALED), ARENA_WHOLE);
	region_destroy(region);
	close(fd);
}

/* Goal: its owner may seal it against other writers, and then it is written by none of ours. */
static void test_sealed_by_its_owner(void **state)
{
	int fd = memory(PAGE, MFD_ALLOW_SEALING);
	struct slu_region *region;

	(void)state;
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(share(region, ARENA_WRITTEN), ARENA_WHOLE);
	region_destroy(region);
	close(fd);
}

/* Goal: where a descriptor reaches more than the region, at either side, it is a part. */
static void test_part_of_its_file(void **state)
{
	int fd = memory(2 * PAGE + 100, MFD_ALLOW_SEALING);
	struct slu_region *region;

	(void)state;
	assert_int_equal(import(fd, PAGE, 0, &region), 0);
	assert_int_equal(share(region, ARENA_WRITTEN), ARENA_WRITTEN);
	region_destroy(region);
	assert_int_equal(import(fd, 0, PAGE, &region), 0);
	assert_int_equal(share(region, 0), 0);
	region_destroy(region);
	assert_int_equal(import(fd, 0, PAGE + 100, &region), 0);
	assert_int_equal(share(region, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "within a page"));
	region_destroy(region);
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(share(region, ARENA_WRITTEN), ARENA_WRITTEN | ARENA_WHOLE);
	region_destroy(region);
	close(fd);
}

/* Goal: what cannot be sealed against shrinking is not shared, and why. */
static void test_not_sealable(void **state)
{
	int fd = memory(PAGE, 0);
	struct slu_region *region;

	(void)state;
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(share(region, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "MFD_ALLOW_SEALING"));
	region_destroy(region);
	close(fd);
}

/* Goal: nobody opens for writing what he was passed for reading: a file without a name loses that
 * mode, one with a name is refused with it. */
static void test_mode(void **state)
{
	char name[64];
	int fd = memory(PAGE, MFD_ALLOW_SEALING);
	struct slu_region *region;
	struct stat stat;

	(void)state;
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(fchmod(fd, 0777), 0);
	assert_int_equal(share(region, 0), ARENA_WHOLE);
	assert_int_equal(fstat(fd, &stat), 0);
	assert_int_equal(stat.st_mode & 07777, 0755);
	region_destroy(region);
	close(fd);
	snprintf(name, sizeof(name), "/sluice-import-%d", (int)getpid());
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		skip_because("no /dev/shm");
	assert_int_equal(ftruncate(fd, PAGE), 0);
	assert_int_equal(fchmod(fd, 0666), 0);
	assert_int_equal(import(fd, 0, 0, &region), 0);
	assert_int_equal(share(region, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "mode 666"));
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(share(region, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "cannot be sealed"));
	region_destroy(region);
	shm_unlink(name);
	close(fd);
}

/* Goal: a dmabuf is the CPU's from its import to its end, and is not shared; one that the CPU
 * cannot have is refused. */
static void test_dmabuf(void **state)
{
	struct slu_region *region;

	(void)state;
	dmabuf = memory(2 * PAGE, MFD_ALLOW_SEALING);
	assert_int_equal(import(dmabuf, PAGE, 0, &region), 0);
	assert_int_equal(region->arena.origin, ARENA_DMABUF);
	assert_int_equal(begun, 1);
	region->addr[0] = 1;
	assert_int_equal(share(region, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "a dmabuf"));
	region_destroy(region);
	assert_int_equal(ended, 1);
	refuses_sync = true;
	refused(dmabuf, 0, 0, -EBUSY, "cannot take the dmabuf for the CPU");
	refuses_sync = false;
	assert_int_equal(fcntl(dmabuf, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	refused(dmabuf, 0, 0, -EOPNOTSUPP, "keeps it from the CPU");
	close(dmabuf);
	dmabuf = -1;
}

/* Goal: a dmabuf of the kernel's is the memory that it was made of. */
static void test_udmabuf(void **state)
{
	struct udmabuf_create create = {.flags = UDMABUF_FLAGS_CLOEXEC, .size = 2 * PAGE};
	int device = open("/dev/udmabuf", O_RDWR | O_CLOEXEC), fd;
	struct slu_region *region;
	char seen[6];

	(void)state;
	if (device < 0)
		skip_because("no /dev/udmabuf");
	create.memfd = (uint32_t)memory(2 * PAGE, MFD_ALLOW_SEALING);
	assert_int_equal(fcntl((int)create.memfd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	fd = ioctl(device, UDMABUF_CREATE, &create);
	assert_true(fd >= 0);
	assert_int_equal(import(fd, PAGE, 0, &region), 0);
	assert_int_equal(region->arena.origin, ARENA_DMABUF);
	assert_int_equal(region->length, PAGE);
	memcpy(region->addr, "theirs", 6);
	assert_int_equal(pread((int)create.memfd, seen, 6, PAGE), 6);
	assert_memory_equal(seen, "theirs", 6);
	region_destroy(region);
	close(fd);
	close((int)create.memfd);
	close(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_pages), /* first, as in test_shm */
		cmocka_unit_test(test_is_the_same_memory),
		cmocka_unit_test(test_refuses_other_kinds),
		cmocka_unit_test(test_refuses_what_cannot_be_written),
		cmocka_unit_test(test_refuses_other_ranges),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_hugepages),
		cmocka_unit_test(test_shared),
		cmocka_unit_test(test_sealed_by_its_owner),
		cmocka_unit_test(test_part_of_its_file),
		cmocka_unit_test(test_not_sealable),
		cmocka_unit_test(test_mode),
		cmocka_unit_test(test_dmabuf),
		cmocka_unit_test(test_udmabuf),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
