/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * A target's exported memory, registered with each device. Where the device has memory windows of
 * type 2 the registration lets nobody in; else there is one for each kind of right, and its key is
 * good for whoever has it.
 */
#ifndef VERBS_VERBS_EXPORT_H
#define VERBS_VERBS_EXPORT_H

#include <stdint.h>

#include "transport/transport.h"
#include "transport/verbs/verbs_device.h"

struct verbs_exported;
struct verbs_exports;
struct verbs_registration;

/** @return 0; -ENOMEM. @p devices outlives it */
int verbs_exports_create(const struct verbs_devices *devices, struct verbs_exports **exports);

/** Nothing is exported any more. Accepts NULL. */
void verbs_exports_destroy(struct verbs_exports *exports);

/** As verbs_server_export(). Any thread. */
int verbs_exports_add(struct verbs_exports *exports, struct export *export, uint64_t *ns);

/**
 * Nobody gets it any more; waits until those who have it have put it. One that is not there is
 * accepted. Neither the control thread, nor the worker, nor a poller.
 */
void verbs_exports_remove(struct verbs_exports *exports, const struct export *export);

/** One that is there: it stays until it is put. Any thread. */
struct verbs_exported *verbs_exports_get(struct verbs_exports *exports,
					 const struct export *export);
void verbs_exports_put(struct verbs_exports *exports, struct verbs_exported *exported);

/** The worker: what a client of @p rights is served from. @return 0; as verbs_register() */
int verbs_exported_find(struct verbs_exported *exported, const struct verbs_device *device,
			uint32_t rights, const struct verbs_registration **registration);

/** What of @p rights a device is told to allow (enum ibv_access_flags). */
unsigned verbs_remote_access(uint32_t rights);

#endif
