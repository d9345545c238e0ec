/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The poller's part of the target's side: it takes what comes in on its links and answers, and
 * binds the windows by which the control thread opens memory to them (verbs_server.h).
 */
#ifndef VERBS_VERBS_SERVED_H
#define VERBS_VERBS_SERVED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/grants.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_host.h"
#include "transport/verbs/verbs_tasks.h"
#include "transport/verbs/verbs_wire.h"

/* Messages to one client that the device has not finished; a power of two. */
#define SERVED_SENDS 32u

/* Windows that are bound in one burst of a queue pair. */
#define SERVED_BINDS 32u

struct link_owner;
struct receive_queue;
struct served_link;
struct verbs_cm;
struct verbs_server;
struct verbs_service;

/** A piece of a segment, opened to one queue pair. */
struct window {
	struct ibv_mw *mw;
	struct ibv_mw_bind_info info;
	uint32_t key;
};

/** Windows that are bound together; the poller's from verbs_service_bind() until it tells. */
struct binding {
	struct window *windows;            /* each for the first queue pair, then for the next */
	uint32_t each;                     /* of one queue pair */
	uint32_t posted[VERBS_QUEUES_MAX]; /* of these */
	uint32_t latest[VERBS_QUEUES_MAX]; /* one past the last of a burst, as posted */
	/** On the poller: 0, or -EIO the link has failed. */
	void (*bound)(struct binding *binding, int result);
	STAILQ_ENTRY(binding) link;
};

/** The target's end of a link. */
struct served_link {
	/* The control thread's. */
	struct link_owner *owner; /* NULL: it is ending */
	uint64_t id;              /* the client's name for it */
	struct budget *budget;    /* where it is charged; may be NULL */
	struct verbs_cm *cm;      /* NULL: connected by the session */
	bool waits;               /* for the client to connect it by librdmacm */
	uint32_t openings;        /* what is being opened on it */
	LIST_HEAD(, visit) visits;
	LIST_ENTRY(served_link) of_owner;
	struct verbs_task failing;
	struct verbs_ending ending;

	/* Made before the poller has it; constant. */
	struct verbs_server *server;
	struct verbs_service *service;
	struct verbs_device *device;
	uint64_t connection; /* of its client */
	uint32_t count;
	struct verbs_queue *queues[VERBS_QUEUES_MAX];
	struct receive_queue *receives;
	char *messages; /* VERBS_RECEIVES, then SERVED_SENDS */
	struct verbs_registration *registration;

	/* The poller's. */
	uint32_t cookie;
	uint32_t sent[VERBS_QUEUES_MAX]; /* work requests posted, by queue */
	uint32_t back[VERBS_QUEUES_MAX]; /* and come back */
	uint64_t says; /* which of the latest 64 of the first queue are messages */
	uint32_t messages_sent;
	uint32_t messages_back;
	uint64_t subject; /* generation and handle of the notifications that come */
	uint32_t taken;   /* receives put back and not told of */
	uint32_t held;    /* messages that wait for room in an inbox */
	bool expelled;    /* it sent what cannot be: nothing more is taken of it */
	bool owes;        /* it is in the service's list of those that have taken some */
	uint64_t bind_until_ns;
	STAILQ_HEAD(, binding) bindings; /* the first is under way */
	TAILQ_ENTRY(served_link) binding;
	TAILQ_ENTRY(served_link) owing;

	_Atomic bool failed; /* the poller tells the control thread */
};

struct verbs_service {
	struct transport_service base;
	const struct grants *grants;
	struct verbs_tasks tasks; /* of its poller */
	uint32_t index;           /* likewise */
	uint32_t lane;            /* of inboxes */
	int epoll_fd;
	uint32_t link_count;
	uint32_t next_cookie;
	struct served_link **by_cookie;         /* cookie % LINKS_MAX */
	TAILQ_HEAD(, served_link) binding;      /* with windows that are not bound */
	TAILQ_HEAD(, served_link) owing;        /* that have taken receives and not told of them */
	_Atomic(struct receive_queue *) queues; /* the latest one; they stay */
	pthread_mutex_t lock;                   /* of who makes or looks for a queue */
	uint32_t lanes_count;
	struct open_lane *lanes; /* SLU_SEGMENTS_MAX */
	uint32_t held_count;
	uint32_t held_room;
	struct held *held;
};

/** @p lane  of inboxes. @return 0; -ENOMEM; -errno of epoll_create */
int verbs_service_create(const struct grants *grants, uint32_t poller, uint32_t lane,
			 struct verbs_service **service);

/** Its poller does not run it any more. Accepts NULL. */
void verbs_service_destroy(struct verbs_service *service);

/** Any thread: queue pairs, buffers, receives; not connected. @return 0; -ENOMEM, -ENOSPC */
int served_link_make(struct served_link *link, uint32_t queues);

/** The worker: no poller has it. Its queue pairs end, what was made of it goes. It is not freed. */
void served_link_close(struct served_link *link);

/* On the poller, between two turns: */

/** @return 0; -ENOSPC, -ENOMEM */
int verbs_service_adopt(struct verbs_service *service, struct served_link *link);
void verbs_service_drop(struct verbs_service *service, struct served_link *link);

/** Deal with what has come in: clients may have been told that it arrived. */
void verbs_service_catch_up(struct verbs_service *service);

/** What waits for the owner of @p export is not wanted any more. */
void verbs_service_forget(struct verbs_service *service, const struct export *export);

/** Bind windows, after those before; bounded in time: then the link fails. */
void verbs_service_bind(struct verbs_service *service, struct served_link *link,
			struct binding *binding);

/** Its queue pairs go to the error state. */
void served_link_fail(struct served_link *link);

#endif
