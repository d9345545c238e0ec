/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/verify.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "initiator/pattern.h"

#define PIECE   UINT64_C(262144) /* bytes of one operation */
#define LOOK_US UINT64_C(100000)
#define PAGE    UINT64_C(4096)

static int submit_piece(struct worker *worker, uint8_t opcode, uint64_t offset, uint64_t done,
			uint64_t length)
{
	struct slu_op op = {
		.remote = worker->load->remote,
		.remote_offset = offset + done,
		.region = worker->load->region,
		.local_offset = worker->local_offset + done,
		.length = length - done < PIECE ? length - done : PIECE,
		.opcode = opcode,
	};

	return slu_submit(worker->queue, &op, 1);
}

/* @return 0 or the error of the first operation that failed */
static int reap_piece(struct worker *worker)
{
	struct slu_completion done;

	if (slu_reap(worker->queue, &done, 1) > 0) {
		worker->outstanding--;
		return done.status;
	}
	slu_wait(worker->queue, 1, LOOK_US);
	return 0;
}

/* Move @length bytes between the segment and the window of the worker, which must hold them. */
static int transfer(struct worker *worker, uint8_t opcode, uint64_t offset, uint64_t length)
{
	uint64_t done = 0;
	int rc = 0;

	while ((done < length && !rc) || worker->outstanding) {
		int n = done < length && !rc ? submit_piece(worker, opcode, offset, done, length)
					     : 0;

		if (n > 0) {
			worker->outstanding++;
			done += PIECE;
		} else if (n < 0) {
			rc = n;
		} else {
			int status = reap_piece(worker);

			rc = rc ? rc : status;
		}
	}
	return rc;
}

static bool may_go_on(const struct worker *worker)
{
	return !worker->broken && !worker->mismatch.found && !interrupt_pending();
}

/* @return is the range in the worker's window now? */
static bool read_range(struct worker *worker, uint64_t offset, uint64_t length)
{
	int rc;

	memset(worker->memory, 0, length);
	rc = transfer(worker, SLU_READ, offset, length);
	if (rc)
		worker_count_error(worker, rc, true);
	return !rc;
}

static void compare(struct worker *worker, const struct pattern *pattern, uint64_t offset,
		    const uint8_t *memory, uint64_t length)
{
	uint64_t equal = pattern_compare(pattern, offset, memory, length);

	worker->verified_bytes += equal;
	if (equal < length)
		worker_report_mismatch(worker, offset + equal,
				       pattern_byte(pattern, offset + equal), memory[equal]);
}

static void read_and_compare(struct worker *worker, const struct pattern *pattern, uint64_t offset,
			     uint64_t length)
{
	if (read_range(worker, offset, length))
		compare(worker, pattern, offset, worker->memory, length);
}

static void write_pattern(struct worker *worker, const struct pattern *pattern, uint64_t offset,
			  uint64_t length)
{
	int rc;

	pattern_fill(pattern, offset, worker->memory, length);
	rc = transfer(worker, SLU_WRITE, offset, length);
	if (rc)
		worker_count_error(worker, rc, true);
}

static void for_share(struct worker *worker, uint32_t index,
		      void (*move)(struct worker *, const struct pattern *, uint64_t, uint64_t))
{
	const struct plan *plan = &worker->load->plan;
	struct pattern pattern = {worker->load->config->seed, worker->load->generation};
	uint64_t offset, left, length;

	plan_share(plan, index, &offset, &left);
	for (; left > 0 && may_go_on(worker); left -= length) {
		length = left < plan->window_bytes ? left : plan->window_bytes;
		move(worker, &pattern, offset, length);
		offset += length;
	}
}

/* By where it lies in the region, and of generation 0, which no pattern that is compared has. */
void verify_fill_window(struct worker *worker)
{
	struct pattern pattern = {.seed = worker->load->config->seed};

	pattern_fill(&pattern, worker->local_offset, worker->memory,
		     worker->load->plan.window_bytes);
}

void verify_look(struct worker *worker)
{
	const struct plan *plan = &worker->load->plan;
	uint64_t bytes = plan->size * plan->batch * plan->depth;
	uint64_t length;

	for (uint64_t at = 0; at < bytes; at += length) {
		length = bytes - at < PAGE ? bytes - at : PAGE;
		worker->pages_looked_at++;
		worker->pages_of_zeros += pattern_is_zeros(worker->memory + at, length);
	}
}

static uint32_t next_index(const struct worker *worker)
{
	return (worker->index + 1) % worker->load->plan.threads;
}

void verify_write_all(struct worker *worker)
{
	for_share(worker, worker->index, write_pattern);
}

void verify_read_all(struct worker *worker)
{
	for_share(worker, next_index(worker), read_and_compare);
}

/* One bit for each block of a slice. */
static bool get_bit(const uint64_t *bits, uint64_t i)
{
	return bits[i / 64] >> (i % 64) & 1;
}

/* Which blocks the writer had visited in its last pass when it stopped; NULL: out of memory. */
static uint64_t *visited_blocks(const struct access *written)
{
	uint64_t *bits = calloc(written->blocks / 64 + 1, sizeof(*bits));

	for (uint64_t i = 0; bits && i < written->position; i++) {
		uint64_t block = (access_offset(written, i) - written->base) / written->size;

		bits[block / 64] |= UINT64_C(1) << (block % 64);
	}
	return bits;
}

/*
 * The order of visits is a pure function, so what each block holds last follows from how far its
 * writer came: a block visited in the last pass is of that pass, another of the one before.
 */
static void compare_written(struct worker *worker, const struct access *written,
			    const uint64_t *visited, uint64_t block, uint64_t count)
{
	struct pattern pattern = {.seed = worker->load->config->seed};

	for (uint64_t i = 0; i < count && !worker->mismatch.found; i++) {
		uint64_t pass = written->pass + get_bit(visited, block + i);

		pattern.generation = worker->load->generation + pass;
		if (pass > 0)
			compare(worker, &pattern, written->base + (block + i) * written->size,
				worker->memory + i * written->size, written->size);
	}
}

void verify_read_back(struct worker *worker)
{
	const struct worker *first = worker - worker->index;
	const struct access *written = &first[next_index(worker)].access;
	uint64_t *visited = visited_blocks(written);
	uint64_t window = worker->load->plan.window_bytes / written->size;
	uint64_t block = 0, count;

	if (!visited)
		worker_count_error(worker, -ENOMEM, true);
	for (; block < written->blocks && may_go_on(worker); block += count) {
		count = written->blocks - block < window ? written->blocks - block : window;
		if (read_range(worker, written->base + block * written->size,
			       count * written->size))
			compare_written(worker, written, visited, block, count);
	}
	free(visited);
}
