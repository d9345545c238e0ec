/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A client of a target's control plane, by hand: connects, says hello, opens sessions, and does not
 * need an engine, of which a process has only one.
 *
 * Nothing here dies: a target under attack may well say no, or nothing.
 */
#ifndef PERF_VISITOR_H
#define PERF_VISITOR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/un.h>

#include "control/message.h"
#include "net/tls.h"

/** Where to go in, as whom. */
struct door {
	union {
		struct sockaddr any;
		struct sockaddr_in tcp;
		struct sockaddr_un unix_socket;
	} address;
	socklen_t address_bytes;
	const char *source; /* IPv4 address to come from; NULL = the kernel's choice */
	struct tls *tls;    /* NULL = without */
	int wait_ms;        /* for each answer */
};

/** To a target's "127.0.0.1:PORT". */
struct door door_tcp(const char *address, const char *source, struct tls *tls, int wait_ms);

/** To the abstract Unix socket of a segment. */
struct door door_unix(const char *segment, int wait_ms);

/** One connection; zeroed: none. */
struct visitor {
	struct stream stream;
	struct message_reader reader;
	struct message_writer writer;
	bool connected;
	bool over_tcp;
	int wait_ms;
	uint64_t number; /* the target's, of this connection */
};

/**
 * Connect, no word said.
 *
 * @return a socket that blocks, and whose end is a reset: it leaves no port that has to wait; -1
 */
int door_knock(const struct door *door);

/** Connect and, with keys, shake hands. @return is the visitor in? */
bool visitor_connect(struct visitor *visitor, const struct door *door);

/** visitor_connect(), hello, welcome. */
bool visitor_enter(struct visitor *visitor, const struct door *door);

/** Send a message, which is freed. @return has it gone out? */
bool visitor_say(struct visitor *visitor, json_t *message);

/** The next message that is no ping; NULL: none came. The caller's. */
json_t *visitor_hear(struct visitor *visitor);

/** Is the next message of type @p type? */
bool visitor_hears(struct visitor *visitor, const char *type);

/** Answer pings that are there. @return false: the target has closed */
bool visitor_tend(struct visitor *visitor);

/** Ask to open @p session of @p segment, over TCP if this connection is; no answer is read. */
bool visitor_ask_open(struct visitor *visitor, unsigned session, const char *segment,
		      unsigned rights);

bool visitor_close_session(struct visitor *visitor, unsigned session);

/** Leave by a reset. Accepts one that is not there. */
void visitor_leave(struct visitor *visitor);

/** A data connection of the client that @p owner is. @return a socket that blocks; -1 */
int visitor_attach(struct visitor *owner, const struct door *door);

#endif
