/* SPDX-License-Identifier: Apache-2.0 */
/* The send queue of an mlx5 device driven directly, on the model of one. */
#include "tests/tap.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <infiniband/mlx5dv.h>

#include "mlx5_model.h"
#include "pair.h"

#define HALF (PAIR_MEMORY / 2)

static struct pair pair;
static struct pair_options options;

static void fill(uint8_t *bytes, uint32_t length, uint32_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static struct verbs_queue *queue(void)
{
	return pair.initiator.queue;
}

static uint32_t post(const struct verbs_work *works, uint32_t n)
{
	return verbs_queue_post(queue(), works, n);
}

static uint32_t blocks_of_ring(void)
{
	struct mlx5dv_qp direct = {0};
	struct mlx5dv_obj object = {.qp = {.in = queue()->qp, .out = &direct}};

	pair_must(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP) == 0);
	return direct.sq.wqe_cnt;
}

/* ---- creation ---- */

static void test_created(void **state)
{
	/* Goal: an mlx5 device is driven directly, with all that was asked for. */
	(void)state;
	assert_true(queue()->direct);
	assert_int_equal(queue()->depth, options.depth);
	assert_true(queue()->inline_bytes >= options.inline_bytes);
	assert_non_null(queue()->qp);
	assert_non_null(queue()->cq);
}

static void test_not_ours(void **state)
{
	/* Goal: windows, and other devices, are left to libibverbs. */
	struct verbs_queue_options wanted = {.depth = 4, .binds = true};
	struct ibv_device other = {.name = "rxe0"};
	struct ibv_context context = {.device = &other};
	struct verbs_device device = {.context = &context};
	struct verbs_queue *made = NULL;

	(void)state;
	assert_int_equal(verbs_mlx5_create(&pair.device, &wanted, &made), 0);
	wanted.binds = false;
	assert_int_equal(verbs_mlx5_create(&device, &wanted, &made), 0);
	assert_null(made);
}

static void test_inline_as_much_as_there_is(void **state)
{
	/* Goal: more inline bytes than the device can take are cut down, not refused. */
	struct verbs_queue_options wanted = {.depth = 4, .inline_bytes = 4000};
	struct verbs_queue *made;

	(void)state;
	assert_int_equal(verbs_mlx5_create(&pair.device, &wanted, &made), 1);
	assert_in_range(made->inline_bytes, 100, 512);
	verbs_queue_destroy(made);
}

static void test_too_large(void **state)
{
	/* Goal: what the device does not have is refused with its limits. */
	struct verbs_queue_options wanted = {.depth = 1000000};
	struct verbs_queue *made = NULL;
	int rc;

	(void)state;
	rc = verbs_mlx5_create(&pair.device, &wanted, &made);
	assert_int_equal(rc, -EINVAL);
	assert_non_null(strstr(slu_last_error(), "completion queue of 1000000"));
	wanted.depth = 16000; /* the ring would be too long */
	rc = verbs_mlx5_create(&pair.device, &wanted, &made);
	assert_int_equal(rc, -EINVAL);
	assert_non_null(strstr(slu_last_error(), "queue pair of 16000"));
	assert_null(made);
}

/* ---- opcodes ---- */

static void test_write(void **state)
{
	/* Goal: a WRITE moves its bytes and nothing else. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 100, 5000, 3000);
	struct verbs_done done;

	(void)state;
	fill(pair.initiator.memory + 100, 3000, 1);
	done = pair_do(&pair, &work);
	assert_int_equal(done.status, IBV_WC_SUCCESS);
	assert_int_equal(done.id, work.id);
	assert_memory_equal(pair.target.memory + 5000, pair.initiator.memory + 100, 3000);
	assert_int_equal(pair.target.memory[4999], 0);
	assert_int_equal(pair.target.memory[8000], 0);
}

static void test_read(void **state)
{
	/* Goal: a READ fetches its bytes and nothing else. */
	struct verbs_work work = pair_work(&pair, VERBS_READ, 100, 5000, 3000);
	struct verbs_done done;

	(void)state;
	fill(pair.target.memory + 5000, 3000, 2);
	done = pair_do(&pair, &work);
	assert_int_equal(done.status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory + 5000, pair.initiator.memory + 100, 3000);
	assert_int_equal(pair.initiator.memory[99], 0);
	assert_int_equal(pair.initiator.memory[3100], 0);
}

