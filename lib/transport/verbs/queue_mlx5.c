/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The send queue of an mlx5 device without libibverbs between: work queue entries (WQEs) are built
 * in its ring, the doorbell is rung, completion queue entries (CQEs) are read in theirs. The
 * layouts are those of <infiniband/mlx5dv.h>.
 *
 *   ring of blocks of 64 bytes, a WQE takes one or more:
 *
 *        control 16 | remote address 16 | data segment 16 | data segment 16
 *        control 16 | remote address 16 | length 4, bytes ... (inline, goes on in further blocks)
 *
 * A send has no remote address. Without inline bytes a WQE is one block; only inline bytes run over
 * the end of the ring to its beginning.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <infiniband/mlx5dv.h>

#include "base/log.h"
#include "transport/verbs/mlx5_io.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"

#define BLOCK   MLX5_SEND_WQE_BB
#define SEGMENT 16u
/* The control segment counts segments in 6 bits. */
#define SEGMENTS_MAX 63u
#define INLINE_MAX                                                                                 \
	(SEGMENTS_MAX * SEGMENT - (uint32_t)sizeof(struct mlx5_wqe_ctrl_seg) -                     \
	 (uint32_t)sizeof(struct mlx5_wqe_raddr_seg) -                                             \
	 (uint32_t)sizeof(struct mlx5_wqe_inl_data_seg))

/* The two doorbell records of a completion queue; mlx5dv.h leaves their names out. */
#define RECORD_CONSUMER 0
#define RECORD_ARM      1

static_assert(sizeof(struct mlx5_wqe_ctrl_seg) == SEGMENT, "control segment");
static_assert(sizeof(struct mlx5_wqe_raddr_seg) == SEGMENT, "remote address segment");
static_assert(sizeof(struct mlx5_wqe_data_seg) == SEGMENT, "data segment");
static_assert(sizeof(struct mlx5_cqe64) == 64 && sizeof(struct mlx5_err_cqe) == 64, "CQE");
static_assert(2 * SEGMENT + VERBS_PIECES_MAX * SEGMENT <= BLOCK, "only inline bytes need more");

/* What is remembered of a WQE, by the block in which it begins. */
struct slot {
	uint32_t id;
	uint32_t number; /* of it among all that were posted */
	uint32_t end;    /* the block after it, counted like head */
};

struct mlx5_queue {
	struct verbs_queue queue;

	/* send queue */
	uint8_t *ring;
	uint8_t *ring_end;
	uint32_t blocks;   /* in the ring, a power of two */
	uint32_t head;     /* blocks filled, ever; the device counts the lower 16 bits */
	uint32_t tail;     /* of these, given back */
	uint32_t posted;   /* work requests, ever */
	uint32_t returned; /* of these, given back */
	struct slot *slots;
	volatile __be32 *producer_record;
	uint8_t *bell;
	uint32_t bell_size; /* of each of its two halves; 0: it has one, for 8 bytes */
	uint32_t bell_half; /* where the next one goes */
	bool bell_is_ours;  /* no other queue pair rings it, so whole WQEs may be stored there */

	/* completion queue */
	uint8_t *entries; /* the last 64 bytes of the first one */
	uint32_t entry_size;
	uint32_t entry_count; /* a power of two */
	uint32_t consumed;    /* ever */
	volatile __be32 *records;
	uint8_t *arm_bell;
	uint32_t cqn;
	uint32_t arm_number; /* events that the device has sent or will send, as it counts them */
	bool armed;          /* and no event was sent for it yet, as far as we know */

	struct ibv_td *thread_domain;
	struct ibv_pd *pd; /* the device's, in the thread domain */
};

static struct mlx5_queue *to_mlx5(struct verbs_queue *queue)
{
	return (struct mlx5_queue *)queue;
}

/* ---- posting ---- */

static const uint8_t opcodes[] = {
	[VERBS_WRITE] = MLX5_OPCODE_RDMA_WRITE,
	[VERBS_WRITE_IMMEDIATE] = MLX5_OPCODE_RDMA_WRITE_IMM,
	[VERBS_READ] = MLX5_OPCODE_RDMA_READ,
	[VERBS_SEND] = MLX5_OPCODE_SEND,
	[VERBS_SEND_IMMEDIATE] = MLX5_OPCODE_SEND_IMM,
};

