/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <string.h>

#define VERIFY_DATA 2 /* unlike what the ends of a pair hold */

static void fill_ops(struct load *load)
{
	for (uint32_t i = 0; i < load->options.batch; i++) {
		uint64_t offset = cursor_next(load->cursor);

		load->ops[i].remote_offset = offset;
		load->ops[i].local_offset = offset;
	}
}

void load_open(struct load *load, const struct rig *rig, const struct rig_pair *pair,
	       struct cursor *cursor, const struct load_options *options)
{
	*load = (struct load){.options = *options, .cursor = cursor};
	load->queue = rig_queue(rig, options->poller, options->batch * options->depth);
	load->fixed = options->batch % cursor->count == 0;
	for (uint32_t i = 0; i < options->batch; i++)
		load->ops[i] = (struct slu_op){.opcode = (uint8_t)options->opcode,
					       .remote = pair->remote,
					       .region = pair->region,
					       .length = options->length};
	fill_ops(load);
}

void load_close(struct load *load)
{
	slu_queue_close(load->queue);
}

static void reap(struct load *load)
{
	struct slu_completion done[LOAD_BATCH_MAX];
	int n = slu_reap(load->queue, done, LOAD_BATCH_MAX);

	for (int i = 0; i < n; i++)
		if (done[i].status != 0)
			die("an operation failed: %s", slu_strerror(done[i].status));
	load->outstanding -= (uint32_t)n;
	load->reaped += (uint32_t)n;
}

static int submit_call(struct load *load, const struct slu_op *op)
{
	struct slu_call call = {.remote = op->remote,
				.region = op->region,
				.request_offset = op->local_offset,
				.request_length = (uint32_t)op->length};

	return slu_submit_calls(load->queue, &call, 1);
}

static int submit_some(struct load *load, const struct slu_op *ops, uint32_t n)
{
	return load->options.calls ? submit_call(load, ops) : slu_submit(load->queue, ops, n);
}

static void submit(struct load *load)
{
	uint32_t accepted = 0;

	while (accepted < load->options.batch) {
		int n = submit_some(load, load->ops + accepted, load->options.batch - accepted);

		if (n < 0)
			die("slu_submit: %s", slu_strerror(n));
		accepted += (uint32_t)n;
		load->outstanding += (uint32_t)n;
		if (accepted < load->options.batch)
			reap(load);
	}
}

static void reap_until(struct load *load, uint32_t outstanding)
{
	while (load->outstanding > outstanding) {
		if (load->options.sleep)
			slu_wait(load->queue, load->outstanding - outstanding, UINT64_MAX);
		reap(load);
	}
}

uint64_t load_step(void *arg)
{
	struct load *load = arg;
	uint64_t start = load->options.batch_ns ? ticks() : 0;
	uint32_t full = (load->options.depth - 1) * load->options.batch;
	uint64_t reaped = load->reaped;

	if (!load->fixed)
		fill_ops(load);
	submit(load);
	if (load->outstanding > full)
		reap_until(load, load->options.sleep ? full / 2 : full);
	if (load->options.batch_ns)
		histogram_record(load->options.batch_ns,
				 (uint64_t)((double)(ticks() - start) * tick_ns()), 1);
	return (load->reaped - reaped) * load->options.length;
}

void load_finish(void *arg)
{
	reap_until(arg, 0);
}

static void verify_ends(const struct load *load, char *to, char *from)
{
	for (uint32_t i = 0; i < load->options.batch; i++) {
		uint64_t offset = load->ops[i].local_offset;

		if (memcmp(to + offset, from + offset, load->options.length) != 0)
			die("wrong bytes at offset %llu", (unsigned long long)offset);
	}
}

void load_verify(struct load *load, const struct rig_pair *pair)
{
	bool reads = load->options.opcode == SLU_READ;
	char *to = reads ? pair->local : pair->mapped;
	char *from = reads ? pair->mapped : pair->local;
	uint64_t next = load->cursor->next;

	if (!load->fixed)
		fill_ops(load);
	load->cursor->next = next;
	for (uint32_t i = 0; i < load->options.batch; i++) {
		uint64_t offset = load->ops[i].local_offset;

		memory_fill(to + offset, load->options.length, VERIFY_DATA);
	}
	submit(load);
	load_finish(load);
	verify_ends(load, to, from);
}
