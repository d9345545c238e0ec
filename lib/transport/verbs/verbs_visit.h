/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What a target's clients can reach by RDMA: exported memory, registered with each device, and
 * visits: a grant on a link, with keys for the link's queue pairs. Where the device has memory
 * windows of type 2 a visit has its own, bound to those queue pairs, and its keys end with it; else
 * its keys are those of the registration.
 *
 * The control thread's, where nothing else is said.
 */
#ifndef VERBS_VERBS_VISIT_H
#define VERBS_VERBS_VISIT_H

#include <stdint.h>
#include <sys/queue.h>

#include <jansson.h>

#include "transport/grants.h"
#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"

struct served_link;
struct verbs_exports;

/** A grant on a link. */
struct visit {
	struct served_link *on;
	LIST_HEAD(, window) windows;
	LIST_ENTRY(visit) of_grant;
	LIST_ENTRY(visit) of_link;
};

LIST_HEAD(visit_list, visit);

/** @return 0; -ENOMEM. @p devices outlives it */
int verbs_exports_create(const struct verbs_devices *devices, transport_on_poller on_poller,
			 void *arg, struct verbs_exports **exports);

/** Nothing is exported any more. Accepts NULL. */
void verbs_exports_destroy(struct verbs_exports *exports);

/** As verbs_server_export(). Any thread. */
int verbs_exports_add(struct verbs_exports *exports, const struct export *export, uint64_t *ns);

/** There are no visits to it. One that is not there is accepted. */
void verbs_exports_remove(struct verbs_exports *exports, const struct export *export);

/**
 * Open what was granted to the queue pairs of @p link: the visit is in the lists of both (that of
 * the grant is its more, a struct visit_list).
 *
 * @param answer  out: "base" and "keys" (verbs_wire.h)
 * @return        0; -EIO the link has failed; -ENOMEM; -errno
 */
int visit_open(struct verbs_exports *exports, const struct grant *grant, struct served_link *link,
	       json_t *answer);

/** Its keys are good for nothing any more, if it had any of its own. */
void visit_close(struct visit *visit);

#endif
