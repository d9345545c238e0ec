/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "env/hugepages.h"
#include "tests/tap.h"

#define NOBODY 65534

static struct slu_region_options ordinary(void)
{
	struct slu_region_options options;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	return options;
}

static void create(uint64_t length, const struct slu_region_options *options, struct arena *arena)
{
	int ret;

	memset(arena, 0, sizeof(*arena));
	ret = arena_create(length, options, arena);
	if (ret < 0)
		fail_msg("arena_create: %d, %s", ret, slu_last_error());
}

/* All of it. */
static int share(struct arena *arena, unsigned wanted)
{
	return arena_share(arena, 0, arena->end_bytes, wanted);
}

/* Goal: an arena is whole pages, zeroed and writable to its last byte. */
static void test_whole_zeroed_pages(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	create(3 * PAGE_ORDINARY_BYTES + 1, &options, &arena);
	assert_int_equal(arena.page_bytes, PAGE_ORDINARY_BYTES);
	assert_int_equal(arena.mapped_bytes, 4 * PAGE_ORDINARY_BYTES);
	for (uint64_t i = 0; i < arena.mapped_bytes; i++)
		assert_int_equal(((char *)arena.addr)[i], 0);
	memset(arena.addr, 1, arena.mapped_bytes);
	arena_destroy(&arena);
	assert_null(arena.addr);
	assert_int_equal(arena.fd, -1);
}

