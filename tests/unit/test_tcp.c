/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of the tcp transport, turn by turn; between processes the conformance suite has it. */
#include "base/work.h"
#include "tests/tcp_pair.h"
#include "transport/grants.h"
#include "transport/tcp/wire.h"

#include "tests/tap.h"

static struct slu_op op(struct tcp_pair *pair, uint8_t opcode, uint64_t remote, uint64_t local,
			uint64_t length)
{
	static uint64_t next = 1;

	return (struct slu_op){.user_data = next++,
			       .remote = pair->remote,
			       .remote_offset = remote,
			       .region = pair->local,
			       .local_offset = local,
			       .length = length,
			       .opcode = opcode};
}

/* Turns of both until the completion of one operation is there. */
static struct slu_completion finish_one(struct tcp_pair *pair)
{
	struct slu_completion done = {.status = 1};

	for (int i = 0; i < 10000; i++) {
		pair_serve(pair);
		if (pair_poll(pair, &done, 1) == 1)
			return done;
	}
	fail_msg("an operation did not finish");
	return done;
}

static int run_one(struct tcp_pair *pair, struct slu_op one)
{
	struct slu_completion done;

	pair_post(pair, &one, 1);
	done = finish_one(pair);
	assert_int_equal(done.user_data, one.user_data);
	return done.status;
}

static void fill(char *at, uint64_t length, unsigned seed)
{
	for (uint64_t i = 0; i < length; i++)
		at[i] = (char)(seed + i * 31 + (i >> 8));
}

/* Goal: bytes of every kind of size come through, both ways, and nothing beside them changes. */
static void test_sizes(void **state)
{
	static const uint64_t sizes[] = {0,    1,    7,     8,     2047,  2048,
					 2049, 4096, 16384, 16385, 65536, TCP_SLICE_BYTES};
	struct tcp_pair pair;

	(void)state;
	pair_open(&pair, false);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t size = sizes[i];

		memset(pair.segment->addr, 0, PAIR_BYTES);
		fill(pair.local->addr, size, (unsigned)i);
		assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, 100, 0, size)), 0);
		assert_memory_equal(pair.segment->addr + 100, pair.local->addr, size);
		assert_int_equal(pair.segment->addr[99], 0);
		assert_int_equal(pair.segment->addr[100 + size], 0);
		assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 100, 600000, size)), 0);
		assert_memory_equal(pair.local->addr + 600000, pair.local->addr, size);
	}
	assert_int_equal(pair.client.path->stats.failed, 0);
	pair_close(&pair);
}

/* Goal: more than the window, the staging and the pieces hold goes in parts, all of it once. */
static void test_back_pressure(void **state)
{
	const uint32_t total = 3000;
	struct tcp_pair pair;
	uint32_t finished = 0;
	struct slu_completion done[64];

	(void)state;
	pair_open(&pair, false);
	fill(pair.local->addr, PAIR_BYTES / 2, 3);
	for (uint32_t i = 0; i < total; i++) {
		uint64_t size = i % 3 == 0 ? 8 : i % 3 == 1 ? 1500 : 20000;
		struct slu_op one = op(&pair, i % 2 ? SLU_READ : SLU_WRITE, 4096, 8192, size);

		pair_post(&pair, &one, 1);
	}
	for (uint32_t i = 0; i < total; i++)
		assert_int_equal(pair_poll(&pair, done, 64), 0);
	assert_int_equal(pair.client.path->wait, PATH_STALLED);
	while (finished < total) {
		pair_serve(&pair);
		for (uint32_t n = pair_poll(&pair, done, 64); n > 0; n--, finished++)
			assert_int_equal(done[n - 1].status, 0);
	}
	assert_int_equal(pair.client.path->stats.reads + pair.client.path->stats.writes, total);
	pair_close(&pair);
}

/* Goal: requests that waited for room in the responses are begun when the client reads at last. */
static void test_reads_late(void **state)
{
	struct slu_completion done[64];
	struct slu_op ops[200];
	struct tcp_pair pair;
	uint32_t finished = 0;

	(void)state;
	pair_open(&pair, false);
	for (int i = 0; i < 200; i++)
		ops[i] = op(&pair, SLU_READ, 0, 0, 20000);
	pair_post(&pair, ops, 200);
	finished = pair_poll(&pair, done, 64);
	for (int i = 0; i < 10000; i++) /* far beyond the turns that count as silent */
		pair.service->run(pair.service);
	for (int i = 0; i < 100000 && finished < 200; i++) {
		pair.service->run(pair.service);
		finished += pair_poll(&pair, done, 64);
	}
	assert_int_equal(finished, 200);
	pair_close(&pair);
}

