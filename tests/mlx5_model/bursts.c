/* SPDX-License-Identifier: Apache-2.0 */
#include "bursts.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <infiniband/mlx5dv.h>

#include "base/random.h"
#include "mlx5_model.h"
#include "pair.h"

#define WINDOW       32768u /* of both memories */
#define BURST_MAX    120u
#define BYTES_MAX    3000u
#define INLINE_MAX   512u
#define RECEIVES     64u
#define WAIT_SECONDS 300

struct expected_receive {
	uint64_t id;
	uint32_t to;
	uint32_t length;    /* of the message */
	uint32_t immediate; /* host byte order */
	bool has_immediate;
	bool is_write;
};

struct bursts {
	struct random dice;
	struct pair_options options;
	struct pair pair;
	uint8_t initiator[WINDOW]; /* as they must be */
	uint8_t target[WINDOW];

	struct verbs_work works[BURST_MAX];
	uint8_t inlined[BURST_MAX][INLINE_MAX];
	uint32_t first; /* id of works[0] */

	bool signalled[65536]; /* by id */
	uint32_t told;         /* the next id that can be told of */

	struct expected_receive receives[RECEIVES];
	uint32_t receives_posted;
	uint32_t receives_used;
	uint32_t receives_seen;

	struct bursts_summary *summary;
};

static uint32_t below(struct bursts *b, uint32_t n)
{
	return (uint32_t)random_below(&b->dice, n);
}

static bool one_in(struct bursts *b, uint32_t n)
{
	return below(b, n) == 0;
}

/* ---- a pair ---- */

static void open_one(struct bursts *b)
{
	static const uint32_t inlines[] = {0, 16, 64, 220, 380};

	pair_options_init(&b->options);
	b->options.depth = 1 + below(b, one_in(b, 3) ? 4 : 150);
	b->options.inline_bytes = inlines[below(b, 5)];
	b->options.reads_out = b->options.reads_in = (uint8_t)(1 + below(b, 16));
	mlx5_model_without_thread_domains(one_in(b, 3));
	pair_open(&b->pair, &b->options);
	mlx5_model_without_thread_domains(false);
	for (uint32_t i = 0; i < WINDOW; i++) {
		b->pair.initiator.memory[i] = b->initiator[i] = (uint8_t)random_next(&b->dice);
		b->pair.target.memory[i] = b->target[i] = (uint8_t)random_next(&b->dice);
	}
	b->told = b->pair.next_id;
	b->receives_posted = b->receives_used = b->receives_seen = 0;
}

static void close_one(struct bursts *b)
{
	pair_close(&b->pair);
}

static void compare(struct bursts *b)
{
	pair_must(memcmp(b->pair.initiator.memory, b->initiator, WINDOW) == 0);
	pair_must(memcmp(b->pair.target.memory, b->target, WINDOW) == 0);
}

/* ---- a work request and what it must do ---- */

static uint32_t random_length(struct bursts *b)
{
	return one_in(b, 8) ? 0 : below(b, one_in(b, 6) ? BYTES_MAX : 130);
}

static void add_piece(struct bursts *b, struct verbs_work *work, uint32_t length)
{
	work->piece[work->pieces++] = (struct verbs_piece){
		.addr = (uintptr_t)b->pair.initiator.memory + below(b, WINDOW - BYTES_MAX),
		.length = length,
		.lkey = b->pair.initiator.mr->lkey};
}

static uint32_t total(const struct verbs_work *work)
{
	uint32_t length = 0;

	for (uint32_t i = 0; i < work->pieces; i++)
		length += work->piece[i].length;
	return length;
}

/* Its bytes come from a place that is written over as soon as it has been posted. */
static void make_inline(struct bursts *b, struct verbs_work *work, uint8_t *bytes)
{
	struct verbs_piece *piece = &work->piece[0];

	for (uint32_t i = 0; i < piece->length; i++)
		bytes[i] = (uint8_t)random_next(&b->dice);
	piece->addr = (uintptr_t)bytes;
	piece->lkey = 0;
	work->flags |= VERBS_INLINE;
	b->summary->inlined++;
}

static bool takes_receive(const struct verbs_work *work)
{
	return work->opcode == VERBS_WRITE_IMMEDIATE || work->opcode >= VERBS_SEND;
}

static bool is_send(const struct verbs_work *work)
{
	return work->opcode >= VERBS_SEND;
}

