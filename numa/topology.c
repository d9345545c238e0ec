/* SPDX-License-Identifier: Apache-2.0 */
#include "numa/topology.h"

#include <errno.h>
#include <hwloc.h>
#include <stdlib.h>

#include "base/log.h"

struct topology {
	hwloc_topology_t hwloc;
};

static int load(hwloc_topology_t hwloc, const char *synthetic)
{
	if (synthetic && hwloc_topology_set_synthetic(hwloc, synthetic) < 0)
		return fail(-EINVAL, "\"%s\" is not an hwloc synthetic topology", synthetic);
	if (hwloc_topology_load(hwloc) < 0)
		return synthetic
			       ? fail(-EINVAL, "hwloc cannot build the topology \"%s\"", synthetic)
			       : fail(-ENOMEM, "hwloc cannot read this machine's topology");
	return 0;
}

int topology_open(const char *synthetic, struct topology **topology)
{
	struct topology *opened = malloc(sizeof(*opened));
	int ret;

	if (!opened)
		return fail(-ENOMEM, "no memory for the topology");
	if (hwloc_topology_init(&opened->hwloc) < 0) {
		ret = fail(-ENOMEM, "no memory for hwloc's topology");
		goto free_topology;
	}
	ret = load(opened->hwloc, synthetic);
	if (ret < 0)
		goto destroy_hwloc;
	*topology = opened;
	return 0;

destroy_hwloc:
	hwloc_topology_destroy(opened->hwloc);
free_topology:
	free(opened);
	return ret;
}

void topology_close(struct topology *topology)
{
	if (!topology)
		return;
	hwloc_topology_destroy(topology->hwloc);
	free(topology);
}

uint32_t topology_node_count(const struct topology *topology)
{
	hwloc_obj_t node = NULL;
	uint32_t count = 0;

	while ((node = hwloc_get_next_obj_by_type(topology->hwloc, HWLOC_OBJ_NUMANODE, node)))
		if (node->attr->numanode.local_memory)
			count++;
	return count ? count : 1;
}

int topology_has_node(const struct topology *topology, int node)
{
	return node >= 0 && hwloc_get_numanode_obj_by_os_index(topology->hwloc, (unsigned)node);
}

int topology_cpu_node(const struct topology *topology, int cpu)
{
	hwloc_obj_t pu;

	if (cpu < 0)
		return -1;
	pu = hwloc_get_pu_obj_by_os_index(topology->hwloc, (unsigned)cpu);
	/* A CPU can have several local nodes (DRAM and HBM): the kernel numbers DRAM first. */
	return pu && pu->nodeset ? hwloc_bitmap_first(pu->nodeset) : -1;
}

static uint64_t cache_bytes(hwloc_obj_t obj)
{
	return obj ? obj->attr->cache.size : 0;
}

/* Largest data cache from @p obj upwards. */
static hwloc_obj_t largest_cache(hwloc_obj_t obj)
{
	hwloc_obj_t largest = NULL;

	for (; obj; obj = obj->parent)
		if (hwloc_obj_type_is_dcache(obj->type) && cache_bytes(obj) > cache_bytes(largest))
			largest = obj;
	return largest;
}

static hwloc_obj_t cache_of(const struct topology *topology, int cpu)
{
	return largest_cache(hwloc_get_pu_obj_by_os_index(topology->hwloc, (unsigned)cpu));
}

uint64_t topology_llc_bytes(const struct topology *topology, int cpu)
{
	hwloc_obj_t pu = NULL;
	uint64_t largest = 0;

	if (cpu >= 0)
		return cache_bytes(cache_of(topology, cpu));
	while ((pu = hwloc_get_next_obj_by_type(topology->hwloc, HWLOC_OBJ_PU, pu))) {
		uint64_t bytes = cache_bytes(largest_cache(pu));

		if (bytes > largest)
			largest = bytes;
	}
	return largest;
}

uint32_t topology_llc(const struct topology *topology, int cpu)
{
	hwloc_obj_t cache = cpu < 0 ? NULL : cache_of(topology, cpu);

	return cache ? cache->logical_index : 0;
}

void *topology_hwloc(const struct topology *topology)
{
	return topology->hwloc;
}
