/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Queue pairs brought together by librdmacm instead of the control session: it resolves the route
 * and carries queue-pair numbers and packet sequence numbers in its own messages, which everybody
 * on the network can send and read. So the session is still asked first: the target answers with a
 * port and an invitation (verbs_invite.h), and takes a request only from who was invited.
 *
 *   client                                       target
 *   path: offer of a link, "cm": true        ->
 *                                            <-  answer: "cm": {"port": N, "token": "32 hex"}
 *   REQ {link, queue, proof}                 ->  for each queue pair
 *                                            <-  REP; its queue pair can send and receive by now
 *   RTU                                      ->
 *   path: the same link, once more           ->
 *                                            <-  answer: the keys of the segment
 *
 * librdmacm only tells the numbers: the queue pairs are made, connected and ended as all are
 * (verbs_queue.h), so that timeouts, MTU and the rest follow the same options.
 */
#ifndef VERBS_VERBS_CM_H
#define VERBS_VERBS_CM_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_invite.h"
#include "transport/verbs/verbs_queue.h"

/** What librdmacm holds of one link, at either end. */
struct verbs_cm;

/** A link whose queue pairs are to be connected. */
struct verbs_cm_link {
	uint64_t id;
	const struct verbs_device *device;
	const struct verbs_connection *connection; /* what does not come from librdmacm: MTU, RDMA
						      READs, timeouts, retries; and the peer's GID,
						      to be compared */
	struct verbs_queue *const *queues;
	uint32_t count;
};

/**
 * Client: connect the queue pairs; blocks.
 *
 * @param ours   GID of our port to go out by
 * @param peer   GID of the target's
 * @param port   that the target told, like @p token
 * @param cm     out: to be destroyed before the queue pairs are
 * @return       0; -EOPNOTSUPP no librdmacm here, or a GID that is no IP address; -EHOSTUNREACH no
 *               route to it; -ENODEV the route goes by another device; -EACCES, -ECONNREFUSED the
 *               target did not take it; -ETIMEDOUT; -EPROTO; -errno
 */
int verbs_cm_connect(const struct verbs_cm_link *link, const struct verbs_gid *ours,
		     const union ibv_gid *peer, uint16_t port, const char *token, uint64_t until_ns,
		     struct verbs_cm **cm);

/** Nothing is connected by it any more. Accepts NULL. */
void verbs_cm_destroy(struct verbs_cm *cm);

/** Target: a listener, and a thread that answers. */
struct verbs_cm_server;

/** @return 0; -EOPNOTSUPP no librdmacm here; -EAGAIN no thread; -ENOMEM; -errno */
int verbs_cm_server_create(struct verbs_cm_server **server);

/** No link is left. Accepts NULL. */
void verbs_cm_server_destroy(struct verbs_cm_server *server);

uint16_t verbs_cm_server_port(const struct verbs_cm_server *server);

/**
 * Target: let whoever brings @p token connect the queue pairs of @p link, each once, within
 * INVITATION_NS. What the link names must stay until the result is destroyed, the connection
 * excepted.
 *
 * @param token  out: SECRET_TEXT bytes
 * @return       0; -ENOMEM, -EAGAIN no randomness
 */
int verbs_cm_expect(struct verbs_cm_server *server, const struct verbs_cm_link *link, char *token,
		    struct verbs_cm **cm);

/** Target: are all queue pairs connected? */
bool verbs_cm_is_connected(struct verbs_cm *cm);

/** Target: is it too late to connect further ones? */
bool verbs_cm_has_expired(struct verbs_cm *cm);

#endif
