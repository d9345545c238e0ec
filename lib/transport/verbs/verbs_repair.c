/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path gets a new link when its own has died: an attempt of the repair thread (repair.h). A path
 * whose links die one after the other without carrying anything ends its remote.
 */
#include <errno.h>
#include <stddef.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/verbs/verbs.h"

#define ATTEMPT_NS (3 * NS_PER_SECOND)

static void say_broken(const struct verbs_path *path)
{
	const struct verbs_link *link = path->link;

	log_peer(SLU_LOG_WARNING,
		 "an RDMA link to target %s has ended: %s (vendor error 0x%x); another is asked "
		 "for",
		 path->path.remote->target, ibv_wc_status_str(link->why), link->vendor_error);
}

static bool is_alive(const struct verbs_path *path)
{
	return atomic_load(&path->path.remote->state) == 0;
}

/* The peer's joining is held. @return is it over with the path? */
static bool try_to_mend(struct verbs_path *path)
{
	uint64_t until = clock_monotonic_ns(NULL) + ATTEMPT_NS;
	int rc;

	if (path->link) {
		say_broken(path);
		verbs_leave(path, path->link);
		path->link = NULL;
	}
	if (!is_alive(path))
		return true;
	if (path->losses >= VERBS_LOSSES_MAX) {
		log_peer(SLU_LOG_ERROR,
			 "RDMA to target %s does not get through: %u links in a row have carried "
			 "nothing (see sluice-initiator doctor)",
			 path->path.remote->target, path->losses);
		remote_fail(path->path.remote, -ECONNRESET);
		return true;
	}
	rc = verbs_join(path->host, path, until, &path->fresh, &path->fresh_base,
			&path->fresh_keys);
	if (rc < 0) {
		log_peer(SLU_LOG_WARNING, "no new RDMA link to target %s yet: %s",
			 path->path.remote->target, slu_last_error());
		return false;
	}
	verbs_path_describe(path->host, path, path->fresh);
	/* Pairs with the acquire in is_up(). */
	atomic_store_explicit(&path->state, VERBS_PATH_MENDED, memory_order_release);
	transport_changed();
	return true;
}

bool verbs_repair_attempt(struct repair_item *item)
{
	struct verbs_path *path =
		(struct verbs_path *)((char *)item - offsetof(struct verbs_path, repair));
	pthread_mutex_t *joining = &path->path.remote->peer->joining;
	bool is_over;

	pthread_mutex_lock(joining);
	is_over = try_to_mend(path);
	pthread_mutex_unlock(joining);
	return is_over;
}
