/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_visit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/verbs/verbs_memory.h"
#include "transport/verbs/verbs_served.h"

/*
 * A window is bound by the device, in the order of its queue pair: behind messages that a client
 * does not take in it would never be, and all others wait meanwhile.
 */
#define BIND_NS (NS_PER_SECOND / 4)

#define RIGHTS_COUNT 4u

/** A segment as the devices know it: with windows by one registration, else one for each right. */
struct exported {
	const struct export *export;
	struct verbs_registration *registered[VERBS_DEVICES_MAX][RIGHTS_COUNT];
	LIST_ENTRY(exported) link;
};

/** A piece of a segment, opened to one queue pair. */
struct window {
	struct ibv_mw *mw;
	LIST_ENTRY(window) of_visit;
};

struct verbs_exports {
	const struct verbs_devices *devices;
	transport_on_poller on_poller;
	void *arg;
	pthread_mutex_t lock; /* segments are exported by any thread */
	LIST_HEAD(, exported) list;
};

/* ---- exported memory ---- */

static unsigned remote_access(uint32_t rights)
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

	access |= device->windows ? IBV_ACCESS_MW_BIND : remote_access(rights);
	return verbs_register(device, export->region->addr, export->length, access, at);
}

static void exported_destroy(struct exported *exported)
{
	for (uint32_t i = 0; i < VERBS_DEVICES_MAX; i++)
		for (uint32_t k = 0; k < RIGHTS_COUNT; k++)
			verbs_deregister(exported->registered[i][k]);
	free(exported);
}

int verbs_exports_add(struct verbs_exports *exports, const struct export *export, uint64_t *ns)
{
	const struct verbs_devices *devices = exports->devices;
	struct exported *exported = calloc(1, sizeof(*exported));
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
	pthread_mutex_lock(&exports->lock);
	LIST_INSERT_HEAD(&exports->list, exported, link);
	pthread_mutex_unlock(&exports->lock);
	*ns = sum;
	return 0;
}

static struct exported *find_exported(struct verbs_exports *exports, const struct export *export)
{
	struct exported *exported;

	pthread_mutex_lock(&exports->lock);
	LIST_FOREACH (exported, &exports->list, link)
		if (exported->export == export)
			break;
	pthread_mutex_unlock(&exports->lock);
	return exported;
}

void verbs_exports_remove(struct verbs_exports *exports, const struct export *export)
{
	struct exported *exported = find_exported(exports, export);

	if (!exported)
		return;
	pthread_mutex_lock(&exports->lock);
	LIST_REMOVE(exported, link);
	pthread_mutex_unlock(&exports->lock);
	exported_destroy(exported);
}

/* What a client of these rights is served from. */
static int registration_for(const struct verbs_device *device, struct exported *exported,
			    uint32_t rights, struct verbs_registration **out)
{
	uint32_t kind = device->windows ? exported->export->rights : rights;
	struct verbs_registration **at = &exported->registered[device->index][kind];
	int rc = *at ? 0 : register_export(device, exported->export, kind, at);

	if (rc == 0)
		*out = *at;
	return rc;
}

/* ---- windows ---- */

void visit_close(struct visit *visit)
{
	struct window *window;

	while ((window = LIST_FIRST(&visit->windows))) {
		LIST_REMOVE(window, of_visit);
		ibv_dealloc_mw(window->mw);
		free(window);
	}
	LIST_REMOVE(visit, of_grant);
	LIST_REMOVE(visit, of_link);
	free(visit);
}

struct bind_call {
	struct served_link *link;
	uint32_t queue;
	struct ibv_mw *mw;
	const struct ibv_mw_bind_info *info;
	uint32_t key;
	bool posted;
};

static void bind_on_poller(void *arg)
{
	struct bind_call *call = arg;

	call->posted = served_link_bind(call->link, call->queue, call->mw, call->info, call->key);
}

/* The poller posts it and goes on; we wait for the device. */
static int bind(struct verbs_exports *exports, struct bind_call *call)
{
	uint64_t until = clock_monotonic_ns(NULL) + BIND_NS;
	uint32_t before = atomic_load(&call->link->bound);

	exports->on_poller(exports->arg, call->link->poller, bind_on_poller, call);
	if (!call->posted)
		return fail(-EIO, "a memory window cannot be bound: the queue pair has failed");
	while (atomic_load(&call->link->bound) == before && !atomic_load(&call->link->failed) &&
	       clock_monotonic_ns(NULL) < until)
		usleep(10);
	if (atomic_load(&call->link->bound) == before)
		return fail(-EIO, "a memory window cannot be bound");
	return 0;
}

