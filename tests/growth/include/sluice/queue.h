/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Queues: how an application thread hands over operations and takes their completions.
 *
 * A queue has one owner thread at a time. Behind a poller thread, operations travel through one
 * single-producer ring and completions come back through another; an inline queue has its own
 * poller, which runs inside slu_submit(), slu_reap() and slu_wait().
 *
 * Every accepted operation completes exactly once (SLU_SILENT: if it fails). There is no order
 * between operations but what SLU_ORDERED asks for, except that a notification is delivered after
 * the data of its own operation.
 */
#ifndef SLUICE_QUEUE_H
#define SLUICE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include <sluice/engine.h>
#include <sluice/export.h>
#include <sluice/memory.h>
#include <sluice/segment.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLU_QUEUE_DEPTH_MAX 65536u              /* operations outstanding in one queue */
#define SLU_LENGTH_MAX      (UINT64_C(1) << 40) /* bytes of one operation */
#define SLU_TIMEOUT_MAX_US  1800000000u         /* 30 minutes */
#define SLU_FRAGMENTS_MAX   65536u              /* of one vector, at either side */

struct slu_queue;

enum slu_opcode {
	SLU_READ,         /* segment to region */
	SLU_WRITE,        /* region to segment */
	SLU_WRITE_NOTIFY, /* the same, then tell the segment's owner slu_op.tag */
	/**
	 * Of 8 bytes of the segment, as a uint64_t of the target's byte order, aligned: add
	 * slu_op.operand to them, or put that in their place if they are equal to the 8 bytes at
	 * local_offset, which need not be aligned. In either case those get what was there before.
	 *
	 * Needs both rights. It is carried out once: one that was lost on its way ends with
	 * -ECONNRESET, and SLU_MAY_LAND where it may have been. Atomic with all that CPUs do to the
	 * segment: with these operations over shm and tcp, and with C11's atomics at the target.
	 * What a device does over RDMA is not, and so it is refused there with -EOPNOTSUPP.
	 */
	SLU_FETCH_ADD,
	SLU_COMPARE_SWAP,
};

/** Bits of slu_op.flags and slu_call.flags. */
enum slu_op_flag {
	/** slu_op.vector says what is moved, in place of slu_op.length. Not for calls. */
	SLU_VECTOR = 1,
	/**
	 * It is begun when all operations and calls that were submitted to this queue before, on
	 * the same remote, have ended, well or badly: whoever sees what it does sees what they have
	 * done. Those that are submitted after it are not held back, unless they are ordered too.
	 */
	SLU_ORDERED = 2,
	/**
	 * No completion when it ends well; when it fails, as ever. Its place in the queue is free
	 * again when it has ended. Not for calls.
	 */
	SLU_SILENT = 4,
};

/** How a vector says where its bytes lie. */
enum slu_vector_shape {
	SLU_VECTOR_LIST,    /* fragments, one by one */
	SLU_VECTOR_STRIDED, /* equal runs at equal distances, at either side */
	SLU_VECTOR_PAGED,   /* equal pages, each found in a table, at either side */
};

/** Bytes at one place of the segment and at one of the region. */
struct slu_fragment {
	uint64_t remote_offset; /* bytes from slu_op.remote_offset */
	uint64_t local_offset;  /* bytes from slu_op.local_offset */
	uint64_t length;        /* bytes, 1 or more */
};

/** Run i of @p count begins i * @p stride_bytes after the offset of its side in slu_op. */
struct slu_strides {
	uint64_t stride_bytes;
	uint64_t length; /* of a run, bytes, 1 or more */
	uint32_t count;
	uint32_t reserved; /* zero */
};

/** Page i of @p count begins pages[i] * @p page_bytes after the offset of its side in slu_op. */
struct slu_pages {
	const uint32_t *pages; /* NULL: 0, 1, 2, ... */
	uint64_t page_bytes;
	uint32_t count;
	uint32_t reserved; /* zero */
};

/**
 * Many pieces that are moved by one operation and end with one completion.
 *
 * The bytes of the one side, in the order of its fragments, go to those of the other, in theirs;
 * both sides have as many in all. Where bytes are written, in the region by a READ and in the
 * segment by a WRITE, no two fragments may overlap. In which order the fragments are carried out is
 * not said; a notification comes after all of them.
 *
 * It is checked by slu_submit(), and read again by the poller: the vector, its list and its tables
 * stay as they are until the operation's completion was reaped. Several operations may share them.
 */
struct slu_vector {
	uint32_t shape; /* enum slu_vector_shape */
	uint32_t count; /* SLU_VECTOR_LIST: of fragments; else zero */
	union {
		const struct slu_fragment *fragments; /* SLU_VECTOR_LIST */
		struct {
			struct slu_strides remote;
			struct slu_strides local;
		} strided; /* SLU_VECTOR_STRIDED */
		struct {
			struct slu_pages remote;
			struct slu_pages local;
		} paged; /* SLU_VECTOR_PAGED */
	};
};

