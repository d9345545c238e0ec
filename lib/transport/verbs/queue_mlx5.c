/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue of an mlx5 device without libibverbs between. The layouts are those of
 * <infiniband/mlx5dv.h>.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/mlx5dv.h>

#include "base/log.h"
#include "transport/verbs/mlx5_io.h"
#include "transport/verbs/mlx5_queue.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"

/* The control segment counts segments in 6 bits. */
#define SEGMENTS_MAX 63u
#define INLINE_MAX                                                                                 \
	(SEGMENTS_MAX * MLX5_SEGMENT - (uint32_t)sizeof(struct mlx5_wqe_ctrl_seg) -                \
	 (uint32_t)sizeof(struct mlx5_wqe_raddr_seg) -                                             \
	 (uint32_t)sizeof(struct mlx5_wqe_inl_data_seg))

/* ---- completions ---- */

uint32_t mlx5_status(uint8_t syndrome)
{
	switch (syndrome) {
	case MLX5_CQE_SYNDROME_LOCAL_LENGTH_ERR:
		return IBV_WC_LOC_LEN_ERR;
	case MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR:
		return IBV_WC_LOC_QP_OP_ERR;
	case MLX5_CQE_SYNDROME_LOCAL_PROT_ERR:
		return IBV_WC_LOC_PROT_ERR;
	case MLX5_CQE_SYNDROME_WR_FLUSH_ERR:
		return IBV_WC_WR_FLUSH_ERR;
	case MLX5_CQE_SYNDROME_MW_BIND_ERR:
		return IBV_WC_MW_BIND_ERR;
	case MLX5_CQE_SYNDROME_BAD_RESP_ERR:
		return IBV_WC_BAD_RESP_ERR;
	case MLX5_CQE_SYNDROME_LOCAL_ACCESS_ERR:
		return IBV_WC_LOC_ACCESS_ERR;
	case MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR:
		return IBV_WC_REM_INV_REQ_ERR;
	case MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR:
		return IBV_WC_REM_ACCESS_ERR;
	case MLX5_CQE_SYNDROME_REMOTE_OP_ERR:
		return IBV_WC_REM_OP_ERR;
	case MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR:
		return IBV_WC_RETRY_EXC_ERR;
	case MLX5_CQE_SYNDROME_RNR_RETRY_EXC_ERR:
		return IBV_WC_RNR_RETRY_EXC_ERR;
	case MLX5_CQE_SYNDROME_REMOTE_ABORTED_ERR:
		return IBV_WC_REM_ABORT_ERR;
	default:
		return IBV_WC_GENERAL_ERR;
	}
}

/*
 * The device takes an arming as a new one by its number, which counts the events that it has sent.
 * We do not see events; but when we were armed, an entry that is there has caused one.
 */
static int arm(struct verbs_queue *queue)
{
	struct mlx5_queue *mlx5 = mlx5_of(queue);
	uint32_t command;

	if (mlx5->armed && mlx5_next_entry(mlx5))
		mlx5->arm_number++;
	command = (mlx5->arm_number & 3) << 28 | MLX5_CQ_DB_REQ_NOT | (mlx5->consumed & 0xffffff);
	mlx5->records[MLX5_RECORD_ARM] = htobe32(command);
	mlx5_io_fence_register();
	mlx5_io_write64(mlx5->arm_bell + MLX5_CQ_DOORBELL,
			htobe64((uint64_t)command << 32 | mlx5->cqn));
	mlx5_io_fence_register();
	mlx5->armed = true;
	return 0;
}

static void destroy(struct verbs_queue *queue)
{
	struct mlx5_queue *mlx5 = mlx5_of(queue);

	if (mlx5->pd)
		ibv_dealloc_pd(mlx5->pd);
	if (mlx5->thread_domain)
		ibv_dealloc_td(mlx5->thread_domain);
	free(mlx5->ids);
	free(mlx5);
}

static void add(struct verbs_queue *queue, const struct verbs_work *work)
{
	mlx5_add(mlx5_of(queue), work);
}

static int ring(struct verbs_queue *queue, bool signal)
{
	mlx5_ring(queue, signal);
	return 0;
}

/* @return false: not about a work request */
static bool take_entry(struct mlx5_queue *mlx5, const struct mlx5_cqe64 *entry,
		       struct verbs_done *done)
{
	const struct mlx5_err_cqe *error = (const struct mlx5_err_cqe *)entry;

	mlx5->consumed++;
	if (entry->op_own >> 4 != MLX5_CQE_REQ_ERR)
		return false;
	*done = (struct verbs_done){.id = mlx5_give_back(mlx5, be16toh(error->wqe_counter)),
				    .status = mlx5_status(error->syndrome),
				    .vendor_error = error->vendor_err_synd};
	return true;
}

