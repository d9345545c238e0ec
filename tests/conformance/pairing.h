/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Two engines of one process: one exports a segment, the other reads and writes it.
 */
#ifndef CONFORMANCE_PAIRING_H
#define CONFORMANCE_PAIRING_H

#include <stdint.h>

#include <sluice/sluice.h>

#define PAIRING_BYTES UINT64_C(1048576)

struct pairing {
	struct slu_engine *target;
	struct slu_engine *client;
	struct slu_region *exported;
	struct slu_region *region; /* of the client, as long */
	struct slu_segment *segment;
	struct slu_remote *remote;
	struct slu_queue *queue;
	char name[SLU_REMOTE_NAME_MAX + 1];
};

/** An engine with @p pollers that listens on loopback. @return 0; as slu_engine_open() */
int pairing_engine(uint32_t pollers, struct slu_engine **engine);

/** Of @p engine. @return the port that it serves */
int pairing_port(struct slu_engine *engine);

/**
 * Call @p test for each transport between two engines that this machine has, with an inline queue
 * and behind a poller.
 */
void pairing_each(void (*test)(enum slu_transport transport, uint32_t pollers));

/** @p pollers of the client; 0: an inline queue. Fails the test. */
void pairing_open(struct pairing *pairing, const char *segment, enum slu_transport transport,
		  uint32_t pollers);

void pairing_close(struct pairing *pairing);

/** Submit it and wait. @return its status */
int pairing_run(struct pairing *pairing, uint8_t opcode, uint64_t offset, uint64_t length);

/** Write all, look at it from the target's side, read it back. Fails the test. */
void pairing_check(struct pairing *pairing, uint64_t generation);

#endif
