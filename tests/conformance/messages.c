/* SPDX-License-Identifier: Apache-2.0 */
/* Calls that are long, whoever answers them, and the end of those who call. */
#include <errno.h>
#include <string.h>

#include "../tap.h"
#include "cases.h"
#include "pattern.h"
#include "tests/calls.h"
#include "transport/transport.h"

#define ANSWERS (UINT64_C(34) << 20) /* where answers go; requests lie below */
#define GUARD   64u

static uint8_t *local(uint64_t offset)
{
	return (uint8_t *)slu_region_addr(rig.region) + offset;
}

static struct slu_op call_of(uint64_t request, uint32_t length, uint64_t answer, uint32_t room)
{
	return (struct slu_op){.user_data = 1000,
			       .remote = rig.remote,
			       .region = rig.region,
			       .local_offset = request,
			       .length = length,
			       .remote_offset = ANSWERS + answer,
			       .tag = room,
			       .opcode = TEST_CALL};
}

static bool is_answer(const uint8_t *answer, const uint8_t *request, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (answer[i] != rig_answer_byte(request[i]))
			return false;
	return true;
}

static bool is_filled(const uint8_t *memory, uint8_t with, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		if (memory[i] != with)
			return false;
	return true;
}

static bool has_long_calls(void)
{
	return transport_find(rig.options.transport)->client->capabilities.call_bytes ==
	       SLU_CALL_MAX;
}

static void need_long_calls(void)
{
	if (!has_long_calls())
		skip_because("it carries no calls of over 4 KiB");
}

/* Goal: a request and an answer of up to 1 MiB come whole, and nothing beside. */
void calls_with_long_bodies(void **state)
{
	static const uint32_t sizes[] = {4096, 4097, 16384, 16385, 65536, 1000001, SLU_CALL_MAX};
	const uint32_t count = sizeof(sizes) / sizeof(sizes[0]);

	(void)state;
	need_long_calls();
	rig_serve_calls(&rig, RIG_ECHO, 2 * count);
	for (uint32_t i = 0; i < 2 * count; i++) {
		uint32_t size = i < count ? sizes[i] : sizes[i - count] % 5000;
		uint32_t room = i < count ? size : SLU_CALL_MAX; /* exact, and ample */
		struct slu_op op = call_of(GUARD + i, size, GUARD + i * 3, room);
		struct slu_completion done;

		pattern_fill(local(op.local_offset), 0, size, i);
		memset(local(op.remote_offset - GUARD), 0xcc, SLU_CALL_MAX + 2 * GUARD);
		rig_run(&rig, &op, 1, &done);
		assert_int_equal(done.status, 0);
		assert_int_equal(done.bytes, size);
		assert_int_equal(done.transport, rig.options.transport);
		assert_true(is_answer(local(op.remote_offset), local(op.local_offset), size));
		assert_true(is_filled(local(op.remote_offset - GUARD), 0xcc, GUARD));
		assert_true(is_filled(local(op.remote_offset + size), 0xcc,
				      SLU_CALL_MAX - size + GUARD));
	}
	assert_int_equal(rig_served(&rig), 2 * count);
}

#define MANY        120u
#define MANY_STRIDE (UINT64_C(256) << 10)

/* Of all lengths, more than can be under way at once, short ones among them. */
static void call_many(enum rig_service service)
{
	static struct slu_completion done[MANY];
	static struct slu_op ops[MANY];
	static uint8_t seen[MANY];

	memset(seen, 0, sizeof(seen));
	for (uint32_t i = 0; i < MANY; i++) {
		uint32_t length = !has_long_calls() || i % 3 == 0 ? i % 100 : i * 2000;

		ops[i] = call_of(i * MANY_STRIDE, length, i * MANY_STRIDE, MANY_STRIDE);
		ops[i].tag = has_long_calls() ? MANY_STRIDE : 100;
		ops[i].user_data = i;
		pattern_fill(local(ops[i].local_offset), i, length, i);
	}
	rig_serve_calls(&rig, service, MANY);
	rig_run(&rig, ops, MANY, done);
	assert_int_equal(rig_served(&rig), MANY);
	for (uint32_t i = 0; i < MANY; i++) {
		uint64_t n = done[i].user_data;

		assert_int_equal(done[i].status, 0);
		assert_in_range(n, 0, MANY - 1);
		assert_int_equal(seen[n]++, 0);
		assert_int_equal(done[i].bytes, ops[n].length);
		assert_true(is_answer(local(ops[n].remote_offset), local(ops[n].local_offset),
				      ops[n].length));
	}
}