static uint32_t poll_entries(struct verbs_queue *queue, struct verbs_done *done, uint32_t n)
{
	struct mlx5_queue *mlx5 = mlx5_of(queue);
	uint32_t before = mlx5->consumed, got = 0;
	const struct mlx5_cqe64 *entry;
	uint32_t id;

	while (got < n && queue->returned != queue->posted && (entry = mlx5_next_entry(mlx5))) {
		if (mlx5_next_success(mlx5, &id))
			done[got++] = (struct verbs_done){.id = id, .status = IBV_WC_SUCCESS};
		else
			got += take_entry(mlx5, entry, &done[got]);
	}
	if (mlx5->consumed != before)
		mlx5_taken(mlx5, got);
	return got;
}

static const struct verbs_queue_ops ops = {
	.add = add,
	.ring = ring,
	.poll = poll_entries,
	.arm = arm,
	.destroy = destroy,
};

/* ---- creation ---- */

/*
 * Entries of 64 bytes, not compressed: compressed ones come in arrays whose title entry must be
 * kept, and pay where every message completes; of our work requests few do.
 */
static int create_cq(struct verbs_device *device, const struct verbs_queue_options *options,
		     struct mlx5_queue *mlx5)
{
	struct ibv_cq_init_attr_ex attr = {.cqe = options->depth,
					   .channel = options->channel,
					   .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
					   .flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED};
	struct mlx5dv_cq_init_attr direct = {.comp_mask = MLX5DV_CQ_INIT_ATTR_MASK_CQE_SIZE,
					     .cqe_size = sizeof(struct mlx5_cqe64)};
	struct ibv_cq_ex *cq = mlx5dv_create_cq(device->context, &attr, &direct);

	if (!cq)
		return fail(-errno,
			    "%s has no completion queue of %u entries for us: %s (its limits: %d "
			    "queues of %d entries)",
			    device->name, options->depth, strerror(errno), device->attr.max_cq,
			    device->attr.max_cqe);
	mlx5->queue.cq = ibv_cq_ex_to_cq(cq);
	return 0;
}

/* A doorbell register of our own. Devices have few; without one a shared one does, by 8 bytes. */
static void create_domain(struct verbs_device *device, struct mlx5_queue *mlx5)
{
	struct ibv_td_init_attr none = {0};
	struct ibv_parent_domain_init_attr attr = {.pd = device->pd};

	mlx5->thread_domain = ibv_alloc_td(device->context, &none);
	if (!mlx5->thread_domain)
		return;
	attr.td = mlx5->thread_domain;
	mlx5->pd = ibv_alloc_parent_domain(device->context, &attr);
	mlx5->bell_is_ours = mlx5->pd != NULL;
}

/* Bytes of READs go to memory, never into the CQE, where nobody would look for them. */
static struct ibv_qp *create_qp(struct verbs_device *device,
				const struct verbs_queue_options *options, struct mlx5_queue *mlx5,
				uint32_t inline_bytes)
{
	struct ibv_cq *receive_cq = options->receive_cq ? options->receive_cq : mlx5->queue.cq;
	struct ibv_qp_init_attr_ex attr = {.qp_context = options->context,
					   .send_cq = mlx5->queue.cq,
					   .recv_cq = receive_cq,
					   .srq = options->srq,
					   .cap = {.max_send_wr = options->depth,
						   .max_recv_wr = options->receives,
						   .max_send_sge = VERBS_PIECES_MAX,
						   .max_recv_sge = options->receives ? 1 : 0,
						   .max_inline_data = inline_bytes},
					   .qp_type = IBV_QPT_RC,
					   .comp_mask = IBV_QP_INIT_ATTR_PD,
					   .pd = mlx5->pd ? mlx5->pd : device->pd};
	struct mlx5dv_qp_init_attr direct = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS,
					     .create_flags =
						     MLX5DV_QP_CREATE_DISABLE_SCATTER_TO_CQE};
	struct ibv_qp *qp = mlx5dv_create_qp(device->context, &attr, &direct);

	if (qp)
		mlx5->queue.inline_bytes = attr.cap.max_inline_data < INLINE_MAX
						   ? attr.cap.max_inline_data
						   : INLINE_MAX;
	return qp;
}