/* Goal: nobody can shrink or grow the memfd under those who map it. */
static void test_size_is_sealed(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	create(PAGE_ORDINARY_BYTES * 2, &options, &arena);
	assert_int_equal(ftruncate(arena.fd, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(arena.fd, 1 << 20), -1);
	assert_int_equal(errno, EPERM);
	arena_destroy(&arena);
}

static bool maps_writable(int fd)
{
	void *view = mmap(NULL, PAGE_ORDINARY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (view == MAP_FAILED)
		return false;
	munmap(view, PAGE_ORDINARY_BYTES);
	return true;
}

/* Goal: shared for reading, nobody maps or writes it or punches holes into it; our own mapping and
 * read-only ones go on. */
static void test_shared_for_reading(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;
	char *view;

	(void)state;
	create(PAGE_ORDINARY_BYTES, &options, &arena);
	assert_int_equal(share(&arena, ARENA_SEALED), ARENA_WHOLE);
	assert_int_equal(share(&arena, ARENA_WRITTEN), ARENA_WHOLE);
	assert_false(maps_writable(arena.fd));
	assert_int_equal(pwrite(arena.fd, "x", 1, 0), -1);
	assert_int_equal(fallocate(arena.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				   PAGE_ORDINARY_BYTES),
			 -1);
	assert_int_equal(errno, EPERM);
	view = mmap(NULL, PAGE_ORDINARY_BYTES, PROT_READ, MAP_SHARED, arena.fd, 0);
	assert_ptr_not_equal(view, MAP_FAILED);
	*(char *)arena.addr = 42;
	assert_int_equal(*view, 42);
	munmap(view, PAGE_ORDINARY_BYTES);
	arena_destroy(&arena);
}

/* Goal: shared for writing, no writer can keep the next one out by a further seal. */
static void test_shared_for_writing(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	create(PAGE_ORDINARY_BYTES, &options, &arena);
	assert_int_equal(share(&arena, ARENA_WRITTEN), ARENA_WRITTEN | ARENA_WHOLE);
	assert_true(maps_writable(arena.fd));
	assert_int_equal(fcntl(arena.fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
	assert_int_equal(errno, EPERM);
	assert_true(maps_writable(arena.fd));
	assert_int_equal(ftruncate(arena.fd, 0), -1);
	assert_int_equal(share(&arena, ARENA_WRITTEN), ARENA_WRITTEN | ARENA_WHOLE);
	assert_int_equal(share(&arena, ARENA_SEALED), -EBUSY);
	arena_destroy(&arena);
}

/* Goal: a part is shared in whole pages, the last of an arena as far as it goes; and as what it is,
 * since its descriptor reaches more. */
static void test_shares_parts(void **state)
{
	const uint64_t page = PAGE_ORDINARY_BYTES;
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	create(3 * page + 100, &options, &arena);
	assert_int_equal(arena_share(&arena, page, page, ARENA_WRITTEN), ARENA_WRITTEN);
	assert_int_equal(arena_share(&arena, page, 2 * page + 100, 0), 0);
	assert_int_equal(arena_share(&arena, 1, page, 0), -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "within a page"));
	assert_int_equal(arena_share(&arena, page, page + 1, 0), -EOPNOTSUPP);
	assert_int_equal(arena_share(&arena, page, 2 * page + 99, 0), -EOPNOTSUPP);
	arena_destroy(&arena);
}

/* Goal: a part that is only read leaves it open what becomes of the others. */
static void test_reading_a_part_seals_nothing(void **state)
{
	const uint64_t page = PAGE_ORDINARY_BYTES;
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	for (int written = 0; written <= 1; written++) {
		create(2 * page, &options, &arena);
		assert_int_equal(arena_share(&arena, page, page, 0), 0);
		if (written)
			assert_int_equal(arena_share(&arena, 0, page, ARENA_WRITTEN),
					 ARENA_WRITTEN);
		else
			assert_int_equal(share(&arena, ARENA_SEALED), ARENA_WHOLE);
		assert_int_equal(maps_writable(arena.fd), written);
		assert_int_equal(arena_share(&arena, page, page, 0), 0);
		arena_destroy(&arena);
	}
}

/* Goal: private memory has no descriptor, and cannot be shared with others. */
static void test_private(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	options.private_memory = true;
	create(PAGE_ORDINARY_BYTES, &options, &arena);
	assert_int_equal(arena.fd, -1);
	assert_int_equal(share(&arena, ARENA_SEALED), -EOPNOTSUPP);
	arena_destroy(&arena);
}

/* The flags of the mapping that begins at @p addr, as the kernel tells them. */
static void mapping_flags(const void *addr, char flags[256])
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long begin, wanted = (unsigned long)addr;
	bool found = false;
	char line[512];

	assert_non_null(file);
	flags[0] = '\0';
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-", &begin) == 1 && strchr(line, '-'))
			found = begin == wanted;
		if (found && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, 256, "%.255s", line);
	}
	fclose(file);
}

/* Goal: what users keep in it is in no core dump, shared or private. */
static void test_not_dumped(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;
	char flags[256];

	(void)state;
	for (int private_memory = 0; private_memory <= 1; private_memory++) {
		options.private_memory = private_memory;
		create(3 * PAGE_ORDINARY_BYTES, &options, &arena);
		mapping_flags(arena.addr, flags);
		assert_non_null(strstr(flags, " dd"));
		arena_destroy(&arena);
	}
}

/* Goal: 2 MiB pages are used when asked for, shared or private. */
static void test_hugepages(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena;

	(void)state;
	if (hugepages_free() < 2)
		skip_because("no free 2 MiB pages");
	options.page = SLU_PAGE_2M;
	for (int private_memory = 0; private_memory <= 1; private_memory++) {
		options.private_memory = private_memory;
		create(PAGE_2M_BYTES + 1, &options, &arena);
		assert_int_equal(arena.page_bytes, PAGE_2M_BYTES);
		assert_int_equal(arena.mapped_bytes, 2 * PAGE_2M_BYTES);
		assert_int_equal((uintptr_t)arena.addr % PAGE_2M_BYTES, 0);
		arena_destroy(&arena);
	}
}

/* Goal: more 2 MiB pages than are free is -ENOMEM that says how to get them. */
static void test_too_few_hugepages(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena = {.fd = -1};

	(void)state;
	options.page = SLU_PAGE_2M;
	assert_int_equal(
		arena_create((hugepages_free() + 1000000) * PAGE_2M_BYTES, &options, &arena),
		-ENOMEM);
	assert_non_null(strstr(slu_last_error(), "nr_hugepages"));
	assert_null(arena.addr);
}

/* Goal: more than the memory of the machine is -ENOMEM, not a process killed later. */
static void test_too_much_memory(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena = {.fd = -1};

	(void)state;
	assert_int_equal(arena_create(UINT64_C(1) << 50, &options, &arena), -ENOMEM);
	assert_non_null(strstr(slu_last_error(), "available"));
}

/* Goal: a node that is not there is refused and nothing is left behind. */
static void test_no_such_node(void **state)
{
	struct slu_region_options options = ordinary();
	struct arena arena = {.fd = -1};
	int ret;

	(void)state;
	options.node = 1 << 20;
	ret = arena_create(PAGE_ORDINARY_BYTES, &options, &arena);
	assert_int_equal(ret, -EINVAL);
	assert_null(arena.addr);
	assert_int_equal(arena.fd, -1);
}

/* The child's part: without privileges and with a limit of one page. 0 when refused as it should.
 */
static int lock_over_the_limit(void)
{
	struct rlimit limit = {.rlim_cur = PAGE_ORDINARY_BYTES, .rlim_max = PAGE_ORDINARY_BYTES};
	struct slu_region_options options = ordinary();
	struct arena arena = {.fd = -1};

	if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0 ||
	    (geteuid() == 0 && setresuid(NOBODY, NOBODY, NOBODY) < 0))
		return 2;
	options.lock = true;
	if (arena_create(1 << 20, &options, &arena) != -ENOMEM)
		return 3;
	return strstr(slu_last_error(), "ulimit -l") ? 0 : 4;
}

/* Goal: memory over the memlock limit is -ENOMEM that names the limit and the remedy. */
static void test_memlock_limit(void **state)
{
	int status = 0;
	pid_t child;

	(void)state;
	if (WITH_ADDRESS_SANITIZER || WITH_THREAD_SANITIZER)
		skip_because("the sanitizer turns mlock into nothing");
	fflush(stdout);
	child = fork();
	assert_true(child >= 0);
	if (child == 0)
		_exit(lock_over_the_limit());
	waitpid(child, &status, 0);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_zeroed_pages),
		cmocka_unit_test(test_size_is_sealed),
		cmocka_unit_test(test_shared_for_reading),
		cmocka_unit_test(test_shared_for_writing),
		cmocka_unit_test(test_shares_parts),
		cmocka_unit_test(test_reading_a_part_seals_nothing),
		cmocka_unit_test(test_not_dumped),
		cmocka_unit_test(test_private),
		cmocka_unit_test(test_hugepages),
		cmocka_unit_test(test_too_few_hugepages),
		cmocka_unit_test(test_too_much_memory),
		cmocka_unit_test(test_no_such_node),
		cmocka_unit_test(test_memlock_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