static void test_write_immediate(void **state)
{
	/* Goal: the immediate comes with the receive, and the data was there before. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE_IMMEDIATE, 0, 64, 999);
	struct ibv_wc wc;

	(void)state;
	fill(pair.initiator.memory, 999, 3);
	work.immediate = 0x01020304;
	pair_receive(&pair, 77, HALF, 0);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	wc = pair_wait_receive(pair.target.receive_cq);
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
	assert_int_equal(wc.wr_id, 77);
	assert_int_equal(be32toh(wc.imm_data), 0x01020304);
	assert_int_equal(wc.byte_len, 999);
	assert_int_equal(wc.qp_num, pair.target.queue->qp->qp_num);
	assert_memory_equal(pair.target.memory + 64, pair.initiator.memory, 999);
}

static void test_send(void **state)
{
	/* Goal: a SEND fills a receive. */
	struct verbs_work work = pair_work(&pair, VERBS_SEND, 10, 0, 500);
	struct ibv_wc wc;

	(void)state;
	fill(pair.initiator.memory + 10, 500, 4);
	pair_receive(&pair, 5, HALF, 600);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	wc = pair_wait_receive(pair.target.receive_cq);
	assert_int_equal(wc.status, IBV_WC_SUCCESS);
	assert_int_equal(wc.opcode, IBV_WC_RECV);
	assert_int_equal(wc.byte_len, 500);
	assert_int_equal(wc.wc_flags & IBV_WC_WITH_IMM, 0);
	assert_memory_equal(pair.target.memory + HALF, pair.initiator.memory + 10, 500);
}

static void test_send_immediate(void **state)
{
	/* Goal: a SEND's immediate, and an inline SEND: it has no remote address segment. */
	struct verbs_work work = pair_work(&pair, VERBS_SEND_IMMEDIATE, 10, 0, 50);
	struct ibv_wc wc;

	(void)state;
	fill(pair.initiator.memory + 10, 50, 5);
	work.immediate = 0xfffffffe;
	work.flags |= VERBS_INLINE;
	pair_receive(&pair, 6, HALF, 50);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	wc = pair_wait_receive(pair.target.receive_cq);
	assert_int_equal(wc.wc_flags & IBV_WC_WITH_IMM, IBV_WC_WITH_IMM);
	assert_int_equal(be32toh(wc.imm_data), 0xfffffffe);
	assert_memory_equal(pair.target.memory + HALF, pair.initiator.memory + 10, 50);
}

static void test_empty(void **state)
{
	/* Goal: each opcode with no bytes: no piece, or an empty one. */
	(void)state;
	for (uint8_t opcode = VERBS_WRITE; opcode <= VERBS_SEND_IMMEDIATE; opcode++)
		for (uint8_t variant = 0; variant < 2; variant++) {
			struct verbs_work work = pair_work(&pair, opcode, 0, 0, 0);

			if (variant == 1)
				work.pieces = 0;
			pair_receive(&pair, 0, 0, 0);
			assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
		}
	for (uint32_t i = 0; i < pair.initiator.mr->length; i++)
		assert_int_equal(pair.target.memory[i], 0);
}

static void test_two_pieces(void **state)
{
	/* Goal: pieces are gathered and scattered in order; an empty one is left out. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 300);

	(void)state;
	fill(pair.initiator.memory, 2000, 6);
	work.pieces = 2;
	work.piece[1] = work.piece[0];
	work.piece[1].addr += 1000;
	work.piece[1].length = 700;
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory, pair.initiator.memory, 300);
	assert_memory_equal(pair.target.memory + 300, pair.initiator.memory + 1000, 700);

	memset(pair.initiator.memory, 0, 2000);
	work.opcode = VERBS_READ;
	work.id = pair.next_id++;
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory, pair.initiator.memory, 300);
	assert_memory_equal(pair.target.memory + 300, pair.initiator.memory + 1000, 700);

	work.opcode = VERBS_WRITE;
	work.remote += 5000;
	work.piece[0].length = 0;
	work.id = pair.next_id++;
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory + 5000, pair.initiator.memory + 1000, 700);
}

/* ---- inline ---- */

/* Into alternating places, so that bytes of the last one cannot be taken for those of this one. */
static void write_inline(uint32_t length)
{
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, pair.next_id % 2 * 4096, length);
	uint8_t *to = (uint8_t *)(uintptr_t)work.remote;

	work.flags |= VERBS_INLINE;
	work.piece[0].lkey = 0;
	fill(pair.initiator.memory, length, work.id);
	to[length] = 0x5a;
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_memory_equal(to, pair.initiator.memory, length);
	assert_int_equal(to[length], 0x5a);
}

