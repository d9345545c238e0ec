/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The choice of a path: what could carry a remote's operations, what does, and why.
 *
 * A choice begins with a control connection to where the name points. From what the target says
 * there, and from what can be reached here, each transport becomes a candidate, the first usable
 * one is taken, and the session is opened on the connection that suits it.
 */
#ifndef ENGINE_CHOOSE_H
#define ENGINE_CHOOSE_H

#include <sluice/segment.h>

#include "control/client.h"
#include "directory/p2p.h"
#include "transport/transport.h"

struct choice {
	struct p2p_name name;
	struct client *connection; /* where the name points */
	struct client *local;      /* over a Unix socket of the same target; may be the same one */
	struct slu_candidate candidates[SLU_CANDIDATES_MAX]; /* in the order of preference */
	uint32_t count;
};

/**
 * Connect, and consider every transport. Blocks.
 *
 * @param until_ns  of the monotonic clock
 * @return          0, whether or not one is usable; as slu_remote_open() when nobody answers.
 *                  choice_release() in either case
 */
int choice_make(struct choice *choice, struct client_pool *pool, const struct transport_env *env,
		const char *name, enum slu_transport wanted, uint64_t until_ns);

/** @return the candidate that was chosen; NULL: none is usable */
const struct slu_candidate *choice_taken(const struct choice *choice);

/** @p refused turned out not to be usable after all: take anew. */
void choice_refuse(struct choice *choice, enum slu_transport refused, enum slu_transport wanted,
		   const char *why);

/** The connection that carries the session for @p transport. */
struct client *choice_connection(const struct choice *choice, enum slu_transport transport);

/** Why nothing could be chosen: sets slu_last_error(). @return -EOPNOTSUPP */
int choice_fail(const struct choice *choice, enum slu_transport wanted);

/** Give the connections back, except for @p kept (NULL: none), which is the caller's now. */
void choice_release(struct choice *choice, const struct client *kept);

#endif
