/* SPDX-License-Identifier: Apache-2.0 */
#include "pairing.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../tap.h"
#include "engine/engine_internal.h"
#include "pattern.h"

#define WAIT_US UINT64_C(300000000) /* only a hang takes longer */

int pairing_engine(uint32_t pollers, struct slu_engine **engine)
{
	struct slu_engine_options options;

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = pollers;
	options.listen = "127.0.0.1:0";
	return slu_engine_open(&options, engine);
}

int pairing_port(struct slu_engine *engine)
{
	struct slu_engine_info info = {.size = sizeof(info)};

	assert_int_equal(slu_engine_get_info(engine, &info), 0);
	return atoi(strrchr(info.listen, ':') + 1);
}

static uint32_t count_devices(void)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	struct slu_engine *engine;

	assert_int_equal(slu_engine_open(NULL, &engine), 0);
	assert_int_equal(slu_engine_get_info(engine, &info), 0);
	slu_engine_close(engine);
	return info.rdma_devices;
}

void pairing_each(void (*test)(enum slu_transport transport, uint32_t pollers))
{
	bool rdma = count_devices() > 0;

	for (uint32_t pollers = 0; pollers <= 1; pollers++) {
		test(SLU_TRANSPORT_SHM, pollers);
		test(SLU_TRANSPORT_TCP, pollers);
		if (rdma)
			test(SLU_TRANSPORT_VERBS, pollers);
	}
}

static struct slu_region *region_of(struct slu_engine *engine)
{
	struct slu_region_options options;
	struct slu_region *region;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	assert_int_equal(slu_region_alloc(engine, PAIRING_BYTES, &options, &region), 0);
	return region;
}

static void open_client(struct pairing *pairing, enum slu_transport transport, uint32_t pollers)
{
	struct slu_engine_options options;
	struct slu_remote_options remote;
	struct slu_remote_info info = {.size = sizeof(info)};

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = pollers;
	slu_remote_options_init(&remote, sizeof(remote));
	remote.transport = transport;
	remote.timeout_us = WAIT_US;
	if (!pairing->client)
		assert_int_equal(slu_engine_open(&options, &pairing->client), 0);
	pairing->region = region_of(pairing->client);
	if (slu_remote_open(pairing->client, pairing->name, &remote, &pairing->remote) < 0)
		fail_msg("%s does not open: %s", pairing->name, slu_last_error());
	assert_int_equal(slu_remote_get_info(pairing->remote, &info), 0);
	assert_int_equal(info.transport, transport);
	assert_int_equal(slu_queue_open(pairing->client, NULL, &pairing->queue), 0);
}

void pairing_open(struct pairing *pairing, const char *segment, enum slu_transport transport,
		  uint32_t pollers)
{
	memset(pairing, 0, sizeof(*pairing));
	if (pairing_engine(1, &pairing->target) < 0)
		fail_msg("no engine: %s", slu_last_error());
	pairing->exported = region_of(pairing->target);
	assert_int_equal(slu_segment_export(pairing->target, segment, pairing->exported,
					    SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
					    &pairing->segment),
			 0);
	if (transport != SLU_TRANSPORT_SHM)
		snprintf(pairing->name, sizeof(pairing->name), "%s@127.0.0.1:%d", segment,
			 pairing_port(pairing->target));
	else
		snprintf(pairing->name, sizeof(pairing->name), "%s", segment);
	open_client(pairing, transport, pollers);
}

void pairing_close(struct pairing *pairing)
{
	slu_engine_close(pairing->client);
	slu_engine_close(pairing->target);
}

int pairing_run(struct pairing *pairing, uint8_t opcode, uint64_t offset, uint64_t length)
{
	struct slu_op op = {.remote = pairing->remote,
			    .region = pairing->region,
			    .remote_offset = offset,
			    .local_offset = offset,
			    .length = length,
			    .opcode = opcode};
	struct slu_completion done;
	int rc = slu_submit(pairing->queue, &op, 1);

	if (rc < 0)
		return rc;
	assert_int_equal(rc, 1);
	while (slu_wait(pairing->queue, 1, WAIT_US) == -EINTR)
		;
	assert_int_equal(slu_reap(pairing->queue, &done, 1), 1);
	return done.status;
}

static void nothing(struct poller *poller, void *arg)
{
	(void)poller;
	(void)arg;
}

/* What a poller of the target has written was heard of over a socket, and what was looked at is
 * written again by one; ThreadSanitizer does not see that: so it is asked. */
static void meet_poller(struct slu_engine *engine)
{
	poller_call(engine->pollers[0], nothing, NULL);
}

void pairing_check(struct pairing *pairing, uint64_t generation)
{
	void *local = slu_region_addr(pairing->region);

	pattern_fill(local, 0, PAIRING_BYTES, generation);
	assert_int_equal(pairing_run(pairing, SLU_WRITE, 0, PAIRING_BYTES), 0);
	meet_poller(pairing->target);
	assert_int_equal(
		pattern_mismatch(slu_region_addr(pairing->exported), 0, PAIRING_BYTES, generation),
		PAIRING_BYTES);
	meet_poller(pairing->target);
	memset(local, 0, PAIRING_BYTES);
	assert_int_equal(pairing_run(pairing, SLU_READ, 0, PAIRING_BYTES), 0);
	assert_int_equal(pattern_mismatch(local, 0, PAIRING_BYTES, generation), PAIRING_BYTES);
}
