/* SPDX-License-Identifier: Apache-2.0 */
/* The model of the device itself: between processes, and that it lets no mistake of ours pass. */
#include "tests/tap.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/mlx5dv.h>

#include "fabric.h"
#include "mlx5_model.h"
#include "pair.h"

#define PSN        5u
#define TARGET_PSN 6u
#define LIVES      (FABRIC_PROCESSES + 20u)

/* ---- between processes ---- */

struct introduction {
	uint32_t qpn;
	uint32_t rkey;
	uint64_t memory;
};

struct other {
	pid_t pid;
	int to;
	int from;
};

/* Serves until it is told to end. */
static void serve(int from, int to)
{
	struct introduction own, initiator;
	struct verbs_device device;
	struct pair_options options;
	struct pair_end end = {0};
	char command;

	pair_options_init(&options);
	pair_open_device(&device);
	pair_open_end(&device, &options, NULL, options.access, options.rights, &end);
	own = (struct introduction){.qpn = end.queue->qp->qp_num,
				    .rkey = end.mr->rkey,
				    .memory = (uintptr_t)end.memory};
	pair_must(read(from, &initiator, sizeof(initiator)) == sizeof(initiator));
	pair_connect_end(&device, &options, &end, initiator.qpn, TARGET_PSN, PSN);
	pair_must(write(to, &own, sizeof(own)) == sizeof(own));
	while (read(from, &command, 1) == 1 && command == 'c') /* it counts what has come */
		pair_must(write(to, end.memory, 64) == 64);
	pair_close_end(&end);
	pair_close_device(&device);
}

static struct other start_other(bool execute)
{
	struct other other;
	int there[2], back[2];
	char numbers[2][12];

	pair_must(pipe(there) == 0 && pipe(back) == 0);
	fflush(stdout);
	other.pid = fork();
	pair_must(other.pid >= 0);
	if (other.pid == 0) {
		close(there[1]);
		close(back[0]);
		snprintf(numbers[0], sizeof(numbers[0]), "%d", there[0]);
		snprintf(numbers[1], sizeof(numbers[1]), "%d", back[1]);
		if (execute)
			execl("/proc/self/exe", "serve", numbers[0], numbers[1], NULL);
		else
			serve(there[0], back[1]);
		_exit(execute ? 1 : 0);
	}
	close(there[0]);
	close(back[1]);
	other.to = there[1];
	other.from = back[0];
	return other;
}

static void open_to_other(struct other *other, struct pair *pair, struct introduction *target)
{
	struct introduction own = {0};
	struct pair_options options;

	*pair = (struct pair){0};
	pair_options_init(&options);
	pair_open_device(&pair->device);
	pair_open_end(&pair->device, &options, NULL, 0, IBV_ACCESS_LOCAL_WRITE, &pair->initiator);
	own.qpn = pair->initiator.queue->qp->qp_num;
	pair_must(write(other->to, &own, sizeof(own)) == sizeof(own));
	pair_must(read(other->from, target, sizeof(*target)) == sizeof(*target));
	pair_connect_end(&pair->device, &options, &pair->initiator, target->qpn, PSN, TARGET_PSN);
}

static struct verbs_work work_to(struct pair *pair, const struct introduction *target,
				 uint8_t opcode, uint32_t at, uint32_t length)
{
	return (struct verbs_work){.opcode = opcode,
				   .flags = VERBS_SIGNALLED,
				   .pieces = 1,
				   .rkey = target->rkey,
				   .remote = target->memory,
				   .piece = {{.addr = (uintptr_t)pair->initiator.memory + at,
					      .length = length,
					      .lkey = pair->initiator.mr->lkey}}};
}

static void close_to_other(struct pair *pair, struct other *other)
{
	pair_close_end(&pair->initiator);
	pair_close_device(&pair->device);
	close(other->to);
	close(other->from);
	waitpid(other->pid, NULL, 0);
}

static void between(bool execute)
{
	struct other other = start_other(execute);
	struct introduction target;
	struct verbs_work work;
	struct pair pair;
	uint8_t there[64];

	open_to_other(&other, &pair, &target);
	for (uint32_t i = 0; i < 64; i++)
		pair.initiator.memory[i] = (uint8_t)(3 * i + 1);
	work = work_to(&pair, &target, VERBS_WRITE, 0, 64);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	pair_must(write(other.to, "c", 1) == 1 && read(other.from, there, 64) == 64);
	assert_memory_equal(there, pair.initiator.memory, 64);
	work = work_to(&pair, &target, VERBS_READ, 4096, 64);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.initiator.memory + 4096, there, 64);
	close_to_other(&pair, &other);
}