/* Goal: the target itself checks range, right, handle and generation. */
static void test_target_checks(void **state)
{
	struct tcp_pair pair;
	struct tcp_path *tcp;
	struct grant *read_only, *foreign;
	void *view;

	(void)state;
	pair_open(&pair, false);
	tcp = (struct tcp_path *)pair.client.path;
	assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, PAIR_BYTES - 7, 0, 8)), -ERANGE);
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, UINT64_MAX - 3, 0, 8)), -ERANGE);
	assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, PAIR_BYTES - 8, 0, 8)), 0);

	read_only = pair_grant(&pair, SLU_RIGHT_READ, PAIR_CONNECTION, &view);
	tcp->handle = ((struct tcp_view *)view)->handle;
	tcp->generation = ((struct tcp_view *)view)->generation;
	assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, 0, 0, 70000)), -EACCES);
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), 0);
	tcp->generation++;
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), -EKEYREVOKED);
	free(view);

	foreign = pair_grant(&pair, SLU_RIGHT_READ, PAIR_CONNECTION + 1, &view);
	tcp->handle = ((struct tcp_view *)view)->handle;
	tcp->generation = ((struct tcp_view *)view)->generation;
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), -EACCES);
	tcp->handle = UINT32_MAX;
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), -EACCES);
	free(view);
	tcp_server_revoke(pair.server, foreign, -ESHUTDOWN);
	tcp_server_revoke(pair.server, read_only, -ESHUTDOWN);
	pair_close(&pair);
}

/* Goal: after a right is revoked nothing more is written, and the reason reaches the client. */
static void test_revoke_in_mid_transfer(void **state)
{
	struct tcp_pair pair;
	struct slu_op one;
	struct slu_completion done;

	(void)state;
	pair_open(&pair, false);
	fill(pair.local->addr, TCP_SLICE_BYTES, 1);
	one = op(&pair, SLU_WRITE, 0, 0, TCP_SLICE_BYTES);
	pair_post(&pair, &one, 1);
	pair.service->run(pair.service); /* what the socket held: not all of it */
	assert_int_equal(pair.segment->addr[TCP_SLICE_BYTES - 1], 0);
	tcp_server_revoke(pair.server, pair.granted, -EKEYREVOKED);
	pair.granted = NULL;
	memset(pair.segment->addr, 0x55, PAIR_BYTES);
	done = finish_one(&pair);
	assert_int_equal(done.status, -EKEYREVOKED);
	for (uint64_t i = 0; i < PAIR_BYTES; i++)
		assert_int_equal(pair.segment->addr[i], 0x55);
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), -EKEYREVOKED);
	pair_close(&pair);
}

/* The first byte of the segment, when all is quiet. */
static char settled_byte(struct tcp_pair *pair)
{
	struct slu_completion done;

	for (int i = 0; i < 100; i++) {
		pair_serve(pair);
		assert_int_equal(pair_poll(pair, &done, 1), 0);
	}
	return pair->segment->addr[0];
}

/*
 * Goal: a write that was given up never reads its source again, and says that it may still land;
 * nothing is posted until the target has confirmed that it can't; then the link works again.
 */
static void test_flush_write(void **state)
{
	struct tcp_pair pair;
	struct slu_op ops[3];
	struct slu_completion done[4];
	char landed;

	(void)state;
	pair_open(&pair, false);
	fill(pair.local->addr, TCP_SLICE_BYTES, 9);
	for (int i = 0; i < 3; i++)
		ops[i] = op(&pair, SLU_WRITE, 0, 0, TCP_SLICE_BYTES);
	pair_post(&pair, ops, 3);
	requests_cancel(pair.client.poller, NULL, pair.client.queue);
	requests_tell(pair.client.poller);
	assert_int_equal(pair_poll(&pair, done, 4), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(done[i].status, -ECANCELED);
		assert_true(done[i].scope & SLU_MAY_LAND);
	}
	memset(pair.local->addr, 0xee, TCP_SLICE_BYTES); /* ours again */
	pair_mend(&pair); /* there are connections, but the fence stands */
	pair_post(&pair, ops, 1);
	landed = settled_byte(&pair);
	assert_true(landed == 0 || landed == 9);
	pair_confirm(&pair);
	assert_int_equal(finish_one(&pair).status, 0);
	assert_memory_equal(pair.segment->addr, pair.local->addr, TCP_SLICE_BYTES);
	pair_close(&pair);
}

/*
 * Goal: what the target has received of a write that was given up, and not looked at, does not land
 * once it has confirmed the fence.
 */
static void test_fence(void **state)
{
	struct slu_completion done[2];
	struct tcp_pair pair;
	struct slu_op one;

	(void)state;
	pair_open(&pair, false);
	memset(pair.local->addr, 0x11, TCP_SLICE_BYTES);
	one = op(&pair, SLU_WRITE, 0, 0, 4096); /* the socket has all of it */
	one.timeout_us = PAIR_TIMEOUT_US;
	pair_post(&pair, &one, 1);
	pair_expire(&pair);
	assert_int_equal(pair_poll(&pair, done, 2), 1);
	assert_int_equal(done[0].status, -ETIMEDOUT);
	assert_true(done[0].scope & SLU_MAY_LAND);
	pair_mend(&pair);
	pair_confirm(&pair);
	pair.local->addr[0] = 0x22;
	assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, 0, 0, 1)), 0);
	assert_int_equal(settled_byte(&pair), 0x22);
	assert_int_equal(pair.segment->addr[1], 0);
	pair_close(&pair);
}

