/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#define BATCH_OPS_MAX 16
#define BATCH_BYTES   (4 * MIB)

uint32_t client_batch(uint64_t length)
{
	uint64_t batch = BATCH_BYTES / length;

	if (length <= CLIENT_SMALL_BYTES)
		return LOAD_BATCH_MAX;
	return batch > BATCH_OPS_MAX ? BATCH_OPS_MAX : (uint32_t)batch;
}

void client_open(struct client *client, const struct bench *bench, const struct sample *sample,
		 uint32_t batch, uint32_t depth)
{
	uint64_t piece = sample->length < CLIENT_SMALL_BYTES ? CLIENT_SMALL_BYTES : sample->length;
	struct load_options options = {.opcode = sample->opcode,
				       .length = sample->length,
				       .batch = batch,
				       .depth = depth,
				       .poller = SLU_POLLER_INLINE};
	struct rig_pair *pair = &client->rig.pairs[sample->memory];

	rig_open(&client->rig, bench,
		 &(struct rig_options){.tcp = true,
				       .tls = sample->tls,
				       .connections = sample->connections,
				       .streaming = sample->memory == RIG_STREAMING,
				       .siege = sample->siege});
	client->cursor = (struct cursor){
		.size = piece, .count = (sample->walked ? sample->walked : pair->length) / piece};
	client->lane = (struct lane){.core = bench->cores[0],
				     .step = load_step,
				     .finish = load_finish,
				     .arg = &client->load};
	load_open(&client->load, &client->rig, pair, &client->cursor, &options);
	load_verify(&client->load, pair);
}

void client_close(struct client *client)
{
	load_close(&client->load);
	rig_close(&client->rig);
}
