/* SPDX-License-Identifier: Apache-2.0 */
/* Operations that are atomic, where the transport has them. */
#include <errno.h>
#include <string.h>

#include "engine/engine_internal.h"

#include "../tap.h"
#include "cases.h"

#define WORD_AT 4096u
#define HERE    8195u /* not aligned */
#define MANY    3000u

static uint8_t *local(uint64_t offset)
{
	return (uint8_t *)slu_region_addr(rig.region) + offset;
}

static bool has_atomics(void)
{
	return rig.remote->transport->client->capabilities.atomics;
}

static struct slu_op atomic_of(enum slu_opcode opcode, uint64_t here, uint64_t operand)
{
	return (struct slu_op){.remote = rig.remote,
			       .region = rig.region,
			       .remote_offset = WORD_AT,
			       .local_offset = here,
			       .operand = operand,
			       .opcode = (uint8_t)opcode,
			       .user_data = here};
}

static uint64_t run(enum slu_opcode opcode, uint64_t operand, uint64_t expected)
{
	struct slu_op op = atomic_of(opcode, HERE, operand);
	struct slu_completion done;
	uint64_t before;

	memcpy(local(HERE), &expected, sizeof(expected));
	rig_run(&rig, &op, 1, &done);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.bytes, sizeof(before));
	memcpy(&before, local(HERE), sizeof(before));
	return before;
}

/* Goal: what was there comes back, and what is to be there is, beside neighbours that stay. */
void adds_and_swaps(void **state)
{
	const uint64_t big = UINT64_C(0x123456789abcdef0);
	struct slu_op read = atomic_of(SLU_READ, 0, 24);
	uint64_t words[3];

	(void)state;
	if (!has_atomics())
		skip_because("atomics of a CPU do not go over this transport");
	rig_target_clear(&rig, WORD_AT - 8, 24);
	assert_int_equal(run(SLU_FETCH_ADD, big, 99), 0);
	assert_int_equal(run(SLU_FETCH_ADD, (uint64_t)-1, 99), big);
	assert_int_equal(run(SLU_COMPARE_SWAP, 7, big), big - 1); /* it was another */
	assert_int_equal(run(SLU_COMPARE_SWAP, 7, big - 1), big - 1);
	assert_int_equal(run(SLU_FETCH_ADD, 0, 0), 7);
	read.remote_offset -= 8;
	assert_int_equal(rig_run_one(&rig, &read), 0);
	memcpy(words, local(0), sizeof(words));
	assert_int_equal(words[0], 0);
	assert_int_equal(words[1], 7);
	assert_int_equal(words[2], 0);
}

/* Goal: of many that are under way together each is carried out once, and sees another value. */
void adds_many_at_once(void **state)
{
	static struct slu_completion done[MANY];
	static struct slu_op ops[MANY];
	static bool seen[MANY];

	(void)state;
	if (!has_atomics())
		skip_because("atomics of a CPU do not go over this transport");
	rig_target_clear(&rig, WORD_AT, 8);
	memset(seen, 0, sizeof(seen));
	for (uint64_t i = 0; i < MANY; i++)
		ops[i] = atomic_of(SLU_FETCH_ADD, i * 8, 1);
	rig_run(&rig, ops, MANY, done);
	for (uint64_t i = 0; i < MANY; i++) {
		uint64_t before;

		assert_int_equal(done[i].status, 0);
		memcpy(&before, local(i * 8), sizeof(before));
		assert_true(before < MANY && !seen[before]);
		seen[before] = true;
	}
	assert_int_equal(run(SLU_FETCH_ADD, 0, 0), MANY);
}

static void refused(const struct slu_op *op, int error, const char *text)
{
	assert_int_equal(slu_submit(rig.queue, op, 1), error);
	if (!strstr(slu_last_error(), text))
		fail_msg("\"%s\" does not say \"%s\"", slu_last_error(), text);
}

/* Goal: each has an error of its own, that of a transport without them among them. */
void refuses_bad_atomics(void **state)
{
	struct slu_op op = atomic_of(SLU_FETCH_ADD, 0, 1);
	struct slu_remote *read_only = NULL;

	(void)state;
	if (!has_atomics()) {
		refused(&op, -EOPNOTSUPP, "open the remote over shm or tcp");
		return;
	}
	op.remote_offset = WORD_AT + 4;
	refused(&op, -EINVAL, "is aligned to 8");
	op.remote_offset = RIG_SEGMENT_BYTES;
	refused(&op, -ERANGE, "of a segment of");
	op.remote_offset = WORD_AT;
	op.local_offset = RIG_SEGMENT_BYTES - 7;
	refused(&op, -ERANGE, "of a region of");
	op.local_offset = 0;
	op.flags = SLU_VECTOR;
	refused(&op, -EINVAL, "has no vector");
	op.flags = 0;
	assert_int_equal(rig_remote(&rig, "ro", SLU_RIGHT_READ, &read_only), 0);
	op.remote = read_only;
	refused(&op, -EACCES, "not opened with the right");
	slu_remote_close(read_only);
}
