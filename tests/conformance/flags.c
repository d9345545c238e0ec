/* SPDX-License-Identifier: Apache-2.0 */
/* Order, silence, and operations that are taken back. */
#include <errno.h>
#include <string.h>

#include "../tap.h"
#include "cases.h"
#include "pattern.h"
#include "tests/calls.h"

#define LONG_BYTES (UINT64_C(16) << 20)
#define ROUNDS     12u
#define SLOT       8u

static uint8_t *local(uint64_t offset)
{
	return (uint8_t *)slu_region_addr(rig.region) + offset;
}

static struct slu_op op_of(enum slu_opcode opcode, uint64_t remote, uint64_t here, uint64_t length,
			   uint8_t flags)
{
	return (struct slu_op){.remote = rig.remote,
			       .region = rig.region,
			       .remote_offset = remote,
			       .local_offset = here,
			       .length = length,
			       .opcode = (uint8_t)opcode,
			       .flags = flags,
			       .user_data = 5};
}

static uint64_t outstanding(void)
{
	struct slu_queue_info info = {.size = sizeof(info)};

	assert_int_equal(slu_queue_get_info(rig.queue, &info), 0);
	return info.outstanding;
}

/* All of it, whatever completes. @return completions */
static uint32_t finish(struct slu_completion *done, uint32_t max)
{
	uint32_t n = 0;

	while (outstanding() > 0) {
		int rc;

		assert_true(slu_wait(rig.queue, 1, 20000000) >= 0);
		rc = slu_reap(rig.queue, done + n, max - n);
		assert_true(rc >= 0);
		n += (uint32_t)rc;
	}
	return n;
}

static void submit_all(const struct slu_op *ops, uint32_t n)
{
	uint32_t accepted = 0;

	while (accepted < n) {
		struct slu_completion done;
		int rc = submit_any(rig.queue, ops + accepted, n - accepted);

		assert_true(rc >= 0);
		accepted += (uint32_t)rc;
		if (accepted < n && slu_reap(rig.queue, &done, 1) == 1)
			assert_int_equal(done.status, 0);
	}
}

/*
 * Goal: what is ordered comes after all before it. A long WRITE over all of a place, a short one
 * into it and a READ of that, each ordered, again and again: in any other order bytes are wrong.
 */
void keeps_the_order_asked_for(void **state)
{
	struct slu_op ops[3 * ROUNDS];

	(void)state;
	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint64_t from = LONG_BYTES * (1 + i % 2), to = LONG_BYTES * 3 + i * SLOT * 2;

		ops[3 * i] = op_of(SLU_WRITE, 0, from, LONG_BYTES, SLU_ORDERED);
		ops[3 * i + 1] = op_of(SLU_WRITE, LONG_BYTES - SLOT, to, SLOT, SLU_ORDERED);
		ops[3 * i + 2] = op_of(SLU_READ, LONG_BYTES - SLOT, to + SLOT, SLOT, SLU_ORDERED);
		memset(local(to), (int)(0x80 + i), SLOT);
		memset(local(to + SLOT), 0, SLOT);
	}
	pattern_fill(local(LONG_BYTES), 0, 2 * LONG_BYTES, 1);
	submit_all(ops, 3 * ROUNDS);
	while (outstanding() > 0) {
		struct slu_completion done;

		slu_wait(rig.queue, 1, 20000000);
		if (slu_reap(rig.queue, &done, 1) == 1)
			assert_int_equal(done.status, 0);
	}
	for (uint64_t i = 0; i < ROUNDS; i++)
		for (uint64_t k = 0; k < SLOT; k++)
			assert_int_equal(*local(LONG_BYTES * 3 + i * SLOT * 2 + SLOT + k),
					 0x80 + i);
}

/* Goal: a call that is ordered finds what was written before it, and one after it waits for it. */
void orders_calls_after_writes(void **state)
{
	struct slu_op ops[3] = {op_of(SLU_WRITE, 0, 0, LONG_BYTES, 0),
				op_of(TEST_CALL, LONG_BYTES + 64, LONG_BYTES, 8, SLU_ORDERED),
				op_of(SLU_WRITE, 0, LONG_BYTES + 64, 8, SLU_ORDERED)};
	struct slu_completion done[3];

	(void)state;
	ops[1].tag = 8;
	ops[1].user_data = 6;
	ops[2].user_data = 7;
	for (uint64_t i = 0; i < 8; i++) {
		pattern_fill(local(0), 0, LONG_BYTES, i);
		memset(local(LONG_BYTES), (int)i, 8);
		rig_serve_calls(&rig, RIG_ECHO, 1);
		rig_run(&rig, ops, 3, done);
		for (uint64_t k = 0; k < 3; k++) {
			assert_int_equal(done[k].status, 0);
			assert_int_equal(done[k].user_data, 5 + k);
		}
		assert_int_equal(rig_served(&rig), 1);
		assert_true(rig_target_holds(&rig, 8, LONG_BYTES - 8, i));
	}
}

/* Goal: of what is silent and ends well nothing is heard, its places are free again, and the bytes
 * are where they belong. */
void ends_in_silence(void **state)
{
	static struct slu_op ops[4000];
	struct slu_completion done[4];

	(void)state;
	rig_target_clear(&rig, 0, 4000 * UINT64_C(64) + LONG_BYTES);
	pattern_fill(local(0), 0, 4000 * UINT64_C(64), 4);
	for (uint64_t i = 0; i < 4000; i++)
		ops[i] = op_of(SLU_WRITE, i * 64, i * 64, 64, SLU_SILENT);
	submit_all(ops, 4000);
	assert_int_equal(finish(done, 4), 0);
	assert_true(rig_target_holds(&rig, 0, 4000 * UINT64_C(64), 4));
	ops[0] = op_of(SLU_WRITE, 0, 0, LONG_BYTES, SLU_SILENT);
	pattern_fill(local(0), 0, LONG_BYTES, 6);
	submit_all(ops, 1);
	assert_int_equal(finish(done, 4), 0);
	assert_true(rig_target_holds(&rig, 0, LONG_BYTES, 6));
}

