/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the control thread's files of the target's side share: verbs_serve.c (who is granted what),
 * verbs_open.c (a link, or a grant on one, from the offer to the answer), verbs_end.c (how they
 * end). Nothing in them waits for a device, a peer or a poller: what takes its time is a task of
 * another thread, which posts the next step.
 */
#ifndef VERBS_VERBS_SERVER_H
#define VERBS_VERBS_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/verbs/verbs_serve.h"
#include "transport/verbs/verbs_served.h"
#include "transport/verbs/verbs_tasks.h"
#include "transport/verbs/verbs_visit.h"

struct opening;

/** A client's connection: what it has here. */
struct link_owner {
	struct served_owner base; /* first */
	uint32_t grants;
	bool makes_link;
	LIST_HEAD(, served_link) links;
	LIST_HEAD(, opening) openings;
};

/** What verbs adds to a grant. */
struct granted {
	struct verbs_server *server;
	struct link_owner *owner; /* the control thread's */
	struct visit_list visits;
	struct grant *grant;

	/* How it ends: it goes from poller to poller, twice (verbs_end.c). */
	struct verbs_ending ending;
	int reason;
	bool has_ended; /* it is not found any more */
	uint32_t at;    /* poller */
	struct poller_set pollers;
	struct poller_set left; /* of this round */
};

struct verbs_server {
	struct verbs_host *host;
	uint64_t incarnation;
	uint32_t pollers;
	uint32_t next_poller; /* counts links */
	struct grants *grants;
	struct verbs_cm_server *cm; /* NULL: nobody has asked for it */
	struct verbs_exports *exports;
	void *owners;
	struct verbs_worker worker;
	struct verbs_service *services[SLU_POLLERS_MAX];
	TAILQ_HEAD(, opening) making; /* links, in their turn */
	uint32_t making_threads;
	pthread_mutex_t lock;
	pthread_cond_t opened;
	uint32_t openings; /* that are not over; under the lock */
};

/** Control thread: one thing of it has gone, the last one takes it along. */
void link_owner_release(struct verbs_server *server, struct link_owner *owner);

/* ---- verbs_open.c ---- */

/** As verbs_server_join(), on a link that is there. */
int open_on_link(struct verbs_server *server, struct grant *grant, struct served_link *link,
		 struct transport_later *later);

/** Likewise, on one that is to be made. */
int open_with_link(struct verbs_server *server, struct grant *grant, uint64_t id,
		   const json_t *offer, struct transport_later *later);

/**
 * What is being opened for @p grant, or for all of @p owner (NULL), is not wanted any more.
 *
 * @param at_once  not even if somebody guessed its keys: the link ends
 */
void cancel_openings(struct verbs_server *server, struct link_owner *owner,
		     const struct grant *grant, bool at_once);

/* ---- verbs_end.c ---- */

/** Its queue pairs end, and all that is open on it. */
void end_link(struct verbs_server *server, struct served_link *link);

/** One thing less is open or being opened on it; the last one takes it along. */
void leave_link(struct verbs_server *server, struct served_link *link);

/** One that no poller has had. */
void end_unmade_link(struct verbs_server *server, struct served_link *link);

/** Its windows are closed. */
void end_visit(struct verbs_server *server, struct visit *visit);

/** Likewise one that is in no list. */
void discard_visit(struct verbs_server *server, struct visit *visit);

/** Its client's pollers let go of it, then it is freed. */
void end_grant(struct granted *granted, int reason);

#endif
