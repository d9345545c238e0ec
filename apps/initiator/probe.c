/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/probe.h"

#include <errno.h>
#include <string.h>

#include "common/histogram.h"
#include "base/log.h"
#include "initiator/pattern.h"
#include "initiator/timer.h"

#define SMALL_BYTES UINT64_C(8)
#define SMALL_COUNT 200
#define WARM_COUNT  50
#define LARGE_BYTES (UINT64_C(1) << 20)
#define LARGE_DEPTH 4
#define LARGE_NS    UINT64_C(200000000)
#define DEADLINE_US 30000000 /* what is slower is not there */

/* What a probe has open. */
struct rig {
	struct slu_remote *remote;
	struct slu_region *region;
	struct slu_queue *queue;
	struct slu_op op; /* a READ, but for length and offsets */
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int rig_open(struct rig *rig, struct slu_engine *engine, const struct config *config,
		    enum slu_transport transport)
{
	struct slu_remote_options remote;
	struct slu_region_options region;
	struct slu_queue_options queue;
	int rc;

	config_remote(config, &remote);
	remote.transport = transport;
	remote.rights = SLU_RIGHT_READ;
	slu_region_options_init(&region, sizeof(region));
	region.private_memory = true;
	region.page = SLU_PAGE_ORDINARY; /* too small for others to matter, and for a warning */
	region.node = config->node;
	slu_queue_options_init(&queue, sizeof(queue));
	queue.poller = config->pollers ? SLU_POLLER_ANY : SLU_POLLER_INLINE;
	rc = slu_remote_open(engine, config->remote_segment, &remote, &rig->remote);
	if (!rc)
		rc = slu_region_alloc(engine, LARGE_BYTES * LARGE_DEPTH, &region, &rig->region);
	if (!rc)
		rc = slu_queue_open(engine, &queue, &rig->queue);
	rig->op = (struct slu_op){
		.opcode = SLU_READ,
		.remote = rig->remote,
		.region = rig->region,
		.timeout_us = DEADLINE_US,
	};
	return rc;
}

static void rig_close(struct rig *rig)
{
	slu_queue_close(rig->queue);
	slu_region_close(rig->region);
	slu_remote_close(rig->remote);
}

static int fail_read(int error)
{
	return fail(error, "a READ failed: %s", slu_strerror(error));
}

/* Submit the READ that follows on the last one in the segment; there is always room. */
static int submit(struct rig *rig, uint64_t length, uint32_t slot)
{
	uint64_t next = rig->op.remote_offset + length;
	int rc;

	rig->op.remote_offset = next + length <= slu_remote_length(rig->remote) ? next : 0;
	rig->op.length = length;
	rig->op.local_offset = slot * LARGE_BYTES;
	rig->op.user_data = slot;
	rc = slu_submit(rig->queue, &rig->op, 1);
	return rc < 0 ? fail_read(rc) : 0;
}

/* Wait for one completion, spinning: it ends by its deadline. */
static int reap(struct rig *rig, uint32_t *slot)
{
	struct slu_completion done;

	while (!slu_reap(rig->queue, &done, 1))
		;
	*slot = (uint32_t)done.user_data;
	return done.status ? fail_read(done.status) : 0;
}

static int measure_small(struct rig *rig, uint64_t *median_ns)
{
	uint64_t length = least(SMALL_BYTES, slu_remote_length(rig->remote));
	static struct histogram histogram;
	uint32_t slot;
	int rc = 0;

	histogram_reset(&histogram);
	for (int i = 0; i < WARM_COUNT + SMALL_COUNT && !rc; i++) {
		uint64_t began_ns = timer_now();

		rc = submit(rig, length, 0);
		if (!rc)
			rc = reap(rig, &slot);
		if (!rc && i >= WARM_COUNT)
			histogram_record(&histogram, timer_now() - began_ns, 1);
	}
	if (!rc)
		*median_ns = histogram_percentile(&histogram, 50);
	return rc;
}

static int measure_large(struct rig *rig, struct probe *probe)
{
	uint64_t length = least(LARGE_BYTES, slu_remote_length(rig->remote));
	uint64_t began_ns = timer_now(), now_ns = began_ns, bytes = 0;
	uint32_t slot;
	int rc = 0;

	for (slot = 0; slot < LARGE_DEPTH && !rc; slot++)
		rc = submit(rig, length, slot);
	while (!rc && now_ns - began_ns < LARGE_NS) {
		rc = reap(rig, &slot);
		now_ns = timer_now();
		bytes += length;
		if (!rc)
			rc = submit(rig, length, slot);
	}
	if (!rc) {
		const char *memory = slu_region_addr(rig->region);

		probe->bytes_per_second =
			(uint64_t)((double)bytes * 1e9 / (double)(now_ns - began_ns));
		probe->zeros = pattern_is_zeros(memory + slot * LARGE_BYTES, length);
	}
	return rc;
}

int probe_measure(struct slu_engine *engine, const struct config *config,
		  enum slu_transport transport, struct probe *probe)
{
	struct rig rig = {0};
	struct probe measured;
	int rc = rig_open(&rig, engine, config, transport);

	if (!rc)
		rc = measure_small(&rig, &measured.latency_ns);
	if (!rc)
		rc = measure_large(&rig, &measured);
	if (!rc)
		*probe = measured;
	rig_close(&rig);
	return rc;
}
