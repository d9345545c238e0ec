/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The client's side of verbs. A link joins one poller with one target: a few queue pairs between
 * one local port and one of the target's, shared by the paths to all segments of that target.
 *
 * Files: verbs_device.c (what there is), verbs_pair.c (which ports go together), verbs_control.c
 * (links and paths), verbs_post.c, verbs_poll.c and verbs_lost.c (the hot side, verbs_link.h),
 * verbs_repair.c (a path gets a new link), and for the target verbs_serve.c.
 */
#ifndef VERBS_VERBS_H
#define VERBS_VERBS_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>

#include "transport/repair.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_host.h"
#include "transport/verbs/verbs_memory.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_wire.h"

#define VERBS_DEPTH       512u /* work requests of one queue pair; a power of two */
#define VERBS_GID_HEX     33u
#define VERBS_PAIR_TEXT   288u
#define VERBS_INLINE_WANT 220u
#define VERBS_SIGNAL_EACH 32u /* short work requests stand behind one completion */
#define VERBS_LOSSES_MAX                                                                           \
	3u /* links in a row without one success: then RDMA does not get through                   \
	    */

struct verbs_cm;

/** What is to come back of a work request. */
struct verbs_sent {
	struct request *request; /* whose part ends with it; NULL: nobody's */
	uint32_t slot;           /* of the call that it carries */
	uint32_t bytes;          /* of the part */
	bool carries;
	bool reads; /* it can't land at the target */
};

/** A call that waits for its answer. */
struct verbs_call {
	struct request *request; /* NULL: it has ended */
	uint32_t slot;           /* tells it from earlier users of the same place */
	struct buffer *buffer;   /* with its message, while the device has that */
};

/** Our end of one queue pair. Work requests are numbered from 0, as verbs_work.id. */
struct verbs_end {
	struct verbs_queue *queue;
	uint32_t expected; /* oldest that has not come back */
	struct verbs_sent window[VERBS_DEPTH];
};

/** One of our ports and one of the target's, that go together. */
struct verbs_pair {
	uint32_t device;      /* ours */
	uint32_t gid;         /* index in its gids */
	uint32_t peer_device; /* index in the welcome */
	uint32_t peer_gid;    /* index in that device's "gids" */
	char peer_name[VERBS_NAME_MAX + 8];
	union ibv_gid peer_address;
	enum ibv_mtu mtu;
};

/** What a client has of one target. */
struct verbs_peer {
	pthread_mutex_t joining; /* of links, and who is on them; held shortly */
	struct verbs_link *links[TRANSPORT_POLLERS]; /* by poller */
	uint64_t latest[TRANSPORT_POLLERS]; /* id of the link last offered; whose turn in the
					       lane it is (repair.h) */
};

struct verbs_link {
	/* The poller's. */
	struct transport_link link; /* first */
	uint32_t count;    /* of ends; the first is for what is small, notifications and calls */
	uint32_t out;      /* ends of which something has not come back, a bit each */
	uint32_t unrung;   /* ends that are to be rung, a bit each */
	uint32_t next;     /* bulk end, until bulk is flushed */
	bool direct;       /* its queues are, and it is alive */
	_Atomic int error; /* 0, or why it is dead; who joins looks as well */
	enum ibv_wc_status why; /* that it died; the first completion that said so */
	uint32_t vendor_error;
	bool succeeded;               /* something went through since it was made */
	bool drained;                 /* dead, and nothing of it is with the device any more */
	bool refused;                 /* a queue pair did not take what there was room for */
	uint64_t dead_ns;             /* since when */
	uint32_t device;              /* index of our port */
	uint32_t credits;             /* receives of the target that we may still take */
	uint32_t peer_receives;       /* of these there are so many; stays as it was made */
	uint32_t taken;               /* as it last told */
	uint64_t subject;             /* of the latest SUBJECT: generation and handle; 0: none */
	struct verbs_message message; /* that one, until it is posted */
	uint32_t calls;               /* open ones */
	uint32_t silent;              /* turns with nothing but waiting */
	uint64_t probe_at_ns;
	uint32_t next_slot;
	struct sending sending;
	struct verbs_call slots[VERBS_CALLS]; /* slot % VERBS_CALLS */
	struct verbs_end *ends[VERBS_QUEUES_MAX];