static void make_receive(struct bursts *b, const struct verbs_work *work)
{
	struct expected_receive *receive = &b->receives[b->receives_posted % RECEIVES];

	*receive = (struct expected_receive){.id = b->receives_posted,
					     .to = below(b, WINDOW - BYTES_MAX),
					     .length = total(work),
					     .immediate = work->immediate,
					     .has_immediate = work->opcode != VERBS_SEND,
					     .is_write = !is_send(work)};
	pair_receive(&b->pair, receive->id, receive->to, total(work) + below(b, 3));
	b->receives_posted++;
}

static struct verbs_work make_work(struct bursts *b, uint32_t index)
{
	uint8_t opcode = (uint8_t)below(b, 5), pieces = (uint8_t)below(b, 3);
	struct verbs_work work;

	if (b->receives_posted - b->receives_seen == RECEIVES)
		opcode = opcode & 1 ? VERBS_READ : VERBS_WRITE;
	work = pair_work(&b->pair, opcode, 0, below(b, WINDOW - 2 * BYTES_MAX), 0);
	work.pieces = 0;
	for (uint8_t i = 0; i < pieces; i++)
		add_piece(b, &work, random_length(b) / pieces);
	work.flags = one_in(b, 2) ? VERBS_SIGNALLED : 0;
	work.immediate = (uint32_t)random_next(&b->dice); /* not looked at by most opcodes */
	if (opcode != VERBS_READ && one_in(b, 2) && work.pieces == 1 && work.piece[0].length > 0 &&
	    work.piece[0].length <= b->pair.initiator.queue->inline_bytes)
		make_inline(b, &work, b->inlined[index]);
	if (takes_receive(&work))
		make_receive(b, &work);
	b->signalled[work.id % 65536] = work.flags & VERBS_SIGNALLED;
	return work;
}

/* Where the bytes of a piece are in the reference; inline ones are where they are. */
static uint8_t *local(struct bursts *b, const struct verbs_work *work, uint32_t piece)
{
	uint64_t addr = work->piece[piece].addr;

	if (work->flags & VERBS_INLINE)
		return (uint8_t *)(uintptr_t)addr;
	return b->initiator + (addr - (uintptr_t)b->pair.initiator.memory);
}

static void apply(struct bursts *b, const struct verbs_work *work)
{
	uint8_t *remote = b->target + (work->remote - (uintptr_t)b->pair.target.memory);

	if (takes_receive(work)) {
		const struct expected_receive *receive =
			&b->receives[b->receives_used++ % RECEIVES];

		if (is_send(work))
			remote = b->target + receive->to;
	}
	for (uint32_t i = 0; i < work->pieces; i++) {
		uint32_t length = work->piece[i].length;

		if (work->opcode == VERBS_READ)
			memcpy(local(b, work, i), remote, length);
		else
			memcpy(remote, local(b, work, i), length);
		remote += length;
	}
}

/* ---- completions ---- */

static void check_receives(struct bursts *b)
{
	struct ibv_wc wc[16];
	int got = ibv_poll_cq(b->pair.target.receive_cq, 16, wc);

	for (int i = 0; i < got && wc[i].status == IBV_WC_SUCCESS; i++) {
		const struct expected_receive *receive =
			&b->receives[b->receives_seen++ % RECEIVES];

		pair_must(wc[i].wr_id == receive->id && wc[i].byte_len == receive->length);
		pair_must(wc[i].opcode ==
			  (receive->is_write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV));
		pair_must(!(wc[i].wc_flags & IBV_WC_WITH_IMM) == !receive->has_immediate);
		if (receive->has_immediate)
			pair_must(be32toh(wc[i].imm_data) == receive->immediate);
		b->summary->received++;
	}
}

/* Those before it that were not signalled are told of with it, and no others. */
static void check_success(struct bursts *b, const struct verbs_done *done)
{
	pair_must(done->status == IBV_WC_SUCCESS);
	while (b->told != done->id)
		pair_must(!b->signalled[b->told++ % 65536]);
	pair_must(b->signalled[b->told++ % 65536]);
}

static void take_successes(struct bursts *b)
{
	struct verbs_queue *queue = b->pair.initiator.queue;
	struct verbs_done done[20];
	uint32_t got = queue->ops->poll(queue, done, 1 + below(b, 20));

	for (uint32_t i = 0; i < got; i++)
		check_success(b, &done[i]);
	check_receives(b);
	if (got == 0)
		sched_yield();
}

