/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Queue pairs brought together by librdmacm instead of the control session: it resolves the route
 * and carries queue-pair numbers and packet sequence numbers in its own messages, which everybody
 * on the network can send and read. So the session is still asked first: the target answers with a
 * port and a secret, and takes a request only with a proof that its sender knows it, good for that
 * queue pair alone. The proof may be seen: it says nothing about the secret.
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

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"

#define VERBS_CM_SECRET_BYTES 16u
#define VERBS_CM_PROOF_BYTES  16u
#define VERBS_CM_TOKEN_TEXT   (2 * VERBS_CM_SECRET_BYTES + 1)

/** What a request brings along. Little-endian. */
struct verbs_cm_hello {
	uint32_t magic;
	uint32_t queue; /* index in the link */
	uint64_t link;
	uint8_t proof[VERBS_CM_PROOF_BYTES]; /* HMAC-SHA-256, begun, by the secret of what stands
						before it and the number of the queue pair */
};

/* Of the 56 bytes that librdmacm has for it. */
static_assert(sizeof(struct verbs_cm_hello) == 32, "wire layout");

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
 * Target: let whoever brings @p token connect the queue pairs of @p link, each once. What the link
 * names must stay until the result is destroyed, the connection excepted.
 *
 * @param token  out: VERBS_CM_TOKEN_TEXT bytes
 * @return       0; -ENOMEM, -EAGAIN no randomness
 */
int verbs_cm_expect(struct verbs_cm_server *server, const struct verbs_cm_link *link, char *token,
		    struct verbs_cm **cm);

/** Target: are all queue pairs connected? */
bool verbs_cm_is_connected(struct verbs_cm *cm);

#endif
