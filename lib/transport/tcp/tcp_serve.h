/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The target's side of tcp: what was granted, and the data connections, spread over the pollers.
 * Each poller runs the service of its connections: it reads requests, carries them out in the
 * memory of the segments, and responds.
 *
 * The control thread grants, revokes and brings connections; the pollers look grants up. A grant is
 * freed only after every poller with a data connection of its client has been asked to forget it.
 */
#ifndef TCP_TCP_SERVE_H
#define TCP_TCP_SERVE_H

#include <stdint.h>

#include <jansson.h>

#include "transport/transport.h"

struct budget;
struct stream;
struct tcp_server;
struct grant;

/** @return 0; -ENOMEM; -errno of epoll_create */
int tcp_server_create(uint32_t pollers, transport_on_poller on_poller, void *arg,
		      struct tcp_server **server);

/** No poller runs its services any more, and nothing is granted. Accepts NULL. */
void tcp_server_destroy(struct tcp_server *server);

/** What poller @p poller is to run. */
struct transport_service *tcp_server_service(struct tcp_server *server, uint32_t poller);

/** The descriptor that is readable when the service has something to read. */
int tcp_service_fd(const struct transport_service *service);

/**
 * Control thread: serve a data connection that belongs to @p connection, which calls it part of its
 * @p link. The stream is closed when it cannot be had.
 *
 * @param budget  of its owner, of which one data connection was taken: given back when it ends;
 *                what it does not read is charged to it. NULL: none
 */
void tcp_server_attach(struct tcp_server *server, const struct stream *stream, uint64_t connection,
		       uint64_t link, struct budget *budget);

/**
 * Control thread: @p connection has ended, and so have its data connections when it returns. To
 * revoke what it was granted asks no poller from then on.
 */
void tcp_server_gone(struct tcp_server *server, uint64_t connection);

/** Control thread: when it returns, nothing that came over that link is carried out any more. */
void tcp_server_fence(struct tcp_server *server, uint64_t connection, uint64_t link);

/** Control thread: add @p grant. @return as grants_add() */
int tcp_server_grant(struct tcp_server *server, const struct grant *grant, json_t *description,
		     struct grant **out);

/** Control thread: nothing of @p export is granted any more; its inbox is left alone from now on.
 */
void tcp_server_close(struct tcp_server *server, const struct export *export);

/** Control thread: from now on requests for it fail with @p reason. */
void tcp_server_revoke(struct tcp_server *server, struct grant *grant, int reason);

#endif