/* @return 0 with the key for that piece; -ENOMEM, -ENOSPC, -EIO */
static int open_window(struct verbs_exports *exports, struct visit *visit, uint32_t queue,
		       struct ibv_mr *mr, uint32_t rights, uint32_t *key)
{
	struct served_link *link = visit->on;
	struct ibv_mw_bind_info info = {.mr = mr,
					.addr = (uintptr_t)mr->addr,
					.length = mr->length,
					.mw_access_flags = remote_access(rights)};
	struct bind_call call = {.link = link, .queue = queue, .info = &info};
	struct window *window = calloc(1, sizeof(*window));

	if (!window)
		return fail(-ENOMEM, "target is out of memory");
	window->mw = ibv_alloc_mw(link->device->pd, IBV_MW_TYPE_2);
	if (!window->mw) {
		int error = errno;

		free(window);
		return fail(-error, "%s has no memory window for us: %s (its limit is %d)",
			    link->device->name, strerror(error), link->device->attr.max_mw);
	}
	LIST_INSERT_HEAD(&visit->windows, window, of_visit);
	call.mw = window->mw;
	call.key = *key = ibv_inc_rkey(window->mw->rkey);
	return bind(exports, &call);
}

static int add_key(json_t *list, uint32_t key)
{
	char text[9];

	snprintf(text, sizeof(text), "%08" PRIx32, key);
	return json_array_append_new(list, json_string(text)) < 0
		       ? fail(-ENOMEM, "target is out of memory")
		       : 0;
}

static int open_queue(struct verbs_exports *exports, struct visit *visit, uint32_t queue,
		      const struct verbs_registration *registration, uint32_t rights, json_t *list)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < registration->count; i++) {
		uint32_t key = registration->slices[i].rkey;

		if (visit->on->device->windows)
			rc = open_window(exports, visit, queue, registration->slices[i].mr, rights,
					 &key);
		if (rc == 0)
			rc = add_key(list, key);
	}
	return rc;
}

int visit_open(struct verbs_exports *exports, const struct grant *grant, struct served_link *link,
	       json_t *answer)
{
	struct exported *exported = find_exported(exports, grant->export);
	struct visit_list *visits = grant->more;
	struct verbs_registration *registration;
	struct visit *visit;
	char base[17];
	json_t *keys = json_array();
	int rc = registration_for(link->device, exported, grant->rights, &registration);

	visit = rc == 0 ? calloc(1, sizeof(*visit)) : NULL;
	if (rc == 0 && !visit)
		rc = fail(-ENOMEM, "target is out of memory");
	if (rc < 0) {
		json_decref(keys);
		return rc;
	}
	visit->on = link;
	LIST_INSERT_HEAD(visits, visit, of_grant);
	LIST_INSERT_HEAD(&link->visits, visit, of_link);
	for (uint32_t i = 0; rc == 0 && i < link->count; i++) {
		json_t *list = json_array();

		json_array_append(keys, list);
		rc = open_queue(exports, visit, i, registration, grant->rights, list);
		json_decref(list);
	}
	snprintf(base, sizeof(base), "%016" PRIx64,
		 (uint64_t)(uintptr_t)grant->export->region->addr);
	if (rc == 0 &&
	    json_object_update_new(answer, json_pack("{s:s, s:O}", "base", base, "keys", keys)) < 0)
		rc = fail(-ENOMEM, "target is out of memory");
	json_decref(keys);
	if (rc < 0)
		visit_close(visit);
	return rc;
}

/* ---- life ---- */

int verbs_exports_create(const struct verbs_devices *devices, transport_on_poller on_poller,
			 void *arg, struct verbs_exports **out)
{
	struct verbs_exports *exports = calloc(1, sizeof(*exports));

	if (!exports)
		return fail(-ENOMEM, "out of memory");
	exports->devices = devices;
	exports->on_poller = on_poller;
	exports->arg = arg;
	pthread_mutex_init(&exports->lock, NULL);
	LIST_INIT(&exports->list);
	*out = exports;
	return 0;
}

void verbs_exports_destroy(struct verbs_exports *exports)
{
	if (!exports)
		return;
	pthread_mutex_destroy(&exports->lock);
	free(exports);
}