static void test_inline_each_size(void **state)
{
	/* Goal: each size from 1 to the largest, beginning at each block of the ring. */
	uint32_t blocks, positions = 0;

	(void)state;
	blocks = blocks_of_ring();
	for (uint32_t length = 1; length <= queue()->inline_bytes; length++) {
		struct verbs_work one = pair_work(&pair, VERBS_WRITE, 0, 0, 1);
		uint32_t size = (32 + 4 + length + 63) / 64;

		/* So that it begins one block before the end, two before it, and so on. */
		for (uint32_t before = 1; before <= size; before++) {
			while (positions % blocks != blocks - before) {
				one.id = pair.next_id++;
				assert_int_equal(pair_do(&pair, &one).status, IBV_WC_SUCCESS);
				positions++;
			}
			write_inline(length);
			positions += size;
		}
	}
}

static void test_inline_is_taken_along(void **state)
{
	/* Goal: after the post the application may write over inline bytes. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	uint8_t expected[100];

	(void)state;
	work.flags |= VERBS_INLINE;
	fill(pair.initiator.memory, 100, 8);
	memcpy(expected, pair.initiator.memory, 100);
	mlx5_model_pause(true);
	assert_int_equal(post(&work, 1), 1);
	memset(pair.initiator.memory, 0xee, 100);
	mlx5_model_pause(false);
	assert_int_equal(pair_wait(queue()).status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory, expected, 100);
}

/* ---- rings ---- */

static void test_wrap(void **state)
{
	/* Goal: the 16 bits of the producer and the rings wrap many times, in bursts. */
	static struct verbs_work works[1000];
	uint64_t total = 0;

	(void)state;
	while (total < 3 * 65536 + 1000) {
		for (uint32_t i = 0; i < 1000; i++) {
			works[i] = pair_work(&pair, VERBS_WRITE, i * 8, i * 8, 8);
			if (i % 3 == 0)
				works[i].flags |= VERBS_INLINE;
		}
		fill(pair.initiator.memory, 8000, (uint32_t)total);
		pair_post_all(&pair, works, 1000, 1 + total / 1000 % 40);
		assert_memory_equal(pair.target.memory, pair.initiator.memory, 8000);
		total += 1000;
	}
}

static void test_full(void **state)
{
	/* Goal: full is a smaller count, and room comes back with completions only. */
	struct verbs_work works[200];
	struct verbs_done done;

	(void)state;
	for (uint32_t i = 0; i < 200; i++) {
		works[i] = pair_work(&pair, VERBS_WRITE, i, i, 1);
		works[i].flags = i % 10 == 9 ? VERBS_SIGNALLED : 0;
	}
	assert_int_equal(post(works, 200), options.depth);
	assert_int_equal(post(works + options.depth, 1), 0);
	done = pair_wait(queue());
	assert_int_equal(done.status, IBV_WC_SUCCESS);
	assert_int_equal(done.id, works[9].id);
	assert_int_equal(post(works + options.depth, 100), 10);
}

static void test_selective(void **state)
{
	/* Goal: one completion for many, of the one that was signalled, counted. */
	struct verbs_work works[48];
	struct verbs_done done[48];
	uint64_t before = queue()->signalled;

	(void)state;
	for (uint32_t i = 0; i < 48; i++) {
		works[i] = pair_work(&pair, VERBS_WRITE, i, i, 1);
		works[i].flags = i == 47 ? VERBS_SIGNALLED : 0;
	}
	assert_int_equal(post(works, 48), 48);
	assert_int_equal(pair_wait(queue()).id, works[47].id);
	assert_int_equal(queue()->ops->poll(queue(), done, 48), 0);
	assert_int_equal(queue()->signalled - before, 1);
}

static void test_burst_of_completions(void **state)
{
	/* Goal: completions come in order, as many at once as there is room for. */
	struct verbs_work works[60];
	struct verbs_done done[7];
	uint32_t got = 0;

	(void)state;
	for (uint32_t i = 0; i < 60; i++)
		works[i] = pair_work(&pair, VERBS_WRITE, i, i, 1);
	assert_int_equal(post(works, 60), 60);
	while (got < 60) {
		uint32_t n = queue()->ops->poll(queue(), done, 7);

		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(done[i].id, works[got++].id);
	}
}

/* ---- doorbells ---- */

static void test_one_bell_per_burst(void **state)
{
	/* Goal: a burst is one doorbell, and nothing is none. */
	struct verbs_work works[40];
	uint64_t before = queue()->doorbells;

	(void)state;
	for (uint32_t i = 0; i < 40; i++)
		works[i] = pair_work(&pair, VERBS_WRITE, i, i, 1);
	assert_int_equal(post(works, 0), 0);
	assert_int_equal(queue()->doorbells, before);
	assert_int_equal(post(works, 40), 40);
	assert_int_equal(queue()->doorbells, before + 1);
}

/* Each block in the register must be one of the ring, from the one that begins the WQE on. */
static void compare_blocks(const uint64_t *words, uint32_t count)
{
	struct mlx5dv_qp direct = {0};
	struct mlx5dv_obj object = {.qp = {.in = queue()->qp, .out = &direct}};
	uint32_t index = be32toh(*(const __be32 *)words) >> 8 & 0xffff;

	pair_must(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP) == 0);
	for (uint32_t i = 0; i < (count + 7) / 8; i++)
		assert_memory_equal(words + 8 * i,
				    (uint8_t *)direct.sq.buf +
					    (index + i) % direct.sq.wqe_cnt * (size_t)64,
				    count == 1 ? 8 : 64);
}

