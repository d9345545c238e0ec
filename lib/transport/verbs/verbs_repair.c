/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A path gets a link, its first or when its own has died (repair.h). A path whose links die one
 * after the other without carrying anything ends its remote.
 */
#include <errno.h>
#include <stddef.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"

static void say_broken(const struct verbs_path *path)
{
	const struct verbs_link *link = path->link;

	log_peer(SLU_LOG_WARNING,
		 "an RDMA link to target %s has ended: %s (vendor error 0x%x); another is asked "
		 "for",
		 path->path.remote->target, ibv_wc_status_str(link->why), link->vendor_error);
}

static int is_over(struct verbs_path *path, int error, const char *why)
{
	path->repair.hopeless = true;
	return fail(error, "RDMA to target %s: %s", path->path.remote->target, why);
}

int verbs_repair_attempt(struct repair_item *item, uint64_t until_ns)
{
	struct verbs_path *path =
		(struct verbs_path *)((char *)item - offsetof(struct verbs_path, repair));
	struct slu_remote *remote = path->path.remote;
	int rc;

	/* Pairs with the release in go_down(). */
	if (atomic_load_explicit(&path->state, memory_order_acquire) != VERBS_PATH_DOWN)
		return 0;
	if (path->link) {
		say_broken(path);
		verbs_leave(path, path->link);
		path->link = NULL;
	}
	rc = atomic_load(&remote->state);
	if (rc != 0)
		return is_over(path, rc, "the session has ended");
	if (path->losses >= VERBS_LOSSES_MAX) {
		log_peer(SLU_LOG_ERROR,
			 "RDMA to target %s does not get through: %u links in a row have carried "
			 "nothing (see sluice-initiator doctor)",
			 remote->target, path->losses);
		remote_fail(remote, -ECONNRESET);
		return is_over(path, -ECONNRESET, "it does not get through");
	}
	rc = verbs_join(path->host, path, until_ns, &path->fresh, &path->fresh_base,
			&path->fresh_keys);
	if (rc < 0)
		return rc;
	path->path.connections = path->fresh->count;
	verbs_path_describe(path->host, path, path->fresh);
	/* Pairs with the acquire in verbs_post(). */
	atomic_store_explicit(&path->state, VERBS_PATH_MENDED, memory_order_release);
	transport_changed();
	return 0;
}
