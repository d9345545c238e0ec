/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/region.h"

#include <errno.h>
#include <stdlib.h>

#include <sluice/version.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/sized.h"
#include "numa/placement.h"

static const struct slu_region_options default_options = {.page = SLU_PAGE_AUTO, .node = -1};

static const struct sized sized_options = {SIZED(slu_region_options, progress_arg),
					   SIZED_RESERVED(slu_region_options),
					   .defaults = &default_options};
static const struct sized sized_info = {SIZED(slu_region_info, reserved)};

void slu_region_options_init(struct slu_region_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

int region_take_options(const struct slu_region_options *given, struct slu_region_options *options)
{
	return sized_take(&sized_options, given, options);
}

static int check_page(const struct slu_region_options *options)
{
	if ((unsigned)options->page > SLU_PAGE_2M)
		return fail(-EINVAL, "libsluice %s has no size of pages number %d", slu_version(),
			    (int)options->page);
	return 0;
}

static int check_length(uint64_t length_bytes)
{
	if (length_bytes == 0)
		return fail(-EINVAL, "a region needs at least one byte");
	if (length_bytes > UINT64_MAX / 2)
		return fail(-ENOMEM, "a region of %lu bytes is larger than any memory",
			    length_bytes);
	return 0;
}

/* Around an arena, which is destroyed where that fails. */
static int make(struct arena *arena, uint64_t length_bytes, struct slu_region **out)
{
	struct slu_region *region = calloc(1, sizeof(*region));

	if (!region) {
		arena_destroy(arena);
		return fail(-ENOMEM, "out of memory");
	}
	region->arena = *arena;
	region->owned = true;
	region->addr = arena->addr;
	region->length = length_bytes;
	region->page_bytes = arena->page_bytes;
	region->node = placement_memory_node(region->addr);
	*out = region;
	return 0;
}

int region_create(uint64_t length_bytes, const struct slu_region_options *options,
		  struct slu_region **out)
{
	struct arena arena;
	int rc;

	rc = check_page(options);
	if (rc == 0)
		rc = check_length(length_bytes);
	if (rc == 0)
		rc = arena_create(length_bytes, options, &arena);
	return rc < 0 ? rc : make(&arena, length_bytes, out);
}

int region_import(int fd, uint64_t offset_bytes, uint64_t length_bytes,
		  const struct slu_region_options *options, struct slu_region **out)
{
	struct arena arena;
	int rc;

	rc = check_page(options);
	if (rc == 0)
		rc = arena_import(fd, offset_bytes, &length_bytes, options, &arena);
	return rc < 0 ? rc : make(&arena, length_bytes, out);
}

int region_wrap(void *addr, uint64_t length_bytes, struct slu_region **out)
{
	struct slu_region *region;

	if (!addr || length_bytes == 0 || (uintptr_t)addr + length_bytes < (uintptr_t)addr)
		return fail(-EINVAL, "an empty or wrapping range of memory");
	region = calloc(1, sizeof(*region));
	if (!region)
		return fail(-ENOMEM, "out of memory");
	region->arena.fd = -1;
	region->addr = addr;
	region->length = length_bytes;
	region->page_bytes = PAGE_ORDINARY_BYTES;
	region->node = placement_memory_node(addr);
	*out = region;
	return 0;
}

void region_destroy(struct slu_region *region)
{
	if (!region)
		return;
	if (region->owned)
		arena_destroy(&region->arena);
	free(region);
}

void *slu_region_addr(const struct slu_region *region)
{
	return fork_check() < 0 ? NULL : region->addr;
}

int slu_region_get_info(const struct slu_region *region, struct slu_region_info *info)
{
	struct slu_region_info own = {
		.length_bytes = region->length,
		.page_bytes = region->page_bytes,
		.node = region->node,
		.memory = SLU_MEMORY_HOST,
		.shareable = region->arena.fd >= 0,
		.lost = region_is_dead(region),
		.register_ns = region->register_ns,
		.devices = region->devices > region->export_devices ? region->devices
								    : region->export_devices,
	};

	return fork_is_child() ? fork_refuse() : sized_give(&sized_info, &own, info);
}