/* @return the half that was written; @p words of it, as far as the last that is not 0 */
static uint32_t look_at_bell(const struct verbs_work *works, uint32_t n, uint32_t *words)
{
	uint32_t bytes, half;
	uint64_t *bell;

	mlx5_model_pause(true);
	bell = (uint64_t *)mlx5_model_register(queue()->qp->qp_num, &bytes);
	memset(bell, 0, (size_t)2 * bytes);
	assert_int_equal(post(works, n), n);
	half = bell[0] == 0;
	bell += half * bytes / 8;
	*words = 0;
	for (uint32_t i = 0; i < bytes / 8; i++)
		if (bell[i])
			*words = i + 1;
	compare_blocks(bell, *words);
	mlx5_model_pause(false);
	for (uint32_t i = 0; i < n; i++)
		pair_wait(queue());
	return half;
}

static void test_whole_wqe(void **state)
{
	/* Goal: a single small WQE goes along with its doorbell, the halves alternate. */
	struct verbs_work works[2];
	uint32_t words, last;

	(void)state;
	fill(pair.initiator.memory, 4096, 9);
	for (uint32_t i = 0; i < 2; i++)
		works[i] = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	last = look_at_bell(works, 1, &words);
	assert_in_range(words, 6, 8);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_not_equal(look_at_bell(works, 1, &words), last);
		last = !last;
	}
	/* Inline over several blocks, with the end of the ring somewhere between. */
	works[0].flags |= VERBS_INLINE;
	for (uint32_t i = 0; i < 3 * blocks_of_ring(); i++) {
		look_at_bell(works, 1, &words);
		assert_in_range(words, 17, 24);
	}
	works[0].flags &= (uint8_t)~VERBS_INLINE;
	look_at_bell(works, 2, &words);
	assert_int_equal(words, 1);
}

