/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The hot side of an mlx5 device's queues: work queue entries (WQEs) are built where the device
 * reads them, and completion queue entries (CQEs) are read where it writes them. In line, so that
 * what a transfer is told to be goes there from registers.
 *
 *   ring of blocks of 64 bytes, a WQE takes one or more:
 *
 *        control 16 | remote address 16 | data segment 16 | data segment 16
 *        control 16 | remote address 16 | length 4, bytes ... (inline, goes on in further blocks)
 *
 * A send has no remote address. Without inline bytes a WQE is one block; only inline bytes run over
 * the end of the ring to its beginning.
 */
#ifndef VERBS_MLX5_QUEUE_H
#define VERBS_MLX5_QUEUE_H

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include <infiniband/mlx5dv.h>

#include "transport/verbs/mlx5_io.h"
#include "transport/verbs/verbs_queue.h"

#define MLX5_BLOCK   MLX5_SEND_WQE_BB
#define MLX5_SEGMENT 16u

/* Segments of a WQE, in words and as the device reads them: mlx5dv.h has the first in bytes. */
struct mlx5_control {
	__be32 index_opcode;
	__be32 number_segments;
	__be32 flags;
	__be32 immediate;
};

struct mlx5_remote {
	__be64 address;
	__be32 key;
	__be32 reserved;
};

static_assert(sizeof(struct mlx5_control) == MLX5_SEGMENT, "control segment");
static_assert(sizeof(struct mlx5_remote) == MLX5_SEGMENT, "remote address segment");
static_assert(offsetof(struct mlx5_wqe_ctrl_seg, fm_ce_se) ==
		      offsetof(struct mlx5_control, flags) + 3,
	      "in its last byte");
static_assert(sizeof(struct mlx5_wqe_data_seg) == MLX5_SEGMENT, "data segment");
static_assert(sizeof(struct mlx5_cqe64) == 64 && sizeof(struct mlx5_err_cqe) == 64, "CQE");
static_assert((2 + VERBS_PIECES_MAX) * MLX5_SEGMENT <= MLX5_BLOCK, "only inline bytes need more");

/* The two doorbell records of a completion queue; mlx5dv.h leaves their names out. */
#define MLX5_RECORD_CONSUMER 0
#define MLX5_RECORD_ARM      1

struct mlx5_queue {
	struct verbs_queue queue;

	/* send queue */
	uint8_t *ring;
	uint32_t blocks; /* in the ring, a power of two */
	uint32_t mask;   /* blocks - 1 */
	uint32_t head;   /* blocks filled, ever; the device counts the lower 16 bits */
	uint32_t last;   /* block of the latest WQE */
	uint32_t rung;   /* work requests that the device was told of, ever */
	__be32 number;   /* of the queue pair, as a WQE has it */
	uint32_t *ids;   /* of work requests, by the block in which they begin */
	volatile __be32 *producer_record;
	uint8_t *bell;
	uint32_t bell_size; /* of each of its two halves; 0: it has one, for 8 bytes */
	uint32_t bell_half; /* where the next one goes */
	bool bell_is_ours;  /* no other queue pair rings it, so whole WQEs may be stored there */

	/* completion queue */
	uint8_t *entries;     /* the last 64 bytes of the first one */
	uint32_t entry_shift; /* of its size */
	uint32_t entry_count; /* a power of two */
	uint32_t entry_mask;  /* entry_count - 1 */
	uint32_t consumed;    /* ever */
	volatile __be32 *records;
	uint8_t *arm_bell;
	uint32_t cqn;
	uint32_t arm_number; /* events that the device has sent or will send, as it counts them */
	bool armed;          /* and no event was sent for it yet, as far as we know */

	struct ibv_td *thread_domain;
	struct ibv_pd *pd; /* the device's, in the thread domain */
};

/** enum ibv_wc_status of a syndrome. */
uint32_t mlx5_status(uint8_t syndrome);

static inline struct mlx5_queue *mlx5_of(struct verbs_queue *queue)
{
	return (struct mlx5_queue *)queue;
}

static inline uint8_t *mlx5_block(const struct mlx5_queue *mlx5, uint32_t block)
{
	return mlx5->ring + (size_t)(block & mlx5->mask) * MLX5_BLOCK;
}

