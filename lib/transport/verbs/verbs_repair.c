/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that gives paths a new link when theirs has died: asking the target blocks, which a
 * poller does not. It tries again with jittered, doubling pauses, for as long as the remote lives;
 * a path whose links die one after the other without carrying anything ends its remote.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/thread.h"
#include "transport/verbs/verbs.h"

#define FIRST_PAUSE_NS   (2 * UINT64_C(1000000))
#define LONGEST_PAUSE_NS NS_PER_SECOND
#define ATTEMPT_NS       (3 * NS_PER_SECOND)

struct verbs_repair {
	struct verbs_host *host;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_cond_t attempted; /* mending is another */
	struct verbs_path *mending;
	bool stopping;
	struct random random;
	TAILQ_HEAD(, verbs_path) broken;
};

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
static bool try_to_mend(struct verbs_repair *repair, struct verbs_path *path)
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
	rc = verbs_join(repair->host, path, until, &path->fresh, &path->fresh_base,
			&path->fresh_keys);
	if (rc < 0) {
		log_peer(SLU_LOG_WARNING, "no new RDMA link to target %s yet: %s",
			 path->path.remote->target, slu_last_error());
		return false;
	}
	verbs_path_describe(repair->host, path, path->fresh);
	/* Pairs with the acquire in is_up(). */
	atomic_store_explicit(&path->state, VERBS_PATH_MENDED, memory_order_release);
	return true;
}

static void put_off(struct verbs_repair *repair, struct verbs_path *path)
{
	uint64_t pause = path->backoff_ns;

	path->backoff_ns = pause * 2 < LONGEST_PAUSE_NS ? pause * 2 : LONGEST_PAUSE_NS;
	path->repair_at_ns =
		clock_monotonic_ns(NULL) + pause / 2 + random_below(&repair->random, pause / 2 + 1);
}

/* Under lock. The one that is due first, or NULL. */
static struct verbs_path *first(struct verbs_repair *repair)
{
	struct verbs_path *path, *best = NULL;

	TAILQ_FOREACH (path, &repair->broken, repair_link)
		if (!best || path->repair_at_ns < best->repair_at_ns)
			best = path;
	return best;
}

/* Under lock. */
static void wait_until(struct verbs_repair *repair, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_SECOND),
			      .tv_nsec = (long)(at_ns % NS_PER_SECOND)};

	pthread_cond_timedwait(&repair->changed, &repair->lock, &at);
}

/* Under lock, but for the attempt; meanwhile the path cannot be forgotten. */
static void mend(struct verbs_repair *repair, struct verbs_path *path)
{
	pthread_mutex_t *joining = &path->path.remote->peer->joining;
	bool is_over;

	TAILQ_REMOVE(&repair->broken, path, repair_link);
	path->broken = false;
	repair->mending = path;
	pthread_mutex_unlock(&repair->lock);
	pthread_mutex_lock(joining);
	is_over = try_to_mend(repair, path);
	pthread_mutex_unlock(joining);
	pthread_mutex_lock(&repair->lock);
	repair->mending = NULL;
	pthread_cond_broadcast(&repair->attempted);
	if (is_over)
		return;
	put_off(repair, path);
	path->broken = true;
	TAILQ_INSERT_TAIL(&repair->broken, path, repair_link);
}

static void *repair_main(void *arg)
{
	struct verbs_repair *repair = arg;

	pthread_mutex_lock(&repair->lock);
	while (!repair->stopping) {
		struct verbs_path *path = first(repair);

		if (!path)
			pthread_cond_wait(&repair->changed, &repair->lock);
		else if (path->repair_at_ns > clock_monotonic_ns(NULL))
			wait_until(repair, path->repair_at_ns);
		else
			mend(repair, path);
	}
	pthread_mutex_unlock(&repair->lock);
	return NULL;
}

int verbs_repair_start(struct verbs_host *host, struct verbs_repair **out)
{
	struct verbs_repair *repair = calloc(1, sizeof(*repair));
	pthread_condattr_t monotonic;
	int rc;

	if (!repair)
		return fail(-ENOMEM, "out of memory");
	repair->host = host;
	repair->random.state = verbs_random();
	TAILQ_INIT(&repair->broken);
	pthread_mutex_init(&repair->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&repair->changed, &monotonic);
	pthread_cond_init(&repair->attempted, NULL);
	rc = thread_start(&repair->thread, "slu-repair", repair_main, repair);
	if (rc < 0) {
		free(repair);
		return rc;
	}
	*out = repair;
	return 0;
}

void verbs_repair_stop(struct verbs_repair *repair)
{
	if (!repair)
		return;
	pthread_mutex_lock(&repair->lock);
	repair->stopping = true;
	pthread_cond_signal(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
	pthread_join(repair->thread, NULL);
	pthread_cond_destroy(&repair->attempted);
	pthread_cond_destroy(&repair->changed);
	pthread_mutex_destroy(&repair->lock);
	free(repair);
}

void verbs_repair_path(struct verbs_repair *repair, struct verbs_path *path)
{
	pthread_mutex_lock(&repair->lock);
	path->backoff_ns = FIRST_PAUSE_NS;
	path->repair_at_ns = 0;
	path->broken = true;
	TAILQ_INSERT_TAIL(&repair->broken, path, repair_link);
	pthread_cond_signal(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
}

void verbs_repair_forget(struct verbs_repair *repair, struct verbs_path *path)
{
	pthread_mutex_lock(&repair->lock);
	while (repair->mending == path)
		pthread_cond_wait(&repair->attempted, &repair->lock);
	if (path->broken)
		TAILQ_REMOVE(&repair->broken, path, repair_link);
	path->broken = false;
	pthread_mutex_unlock(&repair->lock);
}