static void test_shared_bell(void **state)
{
	/* Goal: without a register of its own a queue rings with 8 bytes only. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	uint32_t words;

	(void)state;
	for (uint32_t i = 0; i < 5; i++) {
		look_at_bell(&work, 1, &words);
		assert_int_equal(words, 1);
	}
}

/* ---- errors ---- */

static void expect_rest_flushed(const struct verbs_work *works, uint32_t n)
{
	struct verbs_done done;

	for (uint32_t i = 0; i < n; i++) {
		done = pair_wait(queue());
		assert_int_equal(done.id, works[i].id);
		assert_int_equal(done.status, IBV_WC_WR_FLUSH_ERR);
	}
	assert_int_equal(queue()->ops->poll(queue(), &done, 1), 0);
}

static void test_each_syndrome(void **state)
{
	/* Goal: each error of the device has its status, names its work request, flushes the rest.
	 */
	static const uint8_t known[][2] = {
		{MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR, IBV_WC_LOC_LEN_ERR},
		{MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR, IBV_WC_LOC_QP_OP_ERR},
		{MLX5_CQE_SYNDROME_LOCAL_PROT_ERR, IBV_WC_LOC_PROT_ERR},
		{MLX5_CQE_SYNDROME_WR_FLUSH_ERR, IBV_WC_WR_FLUSH_ERR},
		{MLX5_CQE_SYNDROME_MW_BIND_ERR, IBV_WC_MW_BIND_ERR},
		{MLX5_CQE_SYNDROME_BAD_RESP_ERR, IBV_WC_BAD_RESP_ERR},
		{MLX5_CQE_SYNDROME_LOCAL_ACCESS_ERR, IBV_WC_LOC_ACCESS_ERR},
		{MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR, IBV_WC_REM_INV_REQ_ERR},
		{MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR, IBV_WC_REM_ACCESS_ERR},
		{MLX5_CQE_SYNDROME_REMOTE_OP_ERR, IBV_WC_REM_OP_ERR},
		{MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR, IBV_WC_RETRY_EXC_ERR},
		{MLX5_CQE_SYNDROME_RNR_RETRY_EXC_ERR, IBV_WC_RNR_RETRY_EXC_ERR},
		{MLX5_CQE_SYNDROME_REMOTE_ABORTED_ERR, IBV_WC_REM_ABORT_ERR},
		{0x77, IBV_WC_GENERAL_ERR},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		struct verbs_work works[20];
		struct verbs_done done;

		pair_open(&pair, &options);
		for (uint32_t j = 0; j < 20; j++) {
			works[j] = pair_work(&pair, VERBS_WRITE, j, j, 1);
			works[j].flags = j % 5 == 4 ? VERBS_SIGNALLED : 0;
		}
		memset(pair.initiator.memory, 0x11, 20);
		mlx5_model_fail(queue()->qp->qp_num, 7, known[i][0], (uint8_t)(0x80 + i));
		assert_int_equal(post(works, 20), 20);
		done = pair_wait(queue());
		assert_int_equal(done.id, works[4].id);
		assert_int_equal(done.status, IBV_WC_SUCCESS);
		done = pair_wait(queue());
		assert_int_equal(done.id, works[7].id); /* not signalled */
		assert_int_equal(done.status, known[i][1]);
		assert_int_equal(done.vendor_error, 0x80 + i);
		expect_rest_flushed(works + 8, 12);
		assert_int_equal(pair.target.memory[6], 0x11);
		assert_int_equal(pair.target.memory[7], 0);
		pair_close(&pair);
	}
}

static void test_fail_flushes(void **state)
{
	/* Goal: after verbs_queue_fail() all that was posted, and is posted, comes back. */
	struct verbs_work works[64];

	(void)state;
	for (uint32_t i = 0; i < 64; i++) {
		works[i] = pair_work(&pair, VERBS_WRITE, i, i, 1);
		works[i].flags = 0;
	}
	mlx5_model_cut(queue()->qp->qp_num, true); /* nothing gets through before */
	assert_int_equal(post(works, 40), 40);
	verbs_queue_fail(queue());
	expect_rest_flushed(works, 40);
	assert_int_equal(post(works + 40, 24), 24);
	expect_rest_flushed(works + 40, 24);
	for (uint32_t i = 0; i < 64; i++)
		works[i].id = pair.next_id++;
	assert_int_equal(post(works, 64), 64);
	expect_rest_flushed(works, 64);
}

static void expect_failure(const struct verbs_work *work, uint32_t status)
{
	struct verbs_done done = pair_do(&pair, work);

	assert_int_equal(done.id, work->id);
	assert_int_equal(done.status, status);
}

static void test_keys(void **state)
{
	/* Goal: the peer's keys, their range and their rights are kept; and ours. */
	enum { WRONG_KEY, BEFORE, BEHIND, READ_ONLY, FOREIGN_DOMAIN, OWN_KEY, OWN_RANGE, CASES };

	(void)state;
	for (int i = 0; i < CASES; i++) {
		struct pair_options wanted = options;
		struct verbs_work work;
		struct ibv_mr *mr = NULL;
		struct ibv_pd *pd = NULL;

		if (i == READ_ONLY)
			wanted.rights = IBV_ACCESS_REMOTE_READ;
		pair_open(&pair, &wanted);
		work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
		if (i == WRONG_KEY)
			work.rkey += 1;
		if (i == BEFORE)
			work.remote -= 1;
		if (i == BEHIND)
			work.remote += PAIR_MEMORY - 99;
		if (i == FOREIGN_DOMAIN) {
			pd = ibv_alloc_pd(pair.device.context);
			mr = ibv_reg_mr(pd, pair.target.memory, 4096,
					IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
			work.rkey = mr->rkey;
		}
		if (i == OWN_KEY)
			work.piece[0].lkey += 1;
		if (i == OWN_RANGE)
			work.piece[0].addr -= 1;
		expect_failure(&work, i >= OWN_KEY ? IBV_WC_LOC_PROT_ERR : IBV_WC_REM_ACCESS_ERR);
		if (mr)
			ibv_dereg_mr(mr);
		if (pd)
			ibv_dealloc_pd(pd);
		pair_close(&pair);
	}
}

static void test_access_of_pair(void **state)
{
	/* Goal: a queue pair that lets the peer read does not let it write. */
	struct verbs_work work;

	(void)state;
	options.access = IBV_ACCESS_REMOTE_READ;
	pair_open(&pair, &options);
	work = pair_work(&pair, VERBS_READ, 0, 0, 100);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	expect_failure(&work, IBV_WC_REM_ACCESS_ERR);
	pair_close(&pair);
}

static void test_refused_peer_fails_too(void **state)
{
	/* Goal: with a refusal the target's queue pair fails and gives its receives back. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	struct ibv_wc wc;

	(void)state;
	pair_receive(&pair, 1, 0, 10);
	pair_receive(&pair, 2, 0, 10);
	work.rkey++;
	expect_failure(&work, IBV_WC_REM_ACCESS_ERR);
	for (uint64_t id = 1; id <= 2; id++) {
		wc = pair_wait_receive(pair.target.receive_cq);
		assert_int_equal(wc.wr_id, id);
		assert_int_equal(wc.status, IBV_WC_WR_FLUSH_ERR);
	}
}

static void test_receive_too_short(void **state)
{
	/* Goal: both ends are told of a message that does not fit. */
	struct verbs_work work = pair_work(&pair, VERBS_SEND, 0, 0, 100);

	(void)state;
	pair_receive(&pair, 9, 0, 99);
	expect_failure(&work, IBV_WC_REM_INV_REQ_ERR);
	assert_int_equal(pair_wait_receive(pair.target.receive_cq).status, IBV_WC_LOC_LEN_ERR);
}

static void test_waits_for_receive(void **state)
{
	/* Goal: a message waits until there is a receive, and what is behind it too. */
	struct verbs_work works[2] = {pair_work(&pair, VERBS_SEND, 0, 0, 100),
				      pair_work(&pair, VERBS_WRITE, 0, 500, 100)};
	struct verbs_done done;

	(void)state;
	memset(pair.initiator.memory, 7, 100);
	assert_int_equal(post(works, 2), 2);
	usleep(20000);
	assert_int_equal(queue()->ops->poll(queue(), &done, 1), 0);
	assert_int_equal(pair.target.memory[500], 0);
	pair_receive(&pair, 1, 0, 100);
	assert_int_equal(pair_wait(queue()).id, works[0].id);
	assert_int_equal(pair_wait(queue()).id, works[1].id);
	assert_int_equal(pair.target.memory[500], 7);
}

static void test_cable(void **state)
{
	/* Goal: without an answer the device gives up; if the cable is back before, nothing is
	 * lost. */
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	uint32_t qpn = pair.target.queue->qp->qp_num;

	(void)state;
	memset(pair.initiator.memory, 3, 100);
	mlx5_model_cut(qpn, true);
	assert_int_equal(post(&work, 1), 1);
	usleep(5000);
	mlx5_model_cut(qpn, false);
	assert_int_equal(pair_wait(queue()).status, IBV_WC_SUCCESS);
	assert_int_equal(pair.target.memory[99], 3);
	mlx5_model_cut(qpn, true);
	work.id = pair.next_id++;
	expect_failure(&work, IBV_WC_RETRY_EXC_ERR);
}

static void test_other_numbers(void **state)
{
	/* Goal: with sequence numbers that do not agree nothing arrives. */
	struct verbs_work work;

	(void)state;
	options.psn_shift = 1;
	pair_open(&pair, &options);
	work = pair_work(&pair, VERBS_WRITE, 0, 0, 100);
	memset(pair.initiator.memory, 3, 100);
	expect_failure(&work, IBV_WC_RETRY_EXC_ERR);
	assert_int_equal(pair.target.memory[0], 0);
	pair_close(&pair);
}

static void test_reads_outstanding(void **state)
{
	/* Goal: the device never has more READs outstanding than was agreed. */
	struct mlx5_model_counts counts;
	struct verbs_work works[60];

	(void)state;
	options.reads_out = 4;
	options.reads_in = 4;
	pair_open(&pair, &options);
	mlx5_model_delay(300);
	for (uint32_t i = 0; i < 60; i++)
		works[i] =
			pair_work(&pair, i % 7 == 6 ? VERBS_WRITE : VERBS_READ, i * 64, i * 64, 64);
	assert_int_equal(post(works, 60), 60);
	for (uint32_t i = 0; i < 60; i++) {
		struct verbs_done done = pair_wait(queue());

		assert_int_equal(done.id, works[i].id);
		assert_int_equal(done.status, IBV_WC_SUCCESS);
	}
	mlx5_model_delay(0);
	mlx5_model_count(&counts);
	assert_int_equal(counts.reads_max, 4);
	pair_close(&pair);
}

static void test_too_many_reads(void **state)
{
	/* Goal: a target that agreed to fewer refuses the one too many. */
	struct verbs_work works[3];

	(void)state;
	options.reads_out = 3;
	options.reads_in = 2;
	pair_open(&pair, &options);
	mlx5_model_delay(1000);
	for (uint32_t i = 0; i < 3; i++)
		works[i] = pair_work(&pair, VERBS_READ, 0, 0, 64);
	assert_int_equal(post(works, 3), 3);
	assert_int_equal(pair_wait(queue()).status, IBV_WC_SUCCESS);
	assert_int_equal(pair_wait(queue()).status, IBV_WC_SUCCESS);
	assert_int_equal(pair_wait(queue()).status, IBV_WC_REM_INV_REQ_ERR);
	mlx5_model_delay(0);
	pair_close(&pair);
}

/* ---- events ---- */

static bool event_within(int ms)
{
	struct pollfd channel = {.fd = pair.channel->fd, .events = POLLIN};
	struct ibv_cq *cq;
	void *context;

	if (poll(&channel, 1, ms) != 1)
		return false;
	assert_int_equal(ibv_get_cq_event(pair.channel, &cq, &context), 0);
	assert_ptr_equal(cq, queue()->cq);
	ibv_ack_cq_events(cq, 1);
	return true;
}

static void post_one(void)
{
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 0, 0, 8);

	assert_int_equal(post(&work, 1), 1);
}

static void test_no_event_unarmed(void **state)
{
	/* Goal: who has not armed is not told. */
	(void)state;
	post_one();
	pair_wait(queue());
	assert_false(event_within(20));
}

static void test_events(void **state)
{
	/* Goal: armed before, an event for the next completion, once; again and again. */
	(void)state;
	for (int i = 0; i < 50; i++) {
		assert_int_equal(queue()->ops->arm(queue()), 0);
		assert_false(event_within(0));
		post_one();
		assert_true(event_within(10000));
		pair_wait(queue());
		post_one();
		pair_wait(queue());
		assert_false(event_within(0));
	}
}

static void wait_for_entry(uint64_t entries)
{
	struct mlx5_model_counts counts;

	do
		mlx5_model_count(&counts);
	while (counts.entries < entries);
}

static void test_event_of_what_is_there(void **state)
{
	/* Goal: armed behind a completion that was not taken, an event at once, however often. */
	struct mlx5_model_counts counts;

	(void)state;
	mlx5_model_count(&counts);
	for (uint32_t i = 1; i <= 20; i++) {
		post_one();
		wait_for_entry(counts.entries + i);
		for (uint32_t j = 0; j < 1 + i % 3; j++) {
			assert_int_equal(queue()->ops->arm(queue()), 0);
			assert_true(event_within(10000));
		}
		pair_wait(queue());
	}
}

static void test_armed_again(void **state)
{
	/* Goal: armed twice with nothing between is one event, and the one after is not lost. */
	(void)state;
	for (int i = 0; i < 20; i++) {
		queue()->ops->arm(queue());
		queue()->ops->arm(queue());
		post_one();
		assert_true(event_within(10000));
		pair_wait(queue());
		assert_false(event_within(0));
	}
}

static void test_sleeping(void **state)
{
	/* Goal: poll, arm, poll, sleep: over many rounds no completion is slept through. */
	struct verbs_done done;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		mlx5_model_delay(i % 3 == 0 ? 30 : 0);
		post_one();
		while (queue()->ops->poll(queue(), &done, 1) == 0) {
			queue()->ops->arm(queue());
			if (queue()->ops->poll(queue(), &done, 1) == 1)
				break;
			assert_true(event_within(10000));
		}
	}
	mlx5_model_delay(0);
}

