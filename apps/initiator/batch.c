/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/batch.h"

#include <string.h>

#include "initiator/pattern.h"

static uint8_t *block_memory(const struct worker *worker, const struct slot *slot, uint32_t i)
{
	return worker->memory + (slot->ops[i].local_offset - worker->local_offset);
}

void batch_init(struct worker *worker, struct slot *slot)
{
	const struct load *load = worker->load;
	uint64_t number = (uint64_t)(slot - worker->slots);
	uint64_t first = number * load->plan.batch;

	slot->ops = worker->ops + first;
	for (uint32_t i = 0; i < load->plan.batch; i++)
		slot->ops[i] = (struct slu_op){
			.user_data = number,
			.remote = load->remote,
			.region = load->region,
			.local_offset = worker->local_offset + (first + i) * load->plan.size,
			.length = load->plan.size,
			.timeout_us = (uint32_t)load->config->deadline_ms * 1000,
		};
}

static uint8_t choose_opcode(const struct worker *worker)
{
	const struct config *config = worker->load->config;

	if (config->workload == WORKLOAD_READ)
		return SLU_READ;
	if (config->workload == WORKLOAD_WRITE || config->integrity_check)
		return SLU_WRITE;
	return worker->batches_begun % 2 ? SLU_READ : SLU_WRITE;
}

/*
 * What a batch is filled with. mix compares each batch with its own generation; write leaves one
 * generation per pass behind, which is what verify_read_back() expects to find.
 */
static uint64_t fill_generation(const struct worker *worker)
{
	uint64_t number = worker->load->config->workload == WORKLOAD_MIX ? worker->batches_begun
									 : worker->access.pass;

	return worker->load->generation + 1 + number;
}

static void place_and_fill(struct worker *worker, struct slot *slot)
{
	struct pattern pattern = {.seed = worker->load->config->seed};

	for (uint32_t i = 0; i < worker->load->plan.batch; i++) {
		pattern.generation = fill_generation(worker);
		slot->ops[i].opcode = SLU_WRITE;
		slot->ops[i].remote_offset = access_next(&worker->access);
		pattern_fill(&pattern, slot->ops[i].remote_offset, block_memory(worker, slot, i),
			     worker->load->plan.size);
	}
	slot->generation = pattern.generation;
}

static void place(struct worker *worker, struct slot *slot)
{
	for (uint32_t i = 0; i < worker->load->plan.batch; i++) {
		slot->ops[i].opcode = slot->opcode;
		slot->ops[i].remote_offset = access_next(&worker->access);
	}
}

/* Zero never passes for the pattern, so a READ that moved nothing is found. */
static void clear(struct worker *worker, struct slot *slot)
{
	memset(block_memory(worker, slot, 0), 0,
	       (size_t)worker->load->plan.size * worker->load->plan.batch);
}

static void turn_to_read(struct worker *worker, struct slot *slot)
{
	slot->opcode = SLU_READ;
	for (uint32_t i = 0; i < worker->load->plan.batch; i++)
		slot->ops[i].opcode = SLU_READ;
	clear(worker, slot);
}

void batch_build(struct worker *worker, struct slot *slot)
{
	bool check = worker->load->config->integrity_check;

	slot->built = true;
	slot->submitted = 0;
	slot->completed = 0;
	slot->failed = 0;
	if (slot->read_back) {
		turn_to_read(worker, slot);
		return;
	}
	slot->opcode = choose_opcode(worker);
	if (check && slot->opcode == SLU_WRITE) {
		place_and_fill(worker, slot);
	} else {
		place(worker, slot);
		if (check)
			clear(worker, slot);
		slot->generation = worker->load->generation;
	}
	worker->batches_begun++;
}

int batch_submit(struct worker *worker, struct slot *slot)
{
	uint32_t left = worker->load->plan.batch - slot->submitted;
	int n = slu_submit(worker->queue, slot->ops + slot->submitted, left);

	if (n < 0)
		return n;
	slot->submitted += (uint32_t)n;
	worker->outstanding += (uint32_t)n;
	worker->submitted += (uint32_t)n;
	return (uint32_t)n == left;
}

static void compare(struct worker *worker, struct slot *slot)
{
	struct pattern pattern = {worker->load->config->seed, slot->generation};
	uint64_t size = worker->load->plan.size;

	for (uint32_t i = 0; i < worker->load->plan.batch; i++) {
		const uint8_t *memory = block_memory(worker, slot, i);
		uint64_t offset = slot->ops[i].remote_offset;
		uint64_t equal = pattern_compare(&pattern, offset, memory, size);

		worker->verified_bytes += equal;
		if (equal < size) {
			worker_report_mismatch(worker, offset + equal,
					       pattern_byte(&pattern, offset + equal),
					       memory[equal]);
			return;
		}
	}
}

void batch_finish(struct worker *worker, struct slot *slot)
{
	const struct config *config = worker->load->config;
	bool check = config->integrity_check && !slot->failed;

	if (check && slot->opcode == SLU_READ)
		compare(worker, slot);
	slot->read_back = check && slot->opcode == SLU_WRITE && config->workload == WORKLOAD_MIX;
}
