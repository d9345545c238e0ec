/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Two queue pairs of the model that are connected with each other, for tests: the initiator's send
 * queue driven directly, the target's memory beside it. What cannot be set up ends the program.
 */
#ifndef TESTS_MLX5_MODEL_PAIR_H
#define TESTS_MLX5_MODEL_PAIR_H

#include <stdint.h>

#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"

#define PAIR_MEMORY (1u << 20)

struct pair_options {
	uint32_t depth;
	uint32_t receives;
	uint32_t inline_bytes;
	uint8_t reads_out;
	uint8_t reads_in;
	uint8_t timeout; /* 4.096 us << timeout */
	uint8_t retries;
	uint32_t psn_shift; /* between what one sends and the other expects: nothing arrives */
	uint32_t access;    /* of the target's queue pair */
	uint32_t rights;    /* of the target's memory */
	bool armable;       /* with a channel */
};

struct pair_end {
	struct verbs_queue *queue;
	struct ibv_cq *receive_cq;
	uint8_t *memory;
	struct ibv_mr *mr;
};

struct pair {
	struct verbs_device device;
	struct ibv_comp_channel *channel; /* of the initiator's sends */
	struct pair_end initiator;
	struct pair_end target;
	uint32_t next_id;
};

#define pair_must(condition)                                                                       \
	do {                                                                                       \
		if (!(condition))                                                                  \
			pair_give_up(__FILE__, __LINE__, #condition);                              \
	} while (0)
_Noreturn void pair_give_up(const char *file, int line, const char *condition);

void pair_options_init(struct pair_options *options);
void pair_open(struct pair *pair, const struct pair_options *options);
void pair_close(struct pair *pair);

/** The device alone, and one end with its memory; for tests that put them together themselves. */
void pair_open_device(struct verbs_device *device);
void pair_close_device(struct verbs_device *device);
void pair_open_end(struct verbs_device *device, const struct pair_options *options,
		   struct ibv_comp_channel *channel, uint32_t access, uint32_t rights,
		   struct pair_end *end);
void pair_connect_end(struct verbs_device *device, const struct pair_options *options,
		      const struct pair_end *end, uint32_t peer_qpn, uint32_t psn,
		      uint32_t peer_psn);
void pair_close_end(struct pair_end *end);

/** A work request between equal offsets of both memories; the id counts. */
struct verbs_work pair_work(struct pair *pair, uint8_t opcode, uint32_t from, uint32_t to,
			    uint32_t length);

/** One receive of the target into its memory. */
void pair_receive(struct pair *pair, uint64_t id, uint32_t to, uint32_t length);

/** Wait for one completion; at most 10 s. */
struct verbs_done pair_wait(struct verbs_queue *queue);
struct ibv_wc pair_wait_receive(struct ibv_cq *cq);

/** Post one signalled work request and wait for it. */
struct verbs_done pair_do(struct pair *pair, const struct verbs_work *work);

/** Post all, polling where there is no room; every @p each-th is signalled, and the last one. */
void pair_post_all(struct pair *pair, struct verbs_work *works, uint32_t n, uint32_t each);

#endif