/* ---- start ---- */

static int default_options(void **state)
{
	(void)state;
	pair_options_init(&options);
	return 0;
}

static int open_pair(void **state)
{
	default_options(state);
	pair_open(&pair, &options);
	return 0;
}

static int open_short(void **state)
{
	default_options(state);
	options.depth = 4;
	pair_open(&pair, &options);
	return 0;
}

static int open_armable(void **state)
{
	default_options(state);
	options.armable = true;
	pair_open(&pair, &options);
	return 0;
}

static int open_shared(void **state)
{
	mlx5_model_without_thread_domains(true);
	open_pair(state);
	mlx5_model_without_thread_domains(false);
	return 0;
}

static int close_pair(void **state)
{
	(void)state;
	pair_close(&pair);
	return 0;
}

#define with_pair(test)    cmocka_unit_test_setup_teardown(test, open_pair, close_pair)
#define with_short(test)   cmocka_unit_test_setup_teardown(test, open_short, close_pair)
#define with_armable(test) cmocka_unit_test_setup_teardown(test, open_armable, close_pair)
#define with_shared(test)  cmocka_unit_test_setup_teardown(test, open_shared, close_pair)
#define without(test)      cmocka_unit_test_setup(test, default_options)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_created),
		with_pair(test_not_ours),
		with_pair(test_inline_as_much_as_there_is),
		with_pair(test_too_large),
		with_pair(test_write),
		with_pair(test_read),
		with_pair(test_write_immediate),
		with_pair(test_send),
		with_pair(test_send_immediate),
		with_pair(test_empty),
		with_pair(test_two_pieces),
		with_short(test_inline_each_size),
		with_pair(test_inline_is_taken_along),
		with_pair(test_wrap),
		with_pair(test_full),
		with_pair(test_selective),
		with_pair(test_burst_of_completions),
		with_pair(test_one_bell_per_burst),
		with_short(test_whole_wqe),
		with_shared(test_shared_bell),
		without(test_each_syndrome),
		with_pair(test_fail_flushes),
		without(test_keys),
		without(test_access_of_pair),
		with_pair(test_refused_peer_fails_too),
		with_pair(test_receive_too_short),
		with_pair(test_waits_for_receive),
		with_pair(test_cable),
		without(test_other_numbers),
		without(test_reads_outstanding),
		without(test_too_many_reads),
		with_armable(test_no_event_unarmed),
		with_armable(test_events),
		with_armable(test_event_of_what_is_there),
		with_armable(test_armed_again),
		with_armable(test_sleeping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