static bool has_remote(const struct verbs_work *work)
{
	return work->opcode <= VERBS_READ;
}

static bool has_immediate(const struct verbs_work *work)
{
	return work->opcode == VERBS_WRITE_IMMEDIATE || work->opcode == VERBS_SEND_IMMEDIATE;
}

static uint32_t inline_length(const struct verbs_work *work)
{
	uint32_t length = 0;

	for (uint32_t i = 0; i < work->pieces; i++)
		length += work->piece[i].length;
	return length;
}

/* @return where the next byte goes */
static uint8_t *copy_into_ring(struct mlx5_queue *mlx5, uint8_t *to, const void *from,
			       uint32_t length)
{
	uint32_t before_end = (uint32_t)(mlx5->ring_end - to);

	if (length >= before_end) {
		memcpy(to, from, before_end);
		from = (const uint8_t *)from + before_end;
		length -= before_end;
		to = mlx5->ring;
	}
	memcpy(to, from, length);
	return to + length;
}

/* @return segments */
static uint32_t write_inline(struct mlx5_queue *mlx5, uint8_t *at, const struct verbs_work *work,
			     uint32_t length)
{
	uint32_t bytes = (uint32_t)sizeof(struct mlx5_wqe_inl_data_seg) + length;

	if (length == 0)
		return 0;
	((struct mlx5_wqe_inl_data_seg *)at)->byte_count = htobe32(length | MLX5_INLINE_SEG);
	at += sizeof(struct mlx5_wqe_inl_data_seg);
	for (uint32_t i = 0; i < work->pieces; i++)
		if (work->piece[i].length > 0)
			at = copy_into_ring(mlx5, at, (void *)(uintptr_t)work->piece[i].addr,
					    work->piece[i].length);
	return (bytes + SEGMENT - 1) / SEGMENT;
}

/* A length of 0 would mean 2 GiB, so what is empty gets no segment. @return segments */
static inline uint32_t write_pieces(uint8_t *at, const struct verbs_work *work)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < work->pieces; i++) {
		const struct verbs_piece *piece = &work->piece[i];

		assert(piece->length < MLX5_INLINE_SEG);
		if (piece->length > 0)
			mlx5dv_set_data_seg((struct mlx5_wqe_data_seg *)(at + SEGMENT * count++),
					    piece->length, piece->lkey, piece->addr);
	}
	return count;
}

/* @return the WQE; NULL: no room */
static inline uint8_t *append(struct mlx5_queue *mlx5, const struct verbs_work *work)
{
	bool inlined = work->flags & VERBS_INLINE;
	uint32_t length = inlined ? inline_length(work) : 0;
	uint32_t segments = 1 + has_remote(work);
	uint32_t most = (segments + 1) * SEGMENT + length; /* of an inline one */
	uint32_t blocks = inlined ? (most + BLOCK - 1) / BLOCK : 1;
	uint32_t index = mlx5->head & (mlx5->blocks - 1);
	uint8_t *at = mlx5->ring + index * BLOCK, *data = at + segments * SEGMENT;
	struct mlx5_wqe_ctrl_seg *control = (struct mlx5_wqe_ctrl_seg *)at;

	assert(work->opcode < sizeof(opcodes) && work->pieces <= VERBS_PIECES_MAX);
	assert(!inlined || (work->opcode != VERBS_READ && length <= mlx5->queue.inline_bytes));
	if (mlx5->posted - mlx5->returned == mlx5->queue.depth ||
	    mlx5->head + blocks - mlx5->tail > mlx5->blocks)
		return NULL;
	if (has_remote(work))
		*(struct mlx5_wqe_raddr_seg *)(at + SEGMENT) = (struct mlx5_wqe_raddr_seg){
			.raddr = htobe64(work->remote), .rkey = htobe32(work->rkey)};
	segments += inlined ? write_inline(mlx5, data, work, length) : write_pieces(data, work);
	*control = (struct mlx5_wqe_ctrl_seg){
		.opmod_idx_opcode = htobe32((mlx5->head & 0xffff) << 8 | opcodes[work->opcode]),
		.qpn_ds = htobe32(mlx5->queue.qp->qp_num << 8 | segments),
		.fm_ce_se = work->flags & VERBS_SIGNALLED ? MLX5_WQE_CTRL_CQ_UPDATE : 0,
		.imm = has_immediate(work) ? htobe32(work->immediate) : 0};
	mlx5->head += (segments * SEGMENT + BLOCK - 1) / BLOCK;
	mlx5->slots[index] =
		(struct slot){.id = work->id, .number = mlx5->posted++, .end = mlx5->head};
	return at;
}

