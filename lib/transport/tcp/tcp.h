/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The client's side of tcp. A link joins one poller with one target: a few data connections, shared
 * by the paths to all segments of that target. The first connection carries small operations and
 * calls, so that bulk never stands before them; the others carry bulk in turn.
 *
 * A link goes down when a connection is lost, and when something that was written over it is given
 * up: what the sockets have cannot be taken back but with the connections. It is fenced then, since
 * what they have may still land, and gets new connections from the repair while the session lives.
 * So it begins as well: down. Neighbours that may be repeated go again over those.
 */
#ifndef TCP_TCP_H
#define TCP_TCP_H

#include <sys/queue.h>

#include "transport/repair.h"
#include "transport/tcp/channel.h"
#include "transport/tcp/wire.h"
#include "transport/transport.h"

#define TCP_SLICE_BYTES (UINT64_C(256) << 10)
#define TCP_WINDOW      512u /* requests of one connection that were not responded to */
#define TCP_CALLS       64u  /* calls of one link that were not answered */
#define TCP_LOSSES_MAX  3u   /* links in a row on which nothing was answered: it is of no use */

/** What was sent on a connection and is to be responded to. */
struct tcp_sent {
	struct request *request; /* NULL: nobody waits for it any more; a call is in calls */
	uint64_t offset;         /* of the part in its operation */
	uint32_t length;
	uint32_t slot; /* WIRE_CALL */
	uint8_t type;  /* enum wire_request_type */
};

/** A call that waits for its answer. */
struct tcp_call {
	struct request *request; /* NULL: the slot is free */
	uint32_t slot;           /* tells it from earlier users of the same place */
};

/** Our end of one data connection. */
struct tcp_end {
	struct channel channel;
	struct tcp_link *owner;
	uint32_t head;     /* sequence of the next request */
	uint32_t expected; /* of the next response */
	uint32_t calls;    /* open ones */
	uint32_t next_slot;
	bool receiving;          /* the body of what is expected arrives */
	bool answering;          /* the body of an answer arrives, */
	struct request *answers; /* to this call, in that slot; NULL: nobody waits for it */
	uint32_t answer_slot;
	int32_t answer_result; /* as for request_back() */
	bool registered;       /* with the poller's epoll_fd */
	struct channel fresh;  /* while the link is mended */
	struct tcp_sent window[TCP_WINDOW];
	struct vector_place begins[TCP_WINDOW]; /* of WIRE_READ_RUNS: where its pieces do */
	struct iovec places[CHANNEL_PLACES];    /* where its bytes go, while they arrive */
	struct tcp_call slots[TCP_CALLS];       /* slot % TCP_CALLS */
};

enum tcp_link_state {
	TCP_LINK_UP,
	TCP_LINK_DOWN,   /* it has no connections, or not any more; the repair has it */
	TCP_LINK_MENDED, /* it has new ones in fresh */
};

/** What an engine has of tcp. */
struct tcp_host {
	uint32_t connections; /* for bulk, of one link */
};

/** What a client has of one target. */
struct tcp_peer {
	struct tcp_link *links[SLU_POLLERS_MAX]; /* by poller; engine->opening guards */
};

struct tcp_link {
	struct transport_link link; /* first */
	uint32_t users;
	uint32_t count;   /* of ends */
	uint32_t next;    /* bulk end */
	uint32_t awaited; /* ends on which something is to come, a bit each */
	uint32_t unsent;  /* ends with something to send, a bit each */
	uint32_t pause;   /* polls without a look whether full sockets have room, */
	uint32_t paused;  /* of which so many are past */
	/* The poller takes it down and up again, the repair makes and mends it. */
	_Atomic uint32_t state;
	_Atomic int error; /* 0, or why it is dead for good; who opens a path looks as well */
	int epoll_fd;
	bool succeeded;              /* something was answered since it is up */
	uint32_t losses;             /* in a row, without that */
	struct fence_ticket *ticket; /* of the name that the target knows it by, while it is up */
	struct transport_peer *peer;
	struct repair *repair;
	struct repair_item mending;
	char target[SLU_NAME_MAX + 1];
	struct tcp_end *ends[1 + SLU_TCP_CONNECTIONS_MAX];
};

struct tcp_path {
	struct path path;
	struct tcp_link *link;
	uint32_t poller;
	uint32_t handle;
	uint32_t generation;
};

/** What import makes. */
struct tcp_view {
	uint32_t handle;
	uint32_t generation;
};

extern const struct transport_fast tcp_fast;
extern const struct link_ops tcp_link_ops;

/** tcp_control.c: give it connections. @return as transport_peer.dial */
int tcp_link_dial(struct tcp_link *link, uint64_t until_ns);

/** tcp_mend.c: a link that is DOWN becomes MENDED, or fails. @return as tcp_link_dial(), or error
 */
int tcp_link_mend(struct repair_item *item, uint64_t until_ns);

#endif