/* Goal: they wait for their turn, and answers in another order find their callers. */
void calls_with_many_long_bodies(void **state)
{
	(void)state;
	need_long_calls();
	call_many(RIG_ECHO);
	if (!rig.options.depth || rig.options.depth >= 8)
		call_many(RIG_REVERSED);
}

/* Goal: where they can't go that is said, with the reason. */
void refuses_calls_that_are_too_long(void **state)
{
	uint32_t limit = transport_find(rig.options.transport)->client->capabilities.call_bytes;
	struct slu_op too_long = call_of(0, limit + 1, 0, 0), roomy = call_of(0, 0, 0, limit + 1);

	(void)state;
	assert_int_equal(submit_any(rig.queue, &too_long, 1),
			 has_long_calls() ? -EINVAL : -EOPNOTSUPP);
	assert_int_equal(submit_any(rig.queue, &roomy, 1),
			 has_long_calls() ? -EINVAL : -EOPNOTSUPP);
	assert_non_null(strstr(slu_last_error(), "are possible"));
}

/* Goal: a long answer for which there is no room fails, and writes nothing. */
void refuses_longer_answers(void **state)
{
	static const uint32_t rooms[] = {100, SLU_MESSAGE_MAX, 20000, 99999};

	(void)state;
	need_long_calls();
	rig_serve_calls(&rig, RIG_ECHO, 4);
	for (uint32_t i = 0; i < 4; i++) {
		struct slu_op op = call_of(0, 100000, 0, rooms[i]);
		struct slu_completion done;

		memset(local(ANSWERS), 0xcc, 200000);
		rig_run(&rig, &op, 1, &done);
		assert_int_equal(done.status, -EMSGSIZE);
		assert_int_equal(done.bytes, 0);
		assert_true(is_filled(local(ANSWERS), 0xcc, 200000));
	}
	assert_int_equal(rig_served(&rig), 4);
}

#define LATE 6u

/* Goal: after its deadline nothing of a long call touches the caller's memory, and what it took is
 * there for others. */
void drops_late_long_answers(void **state)
{
	struct slu_op ops[LATE];
	struct slu_completion done[LATE];

	(void)state;
	need_long_calls();
	if (rig.options.depth && rig.options.depth < LATE)
		skip_because("the owner waits for more calls than the queue takes");
	memset(local(ANSWERS), 0xcc, LATE << 20);
	for (uint32_t i = 0; i < LATE; i++) {
		ops[i] = call_of((uint64_t)i << 20, 700000, (uint64_t)i << 20, 700000);
		ops[i].timeout_us = 700000;
		ops[i].user_data = i;
	}
	rig_serve_calls(&rig, RIG_LATE, LATE);
	rig_run(&rig, ops, LATE, done);
	for (uint32_t i = 0; i < LATE; i++)
		assert_int_equal(done[i].status, -ETIMEDOUT);
	assert_int_equal(rig_served(&rig), LATE);
	assert_true(is_filled(local(ANSWERS), 0xcc, LATE << 20));
	call_many(RIG_ECHO);
}

/* Goal: several threads of the owner's receive, and answer for each other. */
void calls_several_threads(void **state)
{
	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		call_many(RIG_THREADS);
}

/* Goal: a service in the turns of a poller of the target's answers as well, whatever is asked. */
void calls_a_service(void **state)
{
	(void)state;
	if (rig.options.transport == SLU_TRANSPORT_FAKE && rig.options.pollers == 0)
		skip_because("its target has no poller thread");
	for (uint32_t i = 0; i < 3; i++)
		call_many(RIG_IN_TURN);
}

/* Goal: of clients that have sent something and gone the owner is told, each once. */
void tells_who_has_gone(void **state)
{
	struct slu_remote *remotes[3];

	(void)state;
	rig_departed(&rig, 0);
	for (uint32_t i = 0; i < 3; i++) {
		struct slu_op op = call_of(0, 100, 0, 100);

		assert_int_equal(rig_remote(&rig, "big", SLU_RIGHT_READ, &remotes[i]), 0);
		op.remote = remotes[i];
		rig_serve_calls(&rig, RIG_ECHO, 1);
		assert_int_equal(rig_run_one(&rig, &op), 0);
		assert_int_equal(rig_served(&rig), 1);
	}
	for (uint32_t i = 0; i < 3; i++)
		slu_remote_close(remotes[i]);
	assert_int_equal(rig_departed(&rig, 3), 3);
	assert_int_equal(rig_departed(&rig, 0), 0);
}
