/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What the files of the client share: clients.c (which connection), handshake.c (making one, on the
 * caller's thread), client.c (what goes over it afterwards, on the control thread), asks.c (what is
 * asked of the target) and fences.c (what may still land there).
 */
#ifndef CONTROL_CLIENT_INTERNAL_H
#define CONTROL_CLIENT_INTERNAL_H

#include <pthread.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "control/client.h"
#include "control/loop.h"
#include "net/proof.h"
#include "net/stream.h"
#include "transport/transport.h"

#define CLIENT_OUTPUT_MAX_BYTES (4u << 20) /* a target that does not read is given up */
#define CLIENT_PING_SECONDS     10         /* of silence over TCP, then it is asked */
#define CLIENT_SILENCE_SECONDS  25         /* and then given up */
#define CLIENT_SLOTS            64u /* sessions by number, to begin with */

enum client_state {
	CLIENT_CONNECTING, /* one thread makes it, others wait */
	CLIENT_OPEN,
	CLIENT_DEAD, /* for new sessions another one is made */
};

/** A connection, and what the target has given it. */
struct connection_secret {
	struct connection_name of;
	uint8_t bytes[SECRET_BYTES];
};

struct client {
	struct transport_peer peer;
	struct client_pool *pool;
	struct endpoint endpoint;
	union address reached; /* TCP */
	struct client_welcome welcome;
	struct connection_secret secret;
	struct target_fence *fence; /* NULL until it has greeted */
	bool fences; /* it is in the list of those that can ask for the target's; control thread */
	LIST_ENTRY(client) by_target;
	struct stream stream;
	struct message_reader reader;

	/* Under the pool's lock. */
	enum client_state state;
	uint32_t references; /* client_connect() and sessions */
	LIST_ENTRY(client) link;

	/* The control thread's, once open. */
	bool watched;
	int error; /* 0, or why it is over */
	struct watch reading;
	struct watch writing;
	struct watch timer;
	struct message_writer writer;
	uint32_t silent_seconds; /* in turns of the timer: a host may have been suspended */
	uint32_t next_session;
	uint32_t session_count;
	uint32_t slot_count;
	LIST_HEAD(session_list, session) * slots;
	json_int_t next_request;
	TAILQ_HEAD(, ask) asks; /* not answered, the oldest first */

	/* Between those who ask and wait, and the control thread. */
	pthread_mutex_t lock;
	pthread_cond_t answered;
	uint64_t usages; /* answers so far */
	uint64_t cpu_ns;
	bool lost;
};

struct session {
	struct client *client;
	const struct session_callbacks *callbacks;
	void *arg;
	uint32_t id;
	int error;               /* why it is over, if it is */
	bool present;            /* in the client's table: the target knows of it */
	struct opening *opening; /* NULL: nobody waits */
	struct client_totals reported;
	LIST_ENTRY(session) link;
};

struct client_pool {
	struct client_pool_options options;
	char boot_id[40];
	pthread_mutex_t lock;
	pthread_cond_t connected;
	LIST_HEAD(, client) clients;
	TAILQ_HEAD(, target_fence) fences; /* the oldest first */
	uint64_t last_fence;
};

/** Connect, authenticate, greet; blocks until @p until_ns. @return 0; as slu_remote_open() */
int handshake_connect(struct client *client, const char *segment, uint64_t until_ns);

/** transport_peer.dial of a client. */
int handshake_dial(struct transport_peer *peer, uint64_t link, uint32_t count, uint64_t until_ns,
		   struct stream *streams);

/** The answer "refused" as an error. */
int handshake_refused(const json_t *message);

/** Begin to watch it on the control thread. @return 0; -ENOMEM */
int client_watch(struct client *client);

/** Say goodbye, stop watching. */
void client_end(struct client *client);

/** It is over: no new sessions. Control thread. */
void client_retire(struct client *client);

/** Consumes @p message. Control thread. @return 0; as message_send(), -EPIPE: reading will tell */
int client_say(struct client *client, json_t *message);

/* asks.c, control thread */

/** Ask of the connection itself; blocks. @return as session_ask() */
int client_ask(struct client *client, const char *type, const json_t *offer, uint64_t until_ns,
	       json_t **answer);

/**
 * The same without waiting, on the control thread; it may be answered during the call. It waits for
 * as long as the connection lives.
 *
 * @param offer  consumed; NULL (out of memory while it was packed) is -ENOMEM
 * @return       0; -ENOMEM: answered is not called
 */
int client_ask_async(struct client *client, const char *type, json_t *offer,
		     void (*answered)(void *arg, int error, const json_t *answer), void *arg);

/** The answers, and refused with a request. @return 0, or why the connection ends */
int asks_answer(struct client *client, json_t **message);
int asks_refuse(struct client *client, const json_t *message);

/** Those of @p session, or all with NULL, are over. */
void asks_end(struct client *client, const struct session *session, int error);

/** Why a session ends: keeps its text. @return @p error */
int asks_explain(int error);

/** A second has passed. */
void asks_age(struct client *client);

/* fences.c */

/**
 * The fence of the target that @p client has greeted, who is asked whether it is one that we know;
 * blocks until @p until_ns. It is watched, and nothing is posted to it yet.
 *
 * @return 0; as client_ask(), -ENOMEM, -EAGAIN
 */
int fence_join(struct client *client, uint64_t until_ns);

/** No link of it is left. Accepts a client that has not joined. */
void fence_leave(struct client *client);

/** Control thread: it can't carry messages any more. */
void fence_client_over(struct client *client);

/** Control thread, once in a while: ask again what could not be asked. */
void fence_retry(struct client *client);

/** What transport_peer has of it. */
struct fence_ticket *fence_ticket(struct transport_peer *peer, uint64_t link);
void fence_raise(struct fence_ticket *ticket);
void fence_forgo(struct fence_ticket *ticket);

/** Of targets that are never heard of again. No client is left. */
void fences_destroy(struct client_pool *pool);

#endif
