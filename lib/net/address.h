/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Addresses as people write them, and what connects to them (network.h). Nothing here knows of TLS
 * or messages.
 */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <sluice/segment.h>

#define HOST_MAX         253 /* bytes of a host name or a numeric address (RFC 1035) */
#define ADDRESSES_MAX    8   /* of one host name, the first are used */
#define ADDRESS_TEXT_MAX (SLU_ADDRESS_MAX + 8)

/** "HOST:PORT" taken apart. */
struct host_port {
	char host[HOST_MAX + 1]; /* without the brackets of [V6] */
	uint16_t port;
};

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/** Where a target is reached. */
struct endpoint {
	bool is_unix;
	struct sockaddr_un path; /* with is_unix; abstract when it begins with NUL */
	socklen_t path_length;
	struct host_port tcp; /* without */
};

/** Take "HOST:PORT" or "[V6]:PORT" apart. @return 0; -EINVAL, slu_last_error() quotes it */
int address_parse(const char *text, struct host_port *at);

struct stream;

/**
 * Look a host up; blocks, but not beyond @p until_ns of the monotonic clock.
 *
 * @return addresses written, 1..ADDRESSES_MAX; -EADDRNOTAVAIL the name is not known; -ETIMEDOUT;
 *         -ENOMEM
 */
int address_resolve(const struct host_port *at, uint64_t until_ns,
		    union address out[ADDRESSES_MAX]);

bool address_is_loopback(const union address *address);

/** 0.0.0.0 or [::] */
bool address_is_any(const union address *address);

uint16_t address_port(const union address *address);

/** "127.0.0.1:80", "[::1]:80" */
void address_format(const union address *address, char text[ADDRESS_TEXT_MAX]);

/** "unix:/PATH", "unix:@NAME", "tcp:HOST:PORT" */
void endpoint_format(const struct endpoint *endpoint, char text[ADDRESS_TEXT_MAX]);

/** The same place, written in the same way? */
bool endpoint_equal(const struct endpoint *one, const struct endpoint *other);

/** Connecting to the first of some addresses that answers. */
struct dial {
	union address addresses[ADDRESSES_MAX];
	int count;
	int next; /* of them; once it is done, the one that has answered */
	uint64_t until_ns;
	uint64_t wake_ns; /* the next one is tried then */
};

/**
 * Go on as far as it goes without waiting.
 *
 * @param stream  closed, to begin with
 * @return        1 it is connected; 0 wait until it can be written to, but not beyond wake_ns;
 *                -ECONNREFUSED, -EHOSTUNREACH, -ETIMEDOUT; -EMFILE, -errno
 */
int dial_advance(struct dial *dial, struct stream *stream);

/**
 * @param bound  out: with the port that was chosen
 * @return       a non-blocking, listening socket; -EADDRINUSE; -EADDRNOTAVAIL; -EACCES; -errno
 */
int address_listen(const union address *address, int backlog, union address *bound);

#endif
