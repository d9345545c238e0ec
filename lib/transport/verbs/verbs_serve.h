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

/*
 * As transport_target has them; @p server is a struct verbs_server. None is made where there is no
 * device.
 */

int verbs_server_create(const struct serving_env *env, void **server);
void verbs_server_stop(void *server);
void verbs_server_destroy(void *server);
struct transport_service *verbs_server_service(void *server, uint32_t poller);
json_t *verbs_server_describe(void *server);

/** Registers the segment's memory with every device, with its rights. @return as verbs_register()
 */
int verbs_server_export(void *server, struct export *export);

/** Waits until no window on it is open. */
void verbs_server_unexport(void *server, const struct export *export);

/** The links of that connection, or that one, begin to end. */
void verbs_server_gone(void *server, uint64_t connection);
void verbs_server_fence(void *server, uint64_t connection, uint64_t link);
int verbs_server_after(void *server, void (*fn)(void *arg), void *arg);
void verbs_server_settle(void *server);

/** Control thread: add @p grant. @return as grants_add() */
int verbs_server_grant(void *server, const struct grant *grant, json_t *description,
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
int verbs_server_join(void *server, struct grant *grant, const json_t *offer, json_t *answer,
		      struct transport_later *later);

/**
 * Control thread: it begins to end that the client reaches the segment. Where the device has no
 * windows, that ends all links of the client. Accepts a NULL @p grant.
 */
void verbs_server_revoke(void *server, struct grant *grant, int reason);

#endif