/*
 * Goal: what shared its link with a write that was given up is repeated if it can be, and is not
 * where the owner could see it twice.
 */
static void test_neighbours(void **state)
{
	struct slu_completion done[4];
	struct tcp_pair pair;
	struct slu_op ops[4];

	(void)state;
	pair_open(&pair, false);
	ops[0] = op(&pair, SLU_WRITE, 0, 0, TCP_SLICE_BYTES);
	ops[0].timeout_us = PAIR_TIMEOUT_US;
	ops[1] = op(&pair, SLU_READ, 0, 0, 8);
	ops[2] = op(&pair, SLU_WRITE_NOTIFY, 0, 0, 8);
	ops[3] = op(&pair, OP_CALL, 0, 0, 8);
	pair_post(&pair, ops, 4);
	pair_expire(&pair);
	assert_int_equal(pair_poll(&pair, done, 4), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_not_equal(done[i].user_data, ops[1].user_data);
		assert_int_equal(done[i].status,
				 done[i].user_data == ops[0].user_data ? -ETIMEDOUT : -ECONNRESET);
		assert_true(done[i].scope & SLU_MAY_LAND);
	}
	pair_mend(&pair);
	pair_confirm(&pair);
	done[0] = finish_one(&pair);
	assert_int_equal(done[0].user_data, ops[1].user_data);
	assert_int_equal(done[0].status, 0);
	pair_close(&pair);
}

/*
 * Goal: a client that reads nothing costs the target no copy: what it has not taken of a right that
 * is revoked ends its connection, and its other sessions go on over new ones.
 */
static void test_revoke_unread(void **state)
{
	struct slu_completion done[64];
	struct tcp_pair pair;
	struct tcp_path *tcp;
	void *view, *other;

	(void)state;
	pair_open(&pair, false);
	other = pair_grant(&pair, SLU_RIGHT_READ, PAIR_CONNECTION, &view);
	for (uint32_t i = 0; i < 64; i++) {
		struct slu_op one = op(&pair, SLU_READ, 0, 0, TCP_SLICE_BYTES);

		pair_post(&pair, &one, 1);
	}
	pair_serve(&pair);
	tcp_server_revoke(pair.server, pair.granted, -EKEYREVOKED);
	pair.granted = other;
	for (uint32_t i = 0; pair_link(&pair)->state == TCP_LINK_UP; i++) {
		assert_true(i < 1000);
		pair_poll(&pair, done, 64);
	}
	requests_cancel(pair.client.poller, NULL, pair.client.queue);
	requests_tell(pair.client.poller);
	while (pair_poll(&pair, done, 64) > 0)
		;
	assert_int_equal(atomic_load(&pair.fence.pending), 0); /* nothing was written */
	pair_mend(&pair);
	tcp = (struct tcp_path *)pair.client.path;
	tcp->handle = ((struct tcp_view *)view)->handle;
	tcp->generation = ((struct tcp_view *)view)->generation;
	assert_int_equal(run_one(&pair, op(&pair, SLU_READ, 0, 0, 8)), 0);
	free(view);
	pair_close(&pair);
}

/* Goal: a read that was given up does not touch its destination any more, even in mid-body. */
static void test_flush_read(void **state)
{
	struct tcp_pair pair;
	struct slu_op ops[2];
	struct slu_completion done[4];

	(void)state;
	pair_open(&pair, false);
	memset(pair.segment->addr, 0x77, PAIR_BYTES);
	ops[0] = op(&pair, SLU_READ, 0, 0, TCP_SLICE_BYTES);
	ops[0].timeout_us = PAIR_TIMEOUT_US;
	ops[1] = op(&pair, SLU_READ, 0, TCP_SLICE_BYTES, TCP_SLICE_BYTES);
	pair_post(&pair, ops, 2);
	pair.service->run(pair.service);
	assert_int_equal(pair_poll(&pair, done, 4), 0); /* part of the first body is in place */
	pair_expire(&pair);
	assert_int_equal(pair_poll(&pair, done, 4), 1);
	assert_int_equal(done[0].status, -ETIMEDOUT);
	assert_int_equal(done[0].user_data, ops[0].user_data);
	memset(pair.local->addr, 0x11, TCP_SLICE_BYTES);
	done[0] = finish_one(&pair);
	assert_int_equal(done[0].status, 0);
	assert_int_equal(done[0].user_data, ops[1].user_data);
	for (uint64_t i = 0; i < TCP_SLICE_BYTES; i++)
		assert_int_equal(pair.local->addr[i], 0x11);
	assert_memory_equal(pair.local->addr + TCP_SLICE_BYTES, pair.segment->addr,
			    TCP_SLICE_BYTES);
	pair_close(&pair);
}

