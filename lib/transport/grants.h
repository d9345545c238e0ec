/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a target has granted, for transports whose pollers carry out what clients ask for: a handle
 * stands for one client's right to one segment, and its generation tells it from an earlier grant
 * in the same place.
 *
 * The control thread adds grants; pollers look them up. An ended one is freed by the caller after
 * each poller that serves its connection has been asked to leave it alone; the others never look
 * into it, whatever handle they are given.
 */
#ifndef TRANSPORT_GRANTS_H
#define TRANSPORT_GRANTS_H

#include <stdint.h>

#include <jansson.h>

#include "transport/transport.h"

#define GRANTS_MAX (1u << 20)

struct grants;
struct sender;

struct grant {
	const struct export *export;
	uint64_t connection; /* control connection that it was given on */
	uint32_t rights;
	struct sender *sender; /* of which it has a reference; NULL in tests of transports */
	uint32_t handle;
	void *more; /* the transport's own */
};

/** @return 0; -ENOMEM */
int grants_create(struct grants **grants);

/** Accepts NULL. */
void grants_destroy(struct grants *grants);

/**
 * Control thread: add one; "handle" and "generation" go into @p description.
 *
 * @return 0; -ENOMEM, -ENOSPC
 */
int grants_add(struct grants *grants, const struct grant *grant, json_t *description,
	       struct grant **out);

/** Any thread: it is not found any more; whoever asks is told @p reason. */
void grants_end(struct grants *grants, struct grant *grant, int reason);

/** Any thread but a poller: nobody uses it any more. Its place may be given to another. */
void grants_free(struct grants *grants, struct grant *grant);

/**
 * Any poller.
 *
 * @param connection  whose request it is: a handle is worth something only to whom it was given
 * @return            0; -EACCES; -EKEYREVOKED or the reason why it was ended
 */
int grants_find(const struct grants *grants, uint64_t connection, uint32_t handle,
		uint32_t generation, struct grant **grant);

#endif
