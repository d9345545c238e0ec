/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The poller's part of the target's side: it takes what comes in on its links and answers, and
 * binds the windows by which the control thread opens memory to them (verbs_server.h). Its files:
 * verbs_served.c (links, turns), verbs_receives.c (where receives come in), verbs_heard.c (what
 * they bring), verbs_say.c (what clients are sent), verbs_binding.c (windows).
 */
#ifndef VERBS_VERBS_SERVED_H
#define VERBS_VERBS_SERVED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "transport/grants.h"
#include "transport/serving.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_host.h"
#include "transport/verbs/verbs_tasks.h"
#include "transport/verbs/verbs_wire.h"

/* Messages to one client that the device has not finished; a power of two. */
#define SERVED_SENDS 32u

/* What is sent without a buffer, where the device takes as much inline. */
#define SERVED_INLINE 128u

/* Windows that are bound in one burst of a queue pair. */
#define SERVED_BINDS 32u

/* Of the table of queue pairs. */
#define SERVED_NUMBERS 4096u

/* Links that owe or bind, in one turn. */
#define SERVED_LINKS_A_TURN 16u

struct held_lane;
struct ibv_wc;
struct link_owner;
struct receive_queue;
struct served_link;
struct verbs_cm;
struct verbs_server;
struct verbs_queue_options;
struct verbs_service;
struct verbs_work;

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
	struct served served; /* first; the poller's */

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
	uint32_t share;           /* how many receives there are for it */
	struct buffer *receiving; /* these, where they are not shared */

	/* The poller's. */
	bool adopted; /* it has had it */
	struct sending sending;
	struct buffer *out[SERVED_SENDS]; /* of messages, by their number; NULL: it went inline */
	uint32_t sent[VERBS_QUEUES_MAX];  /* work requests posted, by queue */
	uint32_t back[VERBS_QUEUES_MAX];  /* and come back */
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
	TAILQ_ENTRY(served_link) answering;
	LIST_ENTRY(served_link) by_number;

	_Atomic bool failed; /* the poller tells the control thread */
};

TAILQ_HEAD(served_links, served_link);

struct verbs_service {
	struct transport_service base;
	const struct grants *grants;
	struct verbs_tasks tasks; /* of its poller */
	uint32_t index;           /* likewise */
	int epoll_fd;
	struct serving serving;
	struct served_links binding;            /* with windows that are not bound */
	struct served_links owing;              /* that have taken receives and not told of them */
	struct served_links answering;          /* with buffers that have not come back */
	_Atomic(struct receive_queue *) queues; /* the latest one; they stay */
	pthread_mutex_t lock;                   /* of who makes or looks for a queue */
	LIST_HEAD(, served_link) * by_number;   /* of their first queue pairs */
	LIST_HEAD(, held_lane) held;            /* messages that inboxes had no room for */
	uint32_t held_dead;                     /* of links that have gone */
};

/** @p lane  of inboxes. @return 0; -ENOMEM; -errno of epoll_create */
int verbs_service_create(const struct grants *grants, uint32_t poller, uint32_t lane,
			 struct buffers *buffers, struct verbs_service **service);

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

/** What waits for the owner of @p export is not wanted any more. */
void verbs_service_forget(struct verbs_service *service, const struct export *export);

/** Its queue pairs go to the error state. */
void served_link_fail(struct served_link *link);

static inline bool served_link_has_failed(const struct served_link *link)
{
	return atomic_load_explicit(&link->failed, memory_order_relaxed);
}

/* ---- verbs_receives.c ---- */

/** Any thread: there is a share for it. @return 0; -ENOMEM, -errno */
int receives_join(struct served_link *link);

/** What the queue pair with that index is to be made with. */
void receives_choose(const struct served_link *link, uint32_t index,
		     struct verbs_queue_options *options);

/** The worker. Accepts one that has not joined. */
void receives_leave(struct served_link *link);

/** The service ends. */
void receives_destroy(struct verbs_service *service);

/* The poller: */

/** From now on what comes for it is found. @return 0; an errno */
int receives_begin(struct served_link *link);

/** It is not any more. */
void receives_end(struct served_link *link);

/** What came has been dealt with: the receive is there for another. @return 0; an errno */
int receives_post(struct served_link *link, struct buffer *buffer);

/** Likewise where the link has failed, or goes: only others can use it. */
void receives_give_up(struct served_link *link, struct buffer *buffer);

/** Take some of what has come. @return how many */
uint32_t receives_take(struct verbs_service *service);

/** Take all that has come for @p link, or for anybody. */
void receives_empty(struct served_link *link);
void receives_catch_up(struct verbs_service *service);

/** Have the descriptor tell of the next one. @return false: there are some already */
bool receives_arm(struct verbs_service *service);

/* ---- verbs_heard.c ---- */

/** One of its receives has come back. */
void verbs_hear(struct served_link *link, const struct ibv_wc *completion, struct buffer *buffer);

/** Try what had no room again. @return how much was dealt with */
uint32_t verbs_retry_held(struct verbs_service *service);

/** @p link goes; what it has notified of is still told. */
void verbs_drop_held(struct verbs_service *service, struct served_link *link);

/** The owner of that lane does not want it any more. */
void verbs_forget_held(struct verbs_service *service, const struct inbox_lane *lane);

/* ---- verbs_say.c ---- */

/** Post work requests on one of its queue pairs, the last one signalled. @return false: it failed
 */
bool served_link_post(struct served_link *link, uint32_t queue, struct verbs_work *works,
		      uint32_t n);

/** See what has come back of those. */
void served_link_take_back(struct served_link *link, uint32_t queue);

/** A call is answered. @return false: not now */
bool served_link_answer(struct served_link *link, uint32_t slot, const struct inbox_answer *answer);

/** One that was not left to anybody is. */
void served_link_refuse(struct served_link *link, uint32_t slot, int status);

/** It goes: its buffers are not to be looked for. @return how many shared ones it keeps */
uint32_t served_link_answer_none(struct served_link *link);

/** See of some links whether what they have sent has come back, and its buffers with it. */
void verbs_take_back_some(struct verbs_service *service);

/** One more receive was put back, of which the client is told soon. */
void served_link_owe(struct served_link *link);

/** There will be nobody to tell. */
void served_link_owe_none(struct served_link *link);

/**
 * In a pause clients are told the rest of what was taken, so that they know exactly; but for those
 * that do not take in what they are sent. @return how many
 */
uint32_t verbs_tell_rest(struct verbs_service *service);

/* ---- verbs_binding.c ---- */

/** Bind windows, after those before; bounded in time: then the link fails. */
void verbs_service_bind(struct verbs_service *service, struct served_link *link,
			struct binding *binding);

/** Some links further. @return are there any? */
bool verbs_bind_some(struct verbs_service *service);

#endif
