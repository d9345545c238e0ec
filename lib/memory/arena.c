/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/descriptor.h"
#include "base/log.h"
#include "env/hugepages.h"
#include "memory/keep.h"
#include "memory/prefault.h"
#include "numa/placement.h"

/* Smaller regions gain nothing from 2 MiB pages and would waste most of one. */
#define HUGE_WORTHWHILE_BYTES (UINT64_C(1) << 20)

static uint64_t round_up(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

static uint64_t mib(uint64_t bytes)
{
	return (bytes + (1 << 20) - 1) >> 20;
}

/* The kernel hands out more than it has and kills later; so ask first. UINT64_MAX: unknown. */
static uint64_t available_bytes(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	uint64_t kib = UINT64_MAX >> 10;
	char line[128];

	if (!file)
		return UINT64_MAX;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %lu kB", &kib) == 1)
			break;
	fclose(file);
	return kib << 10;
}

static int map(struct arena *arena, bool huge, bool private_memory)
{
	int flags = private_memory ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;

	arena->origin = ARENA_OWN;
	arena->offset = 0;
	arena->fd = -1;
	arena->guard = NULL;
	if (!private_memory) {
		unsigned memfd_flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;

		arena->fd = memfd_create("sluice",
					 memfd_flags | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
		if (arena->fd < 0)
			return fail(-errno, "memfd_create: %s", strerror(errno));
		descriptor_note(arena->fd);
		fchmod(arena->fd, S_IRUSR | S_IWUSR);
		if (ftruncate(arena->fd, (off_t)arena->mapped_bytes) < 0)
			return fail(-ENOMEM, "a memfd of %lu MiB: %s", mib(arena->mapped_bytes),
				    strerror(errno));
	} else if (huge) {
		flags |= MAP_HUGETLB | MAP_HUGE_2MB;
	}
	arena->addr = mmap(NULL, arena->mapped_bytes, PROT_READ | PROT_WRITE, flags, arena->fd, 0);
	if (arena->addr == MAP_FAILED) {
		arena->addr = NULL;
		return fail(-ENOMEM, "cannot map %lu MiB%s: %s%s", mib(arena->mapped_bytes),
			    huge ? " of 2 MiB pages" : "", strerror(errno),
			    huge ? "; reserve more with: sysctl vm.nr_hugepages=N" : "");
	}
	memory_keep(arena->addr, arena->mapped_bytes);
	return 0;
}

int arena_lock(const struct arena *arena)
{
	struct rlimit limit;

	if (mlock(arena->addr, arena->mapped_bytes) == 0)
		return 0;
	getrlimit(RLIMIT_MEMLOCK, &limit);
	return fail(
		-ENOMEM,
		"memlock limit is %lu KiB, the region needs %lu KiB: raise it with ulimit -l, or "
		"use 2 MiB pages, which are never swapped",
		(unsigned long)limit.rlim_cur >> 10, arena->mapped_bytes >> 10);
}

static int make(struct arena *arena, bool huge, uint64_t length_bytes,
		const struct slu_region_options *options)
{
	int rc;

	arena->page_bytes = huge ? PAGE_2M_BYTES : PAGE_ORDINARY_BYTES;
	arena->mapped_bytes = round_up(length_bytes, arena->page_bytes);
	arena->end_bytes = length_bytes;
	rc = map(arena, huge, options->private_memory);
	if (rc == 0 && options->node >= 0)
		rc = placement_bind_memory(arena->addr, arena->mapped_bytes, options->node);
	if (rc == 0 && !huge && options->private_memory)
		madvise(arena->addr, arena->mapped_bytes, MADV_HUGEPAGE);
	if (rc == 0 && options->lock && !huge)
		rc = arena_lock(arena);
	if (rc == 0)
		rc = prefault(arena->addr, arena->mapped_bytes, options->progress,
			      options->progress_arg);
	if (rc == 0 && arena->fd >= 0 &&
	    fcntl(arena->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
		rc = fail(-errno, "cannot seal a memfd: %s", strerror(errno));
	if (rc < 0)
		arena_destroy(arena);
	return rc;
}

int arena_create(uint64_t length_bytes, const struct slu_region_options *options,
		 struct arena *arena)
{
	uint64_t wanted = round_up(length_bytes, PAGE_2M_BYTES) / PAGE_2M_BYTES;
	uint64_t available = available_bytes();
	uint64_t huge_free = hugepages_free();

	if (options->page == SLU_PAGE_2M && wanted > huge_free)
		return fail(
			-ENOMEM,
			"%lu MiB need %lu pages of 2 MiB, %lu are free: reserve them with: sysctl "
			"vm.nr_hugepages=N, or allow ordinary pages",
			mib(length_bytes), wanted, huge_free);
	if (options->page == SLU_PAGE_2M)
		return make(arena, true, length_bytes, options);
	if (options->page == SLU_PAGE_AUTO && length_bytes >= HUGE_WORTHWHILE_BYTES) {
		/* Others may take the pages between the look and the take: then go on below. */
		if (wanted <= huge_free && make(arena, true, length_bytes, options) == 0)
			return 0;
		log_warning(
			"%lu MiB on ordinary pages: %lu pages of 2 MiB are needed, %lu are free "
			"(sysctl vm.nr_hugepages=N)",
			mib(length_bytes), wanted, huge_free);
	}
	if (length_bytes > available)
		return fail(-ENOMEM, "%lu MiB wanted, %lu MiB of memory are available",
			    mib(length_bytes), mib(available));
	return make(arena, false, length_bytes, options);
}

void arena_destroy(struct arena *arena)
{
	guard_remove(arena->guard);
	arena->guard = NULL;
	arena_return(arena);
	if (arena->addr)
		munmap(arena->addr, arena->mapped_bytes);
	if (arena->fd >= 0)
		descriptor_close(arena->fd);
	arena->addr = NULL;
	arena->fd = -1;
}

static uint64_t end_of(const struct arena *arena)
{
	return arena->origin == ARENA_OWN ? arena->end_bytes : arena_import_end(arena);
}

/* Others map whole pages: what is beside the part on its first and last must be nobody's. @p begin
 * and @p end are in the file. */
static int check_pages(const struct arena *arena, uint64_t begin, uint64_t end)
{
	if (arena->fd < 0)
		return fail(-EOPNOTSUPP, "there is no descriptor of registered and of private "
					 "memory: use slu_region_alloc() without private_memory");
	if (begin % arena->page_bytes || (end % arena->page_bytes && end != end_of(arena)))
		return fail(-EOPNOTSUPP,
			    "it begins or ends within a page of %lu KiB, and others map whole ones",
			    arena->page_bytes >> 10);
	return 0;
}

/* Whether others may write is decided once: after F_SEAL_SEAL nobody, not even a writer, can change
 * it. @return the seals that are in force */
static int seal(const struct arena *arena, unsigned wanted)
{
	int seals = fcntl(arena->fd, F_GET_SEALS);
	int more = (wanted ? F_SEAL_SEAL : 0) | (wanted & ARENA_SEALED ? F_SEAL_FUTURE_WRITE : 0);

	if (seals >= 0 && (seals & F_SEAL_SEAL || !more))
		return seals;
	if (seals < 0 || fcntl(arena->fd, F_ADD_SEALS, more) < 0)
		return fail(-errno, "cannot seal the region: %s", strerror(errno));
	return seals | more;
}

/* @return the seals that are in force */
static int seal_as_wanted(const struct arena *arena, unsigned wanted)
{
	int seals =
		arena->origin == ARENA_OWN ? seal(arena, wanted) : arena_seal_import(arena, wanted);

	if (seals >= 0 && arena->origin == ARENA_OWN && wanted & ARENA_SEALED &&
	    !(seals & F_SEAL_FUTURE_WRITE))
		return fail(
			-EBUSY,
			"the region cannot be sealed against writing any more, it is exported to "
			"be written in shared memory: export it for reading before that, or make "
			"the segment of a region of its own");
	return seals;
}

int arena_share(struct arena *arena, uint64_t offset, uint64_t length_bytes, unsigned wanted)
{
	uint64_t begin = arena->offset + offset, end = begin + length_bytes;
	int seals, rc = check_pages(arena, begin, end);

	if (rc < 0)
		return rc;
	seals = seal_as_wanted(arena, wanted);
	if (seals < 0)
		return seals;
	rc = check_pages(arena, begin, end); /* now that it does not grow any more */
	if (rc < 0)
		return rc;
	if (!arena->guard) {
		rc = guard_add(arena->addr, arena->mapped_bytes, &arena->guard);
		if (rc < 0)
			return rc;
	}
	return (seals & F_SEAL_FUTURE_WRITE ? 0 : (int)(wanted & ARENA_WRITTEN)) |
	       (begin == 0 && end == end_of(arena) ? ARENA_WHOLE : 0);
}