static inline uint8_t *mlx5_end(const struct mlx5_queue *mlx5)
{
	return mlx5->ring + (size_t)mlx5->blocks * MLX5_BLOCK;
}

/* @return segments */
static inline uint32_t mlx5_add_inline(const struct mlx5_queue *mlx5, uint8_t *at,
				       const struct verbs_piece *piece)
{
	struct mlx5_wqe_inl_data_seg *segment = (struct mlx5_wqe_inl_data_seg *)at;
	uint32_t before_end = (uint32_t)(mlx5_end(mlx5) - (uint8_t *)(segment + 1));
	const uint8_t *bytes = (const uint8_t *)(uintptr_t)piece->addr;

	segment->byte_count = htobe32(piece->length | MLX5_INLINE_SEG);
	if (__builtin_expect(piece->length < before_end, 1)) {
		memcpy(segment + 1, bytes, piece->length);
	} else {
		memcpy(segment + 1, bytes, before_end);
		memcpy(mlx5->ring, bytes + before_end, piece->length - before_end);
	}
	return ((uint32_t)sizeof(*segment) + piece->length + MLX5_SEGMENT - 1) / MLX5_SEGMENT;
}

/* A length of 0 would mean 2 GiB, so what is empty gets no segment. @return segments */
static inline uint32_t mlx5_add_pieces(uint8_t *at, const struct verbs_work *work)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < work->pieces; i++) {
		const struct verbs_piece *piece = &work->piece[i];

		if (piece->length > 0)
			mlx5dv_set_data_seg(
				(struct mlx5_wqe_data_seg *)(at + MLX5_SEGMENT * count++),
				piece->length, piece->lkey, piece->addr);
	}
	return count;
}

/** As verbs_queue_ops.add. Of what the caller knows when it is compiled nothing is left to ask. */
__attribute__((always_inline)) static inline void mlx5_add(struct mlx5_queue *mlx5,
							   const struct verbs_work *work)
{
	static const uint8_t opcodes[] = {
		[VERBS_WRITE] = MLX5_OPCODE_RDMA_WRITE,
		[VERBS_WRITE_IMMEDIATE] = MLX5_OPCODE_RDMA_WRITE_IMM,
		[VERBS_READ] = MLX5_OPCODE_RDMA_READ,
		[VERBS_SEND] = MLX5_OPCODE_SEND,
		[VERBS_SEND_IMMEDIATE] = MLX5_OPCODE_SEND_IMM,
	};
	bool has_remote = work->opcode <= VERBS_READ;
	bool has_immediate =
		work->opcode == VERBS_WRITE_IMMEDIATE || work->opcode == VERBS_SEND_IMMEDIATE;
	uint8_t *at = mlx5_block(mlx5, mlx5->head);
	uint8_t *data = at + (has_remote ? 2 : 1) * MLX5_SEGMENT;
	uint32_t segments = has_remote ? 2 : 1;

	if (has_remote)
		*(struct mlx5_remote *)(at + MLX5_SEGMENT) = (struct mlx5_remote){
			.address = htobe64(work->remote), .key = htobe32(work->rkey)};
	segments += work->flags & VERBS_INLINE ? mlx5_add_inline(mlx5, data, &work->piece[0])
					       : mlx5_add_pieces(data, work);
	*(struct mlx5_control *)at = (struct mlx5_control){
		.index_opcode = htobe32((mlx5->head & 0xffff) << 8 | opcodes[work->opcode]),
		.number_segments = mlx5->number | htobe32(segments),
		.flags = work->flags & VERBS_SIGNALLED ? htobe32(MLX5_WQE_CTRL_CQ_UPDATE) : 0,
		.immediate = has_immediate ? htobe32(work->immediate) : 0};
	mlx5->last = mlx5->head;
	mlx5->head += (segments * MLX5_SEGMENT + MLX5_BLOCK - 1) / MLX5_BLOCK;
	mlx5->ids[mlx5->last & mlx5->mask] = mlx5->queue.posted++;
}

/* A single small WQE goes to the device with the doorbell: it need not fetch it. */
static inline bool mlx5_fits_bell(const struct mlx5_queue *mlx5)
{
	return mlx5->bell_is_ours && mlx5->queue.posted - mlx5->rung == 1 &&
	       (mlx5->head - mlx5->last) * MLX5_BLOCK <= mlx5->bell_size;
}

