/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_export.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "transport/verbs/verbs_memory.h"

#define RIGHTS_COUNT 4u

/** A segment as the devices know it: with windows by one registration, else one for each right. */
struct verbs_exported {
	const struct export *export;
	struct verbs_registration *registered[VERBS_DEVICES_MAX][RIGHTS_COUNT];
	uint32_t users; /* under the lock */
};

struct verbs_exports {
	const struct verbs_devices *devices;
	pthread_mutex_t lock;
	pthread_cond_t unused; /* one of them is */
};

unsigned verbs_remote_access(uint32_t rights)
{
	return (rights & SLU_RIGHT_READ ? IBV_ACCESS_REMOTE_READ : 0) |
	       (rights & SLU_RIGHT_WRITE ? IBV_ACCESS_REMOTE_WRITE : 0);
}

/* Whoever may write from afar may also write here, says the specification. */
static unsigned local_access(uint32_t rights)
{
	return rights & SLU_RIGHT_WRITE ? IBV_ACCESS_LOCAL_WRITE : 0;
}

static int register_export(const struct verbs_device *device, const struct export *export,
			   uint32_t rights, struct verbs_registration **at)
{
	unsigned access = local_access(rights);

	access |= device->windows ? IBV_ACCESS_MW_BIND : verbs_remote_access(rights);
	return verbs_register(device, export->region,
			      (uint64_t)(export->addr - export->region->addr), export->length,
			      access, at);
}

static void exported_destroy(struct verbs_exported *exported)
{
	for (uint32_t i = 0; i < VERBS_DEVICES_MAX; i++)
		for (uint32_t k = 0; k < RIGHTS_COUNT; k++)
			verbs_deregister(exported->registered[i][k]);
	free(exported);
}

int verbs_exports_add(struct verbs_exports *exports, struct export *export, uint64_t *ns)
{
	const struct verbs_devices *devices = exports->devices;
	struct verbs_exported *exported = calloc(1, sizeof(*exported));
	uint64_t sum = 0;
	int rc = exported ? 0 : fail(-ENOMEM, "out of memory");

	for (uint32_t i = 0; rc == 0 && i < devices->count; i++) {
		struct verbs_registration **at = &exported->registered[i][export->rights];

		rc = register_export(&devices->devices[i], export, export->rights, at);
		sum += rc == 0 ? (*at)->ns : 0;
	}
	if (rc < 0) {
		if (exported)
			exported_destroy(exported);
		return rc;
	}
	exported->export = export;
	export->private[SLU_TRANSPORT_VERBS] = exported;
	*ns = sum;
	return 0;
}

void verbs_exports_remove(struct verbs_exports *exports, const struct export *export)
{
	struct verbs_exported *exported = export->private[SLU_TRANSPORT_VERBS];

	if (!exported)
		return;
	pthread_mutex_lock(&exports->lock);
	while (exported->users > 0)
		pthread_cond_wait(&exports->unused, &exports->lock);
	pthread_mutex_unlock(&exports->lock);
	exported_destroy(exported);
}

struct verbs_exported *verbs_exports_get(struct verbs_exports *exports, const struct export *export)
{
	struct verbs_exported *exported = export->private[SLU_TRANSPORT_VERBS];

	pthread_mutex_lock(&exports->lock);
	exported->users++;
	pthread_mutex_unlock(&exports->lock);
	return exported;
}

void verbs_exports_put(struct verbs_exports *exports, struct verbs_exported *exported)
{
	pthread_mutex_lock(&exports->lock);
	if (--exported->users == 0)
		pthread_cond_broadcast(&exports->unused);
	pthread_mutex_unlock(&exports->lock);
}

int verbs_exported_find(struct verbs_exported *exported, const struct verbs_device *device,
			uint32_t rights, const struct verbs_registration **out)
{
	uint32_t kind = device->windows ? exported->export->rights : rights;
	struct verbs_registration **at = &exported->registered[device->index][kind];
	int rc = *at ? 0 : register_export(device, exported->export, kind, at);

	if (rc == 0)
		*out = *at;
	return rc;
}

int verbs_exports_create(const struct verbs_devices *devices, struct verbs_exports **out)
{
	struct verbs_exports *exports = calloc(1, sizeof(*exports));

	if (!exports)
		return fail(-ENOMEM, "out of memory");
	exports->devices = devices;
	pthread_mutex_init(&exports->lock, NULL);
	pthread_cond_init(&exports->unused, NULL);
	*out = exports;
	return 0;
}

void verbs_exports_destroy(struct verbs_exports *exports)
{
	if (!exports)
		return;
	pthread_cond_destroy(&exports->unused);
	pthread_mutex_destroy(&exports->lock);
	free(exports);
}
