/* SPDX-License-Identifier: Apache-2.0 */
#include "rig.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static const uint64_t lengths[RIG_MEMORIES] = {
	[RIG_CACHED] = 4 * MIB,
	[RIG_STREAMING] = GIB,
};

static void open_engine(struct rig *rig, uint32_t pollers, enum slu_poll_mode poll)
{
	struct slu_engine_options options = {.size = sizeof(options)};
	char cores[32];

	slu_engine_options_init(&options);
	if (pollers == 1)
		snprintf(cores, sizeof(cores), "%d", rig->bench->cores[1]);
	else
		snprintf(cores, sizeof(cores), "%d,%d", rig->bench->cores[0], rig->bench->cores[1]);
	options.name = "perf";
	options.pollers = pollers;
	options.poll = poll;
	options.cores = pollers ? cores : NULL;
	if (slu_engine_open(&options, &rig->engine) != 0)
		die("%s", slu_last_error());
}

static void say_page_size(uint64_t page_bytes)
{
	if (page_bytes < 2 * MIB)
		fprintf(stderr,
			"perf: buffers are on pages of %llu KiB: too few 2 MiB pages free\n",
			(unsigned long long)(page_bytes / KIB));
}

static void open_pair(struct rig *rig, struct rig_pair *pair, const struct target_segment *segment)
{
	struct slu_region_options region_options = {.size = sizeof(region_options)};
	struct slu_remote_options remote_options = {.size = sizeof(remote_options)};
	struct slu_region_info info = {.size = sizeof(info)};

	slu_region_options_init(&region_options);
	slu_remote_options_init(&remote_options);
	remote_options.transport = SLU_TRANSPORT_SHM;
	pair->length = segment->length;
	if (slu_region_alloc(rig->engine, segment->length, &region_options, &pair->region) != 0 ||
	    slu_region_get_info(pair->region, &info) != 0 ||
	    slu_remote_open(rig->engine, segment->name, &remote_options, &pair->remote) != 0)
		die("%s", slu_last_error());
	pair->local = slu_region_addr(pair->region);
	pair->mapped = target_map(&rig->target, segment);
	pair->page_bytes = info.page_bytes;
	say_page_size(info.page_bytes);
}

void rig_open(struct rig *rig, const struct bench *bench, uint32_t pollers, enum slu_poll_mode poll,
	      bool streaming)
{
	struct target_segment segments[RIG_MEMORIES];
	unsigned count = streaming ? RIG_MEMORIES : RIG_STREAMING;

	*rig = (struct rig){.bench = bench};
	for (unsigned i = 0; i < count; i++)
		segments[i] = (struct target_segment){.length = lengths[i]};
	target_start(&rig->target, segments, count);
	open_engine(rig, pollers, poll);
	for (unsigned i = 0; i < count; i++)
		open_pair(rig, &rig->pairs[i], &segments[i]);
}

void rig_close(struct rig *rig)
{
	for (unsigned i = 0; i < RIG_MEMORIES; i++)
		if (rig->pairs[i].mapped)
			munmap(rig->pairs[i].mapped, rig->pairs[i].length);
	slu_engine_close(rig->engine);
	target_stop(&rig->target);
}

struct slu_queue *rig_queue(const struct rig *rig, int32_t poller, uint32_t depth)
{
	struct slu_queue_options options = {.size = sizeof(options)};
	struct slu_queue *queue;

	slu_queue_options_init(&options);
	options.poller = poller;
	options.depth = depth;
	if (slu_queue_open(rig->engine, &options, &queue) != 0)
		die("%s", slu_last_error());
	return queue;
}