/* Goal: notifications arrive after their data; when the owner's lane is full the client retries. */
static void test_notify(void **state)
{
	struct slu_notification notes[SLU_NOTIFICATIONS_MAX + 1];
	struct slu_completion done;
	struct tcp_pair pair;
	struct slu_op one;

	(void)state;
	pair_open(&pair, false);
	for (uint32_t i = 0; i < SLU_NOTIFICATIONS_MAX; i++) {
		one = op(&pair, SLU_WRITE_NOTIFY, i, 0, 1);
		one.tag = i;
		pair.local->addr[0] = (char)i;
		assert_int_equal(run_one(&pair, one), 0);
	}
	pair.local->addr[0] = 99;
	one = op(&pair, SLU_WRITE_NOTIFY, 500, 0, 1);
	pair_post(&pair, &one, 1);
	for (uint32_t i = 0; i < 10; i++) {
		pair_serve(&pair);
		pair_expire(&pair);
		assert_int_equal(pair_poll(&pair, &done, 1), 0);
	}
	assert_int_equal(pair.segment->addr[500], 0);
	assert_int_equal(inbox_poll(pair.export.inbox, 0, notes, SLU_NOTIFICATIONS_MAX + 1),
			 SLU_NOTIFICATIONS_MAX);
	for (uint32_t i = 0; i < SLU_NOTIFICATIONS_MAX; i++) {
		assert_int_equal(notes[i].tag, i);
		assert_int_equal(notes[i].client, 5);
		assert_int_equal(pair.segment->addr[i], (char)i);
	}
	pair_expire(&pair);
	assert_int_equal(finish_one(&pair).status, 0);
	assert_int_equal(pair.segment->addr[500], 99);
	pair_close(&pair);
}

static void start_notify(struct tcp_pair *pair, struct pair_client *client)
{
	struct slu_op one = op(pair, SLU_WRITE_NOTIFY, 0, 0, 8);

	assert_int_equal(poller_start(client->poller, client->queue, &one, 1), 1);
}

/* Its turn, with the clock far enough for what was refused. @return has it got through? */
static bool notified(struct tcp_pair *pair, struct pair_client *client)
{
	struct slu_completion done;

	client->poller->clock_turns = POLLER_CLOCK_TURNS;
	if (pair_poll_client(client, &done, 1) == 0)
		return false;
	assert_int_equal(done.status, 0);
	start_notify(pair, client);
	return true;
}

/* Goal: of two clients that both wait for room for notifications, each gets some of it. */
static void test_room_is_shared(void **state)
{
	struct slu_notification note;
	struct pair_client other;
	struct tcp_pair pair;
	struct random dice = {.state = 1};
	uint32_t got = 0, first_got = 0, other_got = 0;

	(void)state;
	pair_open(&pair, false);
	pair_connect(&pair, 1, &other);
	start_notify(&pair, &pair.client);
	while (got < SLU_NOTIFICATIONS_MAX) {
		pair_serve(&pair);
		got += notified(&pair, &pair.client);
	}
	start_notify(&pair, &other);
	for (uint32_t turn = 0; first_got + other_got < 64; turn++) {
		assert_true(turn < 10000);
		if (inbox_poll(pair.export.inbox, 0, &note, 1) == 0)
			assert_true(first_got + other_got > 0);
		for (uint64_t i = random_below(&dice, 3); i > 0; i--)
			pair.service->run(pair.service);
		pair.now_ns += 150 * NS_PER_US;
		first_got += notified(&pair, &pair.client);
		other_got += notified(&pair, &other);
	}
	assert_in_range(first_got, 8, 56);
	pair_disconnect(&pair, &other);
	pair_close(&pair);
}

static struct slu_op call(struct tcp_pair *pair, uint64_t local, uint64_t length, uint64_t answer,
			  uint32_t room)
{
	struct slu_op one = op(pair, OP_CALL, answer, local, length);

	one.tag = room;
	return one;
}

static struct inbox_request receive(struct tcp_pair *pair)
{
	struct inbox_request request = {0};

	pair_serve(pair);
	assert_true(inbox_receive(pair->export.inbox, 0, &request));
	return request;
}

/* Goal: calls of all sizes; answers in any order; one too long, one that fails. */
static void test_calls(void **state)
{
	struct inbox_request requests[3];
	struct tcp_pair pair;
	struct slu_op ops[3];
	struct slu_completion done;

	(void)state;
	pair_open(&pair, false);
	fill(pair.local->addr, SLU_MESSAGE_MAX, 4);
	ops[0] = call(&pair, 0, SLU_MESSAGE_MAX, 10000, SLU_MESSAGE_MAX);
	ops[1] = call(&pair, 0, 0, 20000, 10);
	ops[2] = call(&pair, 0, 64, 30000, 64);
	pair_post(&pair, ops, 3);
	for (int i = 0; i < 3; i++) {
		requests[i] = receive(&pair);
		assert_int_equal(requests[i].client, 5);
		assert_int_equal(requests[i].length, ops[i].length);
		assert_memory_equal(requests[i].data, pair.local->addr, ops[i].length);
	}
	inbox_reply(pair.export.inbox, 0, requests[2].slot, -EPERM, NULL, 0);
	done = finish_one(&pair);
	assert_int_equal(done.user_data, ops[2].user_data);
	assert_int_equal(done.status, -EPERM);
	inbox_reply(pair.export.inbox, 0, requests[1].slot, 0, "eleven char", 11);
	done = finish_one(&pair);
	assert_int_equal(done.user_data, ops[1].user_data);
	assert_int_equal(done.status, -EMSGSIZE);
	assert_int_equal(pair.local->addr[20000], 0);
	inbox_reply(pair.export.inbox, 0, requests[0].slot, 0, pair.local->addr, SLU_MESSAGE_MAX);
	done = finish_one(&pair);
	assert_int_equal(done.user_data, ops[0].user_data);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.bytes, SLU_MESSAGE_MAX);
	assert_memory_equal(pair.local->addr + 10000, pair.local->addr, SLU_MESSAGE_MAX);
	pair_close(&pair);
}

