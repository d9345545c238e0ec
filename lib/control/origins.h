/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Where those come from who have not proved who they are yet: an IPv4 address, an IPv6 network of
 * 64 bits, which is what one host can choose from, or the user at the other end of a Unix socket.
 * How often each came, failed, and proved itself. Bounded memory; the time is passed in.
 */
#ifndef CONTROL_ORIGINS_H
#define CONTROL_ORIGINS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "control/limits.h"
#include "net/address.h"

#define ORIGIN_SETS          1024u
#define ORIGIN_WAYS          4u
#define ORIGIN_KNOWN_SECONDS 3600 /* since somebody from there has proved who he is */
#define ORIGIN_KEY_BYTES     16

struct origin {
	uint8_t key[ORIGIN_KEY_BYTES];
	bool shared;        /* loopback: by all on this host */
	uint32_t strangers; /* connections that it has now; while there are any it stays */
	uint32_t failures;
	uint64_t failed_ns; /* the first of them */
	uint64_t proved_ns; /* 0: never */
	uint64_t seen_ns;   /* 0: the place is free */
	struct rate connects;
};

/** An origin takes the place of one that has no strangers: of a known one at last. */
struct origins {
	uint64_t seed; /* secret, so that nobody can choose whose place he takes */
	struct origin table[ORIGIN_SETS][ORIGIN_WAYS];
};

void origins_init(struct origins *origins, uint64_t seed);

/** @return NULL: all places that it can have belong to others who have strangers now */
struct origin *origins_of_address(struct origins *origins, const union address *address,
				  uint64_t now_ns);
struct origin *origins_of_user(struct origins *origins, uid_t uid, uint64_t now_ns);

/** Somebody from there has proved who he is. */
void origin_prove(struct origin *origin, uint64_t now_ns);

/** Has it lately? Loopback always has. */
bool origin_is_known(const struct origin *origin, uint64_t now_ns);

/** Somebody has failed to. Loopback does not count: all who work on this host share it. */
void origin_fail(struct origin *origin, uint64_t window_ns, uint64_t now_ns);

/** @p failures times within the window? */
bool origin_fails(const struct origin *origin, uint32_t failures, uint64_t window_ns,
		  uint64_t now_ns);

#endif