/* A single small WQE goes to the device with the doorbell: it need not fetch it. */
static bool fits_bell(const struct mlx5_queue *mlx5, uint32_t first_block, uint32_t posted)
{
	return mlx5->bell_is_ours && posted == 1 &&
	       (mlx5->head - first_block) * BLOCK <= mlx5->bell_size;
}

static void write_bell(struct mlx5_queue *mlx5, const uint8_t *wqe, uint32_t first_block)
{
	uint8_t *bell = mlx5->bell + mlx5->bell_half;

	mlx5_io_write_block(bell, wqe);
	while (++first_block != mlx5->head) {
		bell += BLOCK;
		wqe += BLOCK;
		if (wqe == mlx5->ring_end)
			wqe = mlx5->ring;
		mlx5_io_write_block(bell, wqe);
	}
}

/* The halves of the register alternate: a store to one may still be on its way. */
static void ring_bell(struct mlx5_queue *mlx5, const uint8_t *last, uint32_t first_block,
		      uint32_t posted)
{
	mlx5_io_order_stores(); /* the WQEs before the record that lets the device read them */
	*mlx5->producer_record = htobe32(mlx5->head & 0xffff);
	mlx5_io_fence_register();
	if (fits_bell(mlx5, first_block, posted))
		write_bell(mlx5, last, first_block);
	else
		mlx5_io_write64(mlx5->bell + mlx5->bell_half, *(const uint64_t *)last);
	mlx5_io_fence_register();
	mlx5->bell_half ^= mlx5->bell_size;
	mlx5->queue.doorbells++;
}

static uint32_t post(struct verbs_queue *queue, const struct verbs_work *works, uint32_t n)
{
	struct mlx5_queue *mlx5 = to_mlx5(queue);
	uint32_t first_block = mlx5->head, taken = 0;
	uint8_t *last = NULL;

	while (taken < n) {
		uint8_t *wqe = append(mlx5, &works[taken]);

		if (!wqe)
			break;
		last = wqe;
		taken++;
	}
	if (taken > 0)
		ring_bell(mlx5, last, first_block, taken);
	return taken;
}

/* ---- completions ---- */

static uint32_t status_of(uint8_t syndrome)
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

/* The owner bit changes with each round, and what was never written is invalid. NULL: none. */
static const struct mlx5_cqe64 *next_entry(const struct mlx5_queue *mlx5)
{
	uint32_t index = mlx5->consumed & (mlx5->entry_count - 1);
	const struct mlx5_cqe64 *entry =
		(const struct mlx5_cqe64 *)(mlx5->entries + (size_t)index * mlx5->entry_size);
	uint8_t op_own = *(const volatile uint8_t *)&entry->op_own;
	uint8_t owner = (mlx5->consumed & mlx5->entry_count) != 0;

	if ((op_own & MLX5_CQE_OWNER_MASK) != owner || op_own >> 4 == MLX5_CQE_INVALID)
		return NULL;
	mlx5_io_order_loads();
	return entry;
}

/* Its room and that of all before it is free; the device completes in order. */
static uint32_t give_back(struct mlx5_queue *mlx5, uint16_t counter)
{
	uint32_t block = mlx5->tail + (uint16_t)(counter - mlx5->tail);
	const struct slot *slot = &mlx5->slots[block & (mlx5->blocks - 1)];

	assert(mlx5->head - block - 1 < mlx5->blocks); /* it is one of those outstanding */
	mlx5->tail = slot->end;
	mlx5->returned = slot->number + 1;
	return slot->id;
}

