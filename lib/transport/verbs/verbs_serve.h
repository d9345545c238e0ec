/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The target's side of verbs. The bytes of operations reach the memory of segments without us; what
 * is left is to let them: registered memory, windows that open it to one client's queue pairs, the
 * queue pairs themselves; and to serve what comes as messages: notifications and calls.
 *
 * The control thread begins and ends everything and waits for nobody (verbs_server.h); the poller
 * that a link was given to takes what comes in on it and sends the answers.
 */
#ifndef VERBS_VERBS_SERVE_H
#define VERBS_VERBS_SERVE_H

#include <stdint.h>

#include <jansson.h>

#include "transport/grants.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_host.h"
#include "transport/verbs/verbs_tasks.h"

/** Links of one client: one for each of its pollers. */
#define VERBS_LINKS_MAX SLU_POLLERS_MAX

/** Links being connected at once, each by a thread; of one client one. Others wait in turn. */
#define VERBS_CONNECTING_MAX 16u

struct verbs_server;

/** @return 0; -ENOMEM; -errno of epoll_create */
int verbs_server_create(struct verbs_host *host, uint64_t incarnation, uint32_t pollers,
			struct verbs_server **server);

/**
 * Nothing is granted or exported any more: wait until all that was is over. The pollers still run
 * their services, the control thread its tasks. Not the control thread.
 */
void verbs_server_stop(struct verbs_server *server);

/** It has stopped, and no poller runs its services any more. Accepts NULL. */
void verbs_server_destroy(struct verbs_server *server);

/** What poller @p poller is to run. */
struct transport_service *verbs_server_service(struct verbs_server *server, uint32_t poller);

/** The descriptor that is readable when something has come for a service that slept. */
int verbs_service_fd(const struct transport_service *service);

/**
 * Register a segment's memory with every device, with its rights. Any thread.
 *
 * @param ns  out: that it took
 * @return    0; as verbs_register()
 */
int verbs_server_export(struct verbs_server *server, const struct export *export, uint64_t *ns);

/**
 * Nothing of it is granted any more. Waits until no window on it is open; its inbox is left alone
 * from then on. Neither the control thread nor a poller.
 */
void verbs_server_unexport(struct verbs_server *server, const struct export *export);

/** Control thread: add @p grant. @return as grants_add() */
int verbs_server_grant(struct verbs_server *server, const struct grant *grant, json_t *description,
		       struct grant **out);

/**
 * Control thread: a client asks to reach what it was granted over one of its links (verbs_wire.h).
 * It is answered later: a link has to be connected, memory windows to be bound.
 *
 * @param answer  nothing is put there
 * @return        TRANSPORT_LATER; -ENOENT there is no such link, and none is offered; -ESTALE it
 *                means another life of this target; -EBUSY it asks for two at once; -EPROTO;
 *                -ENOSPC, -ENOMEM
 */
int verbs_server_join(struct verbs_server *server, struct grant *grant, const json_t *offer,
		      json_t *answer, struct transport_later *later);

/*
 * The next three begin an end and return. When it is over verbs_server_after() tells, for which
 * verbs_server_settle() waits.
 */

/**
 * Control thread: the client cannot reach the segment any more. Where the device has no windows,
 * that ends all links of the client. Accepts a NULL @p grant.
 */
void verbs_server_revoke(struct verbs_server *server, struct grant *grant, int reason);

/** Control thread: @p connection has ended, and so do its links. */
void verbs_server_gone(struct verbs_server *server, uint64_t connection);

/**
 * Control thread: the queue pairs of that link are destroyed, and nothing that came over them is
 * carried out any more.
 */
void verbs_server_fence(struct verbs_server *server, uint64_t connection, uint64_t link);

/** Have the marker's task run, by a thread that must not wait, when all that began before is over.
 */
void verbs_server_after(struct verbs_server *server, struct verbs_ending *marker);

/** Wait for that. Neither the control thread nor a poller. */
void verbs_server_settle(struct verbs_server *server);

#endif
