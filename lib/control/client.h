/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The initiator's side of the control plane: connections to targets, shared by all sessions with
 * the same target; and the sessions, one per open segment.
 *
 * A connection is made on the caller's thread, which blocks; afterwards the control thread has it.
 */
#ifndef CONTROL_CLIENT_H
#define CONTROL_CLIENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <jansson.h>

#include <sluice/security.h>
#include <sluice/segment.h>

#include "control/credentials.h"
#include "control/message.h"
#include "control/thread.h"
#include "net/address.h"

struct client;      /* one connection */
struct client_pool; /* all of an engine */
struct session;
struct tls;
struct transport_peer;

struct client_pool_options {
	struct control_thread *control;
	const char *name; /* ours, shown to targets */
	const struct trust *trust;
	struct tls *tls; /* a TLS_CLIENT for TCP; NULL: without */
	bool insecure;   /* without TLS, connect beyond this host */
	bool tcp_plain;  /* data connections without TLS, where the target agrees */
};

/** What the target said of itself and of us. */
struct client_welcome {
	char target[SLU_NAME_MAX + 1];
	uint64_t incarnation;
	pid_t pid;                            /* in our own PID namespace; 0 unknown */
	bool same_host;                       /* its kernel is ours */
	char identity[SLU_IDENTITY_MAX + 1];  /* what it knows us as */
	char address[ADDRESS_TEXT_MAX];       /* of this connection, "unix:..." or "tcp:..." */
	bool is_unix;                         /* descriptors can be passed */
	bool encrypted;                       /* this connection is */
	char socket[SLU_SOCKET_PATH_MAX + 1]; /* path it also listens on; empty: none */
	struct host_port tcp;                 /* where data connections go; port 0: nowhere */
	bool tcp_tls;                         /* that port wants TLS */
	bool tcp_plain;                       /* though not for data connections */
	int version;                          /* of the protocol that is spoken */
	json_t *transports; /* an object: what its transports say of themselves; NULL: nothing.
			       Many threads read it: take no reference, it lives as long */
};

/** What the target granted. */
struct client_grant {
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
struct session_callbacks {
	/**
	 * The session is over: the target is closing (-ESHUTDOWN), has withdrawn a right
	 * (-EKEYREVOKED) or has gone (-ECONNRESET). Once.
	 */
	void (*lost)(void *arg, int error);
	void (*totals)(void *arg, struct client_totals *totals);
};

/** The options' texts and objects must outlive the pool. @return 0; -ENOMEM */
int client_pool_create(const struct client_pool_options *options, struct client_pool **pool);

/** All clients must have been released. Accepts NULL. */
void client_pool_destroy(struct client_pool *pool);

/**
 * Use the open connection to @p endpoint, or make one; blocks until @p until_ns of the monotonic
 * clock. Any thread but the control thread.
 *
 * @param segment  what the caller is after, for messages to people
 * @return         0; as slu_remote_open()
 */
int client_connect(struct client_pool *pool, const struct endpoint *endpoint, const char *segment,
		   uint64_t until_ns, struct client **client);

/** Give it back; the last one, and the last session, close the connection. Accepts NULL. */
void client_release(struct client *client);

/** Lives with the client. */
const struct client_welcome *client_welcome(const struct client *client);

/**
 * For transports that need connections of their own: dial() makes them, to the address of this
 * connection if it is TCP, else to the one that the target named. -EOPNOTSUPP: it named none.
 */
struct transport_peer *client_peer(struct client *client);

struct session_request {
	const char *segment;
	uint32_t rights;
	const enum slu_transport *transports; /* in the order of preference */
	uint32_t transport_count;
	uint64_t until_ns;
	const struct session_callbacks *callbacks;
	void *arg;
};

/**
 * Open a segment; blocks. Any thread but the control thread. The callbacks may come before it
 * returns. The session holds the client.
 *
 * @param grant  out: to be freed by client_grant_free()
 * @return       0; as slu_remote_open()
 */
int session_open(struct client *client, const struct session_request *request,
		 struct session **session, struct client_grant *grant);

/**
 * Report the totals and end it; no callback comes afterwards. Nobody may be in session_ask() with
 * it. Any thread but the control thread. Accepts NULL.
 */
void session_close(struct session *session);

#define SESSION_ASK_SECONDS 5 /* a target that does not answer session_ask_async() is given up */

/**
 * Ask the target's transport for a path; blocks until @p until_ns. Any thread but the control
 * thread, and several at once. An answer that comes too late is dropped: what the target has made
 * for it ends with the session.
 *
 * @param offer   a JSON object; nobody else uses it meanwhile, references included
 * @param answer  out: a JSON object, the caller's
 * @return        0; -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN, -EKEYREVOKED the session is over, or is
 *                meanwhile; -EPROTONOSUPPORT the target is too old for it; -EMSGSIZE the offer is
 *                too long; -EINVAL it is no object; -EAGAIN the target does not read; -EPROTO;
 *                -ENOMEM; else what the target refused with, its reason in slu_last_error()
 */
int session_ask(struct session *session, const json_t *offer, uint64_t until_ns, json_t **answer);

/**
 * The same without waiting. Any thread, also the control thread.
 *
 * @p answered is called once, on the control thread, also when the session ends: before lost() is;
 * or with -ECANCELED before session_close() returns. It may ask again, but not after -ECANCELED.
 *
 * @param offer     the callee's from now on, whatever is returned
 * @param answered  error: as above; -ETIMEDOUT after SESSION_ASK_SECONDS. answer: with error 0,
 *                  during the call
 * @return          0; -ENOMEM, -EINVAL the offer is no object: answered is not called
 */
int session_ask_async(struct session *session, json_t *offer,
		      void (*answered)(void *arg, int error, const json_t *answer), void *arg);

/** Ask the target what it has used. @return 0; -ETIMEDOUT; -ECONNRESET, -ESHUTDOWN it has gone */
int session_usage(struct session *session, uint64_t timeout_us, uint64_t *cpu_ns);

/** Frees the answer and closes the descriptors. */
void client_grant_free(struct client_grant *grant);

#endif