/* The device says what it can take inline only by refusing more. */
static int create_pair(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct mlx5_queue *mlx5)
{
	uint32_t inline_bytes =
		options->inline_bytes < INLINE_MAX ? options->inline_bytes : INLINE_MAX;
	struct ibv_qp *qp = create_qp(device, options, mlx5, inline_bytes);

	while (!qp && inline_bytes > 0 && (errno == EINVAL || errno == ENOMEM)) {
		inline_bytes /= 2;
		qp = create_qp(device, options, mlx5, inline_bytes);
	}
	mlx5->queue.qp = qp;
	if (qp)
		return 0;
	return fail(-errno,
		    "%s has no queue pair of %u work requests for us: %s (its limits: %d queue "
		    "pairs of %d; are others using them up?)",
		    device->name, options->depth, strerror(errno), device->attr.max_qp,
		    device->attr.max_qp_wr);
}

static void take_send_queue(struct mlx5_queue *mlx5, const struct mlx5dv_qp *direct)
{
	mlx5->ring = direct->sq.buf;
	mlx5->blocks = direct->sq.wqe_cnt;
	mlx5->mask = mlx5->blocks - 1;
	mlx5->producer_record = &direct->dbrec[MLX5_SND_DBR];
	mlx5->bell = direct->bf.reg;
	mlx5->bell_size = direct->bf.size;
	mlx5->number = htobe32(mlx5->queue.qp->qp_num << 8);
}

/* Blocks that the largest WQE may take. */
static uint32_t blocks_each(const struct mlx5_queue *mlx5)
{
	uint32_t bytes = 2 * MLX5_SEGMENT + (uint32_t)sizeof(struct mlx5_wqe_inl_data_seg) +
			 mlx5->queue.inline_bytes;

	return (bytes + MLX5_BLOCK - 1) / MLX5_BLOCK;
}

static void take_completion_queue(struct mlx5_queue *mlx5, const struct mlx5dv_cq *direct)
{
	mlx5->entry_shift = (uint32_t)__builtin_ctz(direct->cqe_size);
	mlx5->entry_count = direct->cqe_cnt;
	mlx5->entry_mask = mlx5->entry_count - 1;
	mlx5->entries = (uint8_t *)direct->buf + direct->cqe_size - sizeof(struct mlx5_cqe64);
	mlx5->records = direct->dbrec;
	mlx5->arm_bell = direct->cq_uar;
	mlx5->cqn = direct->cqn;
}

/* From here on libmlx5 leaves the consumer index of the completion queue to us. */
static int take_over(struct verbs_device *device, struct mlx5_queue *mlx5)
{
	struct mlx5dv_qp qp = {0};
	struct mlx5dv_cq cq = {0};
	struct mlx5dv_obj object = {.qp = {.in = mlx5->queue.qp, .out = &qp},
				    .cq = {.in = mlx5->queue.cq, .out = &cq}};
	int error = mlx5dv_init_obj(&object, MLX5DV_OBJ_QP | MLX5DV_OBJ_CQ);

	if (error)
		return fail(-abs(error), "%s does not show its queues: %s", device->name,
			    strerror(abs(error)));
	take_send_queue(mlx5, &qp);
	take_completion_queue(mlx5, &cq);
	if (qp.sq.stride != MLX5_BLOCK || mlx5->blocks > UINT16_MAX ||
	    mlx5->blocks < mlx5->queue.depth * blocks_each(mlx5) ||
	    mlx5->entry_count < mlx5->queue.depth || cq.cqe_size & (cq.cqe_size - 1))
		return fail(-EOPNOTSUPP,
			    "%s has queues of a layout that is not known: %u blocks of %u bytes, "
			    "%u entries of %u",
			    device->name, mlx5->blocks, qp.sq.stride, cq.cqe_cnt, cq.cqe_size);
	mlx5->ids = calloc(mlx5->blocks, sizeof(mlx5->ids[0]));
	return mlx5->ids ? 0 : fail(-ENOMEM, "out of memory");
}

int verbs_mlx5_create(struct verbs_device *device, const struct verbs_queue_options *options,
		      struct verbs_queue **out)
{
	struct mlx5_queue *mlx5;
	int rc;

	if (options->binds || !mlx5dv_is_supported(device->context->device))
		return 0;
	mlx5 = calloc(1, sizeof(*mlx5));
	if (!mlx5)
		return fail(-ENOMEM, "out of memory");
	mlx5->queue.ops = &ops;
	mlx5->queue.depth = options->depth;
	mlx5->queue.direct = true;
	create_domain(device, mlx5);
	rc = create_cq(device, options, mlx5);
	if (rc == 0)
		rc = create_pair(device, options, mlx5);
	if (rc == 0)
		rc = take_over(device, mlx5);
	if (rc < 0) {
		verbs_queue_destroy(&mlx5->queue);
		return rc;
	}
	*out = &mlx5->queue;
	return 1;
}
