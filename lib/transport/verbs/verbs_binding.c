/* SPDX-License-Identifier: Apache-2.0 */
/* Windows are bound on the queue pairs that they are opened to. */
#include <errno.h>

#include "base/clock.h"
#include "base/work.h"
#include "transport/verbs/verbs_queue.h"
#include "transport/verbs/verbs_served.h"

/*
 * A window is bound by the device, in the order of its queue pair: behind messages that a client
 * does not take in it would never be.
 */
#define BIND_NS (NS_PER_SECOND / 4)

static bool post_binds(struct served_link *link, uint32_t queue, struct binding *binding)
{
	const struct window *windows = binding->windows + queue * binding->each;
	struct verbs_work works[SERVED_BINDS];
	uint32_t n = 0;

	for (uint32_t i = binding->posted[queue]; i < binding->each && n < SERVED_BINDS; i++)
		works[n++] = (struct verbs_work){.opcode = VERBS_BIND_WINDOW,
						 .window = windows[i].mw,
						 .bind_info = &windows[i].info,
						 .rkey = windows[i].key};
	if (!served_link_post(link, queue, works, n))
		return false;
	binding->posted[queue] += n;
	binding->latest[queue] = link->sent[queue];
	return true;
}

/* A burst when the one before is back. @return all are bound */
static bool bind_queue(struct served_link *link, uint32_t queue, struct binding *binding,
		       uint64_t now_ns)
{
	served_link_take_back(link, queue);
	if (binding->posted[queue] > 0 && (int32_t)(link->back[queue] - binding->latest[queue]) < 0)
		return false;
	if (binding->posted[queue] == binding->each)
		return true;
	link->bind_until_ns = now_ns + BIND_NS;
	if (!post_binds(link, queue, binding))
		served_link_fail(link);
	return false;
}

static void end_binding(struct served_link *link, int result)
{
	struct binding *binding = STAILQ_FIRST(&link->bindings);

	STAILQ_REMOVE_HEAD(&link->bindings, link);
	if (STAILQ_EMPTY(&link->bindings))
		TAILQ_REMOVE(&link->service->binding, link, binding);
	binding->bound(binding, result);
}

static void end_bindings(struct served_link *link)
{
	while (!STAILQ_EMPTY(&link->bindings))
		end_binding(link, -EIO);
}

static void bind_windows(struct served_link *link, uint64_t now_ns)
{
	struct binding *binding = STAILQ_FIRST(&link->bindings);
	bool all = true;

	for (uint32_t i = 0; i < link->count; i++)
		all &= bind_queue(link, i, binding, now_ns);
	if (!all && now_ns > link->bind_until_ns)
		served_link_fail(link);
	if (served_link_has_failed(link))
		end_bindings(link);
	else if (all)
		end_binding(link, 0);
}

bool verbs_bind_some(struct verbs_service *service)
{
	struct served_link *last = TAILQ_LAST(&service->binding, served_links), *link = NULL;
	uint64_t now_ns = last ? clock_monotonic_ns(NULL) : 0;

	for (uint32_t i = 0; i < SERVED_LINKS_A_TURN && link != last; i++) {
		link = TAILQ_FIRST(&service->binding);
		work_count(WORK_ITEMS, 1);
		TAILQ_REMOVE(&service->binding, link, binding);
		TAILQ_INSERT_TAIL(&service->binding, link, binding);
		bind_windows(link, now_ns);
	}
	return last;
}

void verbs_service_bind(struct verbs_service *service, struct served_link *link,
			struct binding *binding)
{
	if (STAILQ_EMPTY(&link->bindings))
		TAILQ_INSERT_TAIL(&service->binding, link, binding);
	STAILQ_INSERT_TAIL(&link->bindings, binding, link);
}