static inline void mlx5_write_bell(struct mlx5_queue *mlx5, const uint8_t *wqe)
{
	uint8_t *bell = mlx5->bell + mlx5->bell_half;

	mlx5_io_write_block(bell, wqe);
	for (uint32_t block = mlx5->last + 1; block != mlx5->head; block++) {
		bell += MLX5_BLOCK;
		mlx5_io_write_block(bell, mlx5_block(mlx5, block));
	}
}

/** As verbs_queue_ring(). The halves of the register alternate: a store to one may still be on its
 * way. */
static inline void mlx5_ring(struct verbs_queue *queue, bool signal)
{
	struct mlx5_queue *mlx5 = mlx5_of(queue);
	uint8_t *last = mlx5_block(mlx5, mlx5->last);

	if (queue->posted == mlx5->rung)
		return;
	if (signal)
		((struct mlx5_control *)last)->flags = htobe32(MLX5_WQE_CTRL_CQ_UPDATE);
	mlx5_io_order_stores(); /* the WQEs before the record that lets the device read them */
	*mlx5->producer_record = htobe32(mlx5->head & 0xffff);
	mlx5_io_fence_register();
	if (mlx5_fits_bell(mlx5))
		mlx5_write_bell(mlx5, last);
	else
		mlx5_io_write64(mlx5->bell + mlx5->bell_half, *(const uint64_t *)last);
	mlx5_io_fence_register();
	mlx5->bell_half ^= mlx5->bell_size;
	mlx5->rung = queue->posted;
	queue->doorbells++;
}

/* The owner bit changes with each round, and what was never written is invalid. NULL: none. */
static inline const struct mlx5_cqe64 *mlx5_next_entry(const struct mlx5_queue *mlx5)
{
	uint32_t index = mlx5->consumed & mlx5->entry_mask;
	const struct mlx5_cqe64 *entry =
		(const struct mlx5_cqe64 *)(mlx5->entries + ((size_t)index << mlx5->entry_shift));
	uint8_t op_own = *(const volatile uint8_t *)&entry->op_own;
	uint8_t owner = (mlx5->consumed & mlx5->entry_count) != 0;

	if ((op_own & MLX5_CQE_OWNER_MASK) != owner || op_own >> 4 == MLX5_CQE_INVALID)
		return NULL;
	mlx5_io_order_loads();
	return entry;
}

/* Its room and that of all before it is free; the device completes in order. */
static inline uint32_t mlx5_give_back(struct mlx5_queue *mlx5, uint16_t counter)
{
	uint32_t id = mlx5->ids[counter & mlx5->mask];

	assert(id - mlx5->queue.returned < mlx5->queue.depth); /* one of those outstanding */
	mlx5->queue.returned = id + 1;
	return id;
}

/**
 * Take the next completion, if it is a success. After the last one comes mlx5_taken().
 *
 * @param id  out: of the work request; those before it have succeeded too
 */
static inline bool mlx5_next_success(struct mlx5_queue *mlx5, uint32_t *id)
{
	const struct mlx5_cqe64 *entry;

	if (mlx5->queue.returned == mlx5->queue.posted || !(entry = mlx5_next_entry(mlx5)) ||
	    entry->op_own >> 4 != MLX5_CQE_REQ)
		return false;
	*id = mlx5_give_back(mlx5, be16toh(entry->wqe_counter));
	mlx5->consumed++;
	return true;
}

/** The device may write over the entries that were read, @p n of them about work requests. */
static inline void mlx5_taken(struct mlx5_queue *mlx5, uint32_t n)
{
	mlx5_io_order_loads(); /* before it may */
	mlx5->records[MLX5_RECORD_CONSUMER] = htobe32(mlx5->consumed & 0xffffff);
	if (__builtin_expect(mlx5->armed, 0)) {
		mlx5->armed = false;
		mlx5->arm_number++;
	}
	mlx5->queue.signalled += n;
}

/**
 * Hand over what was added since, with one doorbell.
 *
 * @param signal  the last one is signalled, whatever it says
 * @return        0; -EIO the device is broken, and of some of it nothing comes back
 */
static inline int verbs_queue_ring(struct verbs_queue *queue, bool signal)
{
	if (__builtin_expect(!queue->direct, 0))
		return queue->ops->ring(queue, signal);
	mlx5_ring(queue, signal);
	return 0;
}

#endif