/* A budget of so many bytes of long calls. */
static struct budget *limit_calls(struct tcp_pair *pair, uint64_t bytes, struct budgets **budgets)
{
	const uint64_t limits[SLU_LIMIT_COUNT] = {[SLU_LIMIT_CALL_BYTES] = bytes};

	pair_open(pair, false);
	assert_int_equal(budgets_create(limits, budgets), 0);
	pair->budget = budget_find(*budgets, "caller");
	assert_non_null(pair->budget);
	pair_reconnect(pair);
	return pair->budget;
}

static void unlimit(struct tcp_pair *pair, struct budgets *budgets)
{
	struct budget *budget = pair->budget;

	pair_close(pair);
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), 0);
	budget_put(budget);
	budgets_destroy(budgets);
}

/* In so many turns, in which what was refused goes again. @return how many came */
static uint32_t receive_long(struct tcp_pair *pair, struct inbox_request *requests, uint32_t n)
{
	struct slu_completion done;
	uint32_t came = 0;

	for (uint32_t turns = 0; turns < 200 && came < n; turns++) {
		pair_expire(pair);
		assert_int_equal(pair_poll(pair, &done, 1), 0);
		pair_serve(pair);
		came += inbox_receive(pair->export.inbox, 0, &requests[came]);
	}
	return came;
}

#define LONG_CALL 200000u

/* Goal: long calls have as much memory of the target as their identity may; others wait until some
 * are answered, and one that never can have so much is told. */
static void test_long_calls_are_bounded(void **state)
{
	struct inbox_request requests[3];
	struct slu_completion done;
	struct budgets *budgets;
	struct tcp_pair pair;
	struct budget *budget = limit_calls(&pair, 2 * LONG_CALL, &budgets);
	struct slu_op ops[3], too_much = call(&pair, 0, 10, 0, 2 * LONG_CALL + 1);

	(void)state;
	fill(pair.local->addr, LONG_CALL, 4);
	for (uint32_t i = 0; i < 3; i++)
		ops[i] = call(&pair, 0, LONG_CALL, (i + 1) * UINT64_C(250000), LONG_CALL);
	pair_post(&pair, ops, 3);
	assert_int_equal(receive_long(&pair, requests, 3), 2);
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), 2 * LONG_CALL);
	for (uint32_t i = 0; i < 3; i++) {
		assert_memory_equal(requests[i].data, pair.local->addr, LONG_CALL);
		inbox_reply(pair.export.inbox, 0, requests[i].slot, 0, requests[i].data, LONG_CALL);
		done = finish_one(&pair);
		assert_int_equal(done.status, 0);
		assert_int_equal(done.bytes, LONG_CALL);
		assert_int_equal(receive_long(&pair, &requests[2], 1), i == 0);
	}
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), 0);
	for (uint32_t i = 0; i < 3; i++)
		assert_memory_equal(pair.local->addr + ops[i].remote_offset, pair.local->addr,
				    LONG_CALL);
	pair_post(&pair, &too_much, 1);
	assert_int_equal(finish_one(&pair).status, -EDQUOT);
	unlimit(&pair, budgets);
}

/* Goal: who sends long calls and takes no answers in has what it may of the target's memory, and
 * with its connection that is free. */
static void test_flood_of_long_calls(void **state)
{
	struct inbox_request request;
	struct budgets *budgets;
	struct tcp_pair pair;
	struct budget *budget = limit_calls(&pair, 4 * LONG_CALL, &budgets);
	struct slu_op op = call(&pair, 0, LONG_CALL, 0, LONG_CALL);
	uint32_t answered = 0;

	(void)state;
	for (uint32_t i = 0; i < 60; i++)
		pair_post(&pair, &op, 1);
	for (uint32_t turns = 0; turns < 2000; turns++) {
		tcp_link_ops.flush(&pair_link(&pair)->link);
		pair_serve(&pair);
		for (; inbox_receive(pair.export.inbox, 0, &request); answered++)
			inbox_reply(pair.export.inbox, 0, request.slot, 0, request.data, LONG_CALL);
		assert_in_range(budget_used(budget, SLU_LIMIT_CALL_BYTES), 0, 4 * LONG_CALL);
	}
	assert_in_range(answered, 4, 59); /* some lie in sockets */
	assert_in_range(budget_used(budget, SLU_LIMIT_CALL_BYTES), LONG_CALL, 4 * LONG_CALL);
	unlimit(&pair, budgets);
}