/**
 * One operation. Owned by the caller; slu_submit copies what it needs.
 *
 * It ends with -ETIMEDOUT within milliseconds of its timeout, while the queue is polled; one that
 * is late before its poller has taken it is not begun.
 *
 * Over TCP and RDMA what has been sent can be taken back only together with the connections that
 * carry it: a WRITE, notification or call that times out there costs its poller's link to that
 * target. Other READs and WRITEs on it are repeated over new connections, other notifications and
 * calls end with -ECONNRESET.
 */
struct slu_op {
	uint64_t user_data; /* handed back in the completion */
	struct slu_remote *remote;
	uint64_t remote_offset; /* bytes from the start of the segment */
	struct slu_region *region;
	uint64_t local_offset; /* bytes from the start of the region */
	union {
		uint64_t length;                 /* bytes, 0..SLU_LENGTH_MAX */
		uint64_t operand;                /* SLU_FETCH_ADD, SLU_COMPARE_SWAP */
		const struct slu_vector *vector; /* with SLU_VECTOR */
	};
	uint32_t tag;        /* SLU_WRITE_NOTIFY */
	uint32_t timeout_us; /* from submission; 0 = the queue's, at most SLU_TIMEOUT_MAX_US */
	uint8_t opcode;      /* enum slu_opcode */
	uint8_t flags;       /* enum slu_op_flag */
	uint8_t reserved[2]; /* zero */
	uint32_t engine;     /* zero; the engine's own while it has the operation */
};

/**
 * A request to the segment's owner, who answers it (segment.h). Owned by the caller;
 * slu_submit_calls() copies what it needs.
 *
 * The calls of one remote, over shm of all of one segment, that the owner has not answered are
 * bounded: others wait, in order, until they may go or are late. Any right is enough to call. A
 * call goes out once; one that ended with -ETIMEDOUT and SLU_MAY_LAND may have reached the owner,
 * whose answer is then dropped. An answer that is longer than the room for it fails with -EMSGSIZE,
 * and nothing is written.
 *
 * Requests and answers of up to SLU_MESSAGE_MAX go over every transport, longer ones over shm, tcp
 * and fake. What is longer, or has room for an answer that is, takes memory of the target
 * (slu_message): while its identity has all that it may the call waits, and one that never could
 * have that much ends with -EDQUOT. Over shm an area has 16 of them under way.
 */
struct slu_call {
	uint64_t user_data; /* handed back in the completion */
	struct slu_remote *remote;
	struct slu_region *region; /* of the request and the answer */
	uint64_t request_offset;   /* bytes from the start of the region */
	uint64_t answer_offset;    /* likewise; may be the same */
	uint32_t request_length;   /* bytes, 0..SLU_CALL_MAX */
	uint32_t answer_room;      /* bytes, 0..SLU_CALL_MAX */
	uint32_t timeout_us;       /* as in slu_op */
	uint8_t flags;             /* enum slu_op_flag */
	uint8_t reserved[11];      /* zero */
};

/**
 * A flag in slu_completion.scope: a WRITE, notification or call has failed, and what was sent of it
 * may still arrive, after this completion, in whole or in part. Without it nothing of the operation
 * touches the segment any more.
 *
 * What comes later is safe from it: nothing that is submitted after this completion was reaped, by
 * whichever queue of this engine and over whichever transport and address, to that target, is
 * carried out before the target has confirmed that the connection which carried the operation is
 * over. Until then it waits, up to its deadline. A remote that is opened again on the same target
 * waits as well. A call that the owner has received stays with it, though its answer is dropped.
 */
#define SLU_MAY_LAND 0x80

/** One result. */
struct slu_completion {
	uint64_t user_data;
	int32_t status; /* 0 or a negative errno, see error.h; of a call: what the owner answered */
	uint8_t scope;  /* enum slu_scope of the failure, SLU_SCOPE_NONE when well; with
			   SLU_MAY_LAND */
	uint8_t transport;   /* enum slu_transport that moved the bytes */
	uint8_t reserved[2]; /* zero */
	uint64_t bytes;      /* moved; of a failure: at least so many; of a call: of the answer */
	uint32_t syndrome;   /* verbs: what the device's maker says of a failure; else 0 */
	uint32_t reserved2;  /* zero */
};

/** slu_queue_options.poller beside the numbers of poller threads. */
#define SLU_POLLER_ANY    (-1) /* a poller thread of the least queues; inline when there is none */
#define SLU_POLLER_INLINE (-2) /* the owner's thread runs the queue's own poller */

