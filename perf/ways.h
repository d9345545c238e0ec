/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Ways to send over a plain TCP connection, of which the tcp transport may choose: one thread
 * sends blocks, another receives them, each on a core of its own.
 */
#ifndef PERF_WAYS_H
#define PERF_WAYS_H

#include "loopback.h"

#define WAYS_MAX      4
#define WAYS_NOTE_MAX 96

/** What one way needs while it sends. */
struct sender {
	int fd;
	const char *block;
	uint64_t block_bytes;
	uint32_t pending;       /* sends that have begun and not ended */
	uint64_t sends, copied; /* ended; of them those for which zero-copy copied after all */
	void *state;            /* the way's own */
};

struct way {
	const char *name;
	void (*open)(struct sender *sender); /* NULL: nothing to do */
	/** Send part of the current block, or nothing when the socket is full. @return bytes */
	uint64_t (*send)(struct sender *sender);
	void (*close)(struct sender *sender); /* takes back what is pending */
};

/** The ways that this build and this kernel have. @param ways  out: room for WAYS_MAX */
unsigned ways_usable(const struct way **ways);

/**
 * Send blocks of @p block_bytes for one slice.
 *
 * @param note  out: what the way has to say about itself, or empty; room for WAYS_NOTE_MAX
 * @return bytes a second
 */
double ways_rate(const struct bench *bench, const struct way *way, uint64_t block_bytes,
		 char *note);

#endif