static void need_processes(void)
{
	if (mlx5_model_unusable())
		skip_because("%s", mlx5_model_unusable());
}

static void test_forked(void **state)
{
	/* Goal: bytes go to and from the memory of a process that was forked. */
	(void)state;
	need_processes();
	between(false);
}

static void test_executed(void **state)
{
	/* Goal: and of one that was executed: it finds the fabric again. */
	(void)state;
	need_processes();
	between(true);
}

static void test_killed(void **state)
{
	/* Goal: a peer that was killed does not answer, though nobody has waited for it yet. */
	struct other other = start_other(false);
	struct introduction target;
	struct verbs_work work;
	struct pair pair;

	(void)state;
	need_processes();
	open_to_other(&other, &pair, &target);
	work = work_to(&pair, &target, VERBS_WRITE, 0, 64);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	kill(other.pid, SIGKILL);
	work = work_to(&pair, &target, VERBS_WRITE, 0, 0); /* moves nothing: only asks */
	while (pair_do(&pair, &work).status == IBV_WC_SUCCESS)
		;
	close_to_other(&pair, &other);
}

static void test_lives_leave_nothing(void **state)
{
	/* Goal: processes that end without closing anything do not use the fabric up. */
	uint32_t used = 0;

	(void)state;
	for (uint32_t i = 0; i < LIVES; i++) {
		struct pair_options options;
		struct pair pair;
		pid_t pid = fork();

		pair_must(pid >= 0);
		if (pid == 0) {
			pair_options_init(&options);
			pair_open(&pair, &options);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
	}
	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		used += fabric->pairs[i].number != 0;
	assert_true(used < FABRIC_PAIRS / 2);
}

/* ---- mistakes ---- */

/* A ring that is written by hand. */
struct raw {
	struct pair pair;
	struct mlx5dv_qp qp;
	struct mlx5dv_cq cq;
	uint32_t head;
};

static struct mlx5_wqe_ctrl_seg *raw_control(struct raw *raw, uint32_t segments)
{
	uint8_t *at = (uint8_t *)raw->qp.sq.buf + raw->head % raw->qp.sq.wqe_cnt * 64;
	struct mlx5_wqe_ctrl_seg *control = (struct mlx5_wqe_ctrl_seg *)at;

	memset(at, 0, 64);
	mlx5dv_set_ctrl_seg(control, (uint16_t)raw->head, MLX5_OPCODE_RDMA_WRITE, 0,
			    raw->pair.initiator.queue->qp->qp_num, MLX5_WQE_CTRL_CQ_UPDATE,
			    (uint8_t)segments, 0, 0);
	return control;
}

static struct mlx5_wqe_data_seg *raw_data(struct mlx5_wqe_ctrl_seg *control)
{
	return (struct mlx5_wqe_data_seg *)(control + 2);
}

static void raw_record(struct raw *raw, uint32_t blocks)
{
	raw->head += blocks;
	atomic_store((_Atomic uint32_t *)&raw->qp.dbrec[MLX5_SND_DBR], htobe32(raw->head & 0xffff));
}

static void raw_ring(struct raw *raw, const struct mlx5_wqe_ctrl_seg *control)
{
	uint64_t value;

	memcpy(&value, control, sizeof(value));
	atomic_store((_Atomic uint64_t *)raw->qp.bf.reg, value);
}

static void raw_post(struct raw *raw, const struct mlx5_wqe_ctrl_seg *control)
{
	raw_record(raw, 1);
	raw_ring(raw, control);
}

static void ring_first(struct raw *raw)
{
	raw_ring(raw, raw_control(raw, 2));
}

static void ring_other_bytes(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2), other = *control;

	other.opmod_idx_opcode ^= htobe32(1);
	raw_record(raw, 1);
	raw_ring(raw, &other);
}

static void ring_for_another(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->qpn_ds += htobe32(1 << 8);
	raw_post(raw, control);
}

static void wrong_index(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);
	struct mlx5_wqe_ctrl_seg *second = control + 4;

	raw->head++;
	second = raw_control(raw, 2);
	raw->head--;
	control->opmod_idx_opcode = second->opmod_idx_opcode; /* the second's index */
	raw_record(raw, 2);
	raw_ring(raw, second);
}

