/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A queue pair's send queue with the completion queue of its own: work requests are added, go with
 * one doorbell for all that were, and the completions of those that asked for one come out. Two
 * ways to drive it: ibv_wr_* (queue_verbs.c), and on an mlx5 device its queues directly
 * (queue_mlx5.c), where a work request is built in the ring as it is added (mlx5_queue.h).
 *
 * What is received goes another way: ibv_post_recv() and ibv_poll_cq() on the receive completion
 * queue that was given at creation.
 *
 * Order of calls: create, initialise, post receives, connect, then add, ring, poll and arm by one
 * thread; verbs_queue_fail() and poll until everything posted has come back; destroy.
 */
#ifndef VERBS_VERBS_QUEUE_H
#define VERBS_VERBS_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include <infiniband/verbs.h>

#define VERBS_PIECES_MAX 2u

struct verbs_device;
struct verbs_queue;

enum verbs_opcode {
	VERBS_WRITE,
	VERBS_WRITE_IMMEDIATE, /* the peer takes a receive and is told the immediate */
	VERBS_READ,
	VERBS_SEND,
	VERBS_SEND_IMMEDIATE,
	VERBS_BIND_WINDOW, /* only on a queue that was created for it; always inline-free */
};

enum verbs_flag {
	VERBS_SIGNALLED = 1, /* a completion is wanted; it also stands for those before it */
	VERBS_INLINE = 2,    /* the bytes of the one piece, 1..inline_bytes, are taken along now */
};

/** A piece of local memory. */
struct verbs_piece {
	uint64_t addr;
	uint32_t length;
	uint32_t lkey; /* not looked at with VERBS_INLINE */
};

/** One work request. */
struct verbs_work {
	uint8_t opcode; /* enum verbs_opcode */
	uint8_t flags;
	uint8_t pieces;     /* 0..VERBS_PIECES_MAX */
	uint32_t id;        /* counts those posted on this queue, from 0; comes back */
	uint32_t immediate; /* host byte order */
	uint32_t rkey;
	uint64_t remote;
	struct verbs_piece piece[VERBS_PIECES_MAX];
	struct ibv_mw *window;                    /* VERBS_BIND_WINDOW */
	const struct ibv_mw_bind_info *bind_info; /* likewise; rkey is the new key */
};

/** A completion. After one with an error nothing that was posted later succeeds. */
struct verbs_done {
	uint32_t id; /* of the work request; with an error, also of one that was not signalled */
	uint32_t status; /* enum ibv_wc_status */
	uint32_t vendor_error;
};

struct verbs_queue_ops {
	/**
	 * Take on a work request, of which there is room for: it goes when the queue is rung next.
	 * Inline bytes may stay where they are until then.
	 */
	void (*add)(struct verbs_queue *queue, const struct verbs_work *work);
	/**
	 * Hand over what was added since, with one doorbell.
	 *
	 * @param signal  the last one is signalled, whatever it says
	 * @return        0; -EIO the device is broken, and of some of it nothing comes back
	 */
	int (*ring)(struct verbs_queue *queue, bool signal);
	/** Take up to @p n completions. @return how many; 0 none */
	uint32_t (*poll)(struct verbs_queue *queue, struct verbs_done *done, uint32_t n);
	/** Let the channel tell of the next completion. Poll once more afterwards. @return 0;
	 * -errno */
	int (*arm)(struct verbs_queue *queue);
	/** The queue pair was destroyed or never was: free what the way of driving it took. */
	void (*destroy)(struct verbs_queue *queue);
};

struct verbs_queue_options {
	uint32_t depth;                   /* work requests that may be outstanding */
	uint32_t receives;                /* receives that may be posted; 0: none */
	uint32_t inline_bytes;            /* wanted; the device may give less */
	bool binds;                       /* VERBS_BIND_WINDOW is posted on it */
	struct ibv_srq *srq;              /* receives are taken from; NULL: its own */
	struct ibv_cq *receive_cq;        /* NULL: without receives the send queue's own */
	struct ibv_comp_channel *channel; /* of its send completions; NULL: it is never armed */
	void *context;                    /* qp_context */
};

struct verbs_queue {
	const struct verbs_queue_ops *ops;
	struct ibv_qp *qp;
	struct ibv_cq *cq; /* of sends */
	uint32_t depth;
	uint32_t posted;       /* work requests that were added, ever */
	uint32_t returned;     /* of these, those that the completions so far stand for */
	uint32_t inline_bytes; /* as given */
	uint64_t doorbells;
	uint64_t signalled; /* completions taken */
	bool direct;        /* driven without libibverbs */
};

/** Work requests that may be added. */
static inline uint32_t verbs_queue_room(const struct verbs_queue *queue)
{
	return queue->depth - (queue->posted - queue->returned);
}

/** Add as many as there is room for and ring. @return how many; 0 also where the device is broken
 */
uint32_t verbs_queue_post(struct verbs_queue *queue, const struct verbs_work *works, uint32_t n);

/**
 * Make one on @p device; queue_mlx5.c is asked first.
 *
 * @return 0; -ENOMEM, -ENOSPC the device has no more, or cannot have it so large; with a text
 */
int verbs_queue_create(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct verbs_queue **queue);

/** What a queue pair is told of its peer, and how it is to behave. */
struct verbs_connection {
	uint32_t peer_qpn;
	uint32_t peer_psn;
	uint32_t psn; /* ours */
	union ibv_gid peer_gid;
	uint32_t gid_index; /* ours */
	uint16_t peer_lid;
	bool global; /* by GID; always so over Ethernet */
	enum ibv_mtu mtu;
	uint8_t reads_out; /* RDMA READs that we may have outstanding */
	uint8_t reads_in;  /* that the peer may */
	uint8_t timeout;
	uint8_t retries;
	uint8_t traffic_class;
	uint8_t service_level;
};

/**
 * Let receives be posted, and the peer do what @p access says (enum ibv_access_flags) once it is
 * connected. @return 0; -errno with a text
 */
int verbs_queue_initialise(struct verbs_queue *queue, const struct verbs_device *device,
			   uint32_t access);

/** From there to ready to send. @return 0; -errno with a text that names the step */
int verbs_queue_connect(struct verbs_queue *queue, const struct verbs_device *device,
			const struct verbs_connection *connection);

/** To the error state: everything that is posted comes back by poll, with an error. */
void verbs_queue_fail(struct verbs_queue *queue);

/** Destroy the queue pair, then its completion queue. Accepts NULL. */
void verbs_queue_destroy(struct verbs_queue *queue);

/**
 * queue_mlx5.c: fill @p queue (qp, cq, ops, depth, inline_bytes) if the device's queues can be
 * driven directly.
 *
 * @return 1 done; 0 not that kind of device, or not with these options; -ENOMEM, -ENOSPC, -errno
 */
int verbs_mlx5_create(struct verbs_device *device, const struct verbs_queue_options *options,
		      struct verbs_queue **queue);

/** queue_verbs.c: by ibv_wr_*. @return 0; -ENOMEM, -ENOSPC, -errno */
int verbs_plain_create(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct verbs_queue **queue);

#endif