/* Goal: whoever waits for more than will complete is not kept waiting, and hears what does. */
void waits_for_the_silent(void **state)
{
	struct slu_op ops[2] = {op_of(SLU_READ, 0, 0, LONG_BYTES, SLU_SILENT),
				op_of(SLU_READ, 0, LONG_BYTES, LONG_BYTES, 0)};
	struct slu_completion done[2];

	(void)state;
	for (int i = 0; i < 20; i++) {
		submit_all(ops, 1);
		assert_int_equal(slu_wait(rig.queue, 1, UINT64_MAX), 0);
		assert_int_equal(slu_reap(rig.queue, done, 2), 0);
		submit_all(ops, 2);
		assert_int_equal(slu_wait(rig.queue, 2, UINT64_MAX), 1);
		assert_int_equal(slu_reap(rig.queue, done, 2), 1);
		assert_int_equal(done[0].status, 0);
		assert_int_equal(outstanding(), 0);
	}
}

/* Goal: what is silent and fails is told of, like anything else. */
void tells_of_silent_failures(void **state)
{
	struct slu_op op = op_of(TEST_CALL, 0, 0, 8, 0);
	struct slu_completion done[2];

	(void)state;
	assert_int_equal(submit_any(rig.queue, &op, 1), 1); /* nobody answers it */
	op = op_of(SLU_WRITE, 0, 0, 8, SLU_SILENT | SLU_ORDERED);
	op.timeout_us = 100000;
	op.user_data = 9;
	assert_int_equal(submit_any(rig.queue, &op, 1), 1);
	assert_int_equal(slu_wait(rig.queue, 1, 20000000), 1);
	assert_int_equal(slu_reap(rig.queue, done, 2), 1);
	assert_int_equal(done[0].user_data, 9);
	assert_int_equal(done[0].status, -ETIMEDOUT);
	assert_int_equal(done[0].bytes, 0);
	slu_cancel(rig.queue, 5); /* unless the deadline has cost its link */
	assert_int_equal(finish(done, 2), 1);
	assert_true(done[0].status < 0);
	rig_serve_calls(&rig, RIG_LEFTOVERS, 1);
	rig_served(&rig);
}

/*
 * Goal: what is cancelled completes so, once; what cannot be is as if it had not been tried. Where
 * that costs the link, other calls on it end with that, and all goes on.
 */
void cancels_what_is_under_way(void **state)
{
	struct slu_op write = op_of(SLU_WRITE, 0, 0, 64, 0), calls[3];
	struct slu_completion done[4];
	uint32_t n, cancelled = 0;

	(void)state;
	for (uint32_t i = 0; i < 3; i++) {
		calls[i] = op_of(TEST_CALL, 64, 0, 8, 0);
		calls[i].user_data = 100 + (i > 0);
	}
	assert_int_equal(submit_any(rig.queue, calls, 3), 3);
	n = (uint32_t)slu_cancel(rig.queue, 101);
	assert_in_range(n, 1, 2);
	assert_int_equal(slu_cancel(rig.queue, 101), -ENOENT);
	slu_cancel(rig.queue, 100);
	assert_int_equal(finish(done, 4), 3);
	for (uint32_t i = 0; i < 3; i++) {
		assert_true(done[i].status == -ECANCELED || done[i].status == -ECONNRESET);
		cancelled += done[i].user_data == 101 && done[i].status == -ECANCELED;
	}
	assert_int_equal(cancelled, n);
	assert_int_equal(rig_run_one(&rig, &write), 0);
	rig_serve_calls(&rig, RIG_LEFTOVERS, 1);
	rig_served(&rig);
}

/* Goal: what waits for its order can be cancelled, and what waits behind it goes on. */
void cancels_what_is_held_back(void **state)
{
	struct slu_op ops[3] = {op_of(TEST_CALL, 64, 0, 8, 0),
				op_of(SLU_WRITE, 0, 0, LONG_BYTES, SLU_ORDERED),
				op_of(SLU_WRITE, 0, 0, LONG_BYTES, SLU_SILENT)};
	struct slu_completion done[3];

	(void)state;
	ops[1].user_data = 6;
	assert_int_equal(submit_any(rig.queue, ops, 3), 3);
	assert_int_equal(slu_cancel(rig.queue, 6), 1);
	assert_in_range(slu_cancel(rig.queue, 5), 1, 2);
	assert_in_range(finish(done, 3), 2, 3);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(done[i].status, -ECANCELED);
	rig_serve_calls(&rig, RIG_LEFTOVERS, 1);
	rig_served(&rig);
}

/* Goal: where nothing with that name is under way, that is said, and nothing happens. */
void cancels_nothing_else(void **state)
{
	struct slu_op op = op_of(SLU_WRITE, 0, 0, LONG_BYTES, 0);
	struct slu_completion done;

	(void)state;
	assert_int_equal(slu_cancel(rig.queue, 1), -ENOENT);
	assert_non_null(strstr(slu_last_error(), "user_data 1"));
	assert_int_equal(submit_any(rig.queue, &op, 1), 1);
	assert_int_equal(slu_cancel(rig.queue, 6), -ENOENT);
	assert_int_equal(finish(&done, 1), 1);
	assert_int_equal(done.status, 0);
	assert_int_equal(slu_cancel(rig.queue, 5), -ENOENT);
}
