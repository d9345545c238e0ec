/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the files of the target's side share: tcp_serve.c (the control thread's: who is granted
 * what, who brings connections and ends them), tcp_served.c (a poller's connections and their
 * turns), tcp_carry.c (what is asked over one is carried out).
 */
#ifndef TCP_TCP_SERVED_H
#define TCP_TCP_SERVED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "memory/guard.h"
#include "memory/region.h"
#include "transport/serving.h"
#include "transport/tcp/channel.h"
#include "transport/tcp/wire.h"

/* Moved on all connections of a poller in a turn, and at least on each where they are many. */
#define TURN_ALL_BYTES   (UINT64_C(4) << 20)
#define TURN_LEAST_BYTES (UINT64_C(1) << 14)

/* The answer to a call. */
#define ANSWER_BYTES ((uint32_t)sizeof(struct wire_response) + (uint32_t)SLU_MESSAGE_MAX)

/* Runs up to this are copied beside the head of the response. */
#define RUN_STAGE_BYTES 128u

/* Room for what one request can lead to: DONE for those before it, its own head, a small body, or
 * small runs; and, beside that, for one answer, so that the first always has a place. */
#define RESPONSE_BYTES                                                                             \
	((uint32_t)sizeof(struct wire_response) * 2 + WIRE_RUNS_MAX * RUN_STAGE_BYTES +            \
	 ANSWER_BYTES)

static_assert(WIRE_RUNS_MAX * RUN_STAGE_BYTES >= CHANNEL_STAGE_BYTES, "RESPONSE_BYTES");
static_assert(WIRE_RUNS_MAX <= CHANNEL_PLACES, "tcp_connection.places");

/* And in pieces; those for the answers that a client can wait for, two each, stay free for them. */
#define RESPONSE_PIECES (2 + WIRE_RUNS_MAX + 2 * INBOX_CALLS)

/** A data connection; its poller's. */
struct tcp_connection {
	struct served served; /* first */
	struct tcp_service *service;
	struct channel channel;
	uint64_t owner;  /* control connection */
	uint64_t link;   /* the owner's name for what it belongs to */
	uint32_t silent; /* turns */
	uint32_t deaths; /* of memory, as last looked at */
	uint32_t events; /* that the service looks for */
	bool active;
	bool failed;

	uint32_t sequence; /* of the next request */
	uint32_t done;     /* carried out, not yet responded to */

	/* The request whose body is on its way. */
	bool receiving;
	struct wire_request request;
	struct grant *grant; /* NULL: refused with status */
	int status;
	struct iovec places[WIRE_RUNS_MAX]; /* where it goes, of WRITE_RUNS */
	struct body *body;                  /* likewise, of a long CALL */

	/* Answers that the staging had no room for, or left none for the next, until all is sent.
	 */
	struct buffer *aside;
	uint32_t waiting;
	struct body *sent;     /* and those that lie in bodies */
	struct budget *budget; /* which those are charged to; NULL: nobody's */

	LIST_ENTRY(tcp_connection) of_owner;
	TAILQ_ENTRY(tcp_connection) active_link;
};

LIST_HEAD(tcp_connection_list, tcp_connection);

struct tcp_service {
	struct transport_service base; /* first */
	const struct grants *grants;
	struct serving serving;
	int epoll_fd;
	uint32_t active_count;
	uint32_t patience; /* silent turns until a connection is not active any more */
	uint32_t turn;
	uint32_t worked; /* since others were looked for */
	uint64_t moved;  /* bytes, in this turn */
	TAILQ_HEAD(, tcp_connection) active;
};

/* ---- tcp_served.c ---- */

/** @p lane  of inboxes. @return 0; -ENOMEM; -errno of epoll_create */
int tcp_service_create(const struct grants *grants, uint32_t lane, struct buffers *buffers,
		       struct tcp_service **service);

/** It has no connections. Accepts NULL. */
void tcp_service_destroy(struct tcp_service *service);

/** Take over @p stream. @return 0; -ENOMEM, the stream stays the caller's */
int tcp_connection_create(const struct stream *stream, struct budget *budget,
			  struct tcp_connection **connection);

/** No service has it. */
void tcp_connection_close(struct tcp_connection *connection);

/* On the poller, between two turns: */

/** @return 0; -ENOSPC; -errno of epoll_ctl */
int tcp_service_adopt(struct tcp_service *service, struct tcp_connection *connection,
		      struct tcp_connection_list *of_owner);

/** It ends. */
void tcp_service_drop(struct tcp_connection *connection);

/** Of each connection: where very many are active each has the less. */
static inline uint64_t tcp_turn_bytes(const struct tcp_service *service)
{
	uint64_t share = TURN_ALL_BYTES / (service->active_count + 1);

	if (service->active_count < 2)
		return CHANNEL_TURN_ALONE;
	if (share > CHANNEL_TURN_SHARED)
		return CHANNEL_TURN_SHARED;
	return share < TURN_LEAST_BYTES ? TURN_LEAST_BYTES : share;
}

/* ---- tcp_carry.c ---- */

/**
 * Read requests and carry them out, until nothing is there, the responses back up, or others wait.
 *
 * @return how much was done; 0: nothing had come
 */
uint32_t tcp_carry_out(struct tcp_connection *connection);

/** Respond to what was carried out. */
void tcp_respond_done(struct tcp_connection *connection);

/** Its pages were taken away by somebody who may write to it: what is there now is not its content.
 */
static inline bool tcp_is_dead(const struct grant *grant)
{
	return region_is_dead(grant->export->region);
}

#endif
