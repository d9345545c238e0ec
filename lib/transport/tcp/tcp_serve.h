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

struct grant;

/*
 * As transport_target has them; @p server is a struct tcp_server. When fence or gone return it is
 * over, and to revoke what a connection that has gone was granted asks no poller.
 */

int tcp_server_create(const struct serving_env *env, void **server);
void tcp_server_destroy(void *server);
struct transport_service *tcp_server_service(void *server, uint32_t poller);
void tcp_server_attach(void *server, const struct stream *stream, uint64_t connection,
		       uint64_t link, struct budget *budget);
void tcp_server_gone(void *server, uint64_t connection);
void tcp_server_fence(void *server, uint64_t connection, uint64_t link);
void tcp_server_close(void *server, const struct export *export);
int tcp_server_grant(void *server, const struct grant *grant, json_t *description,
		     struct grant **out);
void tcp_server_revoke(void *server, struct grant *grant, int reason);

#endif