static void post_all(struct bursts *b, const struct verbs_work *works, uint32_t n)
{
	struct verbs_queue *queue = b->pair.initiator.queue;
	time_t until = time(NULL) + WAIT_SECONDS;
	uint32_t posted = 0;

	while (posted < n) {
		posted += verbs_queue_post(queue, works + posted, 1 + below(b, n - posted));
		take_successes(b);
		pair_must(time(NULL) <= until);
	}
	memset(b->inlined, 0xdb, sizeof(b->inlined));
	b->summary->requests += n;
	b->summary->bursts++;
}

/* Until nothing is outstanding: a signalled one behind all. */
static void drain(struct bursts *b)
{
	struct verbs_work last = pair_work(&b->pair, VERBS_WRITE, 0, 0, 0);
	time_t until = time(NULL) + WAIT_SECONDS;

	b->signalled[last.id % 65536] = true;
	post_all(b, &last, 1);
	while (b->told != last.id + 1 || b->receives_seen != b->receives_used) {
		take_successes(b);
		pair_must(time(NULL) <= until);
	}
	compare(b);
}

/* ---- bursts ---- */

/*
 * A queue of few work requests with none signalled would never come free; at least one in each half
 * of it is, as a transport would have it.
 */
static void keep_moving(struct bursts *b, struct verbs_work *work, uint32_t index)
{
	if (index % ((b->options.depth + 1) / 2) != 0)
		return;
	work->flags |= VERBS_SIGNALLED;
	b->signalled[work->id % 65536] = true;
}

static uint32_t make_burst(struct bursts *b, uint32_t max)
{
	uint32_t n = 1 + below(b, one_in(b, 3) ? max : (max + 9) / 10);

	for (uint32_t i = 0; i < n; i++) {
		b->works[i] = make_work(b, i);
		keep_moving(b, &b->works[i], i);
	}
	return n;
}

static void good_burst(struct bursts *b)
{
	uint32_t n = make_burst(b, BURST_MAX);

	for (uint32_t i = 0; i < n; i++)
		apply(b, &b->works[i]);
	post_all(b, b->works, n);
	if (one_in(b, 4))
		drain(b);
}

static struct verbs_done wait_one(struct bursts *b)
{
	struct verbs_done done = pair_wait(b->pair.initiator.queue);

	check_receives(b);
	return done;
}

/* The request at @p at fails; those before it were done, those behind it are flushed. */
static void bad_burst(struct bursts *b)
{
	struct verbs_queue *queue = b->pair.initiator.queue;
	struct verbs_done done;
	uint32_t n, at;

	drain(b);
	n = make_burst(b, b->options.depth < BURST_MAX ? b->options.depth : BURST_MAX);
	at = below(b, n);
	for (uint32_t i = 0; i < at; i++)
		apply(b, &b->works[i]);
	mlx5_model_fail(queue->qp->qp_num, at, MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR, 0x42);
	pair_must(verbs_queue_post(queue, b->works, n) == n);
	while ((done = wait_one(b)).status == IBV_WC_SUCCESS)
		check_success(b, &done);
	pair_must(done.id == b->works[at].id && done.status == IBV_WC_LOC_QP_OP_ERR &&
		  done.vendor_error == 0x42);
	while (b->told != done.id)
		pair_must(!b->signalled[b->told++ % 65536]);
	for (uint32_t i = at + 1; i < n; i++) {
		done = wait_one(b);
		pair_must(done.id == b->works[i].id && done.status == IBV_WC_WR_FLUSH_ERR);
	}
	compare(b);
	b->summary->requests += n;
	b->summary->failures++;
}

void bursts_run(uint64_t requests, uint64_t seed, struct bursts_summary *summary)
{
	static struct bursts b;

	*summary = (struct bursts_summary){0};
	b.dice.state = seed;
	b.summary = summary;
	open_one(&b);
	while (summary->requests < requests) {
		mlx5_model_delay(one_in(&b, 5) ? below(&b, 40) : 0);
		if (!one_in(&b, 60)) {
			good_burst(&b);
			continue;
		}
		bad_burst(&b);
		close_one(&b);
		open_one(&b);
	}
	drain(&b);
	close_one(&b);
	mlx5_model_delay(0);
}
