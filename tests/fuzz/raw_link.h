/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * One end of an RDMA link, for those who say over it what they like: the transport's own queues,
 * nothing of its manners. What cannot be set up ends the program.
 */
#ifndef TESTS_FUZZ_RAW_LINK_H
#define TESTS_FUZZ_RAW_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <jansson.h>

#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_wire.h"

#define RAW_DEPTH    64u
#define RAW_RECEIVES 64u
#define RAW_BUFFER   8192u /* longer than any message may be */

#define must(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,        \
				slu_last_error());                                                 \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

struct raw_link {
	const struct verbs_device *device;
	uint64_t id;
	uint32_t count;
	struct verbs_queue *queues[VERBS_QUEUES_MAX];
	uint32_t psns[VERBS_QUEUES_MAX];
	uint32_t posted[VERBS_QUEUES_MAX]; /* work requests */
	uint32_t back[VERBS_QUEUES_MAX];
	uint32_t error; /* of the first that came back with one: enum ibv_wc_status */
	struct ibv_cq *receive_cq;
	struct ibv_mr *mr;
	char *memory; /* RAW_DEPTH buffers to send from, then RAW_RECEIVES */
};

struct fabric_key;

/** Buffers stay, as many as the links at any one time have needed: transport/buffers.h. */
bool raw_is_of_buffers(const struct fabric_key *key);

/** The devices, with short timeouts for those who find nobody. */
struct verbs_devices *raw_devices_open(void);

/** @param access  what the peer may do on its queue pairs, enum ibv_access_flags */
struct raw_link *raw_link_create(struct verbs_device *device, uint64_t id, uint32_t count,
				 uint32_t access);
void raw_link_destroy(struct raw_link *link);

/** [[QPN, PSN], ...] */
json_t *raw_link_queues(const struct raw_link *link);

/** @return did the queue pairs take what @p peers says of theirs? */
bool raw_link_connect(struct raw_link *link, const json_t *peers, const union ibv_gid *gid,
		      uint32_t reads);

/** Post receive @p index. */
void raw_link_receive(struct raw_link *link, uint32_t index);

/** Where receive @p index, or what is posted next on @p queue, has its bytes. */
char *raw_link_received(const struct raw_link *link, uint64_t index);
char *raw_link_buffer(const struct raw_link *link, uint32_t queue);

/** Post one, signalled; its number and, without a piece of its own, the key are set here. @return
 * false: no room */
bool raw_link_post(struct raw_link *link, uint32_t queue, struct verbs_work *work);

/** Take what has come back. @return how much is still out, of all queues */
uint32_t raw_link_poll(struct raw_link *link);

#endif
