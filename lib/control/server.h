/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The target's side of the control plane: listeners, and one session per connected client.
 *
 * Calls marked "loop" belong on the control thread; the callbacks come from there.
 */
#ifndef CONTROL_SERVER_H
#define CONTROL_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <jansson.h>

#include "control/credentials.h"
#include "control/message.h"
#include "control/thread.h"

/** A client has this long to say hello and open a segment. */
#define SERVER_HANDSHAKE_SECONDS 5

struct server;
struct listener;

struct server_callbacks {
	/**
	 * Grant a segment. The answer (length, grant, ...) is put into @p opened.
	 *
	 * @param client  out: handed to the calls below
	 * @return        number of fds, or a negative errno with slu_last_error()
	 */
	int (*open)(void *arg, const char *segment, uint32_t rights, const json_t *transports,
		    json_t *opened, int fds[MESSAGE_FDS_MAX], uint32_t *close_mask, void **client);
	/** Totals that the client reports. */
	void (*moved)(void *client, uint64_t operations, uint64_t bytes_read,
		      uint64_t bytes_written);
	/** The session is over. @p lost: it ended without a goodbye. */
	void (*close)(void *client, bool lost);
};

struct server_options {
	struct control_thread *control;
	const struct trust *trust;
	const char *name;
	uint64_t incarnation;
	const struct server_callbacks *callbacks;
	void *arg;
};

/** @return 0; -ENOMEM */
int server_create(const struct server_options *options, struct server **server);

/** Ends all sessions (they are lost to their clients) and listeners. Accepts NULL. */
void server_destroy(struct server *server);

/**
 * Listen on an abstract name or on a path; a path that nobody serves any more is taken over.
 *
 * @return 0; -EADDRINUSE another process listens there; -errno
 */
int server_listen(struct server *server, const struct sockaddr_un *address, socklen_t length,
		  struct listener **listener);

/** Accepts NULL. Removes a path. */
void server_unlisten(struct server *server, struct listener *listener);

/** Tell all clients that opened something for which @p which is true to leave. Loop. */
void server_dismiss(struct server *server, bool (*which)(void *client, void *arg), void *arg);

/** End, without a word, the sessions for whose clients @p which is true. Loop. */
void server_drop(struct server *server, bool (*which)(void *client, void *arg), void *arg);

/** Sessions present. Any thread. */
uint32_t server_session_count(const struct server *server);

#endif
