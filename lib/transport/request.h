/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Requests, and the queue that a path has of them.
 *
 * A request is an operation that a poller cannot finish at once: its path is asynchronous, or full,
 * or the operation is long. It is one object from there to its completion. Its parts are posted,
 * which gives them to the transport, at once if nothing else waits on its path: then it is on no
 * list, and what the transport keeps of it is a pointer. The transport gives back each part that it
 * took, once, by request_back(), and with the last one the request is over.
 *
 * What can't be posted at once waits in a queue of its path. A path that has something to post is
 * ready, and takes turns with the others of its poller. One that can't go on waits where it costs
 * nobody anything: on its link, until that has room, or held, until transport_changed() is called.
 *
 * What was posted is gathered by the link, and leaves when it is flushed, before it is polled.
 *
 * All of it is the poller's, and runs on its thread.
 */
#ifndef TRANSPORT_REQUEST_H
#define TRANSPORT_REQUEST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/queue.h>

#include <sluice/queue.h>

#include "base/counter.h"
#include "transport/vector.h"

struct path;
struct repair_item;
struct slu_remote;
struct transport_fast;

/** Longer operations are bulk: on connections and queue pairs of their own, behind the short. */
#define REQUEST_SMALL_BYTES 16384u

/** A path posts so many parts, then it is another's turn. */
#define REQUEST_BURST 64u

enum request_lane {
	LANE_SMALL, /* and notifications and calls */
	LANE_BULK,
	LANES,
};

enum request_place {
	REQUEST_OUT,    /* on no list: all that may be posted now is */
	REQUEST_QUEUED, /* in its path's queue */
	REQUEST_PAUSED, /* among the poller's refused ones */
	REQUEST_LATER,  /* until what was begun before it has ended */
};

enum request_again {
	REQUEST_LOST = 1,    /* a part was */
	REQUEST_REFUSED = 2, /* the far end had no room: after a pause */
};

/** A call, as an operation: the answer goes to remote_offset of the region, room for it is tag. */
#define OP_CALL 7u

/** Two cache lines: the operation, and how far it has come. The third is looked at of few. */
struct request {
	/* engine: when it was submitted, in us. Of a vector, and of what is atomic: length */
	_Alignas(64) struct slu_op op;
	struct slu_queue *queue;
	struct path *path;         /* NULL: free */
	TAILQ_ENTRY(request) link; /* of its path's queue; free: tqe_next is the next free one */
	uint64_t next;             /* bytes of the operation that were posted */
	uint64_t done;             /* of them those that came back well; OP_CALL: of the answer */
	uint32_t out;              /* parts that the transport has not given back */
	int32_t status;            /* first failure of a part */
	uint8_t scope;             /* enum slu_scope of status */
	uint8_t lane;              /* enum request_lane */
	uint8_t place;             /* enum request_place */
	bool begun;    /* some of it was posted: tells an empty operation from a new one */
	bool told;     /* what the segment's owner sees of it was posted */
	uint8_t again; /* enum request_again: when all parts are back, all of it is posted again */
	bool may_land; /* of what was posted something may still reach the target */
	uint8_t syndrome; /* of status, see slu_completion */

	_Alignas(64) const struct slu_vector *vector; /* of an operation with SLU_VECTOR */
	struct vector_place at;                       /* in it, of next */
	uint64_t operand;                             /* of one that is atomic */
};

static_assert(offsetof(struct request, vector) == 128, "two cache lines");

TAILQ_HEAD(request_queue, request);
TAILQ_HEAD(path_queue, path);
LIST_HEAD(path_list, path);
LIST_HEAD(link_list, transport_link);

/** Which paths and links of a poller have something to do. What is idle is on none of these. */
struct schedule {
	struct path_queue ready;     /* something to post */
	struct path_queue held;      /* the same, but not before transport_changed() */
	struct path_list active;     /* with requests */
	struct link_list busy;       /* to be flushed and polled */
	struct request_queue paused; /* the far end had no room for them */
	uint32_t ready_count;
	uint64_t posted; /* parts, ever */
};

/** Counters of one path; written by its poller, read by anyone. */
struct path_stats {
	counter reads;
	counter writes;
	counter failed;
	counter bytes_read;
	counter bytes_written;
	counter doorbells; /* bursts handed to a device */
	counter signalled; /* completions that it wrote */
};

/** What carries the requests of paths of one poller: first in the transport's own struct. */
struct transport_link {
	const struct link_ops *ops;
	struct schedule *schedule; /* the poller's */
	uint32_t out;              /* parts of requests that were not given back */
	uint32_t fresh;            /* parts that were posted since it was flushed */
	bool wakes;                /* what comes ends the poller's sleep: no need to look */
	bool busy;
	struct path_queue stalled; /* paths that it had no room for, next one first */
	LIST_ENTRY(transport_link) link;
};