static void more_segments(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 5), first = *control;

	first.qpn_ds = control->qpn_ds & ~htobe32(0x3f);
	first.qpn_ds |= htobe32(2);
	raw_record(raw, 1);
	raw_ring(raw, control);
}

static void no_segments(struct raw *raw)
{
	raw_post(raw, raw_control(raw, 0));
}

static void empty_data(struct raw *raw)
{
	raw_post(raw, raw_control(raw, 3));
}

static void inline_length(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 3);

	raw_data(control)->byte_count = htobe32(MLX5_INLINE_SEG | 13); /* 4 + 13 need two */
	raw_post(raw, control);
}

static void inline_read(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 3);

	control->opmod_idx_opcode ^= htobe32(MLX5_OPCODE_RDMA_WRITE ^ MLX5_OPCODE_RDMA_READ);
	raw_data(control)->byte_count = htobe32(MLX5_INLINE_SEG | 8);
	raw_post(raw, control);
}

static void signature(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->signature = 1;
	raw_post(raw, control);
}

static void modifier(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->opmod_idx_opcode |= htobe32(1 << 24);
	raw_post(raw, control);
}

static void flags(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->fm_ce_se |= 1;
	raw_post(raw, control);
}

static void reserved(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	((struct mlx5_wqe_raddr_seg *)(control + 1))->reserved = 1;
	raw_post(raw, control);
}

static void opcode(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->opmod_idx_opcode &= ~htobe32(0xff);
	control->opmod_idx_opcode |= htobe32(MLX5_OPCODE_TSO);
	raw_post(raw, control);
}

static void stray_immediate(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = raw_control(raw, 2);

	control->imm = 1;
	raw_post(raw, control);
}

static void send_overrun(struct raw *raw)
{
	struct mlx5_wqe_ctrl_seg *control = NULL;

	mlx5_model_pause(true);
	for (uint32_t i = 0; i <= raw->qp.sq.wqe_cnt; i++) {
		control = raw_control(raw, 2);
		raw->head++;
	}
	raw_record(raw, 0);
	raw_ring(raw, control);
	mlx5_model_pause(false);
}

/* Nobody says that entries were taken. */
static void completion_overrun(struct raw *raw)
{
	struct mlx5_model_counts counts;

	for (uint32_t i = 0; i <= raw->cq.cqe_cnt; i++) {
		raw_post(raw, raw_control(raw, 2));
		do
			mlx5_model_count(&counts);
		while (counts.entries <= i);
	}
}

static void armed_first(struct raw *raw)
{
	atomic_store((_Atomic uint64_t *)((uint8_t *)raw->cq.cq_uar + MLX5_CQ_DOORBELL),
		     htobe64(raw->cq.cqn));
}

static void polled_by_verbs(struct raw *raw)
{
	struct ibv_wc wc;

	ibv_poll_cq(raw->pair.initiator.queue->cq, 1, &wc);
}

static void armed_by_verbs(struct raw *raw)
{
	ibv_req_notify_cq(raw->pair.initiator.queue->cq, 0);
}

static void not_connected(struct raw *raw)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};

	ibv_modify_qp(raw->pair.initiator.queue->qp, &attr, IBV_QP_STATE);
	raw_post(raw, raw_control(raw, 2));
}

static void receive_overrun(struct raw *raw)
{
	for (uint32_t i = 0; i < 65; i++) {
		struct verbs_work work = pair_work(&raw->pair, VERBS_SEND, 0, 0, 8);

		pair_receive(&raw->pair, i, 0, 8);
		pair_do(&raw->pair, &work);
	}
}

/* A mistake that is let pass ends the child with 0. */
static void make_mistake(void (*mistake)(struct raw *raw), int out)
{
	struct pair_options options;
	struct mlx5dv_obj object;
	struct raw raw = {0};

	dup2(out, STDOUT_FILENO);
	signal(SIGABRT, SIG_DFL);
	pair_options_init(&options);
	pair_open(&raw.pair, &options);
	object.qp.in = raw.pair.initiator.queue->qp;
	object.qp.out = &raw.qp;
	object.cq.in = raw.pair.initiator.queue->cq;
	object.cq.out = &raw.cq;
	pair_must(mlx5dv_init_obj(&object, MLX5DV_OBJ_QP | MLX5DV_OBJ_CQ) == 0);
	mistake(&raw);
	sleep(5);
	_exit(0);
}

