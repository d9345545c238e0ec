/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Where streams over TCP come from and lead to: the kernel's network, or a simulated one.
 */
#ifndef NET_NETWORK_H
#define NET_NETWORK_H

#include "net/address.h"
#include "net/stream.h"

struct network {
	/** As address_resolve(). */
	int (*resolve)(const struct host_port *at, uint64_t until_ns,
		       union address out[ADDRESSES_MAX]);
	/**
	 * @param bound  out: with the port that was chosen
	 * @return       a descriptor, readable when there is something to accept; as
	 *               address_listen()
	 */
	int (*listen)(const union address *address, int backlog, union address *bound);
	/** @return 0; -EAGAIN there is nobody; -errno of accept() */
	int (*accept)(int listener, struct stream *stream, union address *from);
	/**
	 * Begin to connect; the stream can be written to when it is done, well or badly.
	 *
	 * @return 0; -errno, and @p stream is closed
	 */
	int (*connect)(const union address *address, struct stream *stream);
	/** How does it go? @return 0; -EINPROGRESS; -errno, and @p stream stays the caller's */
	int (*connected)(struct stream *stream);
};

/** The process's: the kernel's, unless a simulation has put its own here before all else. */
extern const struct network *network;

#endif
