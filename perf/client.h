/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A well-behaved client over TCP: one thread with an inline queue, and what it runs on.
 */
#ifndef PERF_CLIENT_H
#define PERF_CLIENT_H

#include "load.h"

#define CLIENT_SMALL_BYTES 64 /* and below: batches are as large as they can be */
#define CLIENT_DEPTH       4  /* batches in flight */

/** What it does. */
struct sample {
	const char *name;
	enum slu_opcode opcode;
	uint64_t length; /* of one operation, bytes */
	enum rig_memory memory;
	uint64_t walked; /* bytes of the memory that are used; 0 = all */
	uint32_t connections;
	bool tls;
	struct target_siege siege;
};

struct client {
	struct rig rig;
	struct cursor cursor;
	struct load load;
	struct lane lane;
};

/** Operations that are submitted together. */
uint32_t client_batch(uint64_t length);

void client_open(struct client *client, const struct bench *bench, const struct sample *sample,
		 uint32_t batch, uint32_t depth);

void client_close(struct client *client);

#endif