struct link_ops {
	/** Send what was posted. May be NULL: it has gone. */
	void (*flush)(struct transport_link *link);
	/** Take what has come, and give it back. @return how much was done; 0: nothing */
	uint32_t (*poll)(struct transport_link *link);
	/**
	 * The poller is about to sleep: let its epoll_fd tell, once (EPOLLONESHOT), of what comes.
	 * May be NULL. @return false: something has come already
	 */
	bool (*sleep)(struct transport_link *link);
};

/** Where a path waits. */
enum path_wait {
	PATH_IDLE,
	PATH_READY,
	PATH_STALLED, /* on its link */
	PATH_HELD,
};

/** One (poller, remote); the transport's own fields follow in a larger struct. */
struct path {
	const struct transport_fast *fast;
	uint32_t slice_bytes; /* a longer operation is posted in parts */
	bool immediate;
	uint8_t wait;         /* enum path_wait */
	bool ordering;        /* later of its remote's path is not empty */
	uint8_t transport;    /* enum slu_transport */
	uint32_t requests;    /* that have not ended, */
	uint32_t held_back;   /* of them those that are in later */
	uint32_t connections; /* that it shares with other paths; tcp */
	struct path *calls;   /* carries OP_CALL; the path itself, or one of its own */
	struct slu_remote *remote;
	struct transport_link *link; /* NULL on an immediate path, and when it has none now */
	struct repair_item *making;  /* of its link; NULL: it needs none */
	struct request_queue queues[LANES];
	struct request_queue later; /* one that is ordered, and what came after it; with calls' */
	struct path_stats stats;
	TAILQ_ENTRY(path) turn;      /* where it waits */
	LIST_ENTRY(path) active;     /* while it has requests */
	uint64_t looked;             /* transport_changes() when it was last looked at */
	_Atomic uint64_t connect_ns; /* what making its link took; verbs */
};

/** Nothing waits on it: neither a request nor a turn to copy. In one word, without transport. */
static inline bool path_is_clear(const struct path *path)
{
	uint32_t word;

	memcpy(&word, &path->immediate, sizeof(word));
	return (word & 0xffffff) == 0;
}

static_assert(offsetof(struct path, immediate) % 4 == 0 &&
		      offsetof(struct path, transport) == offsetof(struct path, immediate) + 3,
	      "see path_is_clear()");

/** What came of posting a part. */
enum post_result {
	POST_DONE, /* it is the transport's, which owes a request_back() */
	POST_FULL, /* the link has no room: the next poll that does something may make some */
	POST_HELD, /* not before transport_changed() */
};

/** The fields that are the poller's. */
void path_init(struct path *path);

/** Of a link. @p schedule  of the poller that drives it */
void link_init(struct transport_link *link, const struct link_ops *ops, struct schedule *schedule);

/** Moved, either way. Any thread. */
static inline uint64_t path_bytes(const struct path *path)
{
	return counter_read(&path->stats.bytes_read) + counter_read(&path->stats.bytes_written);
}

/** The next one that has something to post. NULL: none */
static inline struct request *path_next(const struct path *path, enum request_lane lane)
{
	return TAILQ_FIRST(&path->queues[lane]);
}

/** A piece of a request's operation: handed on by value, in two registers. */
struct op_part {
	uint64_t offset;
	uint32_t length; /* at most TRANSPORT_SLICE_MAX_BYTES; a call is one part */
	uint8_t opcode;  /* SLU_WRITE for all but the last of a SLU_WRITE_NOTIFY */
};

/**
 * The next part of a queued request: at most slice_bytes of it. A notification must not overtake
 * its data: a request whose last part is to wait for the others is not in the queue meanwhile.
 */
static inline struct op_part request_part(const struct request *request)
{
	uint64_t left = request->op.length - request->next;
	uint32_t slice = request->path->slice_bytes;
	uint8_t opcode = request->op.opcode;

	if (left <= slice || opcode == OP_CALL)
		return (struct op_part){request->next, (uint32_t)left, opcode};
	return (struct op_part){request->next, slice,
				opcode == SLU_WRITE_NOTIFY ? SLU_WRITE : opcode};
}

static inline bool is_vector(const struct request *request)
{
	return __builtin_expect(request->op.flags & SLU_VECTOR, 0);
}

/**
 * A part is over: nothing of it touches the caller's memory any more, nor, but for @p may_land, the
 * segment.
 *
 * @param result    bytes that it moved; -EAGAIN the far end had no room, and it can be posted
 *                  again; -ECANCELED it was lost with its link, or taken back: what may be posted
 *                  again is, all else ends with -ECONNRESET; or another negative errno. Once the
 *                  remote is dead, its state is why.
 * @param may_land  what was sent of it may still reach the target
 */
void request_back(struct request *request, int64_t result, bool may_land);

/** Paths that are held, and remotes that are dead, are looked at again. Any thread. */
void transport_changed(void);

/** How often was that called? */
extern _Atomic uint64_t transport_change_count;

static inline uint64_t transport_changes(void)
{
	return atomic_load_explicit(&transport_change_count, memory_order_acquire);
}

#endif
