/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the files of the target's side share: verbs_serve.c (control thread) makes links and ends
 * them, verbs_visit.c (likewise) opens memory to them, verbs_served.c (the link's poller) takes
 * what comes in and answers.
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
#include "transport/verbs/verbs_wire.h"

/* Messages to one client that the device has not finished; a power of two. */
#define SERVED_SENDS 32u

struct receive_queue;
struct verbs_cm;
struct verbs_service;

/** The target's end of a link. */
struct served_link {
	/* The control thread's. */
	struct verbs_device *device;
	uint64_t owner; /* control connection */
	uint64_t id;    /* the client's name for it */
	uint32_t poller;
	struct budget *budget; /* where it is charged; may be NULL */
	struct verbs_cm *cm;   /* NULL: connected by the session */
	bool waits;            /* for the client to connect it by librdmacm */
	LIST_HEAD(, visit) visits;
	LIST_ENTRY(served_link) of_server;

	/* Made before the poller has it; constant. */
	uint32_t count;
	struct verbs_queue *queues[VERBS_QUEUES_MAX];
	struct receive_queue *receives;
	char *messages; /* VERBS_RECEIVES, then SERVED_SENDS */
	struct verbs_registration *registration;

	/* The poller's. */
	uint32_t cookie;
	uint32_t sent[VERBS_QUEUES_MAX]; /* work requests posted, by queue */
	uint32_t back[VERBS_QUEUES_MAX]; /* and come back */
	uint32_t bind[VERBS_QUEUES_MAX]; /* one past the latest binding */
	uint64_t subject;                /* generation and handle of the notifications that come */
	uint32_t taken;                  /* receives put back and not told of */
	uint32_t held;                   /* messages that wait for room in an inbox */
	bool expelled;                   /* it sent what cannot be: nothing more is taken of it */
	LIST_ENTRY(served_link) of_service;

	/* The poller tells the control thread. */
	_Atomic uint32_t bound; /* windows */
	_Atomic bool failed;
};

/** @return 0; -ENOMEM; -errno of epoll_create */
int verbs_service_create(struct verbs_host *host, const struct grants *grants, uint32_t pollers,
			 uint32_t poller, struct verbs_service **service);

/** Its poller does not run it any more. Accepts NULL. */
void verbs_service_destroy(struct verbs_service *service);

/** Control thread: queue pairs, buffers, receives; not connected. @return 0; -ENOMEM, -ENOSPC */
int served_link_create(struct verbs_service *service, struct verbs_device *device, uint32_t queues,
		       struct served_link **link);

/** Control thread: no poller has it. Its queue pairs end. */
void served_link_destroy(struct served_link *link);

/* On the poller, between two turns: */

/** @return 0; -ENOSPC, -ENOMEM */
int verbs_service_adopt(struct verbs_service *service, struct served_link *link);
void verbs_service_drop(struct verbs_service *service, struct served_link *link);

/** Deal with what has come in on @p link: its client may have been told that it arrived. */
void verbs_service_catch_up(struct verbs_service *service, struct served_link *link);

/** What waits for the owner of @p export is not wanted any more. */
void verbs_service_forget(struct verbs_service *service, const struct export *export);

/** Post the binding of a window; link->bound counts it. @return false: it cannot be posted */
bool served_link_bind(struct served_link *link, uint32_t queue, struct ibv_mw *mw,
		      const struct ibv_mw_bind_info *info, uint32_t key);

#endif