/* @return 1; 0 not about a work request */
static uint32_t take_entry(struct mlx5_queue *mlx5, const struct mlx5_cqe64 *entry,
			   struct verbs_done *done)
{
	const struct mlx5_err_cqe *error = (const struct mlx5_err_cqe *)entry;

	switch (entry->op_own >> 4) {
	case MLX5_CQE_REQ:
		*done = (struct verbs_done){.id = give_back(mlx5, be16toh(entry->wqe_counter)),
					    .status = IBV_WC_SUCCESS};
		return 1;
	case MLX5_CQE_REQ_ERR:
		*done = (struct verbs_done){.id = give_back(mlx5, be16toh(error->wqe_counter)),
					    .status = status_of(error->syndrome),
					    .vendor_error = error->vendor_err_synd};
		return 1;
	default:
		return 0;
	}
}

static uint32_t poll_entries(struct verbs_queue *queue, struct verbs_done *done, uint32_t n)
{
	struct mlx5_queue *mlx5 = to_mlx5(queue);
	uint32_t before = mlx5->consumed, got = 0;
	const struct mlx5_cqe64 *entry;

	while (got < n && mlx5->returned != mlx5->posted && (entry = next_entry(mlx5))) {
		got += take_entry(mlx5, entry, &done[got]);
		mlx5->consumed++;
	}
	if (mlx5->consumed == before)
		return 0;
	mlx5_io_order_loads(); /* the entries were read before the device may write them again */
	mlx5->records[RECORD_CONSUMER] = htobe32(mlx5->consumed & 0xffffff);
	if (mlx5->armed) {
		mlx5->armed = false;
		mlx5->arm_number++;
	}
	queue->signalled += got;
	return got;
}

/*
 * The device takes an arming as a new one by its number, which counts the events that it has sent.
 * We do not see events; but when we were armed, an entry that is there has caused one.
 */
static int arm(struct verbs_queue *queue)
{
	struct mlx5_queue *mlx5 = to_mlx5(queue);
	uint32_t command;

	if (mlx5->armed && next_entry(mlx5))
		mlx5->arm_number++;
	command = (mlx5->arm_number & 3) << 28 | MLX5_CQ_DB_REQ_NOT | (mlx5->consumed & 0xffffff);
	mlx5->records[RECORD_ARM] = htobe32(command);
	mlx5_io_fence_register();
	mlx5_io_write64(mlx5->arm_bell + MLX5_CQ_DOORBELL,
			htobe64((uint64_t)command << 32 | mlx5->cqn));
	mlx5_io_fence_register();
	mlx5->armed = true;
	return 0;
}

static void destroy(struct verbs_queue *queue)
{
	struct mlx5_queue *mlx5 = to_mlx5(queue);

	if (mlx5->pd)
		ibv_dealloc_pd(mlx5->pd);
	if (mlx5->thread_domain)
		ibv_dealloc_td(mlx5->thread_domain);
	free(mlx5->slots);
	free(mlx5);
}

static const struct verbs_queue_ops ops = {
	.post = post,
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
	mlx5->ring_end = mlx5->ring + (size_t)mlx5->blocks * BLOCK;
	mlx5->producer_record = &direct->dbrec[MLX5_SND_DBR];
	mlx5->bell = direct->bf.reg;
	mlx5->bell_size = direct->bf.size;
}

static void take_completion_queue(struct mlx5_queue *mlx5, const struct mlx5dv_cq *direct)
{
	mlx5->entry_size = direct->cqe_size;
	mlx5->entry_count = direct->cqe_cnt;
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
	if (qp.sq.stride != BLOCK || mlx5->blocks == 0 || mlx5->blocks > UINT16_MAX ||
	    mlx5->entry_count < mlx5->queue.depth)
		return fail(-EOPNOTSUPP,
			    "%s has queues of a layout that is not known: %u blocks of %u bytes, "
			    "%u entries of %u",
			    device->name, mlx5->blocks, qp.sq.stride, cq.cqe_cnt, cq.cqe_size);
	mlx5->slots = calloc(mlx5->blocks, sizeof(mlx5->slots[0]));
	return mlx5->slots ? 0 : fail(-ENOMEM, "out of memory");
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
