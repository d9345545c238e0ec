/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The initiator's side of a session: a blocking handshake on the caller's thread, after which the
 * control thread watches the connection.
 */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <jansson.h>

#include <sluice/segment.h>

#include "control/credentials.h"
#include "control/message.h"
#include "control/thread.h"

struct client;

struct client_request {
	struct sockaddr_un address;
	socklen_t address_length;
	const char *described; /* the address in messages to people */
	const char *name;      /* ours, shown to the target */
	const char *segment;
	uint32_t rights;
	enum slu_transport transport;
	uint64_t timeout_us;
	const struct trust *trust;
};

/** What the target granted. */
struct client_grant {
	char target[SLU_NAME_MAX + 1];
	uint64_t incarnation;
	pid_t pid;
	enum slu_transport transport;
	uint64_t length;
	uint64_t page_bytes;
	int node;
	json_t *opened; /* the whole answer; "grant" in it is for the transport */
	int fds[MESSAGE_FDS_MAX];
	uint32_t fd_count;
};

struct client_totals {
	uint64_t operations;
	uint64_t bytes_read;
	uint64_t bytes_written;
};

/** Come from the control thread. */
struct client_callbacks {
	/** The target said that it is closing (-ESHUTDOWN) or has gone (-ECONNRESET). Once. */
	void (*lost)(void *arg, int error);
	void (*totals)(void *arg, struct client_totals *totals);
};

/**
 * Connect and open a segment; blocks up to the request's timeout.
 *
 * @return 0, with an open @p client and @p grant to be freed by client_grant_free(); as
 *         slu_remote_open()
 */
int client_open(const struct client_request *request, struct client **client,
		struct client_grant *grant);

/** Frees the answer and closes the descriptors. */
void client_grant_free(struct client_grant *grant);

/** Let @p control watch it from now on. @return 0; -ENOMEM */
int client_watch(struct client *client, struct control_thread *control,
		 const struct client_callbacks *callbacks, void *arg);

/** Say goodbye and close; accepts NULL. No callback comes afterwards. */
void client_close(struct client *client);

/** @return 0; -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN it has gone */
int client_usage(struct client *client, uint64_t timeout_us, uint64_t *cpu_ns);

#endif