/* Goal: a long call of a remote that dies ends when the target has what is read from the caller's
 * memory; one whose bytes may still be sent ends with the connection. */
static void test_long_calls_of_the_dead(void **state)
{
	struct inbox_request request;
	struct slu_completion done;
	struct tcp_pair pair;
	struct slu_op op;

	(void)state;
	pair_open(&pair, false);
	op = call(&pair, 0, LONG_CALL, 0, LONG_CALL);
	pair_post(&pair, &op, 1);
	remote_fail(pair.remote, -ESHUTDOWN);
	for (uint32_t i = 0; i < 5; i++)
		assert_int_equal(pair_poll(&pair, &done, 1), 0); /* not all is sent */
	done = finish_one(&pair);
	assert_int_equal(done.status, -ESHUTDOWN);
	assert_true(inbox_receive(pair.export.inbox, 0, &request));
	assert_memory_equal(request.data, pair.local->addr, LONG_CALL);
	inbox_reply(pair.export.inbox, 0, request.slot, 0, NULL, 0);
	pair_close(&pair);
}

/* Goal: the answer to a call that was given up goes nowhere, the next call gets its own. */
static void test_late_answer(void **state)
{
	struct inbox_request first, second;
	struct tcp_pair pair;
	struct slu_completion done;
	struct slu_op one;

	(void)state;
	pair_open(&pair, false);
	one = call(&pair, 0, 8, 10000, 64);
	one.timeout_us = PAIR_TIMEOUT_US;
	pair_post(&pair, &one, 1);
	first = receive(&pair);
	pair_poll(&pair, &done, 1); /* that it was handed over */
	pair_expire(&pair);
	assert_int_equal(pair_poll(&pair, &done, 1), 1);
	assert_int_equal(done.status, -ETIMEDOUT);
	for (uint32_t i = 0; i < TCP_CALLS - 1; i++) { /* the same slot comes round again */
		one = call(&pair, 0, 8, 20000, 64);
		pair_post(&pair, &one, 1);
		second = receive(&pair);
		inbox_reply(pair.export.inbox, 0, second.slot, 0, "x", 1);
		assert_int_equal(finish_one(&pair).status, 0);
	}
	one = call(&pair, 0, 8, 20000, 64);
	pair_post(&pair, &one, 1);
	second = receive(&pair);
	inbox_reply(pair.export.inbox, 0, first.slot, 0, "late", 4);
	pair_serve(&pair);
	assert_int_equal(pair_poll(&pair, &done, 1), 0);
	inbox_reply(pair.export.inbox, 0, second.slot, 0, "mine", 4);
	done = finish_one(&pair);
	assert_int_equal(done.user_data, one.user_data);
	assert_memory_equal(pair.local->addr + 20000, "mine", 4);
	assert_int_equal(pair.local->addr[10000], 0);
	pair_close(&pair);
}

/* Goal: a target that breaks the protocol ends the link; every operation fails once. */
static void test_hostile_target(void **state)
{
	static const struct wire_response lies[] = {
		{.type = 9},
		{.type = WIRE_DONE, .length = 2, .sequence = 1},
		{.type = WIRE_DONE, .length = 1, .sequence = 5},
		{.type = WIRE_DATA, .length = 9, .sequence = 0},
		{.type = WIRE_DATA, .length = 8, .sequence = 1},
		{.type = WIRE_DONE, .length = 1, .sequence = 0}, /* a read without its data */
		{.type = WIRE_ANSWER, .length = SLU_CALL_MAX + 1},
		{.type = WIRE_ANSWER, .status = 1},
		{.type = WIRE_DONE, .reserved = 1, .status = -EACCES, .length = 1},
	};

	(void)state;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct slu_completion done[2];
		struct tcp_pair pair;
		struct slu_op one;

		pair_open(&pair, true);
		one = op(&pair, SLU_READ, 0, 0, 8);
		pair_post(&pair, &one, 1);
		assert_int_equal(write(pair.raw, &lies[i], sizeof(lies[i])), sizeof(lies[i]));
		assert_int_equal(pair_poll(&pair, done, 2), 1);
		assert_int_equal(done[0].status, -ECONNRESET);
		pair_post(&pair, &one, 1);
		done[0] = finish_one(&pair);
		assert_int_equal(done[0].status, -ECONNRESET);
		assert_int_equal(atomic_load(&pair.remote->state), -ECONNRESET);
		pair_close(&pair);
	}
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
}