struct slu_queue_options {
	size_t size;
	uint32_t depth; /* operations accepted and not yet reaped; rounded up to a power of two */
	int32_t poller; /* SLU_POLLER_ANY, SLU_POLLER_INLINE or 0..pollers-1 */
	uint32_t timeout_us; /* of operations that name none; 0 = none */
	uint8_t reserved[4]; /* zero */
};

struct slu_queue_info {
	size_t size;
	uint32_t depth;
	int32_t poller; /* index for slu_engine_get_poller */
	uint64_t accepted;
	uint64_t completed; /* reaped */
	uint64_t full;      /* submits that were cut short by a full queue */
	uint64_t outstanding;
};

/** Fill @p options with the defaults: depth 1024, any poller, timeout 30 seconds. */
SLU_API void slu_queue_options_init(struct slu_queue_options *options, size_t size);

/**
 * Open a queue. Any thread; the owner is whoever submits first.
 *
 * Waits for no target: an inline queue's links to the remotes that are open are made meanwhile, and
 * what is submitted waits for them, up to its deadline.
 *
 * @return 0; -EINVAL; -E2BIG an option that this library does not know; -ENOSPC over
 *         SLU_POLLERS_MAX inline queues; -ENOMEM
 */
SLU_API int slu_queue_open(struct slu_engine *engine, const struct slu_queue_options *options,
			   struct slu_queue **queue);

/**
 * Close it; outstanding operations are finished first, or given up after a second; their
 * completions are lost. Accepts NULL.
 */
SLU_API void slu_queue_close(struct slu_queue *queue);

/**
 * Queue up to @p n operations.
 *
 * Never blocks or allocates, and enters the kernel only to wake a sleeping poller. An inline queue
 * has no poller: what finds nothing of its kind under way is begun here, with the system calls of
 * its transport, if it makes any (TCP); the rest is begun by slu_reap() and slu_wait(). @p ops may
 * be reused on return; the memory they name belongs to the engine until the completion is reaped.
 *
 * Thread: the queue's owner only.
 *
 * @param n  0 or more
 * @return   accepted, 0..n, in order; fewer than n: as many are outstanding as the queue is deep
 *           (reap and retry), or the next operation is malformed (submit it again to learn why)
 * @return   -EINVAL ops[0] is malformed, -ERANGE reaches outside its region or segment, -EACCES
 *           lacks the right; -ESHUTDOWN, -ECONNRESET its remote is closing or dead. None was taken,
 *           and slu_last_error() says what is wrong with it.
 */
SLU_API int slu_submit(struct slu_queue *queue, const struct slu_op *ops, uint32_t n);

/** Queue up to @p n calls, as slu_submit() does operations. */
SLU_API int slu_submit_calls(struct slu_queue *queue, const struct slu_call *calls, uint32_t n);

/**
 * Take up to @p n completions. Never blocks or allocates; an inline queue's poller runs here.
 *
 * Thread: the queue's owner only.
 *
 * @return 0..n
 */
SLU_API int slu_reap(struct slu_queue *queue, struct slu_completion *out, uint32_t n);

/**
 * End the operations and calls with @p user_data that have not ended: they complete with
 * -ECANCELED, as at their deadline, which may cost the link that carries them, and with
 * SLU_MAY_LAND where that cannot be ruled out. What ends meanwhile completes as it ended.
 *
 * Waits until the poller has taken on what was submitted before. Thread: the queue's owner only.
 *
 * @return how many, 1 or more; -ENOENT none was under way
 */
SLU_API int slu_cancel(struct slu_queue *queue, uint64_t user_data);

/**
 * Sleep until @p min completions can be reaped, or all that is outstanding if that is less.
 *
 * Spins shortly first. An inline queue does its work here and returns when it is done.
 * Thread: the queue's owner only.
 *
 * @param timeout_us  0 = look only; UINT64_MAX = for ever
 * @return completions ready (may be under @p min after the timeout); -EINTR a signal came
 */
SLU_API int slu_wait(struct slu_queue *queue, uint32_t min, uint64_t timeout_us);

/**
 * The queue's eventfd, for an event loop: readable after slu_queue_arm() when a completion came.
 * Owned by the queue. An inline queue has none: -EOPNOTSUPP.
 */
SLU_API int slu_queue_eventfd(struct slu_queue *queue);

/**
 * Ask for one wake-up on the eventfd. Read the eventfd after it fired, reap, then arm again.
 *
 * A wake-up can be left over from an earlier wait: then nothing is ready, and the queue has to be
 * armed anew.
 *
 * Thread: the queue's owner only.
 *
 * @return 0 armed; over 0: that many completions are ready already, not armed; -EOPNOTSUPP
 */
SLU_API int slu_queue_arm(struct slu_queue *queue);

/** Set @p info.size before. Thread: the queue's owner only. @return 0; -EINVAL the size */
SLU_API int slu_queue_get_info(struct slu_queue *queue, struct slu_queue_info *info);

#ifdef __cplusplus
}
#endif

#endif