	/* Under verbs_peer.joining. */
	uint32_t users;
	uint64_t id;
	struct transport_peer *peer;
	struct fence_ticket *ticket; /* the poller's, once it is made */
	uint64_t connect_ns;         /* what making it took */
	struct verbs_pair pair;
	uint32_t reads;
	struct verbs_device *port;
	struct verbs_cm *cm; /* NULL: connected by the session */
	struct ibv_cq *receive_cq;
	struct ibv_comp_channel *channel;
	int epoll_fd;
	bool registered; /* with epoll_fd */
	struct buffers *buffers;
	struct buffer *receiving; /* VERBS_CLIENT_RECEIVES of them */
	struct buffer *left;      /* what it sent with, once the poller has left it */
	bool is_left;
};

enum verbs_path_state {
	VERBS_PATH_UP,
	VERBS_PATH_DOWN,   /* it has no link yet, or a dead one; the repair has it */
	VERBS_PATH_MENDED, /* it has a new link in fresh */
};

struct verbs_path {
	struct path path;
	struct verbs_link *link;
	uint64_t base; /* of the segment, at the target */
	uint32_t slices;
	uint32_t *keys; /* by end, then by slice */
	uint32_t handle;
	uint32_t generation;
	uint32_t poller;
	struct verbs_host *host;
	uint32_t losses; /* links that failed one after the other without a success */

	/* Between the poller and the repair. */
	_Atomic uint32_t state; /* enum verbs_path_state */
	struct verbs_link *fresh;
	uint64_t fresh_base;
	uint32_t *fresh_keys;
	struct path_env env;
	char text[VERBS_PAIR_TEXT + 96];
	struct repair_item repair;
};

/** What import makes. */
struct verbs_view {
	uint32_t handle;
	uint32_t generation;
};

extern const struct transport_fast verbs_fast;
extern const struct link_ops verbs_link_ops;

/** Post the receives that a new link needs. @return 0; -errno */
int verbs_link_receive_all(struct verbs_link *link);

/** End it: when this returns, everything that was posted has come back. Not on a poller. */
void verbs_link_drain(struct verbs_link *link);

/** Does every queue pair reach its peer? Not the poller's yet. @return 0; -ETIMEDOUT, -ECONNRESET
 */
int verbs_link_probe(struct verbs_link *link, uint64_t until_ns);

/* ---- verbs_pair.c: which of our ports goes with which of the target's ---- */

/** 32 hexadecimal digits. @p text has VERBS_GID_HEX bytes. */
const char *verbs_gid_to_hex(const union ibv_gid *gid, char *text);
bool verbs_gid_from_hex(const char *text, union ibv_gid *gid);

/** @return 0: there is no such MTU */
enum ibv_mtu verbs_mtu_from_bytes(json_int_t bytes);

/** What the target's welcome says of our devices; for it. @return NULL: -ENOMEM */
json_t *verbs_describe_devices(const struct verbs_devices *devices);

/**
 * @param welcome  what the target says of its devices; NULL: it has none
 * @param node     NUMA node of the poller; -1: any
 * @param nth      to spread pollers over ports that are as good
 * @return         0; -ENODEV with the reason; -EPROTO
 */
int verbs_pair_choose(const struct verbs_devices *devices, const json_t *welcome, int node,
		      uint32_t nth, struct verbs_pair *pair);

/** "rxe0 port 1 GID 1 (RoCE v2, 10.0.0.1) to rxe0 port 1 (10.0.0.2), MTU 4096" */
const char *verbs_pair_describe(const struct verbs_devices *devices, const struct verbs_pair *pair,
				char *text);

/* ---- verbs_control.c ---- */

/**
 * Let a path use the poller's link to its target, a new one if there is none that lives. The
 * peer's lane is the caller's (repair.h).
 *
 * @param link  out: with one more user
 * @param keys  out: freed by the caller
 * @return      0; as slu_remote_open()
 */
int verbs_join(struct verbs_host *host, struct verbs_path *path, uint64_t until_ns,
	       struct verbs_link **link, uint64_t *base, uint32_t **keys);

/** Say in words, for verbs_path.text, what it is on. */
void verbs_path_describe(const struct verbs_host *host, struct verbs_path *path,
			 const struct verbs_link *link);

/** Give it back; the last user ends it. Accepts NULL. */
void verbs_leave(struct verbs_path *path, struct verbs_link *link);

/**
 * verbs_repair.c: the path is DOWN, its link, if it had one, has drained. It becomes MENDED.
 *
 * @return as verbs_join(); or the remote has failed
 */
int verbs_repair_attempt(struct repair_item *item, uint64_t until_ns);

#endif