/* Goal: a client that breaks the protocol loses that connection and nobody else notices. */
static void test_hostile_client(void **state)
{
	static const struct wire_request lies[] = {
		{.type = 0},
		{.type = 5},
		{.type = WIRE_READ, .reserved = {0, 1, 0}, .length = 8},
		{.type = WIRE_WRITE, .length = UINT32_MAX},
		{.type = WIRE_CALL, .length = SLU_CALL_MAX + 1},
		{.type = WIRE_CALL, .offset = SLU_CALL_MAX + 1},
		{.type = WIRE_READ, .length = 8, .sequence = 1},
	};
	struct tcp_pair pair;

	(void)state;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	pair_open(&pair, false);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		char answer[64];
		int ends[2];

		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
		tcp_server_attach(pair.server, &(struct stream){.fd = ends[1]}, 99, 1, NULL);
		assert_int_equal(write(ends[0], &lies[i], sizeof(lies[i])), sizeof(lies[i]));
		pair_serve(&pair);
		assert_int_equal(read(ends[0], answer, sizeof(answer)), 0);
		close(ends[0]);
		assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, 0, 0, 8)), 0);
	}
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
	pair_close(&pair);
}

/* Goal: a read whose body has come in part when the connection dies is repeated, and ends once. */
static void test_death_in_mid_body(void **state)
{
	struct wire_response head = {.type = WIRE_DATA, .length = 1000};
	struct slu_completion done[2];
	struct tcp_pair pair;
	struct slu_op one;

	(void)state;
	pair_open(&pair, true);
	one = op(&pair, SLU_READ, 0, 0, 1000);
	pair_post(&pair, &one, 1);
	assert_int_equal(write(pair.raw, &head, sizeof(head)), sizeof(head));
	assert_int_equal(write(pair.raw, &one, sizeof(one)), sizeof(one));
	assert_int_equal(pair_poll(&pair, done, 2), 0);
	close(pair.raw);
	pair.raw = -1;
	assert_int_equal(pair_poll(&pair, done, 2), 0);
	pair.keep_raw = false;
	pair_mend(&pair);
	done[0] = finish_one(&pair); /* repeated over another one */
	assert_int_equal(done[0].user_data, one.user_data);
	assert_int_equal(done[0].status, 0);
	assert_int_equal(pair_poll(&pair, done, 2), 0);
	pair_close(&pair);
}

#define CROWD       300u
#define CROWD_BYTES 100000u

/* Goal: one turn serves so many connections and bytes and no more, whoever sends how much; in some
 * turns each connection has been served. */
static void test_crowd(void **state)
{
	static int ends[CROWD][2];
	struct wire_request head = {.type = WIRE_WRITE, .length = CROWD_BYTES};
	static char body[CROWD_BYTES];
	struct tcp_pair pair;
	uint32_t turns = 0;

	(void)state;
	pair_open(&pair, false);
	for (uint32_t i = 0; i < CROWD; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends[i]), 0);
		tcp_server_attach(pair.server, &(struct stream){.fd = ends[i][1]}, PAIR_CONNECTION,
				  1, NULL);
		assert_int_equal(write(ends[i][0], &head, sizeof(head)), sizeof(head));
		assert_int_equal(write(ends[i][0], body, sizeof(body)), sizeof(body));
	}
	work_forget();
	for (uint32_t answered = 0; answered < CROWD; turns++) {
		assert_true(turns < 10 * CROWD);
		pair.service->run(pair.service);
		for (uint32_t i = 0; i < CROWD; i++) {
			struct wire_response response;

			answered +=
				read(ends[i][0], &response, sizeof(response)) == sizeof(response);
		}
	}
	assert_true(turns > 5);
	assert_in_range(work_greatest(WORK_TURN, WORK_BYTES), 1, WORK_TURN_BYTES_MAX);
	assert_in_range(work_greatest(WORK_TURN, WORK_ITEMS), 1, WORK_TURN_ITEMS_MAX);
	for (uint32_t i = 0; i < CROWD; i++)
		close(ends[i][0]);
	pair_close(&pair);
}

#define IDLE 400u

static uint32_t greatest_turn(void)
{
	return (uint32_t)work_greatest(WORK_TURN, WORK_ITEMS);
}

/* Goal: beside very many clients that are idle, a turn looks only at the one that is busy; to end a
 * session, a link or a connection looks at those of that client; and a sleep begins with no more
 * than that. Those that are idle are served as soon as they ask for something. */
static void test_idle_connections(void **state)
{
	struct wire_request head = {.type = WIRE_WRITE};
	static int ends[IDLE][2];
	struct tcp_pair pair;

	(void)state;
	pair_open(&pair, false);
	for (uint32_t i = 0; i < IDLE; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends[i]), 0);
		tcp_server_attach(pair.server, &(struct stream){.fd = ends[i][1]},
				  PAIR_CONNECTION + 1 + i, 1, NULL);
	}
	for (uint32_t i = 0; i < 5000; i++) /* until they are silent */
		pair.service->run(pair.service);
	work_forget();
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(run_one(&pair, op(&pair, SLU_WRITE, 0, 0, 8)), 0);
	assert_in_range(greatest_turn(), 1, 2);
	assert_false(pair.service->pending(pair.service));
	assert_in_range(greatest_turn(), 1, 2);
	tcp_server_fence(pair.server, PAIR_CONNECTION + 1, 1);
	tcp_server_gone(pair.server, PAIR_CONNECTION + 2);
	assert_in_range(greatest_turn(), 1, 2);
	for (uint32_t i = 0; i < IDLE; i++) {
		struct wire_response response;

		if (i > 1)
			assert_int_equal(write(ends[i][0], &head, sizeof(head)), sizeof(head));
		for (uint32_t k = 0; k < 4; k++) /* some turns later it is looked for */
			pair_serve(&pair);
		assert_int_equal(read(ends[i][0], &response, sizeof(response)),
				 i > 1 ? sizeof(response) : 0);
		close(ends[i][0]);
	}
	pair_close(&pair);
}

