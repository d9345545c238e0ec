/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_visit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/verbs/verbs_memory.h"

int visit_create(struct verbs_exports *exports, const struct grant *grant, struct served_link *link,
		 struct visit **out)
{
	struct visit *visit = calloc(1, sizeof(*visit));

	if (!visit)
		return fail(-ENOMEM, "target is out of memory");
	visit->on = link;
	visit->exports = exports;
	visit->exported = verbs_exports_get(exports, grant->export);
	visit->base = (uintptr_t)grant->export->addr;
	visit->rights = grant->rights;
	*out = visit;
	return 0;
}

/* ---- windows ---- */

static int make_window(const struct visit *visit, struct ibv_mr *mr, struct window *window)
{
	const struct verbs_device *device = visit->on->device;

	window->mw = ibv_alloc_mw(device->pd, IBV_MW_TYPE_2);
	if (!window->mw)
		return fail(-errno, "%s has no memory window for us: %s (its limit is %d)",
			    device->name, strerror(errno), device->attr.max_mw);
	window->key = ibv_inc_rkey(window->mw->rkey);
	window->info =
		(struct ibv_mw_bind_info){.mr = mr,
					  .addr = (uintptr_t)mr->addr,
					  .length = mr->length,
					  .mw_access_flags = verbs_remote_access(visit->rights)};
	return 0;
}

/* One for each piece of the segment and queue pair. */
static int make_windows(struct visit *visit)
{
	const struct verbs_registration *registration = visit->registration;
	struct binding *binding = &visit->binding;
	uint32_t count = visit->on->count * registration->count;
	int rc = 0;

	binding->windows = calloc(count, sizeof(binding->windows[0]));
	if (!binding->windows)
		return fail(-ENOMEM, "target is out of memory");
	binding->each = registration->count;
	for (uint32_t i = 0; rc == 0 && i < count; i++)
		rc = make_window(visit, registration->slices[i % registration->count].mr,
				 &binding->windows[i]);
	return rc;
}

int visit_prepare(struct visit *visit)
{
	const struct verbs_device *device = visit->on->device;
	int rc = verbs_exported_find(visit->exported, device, visit->rights, &visit->registration);

	return rc == 0 && device->windows ? make_windows(visit) : rc;
}

void visit_close(struct visit *visit)
{
	struct binding *binding = &visit->binding;

	for (uint32_t i = 0; i < visit->on->count * binding->each; i++)
		if (binding->windows[i].mw)
			ibv_dealloc_mw(binding->windows[i].mw);
	free(binding->windows);
	verbs_exports_put(visit->exports, visit->exported);
}

/* ---- what the client is told ---- */

static json_t *list_keys(const struct visit *visit, uint32_t queue)
{
	const struct verbs_registration *registration = visit->registration;
	const struct binding *binding = &visit->binding;
	json_t *list = json_array();

	for (uint32_t i = 0; i < registration->count; i++) {
		uint32_t key = binding->each ? binding->windows[queue * binding->each + i].key
					     : registration->slices[i].rkey;
		char text[9];

		snprintf(text, sizeof(text), "%08" PRIx32, key);
		json_array_append_new(list, json_string(text));
	}
	return list;
}

int visit_describe(const struct visit *visit, json_t *answer)
{
	json_t *keys = json_array();
	char base[17];

	for (uint32_t i = 0; i < visit->on->count; i++)
		json_array_append_new(keys, list_keys(visit, i));
	snprintf(base, sizeof(base), "%016" PRIx64, visit->base);
	return json_object_update_new(answer, json_pack("{s:s, s:o}", "base", base, "keys", keys)) <
			       0
		       ? fail(-ENOMEM, "target is out of memory")
		       : 0;
}
