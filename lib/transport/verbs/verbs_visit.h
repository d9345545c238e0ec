/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Visits: a grant on a link, with keys for the link's queue pairs. Where the device has memory
 * windows of type 2 a visit has its own, bound to those queue pairs, and its keys end with it; else
 * its keys are those of the registration.
 *
 * The control thread makes a visit and says when it ends, the worker deals with the device, the
 * link's poller binds the windows (verbs_served.h).
 */
#ifndef VERBS_VERBS_VISIT_H
#define VERBS_VERBS_VISIT_H

#include <stdint.h>
#include <sys/queue.h>

#include <jansson.h>

#include "transport/grants.h"
#include "transport/verbs/verbs_export.h"
#include "transport/verbs/verbs_served.h"
#include "transport/verbs/verbs_tasks.h"

struct opening;

/** A grant on a link. */
struct visit {
	struct served_link *on;
	struct verbs_exports *exports;
	struct verbs_exported *exported;
	uint64_t base;
	uint32_t rights;
	const struct verbs_registration *registration; /* the worker's */
	struct binding binding;                        /* its windows */
	struct opening *opening;                       /* until it is open */
	struct verbs_ending ending;                    /* of its own, when its link stays */
	LIST_ENTRY(visit) of_grant;
	LIST_ENTRY(visit) of_link;
};

LIST_HEAD(visit_list, visit);

/** Control thread: one that is in neither list yet. @return 0; -ENOMEM */
int visit_create(struct verbs_exports *exports, const struct grant *grant, struct served_link *link,
		 struct visit **visit);

/** The worker: registration and windows, which are to be bound. @return 0; -ENOMEM, -ENOSPC; -errno
 */
int visit_prepare(struct visit *visit);

/** Control thread: "base" and "keys" (verbs_wire.h). @return 0; -ENOMEM */
int visit_describe(const struct visit *visit, json_t *answer);

/** The worker: its keys are good for nothing any more, if it had any of its own. It is not freed.
 */
void visit_close(struct visit *visit);

#endif
