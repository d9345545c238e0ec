/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Clients of a target that do nothing: visitors with open sessions and, over TCP, each with a data
 * connection of its own.
 */
#ifndef PERF_CROWD_H
#define PERF_CROWD_H

#include "visitor.h"

struct crowd {
	unsigned count;
	struct visitor *visitors;
	int *data; /* sockets of data connections; -1: none */
};

/**
 * Files that may be open, in this process and in those that it starts from now on. @return may so
 * many?
 */
bool crowd_files(unsigned files);

/** Come in and open @p segment, @p sessions times each. Dies when the target does not let them. */
void crowd_come(struct crowd *crowd, const struct door *door, const char *segment, unsigned clients,
		unsigned sessions);

/** Answer the target's pings; dies when it has closed a connection. */
void crowd_tend(struct crowd *crowd);

void crowd_leave(struct crowd *crowd);

#endif