/* Goal: a client that asks and does not read costs no turn anything, and is served again when it
 * reads. */
static void test_unread_responses(void **state)
{
	struct wire_request head = {.type = WIRE_READ, .length = 1u << 16};
	static char sink[1u << 16];
	struct tcp_pair pair;
	struct grant *granted;
	void *view;
	uint64_t got = 0;
	int ends[2];

	(void)state;
	pair_open(&pair, false);
	granted = pair_grant(&pair, SLU_RIGHT_READ, PAIR_CONNECTION + 1, &view);
	head.handle = ((struct grant *)granted)->handle;
	head.generation = 1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
	tcp_server_attach(pair.server, &(struct stream){.fd = ends[1]}, PAIR_CONNECTION + 1, 1,
			  NULL);
	for (; head.sequence < 64; head.sequence++)
		assert_int_equal(write(ends[0], &head, sizeof(head)), sizeof(head));
	for (uint32_t i = 0; i < 5000; i++)
		pair.service->run(pair.service);
	work_forget();
	for (uint32_t i = 0; i < 100; i++)
		pair.service->run(pair.service);
	assert_int_equal(greatest_turn(), 0);
	while (got < 64 * ((1u << 16) + sizeof(struct wire_response))) {
		ssize_t n = read(ends[0], sink, sizeof(sink));

		assert_true(n > 0 || errno == EAGAIN);
		got += n > 0 ? (uint64_t)n : 0;
		pair.service->run(pair.service);
	}
	tcp_transport.client->release(view);
	tcp_transport.target->revoke(pair.server, granted, -ESHUTDOWN);
	close(ends[0]);
	pair_close(&pair);
}

/* Goal: when the control connection ends, its data connections do, and nothing is mended. */
static void test_gone(void **state)
{
	struct slu_completion done;
	struct tcp_pair pair;
	struct slu_op one;

	(void)state;
	pair_open(&pair, false);
	tcp_server_gone(pair.server, PAIR_CONNECTION + 1);
	one = op(&pair, SLU_READ, 0, 0, 8);
	assert_int_equal(run_one(&pair, one), 0);
	tcp_server_gone(pair.server, PAIR_CONNECTION);
	pair_post(&pair, &one, 1);
	while (pair_link(&pair)->state == TCP_LINK_UP)
		assert_int_equal(pair_poll(&pair, &done, 1), 0);
	atomic_store(&pair.peer.lost, true);
	pair_mend(&pair);
	done = finish_one(&pair);
	assert_int_equal(done.status, -ECONNRESET);
	assert_int_equal(done.scope, SLU_SCOPE_SESSION);
	pair_close(&pair);
}

/* Goal: links that are lost before they carry anything are not made for ever. */
static void test_useless_links(void **state)
{
	struct slu_completion done;
	struct tcp_pair pair;
	struct slu_op one;

	(void)state;
	slu_log_set(SLU_LOG_ERROR, pair_silence, NULL);
	pair_open(&pair, false);
	one = op(&pair, SLU_READ, 0, 0, 8);
	pair_post(&pair, &one, 1);
	for (uint32_t i = 0; i < TCP_LOSSES_MAX; i++) {
		tcp_server_gone(pair.server, PAIR_CONNECTION);
		while (pair_link(&pair)->state == TCP_LINK_UP)
			pair_poll(&pair, &done, 1);
		pair_mend(&pair);
		poller_run_once(pair.client.poller); /* it is posted again */
	}
	assert_int_equal(finish_one(&pair).status, -ECONNRESET);
	assert_int_equal(atomic_load(&pair.remote->state), -ECONNRESET);
	pair_close(&pair);
	slu_log_set(SLU_LOG_WARNING, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_back_pressure),
		cmocka_unit_test(test_reads_late),
		cmocka_unit_test(test_target_checks),
		cmocka_unit_test(test_revoke_in_mid_transfer),
		cmocka_unit_test(test_flush_write),
		cmocka_unit_test(test_fence),
		cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_revoke_unread),
		cmocka_unit_test(test_flush_read),
		cmocka_unit_test(test_notify),
		cmocka_unit_test(test_room_is_shared),
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_long_calls_are_bounded),
		cmocka_unit_test(test_flood_of_long_calls),
		cmocka_unit_test(test_long_calls_of_the_dead),
		cmocka_unit_test(test_late_answer),
		cmocka_unit_test(test_hostile_target),
		cmocka_unit_test(test_hostile_client),
		cmocka_unit_test(test_death_in_mid_body),
		cmocka_unit_test(test_crowd),
		cmocka_unit_test(test_idle_connections),
		cmocka_unit_test(test_unread_responses),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_useless_links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
