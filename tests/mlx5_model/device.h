/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * This process's part of the model: the objects that libibverbs would have made, and the thread
 * that is the device. Control calls and the thread take turns by device_lock(); what an application
 * does with doorbells, rings and receives takes no lock, as with hardware.
 */
#ifndef TESTS_MLX5_MODEL_DEVICE_H
#define TESTS_MLX5_MODEL_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>

#include "fabric.h"

#define DEVICE_PAGE       4096u
#define DEVICE_BELL       0x800u /* in the page; two halves */
#define DEVICE_HALF       256u
#define DEVICE_BLOCKS_MAX 32768u
#define DEVICE_WQE_MAX    512u /* bytes of one, as some devices have it */
#define DEVICE_READS_MAX  16u
#define DEVICE_SGES_MAX   30u

struct model_cq {
	union {
		struct ibv_cq cq;
		struct ibv_cq_ex ex;
	};
	LIST_ENTRY(model_cq) link;
	bool direct;    /* its ring is read by the application; of receives otherwise */
	uint32_t queue; /* in the fabric, not direct */

	struct mlx5_cqe64 *ring; /* direct */
	uint32_t count;
	uint32_t produced;
	uint32_t records[2]; /* doorbell records: consumer index, arming */
	uint8_t *page;       /* of the arming doorbell */
	uint32_t number;
	uint32_t events; /* sent */
	uint32_t armed_at;
	bool armed;

	uint32_t unread; /* events that nobody has got yet, under the channel's lock */
};

struct model_channel {
	struct ibv_comp_channel channel;
	pthread_mutex_t lock;
};

struct model_pd {
	struct ibv_pd pd;
	uint32_t domain;
	bool has_register; /* of a thread domain */
};

/* Carried out, or flushed, and not yet told of. */
struct pending {
	uint64_t due_ns;
	uint32_t end; /* the block after it */
	uint32_t bytes;
	uint16_t counter;
	uint8_t opcode;
	uint8_t syndrome; /* 0: success */
	uint8_t vendor;
	bool signalled;
	bool read;
};

/** The binding of a window as it lies behind its control segment: the model's own layout. */
struct device_bind {
	uint32_t key;
	uint32_t lkey;
	uint32_t access;
	uint32_t reserved;
	uint64_t addr;
	uint64_t length;
	uint64_t padding[2];
};

struct model_qp {
	union {
		struct ibv_qp qp;
		struct ibv_qp_ex ex; /* of one that libibverbs drives */
	};
	uint64_t *ids;   /* likewise, by block */
	uint32_t built;  /* blocks, likewise */
	uint8_t *latest; /* WQE that is being built */
	LIST_ENTRY(model_qp) link;
	struct fabric_pair *shared;
	struct model_cq *cq; /* of sends */
	struct ibv_qp_cap cap;
	struct ibv_qp_attr attr; /* as modified so far */

	uint8_t *ring;
	uint32_t blocks;
	uint32_t records[2]; /* doorbell records: receive, send */
	uint8_t *page;       /* of the doorbell */
	uint32_t half;       /* bytes of each half of it */
	bool shares_bell;    /* others may ring there, so only 8 bytes at a time go well */

	uint32_t producer; /* blocks that the doorbell has let us read */
	uint32_t head;     /* carried out */
	uint32_t released; /* told of */

	struct pending *pending; /* a ring of as many as there are blocks */
	uint32_t pending_head;
	uint32_t pending_tail;
	uint32_t reads;

	uint64_t stalled_until; /* 0: not stalled */
	uint64_t gives_up_at;   /* 0: the peer answers */
	uint32_t rnr_left;
	bool rnr; /* stalled for want of a receive */
};

struct device {
	pthread_mutex_t lock;
	atomic_uint waiting; /* control calls that want the lock */
	LIST_HEAD(, model_qp) pairs;
	LIST_HEAD(, model_cq) queues;
	bool running;
	bool stopping;
	unsigned users; /* open contexts */
	pthread_t thread;
	uint32_t next_cq;
};

extern struct device device;

void device_lock(void);
void device_unlock(void);

/** The first context was opened, the last one closed. */
int device_start(void);
void device_stop(void);

/** Send an event of @p cq down its channel. */
void device_send_event(struct model_cq *cq);

/** engine.c: one round. Under device_lock(). @return was there anything to do? */
bool engine_run(void);

/** Forget what was posted and not told of: the queue pair was reset. Under device_lock(). */
void engine_reset(struct model_qp *qp);

uint64_t engine_now_ns(void);

#endif