static void expect_complaint(void (*mistake)(struct raw *raw), const char *text)
{
	char said[512] = "";
	size_t length = 0;
	ssize_t got;
	int ends[2], status;
	pid_t pid;

	pair_must(pipe(ends) == 0);
	fflush(stdout);
	pid = fork();
	pair_must(pid >= 0);
	if (pid == 0)
		make_mistake(mistake, ends[1]);
	close(ends[1]);
	while ((got = read(ends[0], said + length, sizeof(said) - 1 - length)) > 0)
		length += (size_t)got;
	close(ends[0]);
	waitpid(pid, &status, 0);
	if (!strstr(said, text))
		fail_msg("expected \"%s\", was told \"%s\"", text, said);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_mistakes(void **state)
{
	/* Goal: what a device would choke on ends the program, and says what it was. */
	static const struct {
		void (*mistake)(struct raw *raw);
		const char *text;
	} cases[] = {
		{ring_first, "before the doorbell record"},
		{ring_other_bytes, "with other bytes than lie at block"},
		{ring_for_another, "was rung for"},
		{wrong_index, "says that it is 1"},
		{more_segments, "before the doorbell record"},
		{no_segments, "0x00 segments"},
		{empty_data, "which means 2 GiB"},
		{inline_length, "13 bytes inline in 1 segments"},
		{inline_read, "a READ into its own WQE"},
		{signature, "reserved bytes of a control segment"},
		{modifier, "has the modifier 1"},
		{flags, "unknown flags"},
		{reserved, "reserved field"},
		{opcode, "unknown opcode 0x0e"},
		{stray_immediate, "an immediate that opcode"},
		{send_overrun, "blocks: "},
		{completion_overrun, "overran"},
		{armed_first, "was armed without its doorbell record"},
		{polled_by_verbs, "was polled by libibverbs"},
		{armed_by_verbs, "was armed by libibverbs"},
		{not_connected, "was rung in state 0"},
		{receive_overrun, "receives overran"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_complaint(cases[i].mistake, cases[i].text);
}

/* ---- the rest of a queue pair's life ---- */

static void test_states(void **state)
{
	/* Goal: steps that are not there, or lack what they need, are refused. */
	struct verbs_device device;
	struct pair_options options;
	struct pair_end end = {0};
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS};
	struct ibv_recv_wr wr = {0}, *bad;

	(void)state;
	pair_options_init(&options);
	pair_open_device(&device);
	pair_open_end(&device, &options, NULL, options.access, options.rights, &end);
	assert_int_equal(ibv_modify_qp(end.queue->qp, &attr, IBV_QP_STATE), EINVAL);
	attr.qp_state = IBV_QPS_RTR;
	assert_int_equal(ibv_modify_qp(end.queue->qp, &attr, IBV_QP_STATE), EINVAL);
	attr.qp_state = IBV_QPS_RESET;
	assert_int_equal(ibv_modify_qp(end.queue->qp, &attr, IBV_QP_STATE), 0);
	assert_int_equal(ibv_post_recv(end.queue->qp, &wr, &bad), EINVAL);
	assert_ptr_equal(bad, &wr);
	pair_close_end(&end);
	pair_close_device(&device);
}

static void test_not_enough_retries(void **state)
{
	/* Goal: a queue pair that does not wait for ever for a receive gives up. */
	struct pair_options options;
	struct pair pair;
	struct verbs_work work;
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET}, old;
	struct ibv_qp_init_attr init;
	struct verbs_queue *queue;
	uint32_t peer;

	(void)state;
	pair_options_init(&options);
	pair_open(&pair, &options);
	queue = pair.initiator.queue;
	peer = pair.target.queue->qp->qp_num;
	assert_int_equal(ibv_query_qp(queue->qp, &old, 0, &init), 0);
	assert_int_equal(ibv_modify_qp(queue->qp, &attr, IBV_QP_STATE), 0);
	pair_must(verbs_queue_initialise(queue, &pair.device, 0) == 0);
	attr = old;
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = IBV_MTU_4096;
	attr.ah_attr.is_global = 1;
	attr.ah_attr.port_num = 1;
	pair_must(ibv_query_gid(pair.device.context, 1, 0, &attr.ah_attr.grh.dgid) == 0);
	assert_int_equal(attr.dest_qp_num, peer);
	assert_int_equal(ibv_modify_qp(queue->qp, &attr,
				       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
					       IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
			 0);
	attr.qp_state = IBV_QPS_RTS;
	attr.rnr_retry = 2;
	assert_int_equal(ibv_modify_qp(queue->qp, &attr,
				       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
					       IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
					       IBV_QP_MAX_QP_RD_ATOMIC),
			 0);
	work = pair_work(&pair, VERBS_SEND, 0, 0, 8);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_RNR_RETRY_EXC_ERR);
	pair_close(&pair);
}

static void test_registration(void **state)
{
	/* Goal: memory is registered as a kernel would: rights that make no sense are refused. */
	struct verbs_device device;
	uint8_t bytes[16];

	(void)state;
	pair_open_device(&device);
	errno = 0;
	assert_null(ibv_reg_mr(device.pd, bytes, sizeof(bytes), IBV_ACCESS_REMOTE_WRITE));
	assert_int_equal(errno, EINVAL);
	assert_null(ibv_reg_mr(device.pd, bytes, 0, 0));
	assert_null(ibv_alloc_mw(device.pd, IBV_MW_TYPE_2));
	assert_int_equal(device.attr.max_mw, 0);
	pair_close_device(&device);
}

static void test_destroyed_leaves_no_receives(void **state)
{
	/* Goal: completions of a queue pair that has gone are not seen any more. */
	struct pair_options options;
	struct pair pair;
	struct verbs_work work;
	struct ibv_wc wc;

	(void)state;
	pair_options_init(&options);
	pair_open(&pair, &options);
	pair_receive(&pair, 1, 0, 8);
	work = pair_work(&pair, VERBS_SEND, 0, 0, 8);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	verbs_queue_destroy(pair.target.queue);
	pair.target.queue = NULL;
	assert_int_equal(ibv_poll_cq(pair.target.receive_cq, 1, &wc), 0);
	pair_close(&pair);
}

static void test_receive_events(void **state)
{
	/* Goal: a completion queue of receives that was armed sends one event. */
	struct verbs_device device;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq, *told;
	struct pair_options options;
	struct pair pair;
	struct verbs_work work;
	void *context;
	int mark;

	(void)state;
	pair_options_init(&options);
	pair_open_device(&device);
	channel = ibv_create_comp_channel(device.context);
	cq = ibv_create_cq(device.context, 8, &mark, channel, 0);
	assert_non_null(cq);
	pair_open(&pair, &options);
	/* The target once more, with the armed queue. */
	verbs_queue_destroy(pair.target.queue);
	assert_int_equal(verbs_mlx5_create(&pair.device,
					   &(struct verbs_queue_options){
						   .depth = 4, .receives = 4, .receive_cq = cq},
					   &pair.target.queue),
			 1);
	pair_must(verbs_queue_initialise(pair.target.queue, &pair.device, options.access) == 0);
	verbs_queue_destroy(pair.initiator.queue);
	assert_int_equal(verbs_mlx5_create(&pair.device, &(struct verbs_queue_options){.depth = 4},
					   &pair.initiator.queue),
			 1);
	pair_must(verbs_queue_initialise(pair.initiator.queue, &pair.device, 0) == 0);
	pair_connect_end(&pair.device, &options, &pair.target, pair.initiator.queue->qp->qp_num, 1,
			 2);
	pair_connect_end(&pair.device, &options, &pair.initiator, pair.target.queue->qp->qp_num, 2,
			 1);
	assert_int_equal(ibv_req_notify_cq(cq, 0), 0);
	for (uint64_t i = 0; i < 2; i++)
		pair_receive(&pair, i, 0, 8);
	work = pair_work(&pair, VERBS_SEND, 0, 0, 8);
	assert_int_equal(pair_do(&pair, &work).status, IBV_WC_SUCCESS);
	assert_int_equal(ibv_get_cq_event(channel, &told, &context), 0);
	assert_ptr_equal(told, cq);
	assert_ptr_equal(context, &mark);
	ibv_ack_cq_events(cq, 1);
	assert_int_equal(pair_wait_receive(cq).status, IBV_WC_SUCCESS);
	assert_int_equal(ibv_destroy_cq(cq), EBUSY);
	pair_close(&pair);
	assert_int_equal(ibv_destroy_comp_channel(channel), EBUSY);
	assert_int_equal(ibv_destroy_cq(cq), 0);
	assert_int_equal(ibv_destroy_comp_channel(channel), 0);
	pair_close_device(&device);
}

/* A queue pair that takes its receives from @p srq, and one that sends to it. */
struct sharing {
	struct pair_end initiator;
	struct pair_end target; /* without memory */
};

static void open_sharing(struct verbs_device *device, struct ibv_srq *srq, struct ibv_cq *cq,
			 struct sharing *sharing)
{
	const struct verbs_queue_options wanted = {.depth = 4, .srq = srq, .receive_cq = cq};
	struct pair_options options;

	pair_options_init(&options);
	options.receives = 0;
	*sharing = (struct sharing){0};
	pair_open_end(device, &options, NULL, 0, IBV_ACCESS_LOCAL_WRITE, &sharing->initiator);
	assert_int_equal(verbs_mlx5_create(device, &wanted, &sharing->target.queue), 1);
	pair_must(verbs_queue_initialise(sharing->target.queue, device, 0) == 0);
	pair_connect_end(device, &options, &sharing->target, sharing->initiator.queue->qp->qp_num,
			 1, 2);
	pair_connect_end(device, &options, &sharing->initiator, sharing->target.queue->qp->qp_num,
			 2, 1);
}

/* A message of nothing takes receive @p id. */
static void send_to(const struct sharing *sharing, uint32_t number, struct ibv_cq *cq, uint64_t id)
{
	const struct verbs_work work = {
		.opcode = VERBS_SEND, .flags = VERBS_SIGNALLED, .id = number};
	struct verbs_queue *queue = sharing->initiator.queue;
	struct ibv_wc wc;

	assert_int_equal(verbs_queue_post(queue, &work, 1), 1);
	assert_int_equal(pair_wait(queue).status, IBV_WC_SUCCESS);
	wc = pair_wait_receive(cq);
	assert_int_equal(wc.wr_id, id);
	assert_int_equal(wc.qp_num, sharing->target.queue->qp->qp_num);
}

static void test_shared_receives(void **state)
{
	/* Goal: queue pairs take receives of a shared queue in their turn; one that fails gives
	 * none of them back, as they are others' as well. */
	struct ibv_srq_init_attr attr = {.attr = {.max_wr = 2, .max_sge = 1}};
	struct ibv_recv_wr wr = {.wr_id = 0}, *bad;
	struct sharing first, second;
	struct verbs_device device;
	struct ibv_srq *srq;
	struct ibv_cq *cq;
	struct ibv_wc wc;

	(void)state;
	pair_open_device(&device);
	srq = ibv_create_srq(device.pd, &attr);
	cq = ibv_create_cq(device.context, 2, NULL, NULL, 0);
	pair_must(srq && cq);
	open_sharing(&device, srq, cq, &first);
	open_sharing(&device, srq, cq, &second);
	for (; wr.wr_id < 2; wr.wr_id++)
		assert_int_equal(ibv_post_srq_recv(srq, &wr, &bad), 0);
	assert_int_equal(ibv_post_srq_recv(srq, &wr, &bad), ENOMEM);
	assert_int_equal(ibv_post_recv(first.target.queue->qp, &wr, &bad), EINVAL);
	send_to(&second, 0, cq, 0);
	send_to(&first, 0, cq, 1);
	verbs_queue_fail(first.target.queue);
	assert_int_equal(ibv_post_srq_recv(srq, &wr, &bad), 0);
	send_to(&second, 1, cq, 2);
	assert_int_equal(ibv_poll_cq(cq, 1, &wc), 0);
	assert_int_equal(ibv_destroy_srq(srq), EBUSY);
	verbs_queue_destroy(first.target.queue);
	verbs_queue_destroy(second.target.queue);
	pair_close_end(&first.initiator);
	pair_close_end(&second.initiator);
	assert_int_equal(ibv_destroy_srq(srq), 0);
	assert_int_equal(ibv_destroy_cq(cq), 0);
	pair_close_device(&device);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forked),
		cmocka_unit_test(test_executed),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_lives_leave_nothing),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_not_enough_retries),
		cmocka_unit_test(test_registration),
		cmocka_unit_test(test_destroyed_leaves_no_receives),
		cmocka_unit_test(test_receive_events),
		cmocka_unit_test(test_shared_receives),
	};

	if (argc == 3 && strcmp(argv[0], "serve") == 0) {
		serve(atoi(argv[1]), atoi(argv[2]));
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
