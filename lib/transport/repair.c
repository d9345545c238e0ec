/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/repair.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/thread.h"

#define FIRST_PAUSE_NS   (2 * UINT64_C(1000000))
#define LONGEST_PAUSE_NS NS_PER_SECOND
#define NEVER_NS         (UINT64_MAX / 2)

/* An attempt that is under way. */
struct turn {
	const struct repair_item *item;
	const struct transport_peer *peer;
	LIST_ENTRY(turn) link;
};

struct repair {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* what is broken, or whose turn it is */
	bool stopping;
	struct random random;
	TAILQ_HEAD(, repair_item) broken;
	LIST_HEAD(, turn) turns;
	uint32_t waiting; /* threads */
	uint32_t thread_count;
	pthread_t threads[REPAIR_THREADS_MAX];
};

/* Under lock. */
static void put_off(struct repair *repair, struct repair_item *item)
{
	uint64_t pause = item->pause_ns;

	item->pause_ns = pause * 2 < LONGEST_PAUSE_NS ? pause * 2 : LONGEST_PAUSE_NS;
	item->at_ns =
		clock_monotonic_ns(NULL) + pause / 2 + random_below(&repair->random, pause / 2 + 1);
	item->listed = true;
	TAILQ_INSERT_TAIL(&repair->broken, item, link);
}

/* Under lock. */
static bool is_busy(const struct repair *repair, const struct transport_peer *peer)
{
	const struct turn *turn;

	LIST_FOREACH (turn, &repair->turns, link)
		if (turn->peer == peer)
			return true;
	return false;
}

/* Under lock. The one that is due first, of a peer at which nobody is; or NULL. */
static struct repair_item *first(const struct repair *repair)
{
	struct repair_item *item, *best = NULL;

	TAILQ_FOREACH (item, &repair->broken, link)
		if ((!best || item->at_ns < best->at_ns) && !is_busy(repair, item->peer))
			best = item;
	return best;
}

/* Under lock. */
static void wait_until(struct repair *repair, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_SECOND),
			      .tv_nsec = (long)(at_ns % NS_PER_SECOND)};

	repair->waiting++;
	pthread_cond_timedwait(&repair->changed, &repair->lock, &at);
	repair->waiting--;
}

/* Under lock, but for the attempt; meanwhile the item cannot be forgotten. */
static void mend(struct repair *repair, struct repair_item *item)
{
	struct turn turn = {.item = item, .peer = item->peer};
	bool over;

	TAILQ_REMOVE(&repair->broken, item, link);
	item->listed = false;
	LIST_INSERT_HEAD(&repair->turns, &turn, link);
	pthread_mutex_unlock(&repair->lock);
	over = item->attempt(item);
	pthread_mutex_lock(&repair->lock);
	LIST_REMOVE(&turn, link);
	pthread_cond_broadcast(&repair->changed);
	if (!over)
		put_off(repair, item);
}

static void *repair_main(void *arg);

/* Under lock. While this thread is at one peer another one looks after the others. */
static void leave_another(struct repair *repair)
{
	if (repair->waiting == 0 && repair->thread_count < REPAIR_THREADS_MAX &&
	    thread_try(&repair->threads[repair->thread_count], "slu-repair", repair_main, repair) ==
		    0)
		repair->thread_count++;
}

static void *repair_main(void *arg)
{
	struct repair *repair = arg;

	pthread_mutex_lock(&repair->lock);
	while (!repair->stopping) {
		struct repair_item *item = first(repair);

		if (!item || item->at_ns > clock_monotonic_ns(NULL)) {
			wait_until(repair, item ? item->at_ns : NEVER_NS);
			continue;
		}
		leave_another(repair);
		mend(repair, item);
	}
	pthread_mutex_unlock(&repair->lock);
	return NULL;
}

/* Under lock. */
static bool is_attempted(const struct repair *repair, const struct repair_item *item)
{
	const struct turn *turn;

	LIST_FOREACH (turn, &repair->turns, link)
		if (turn->item == item)
			return true;
	return false;
}

int repair_start(struct repair **out)
{
	struct repair *repair = calloc(1, sizeof(*repair));
	pthread_condattr_t monotonic;
	int rc;

	if (!repair)
		return fail(-ENOMEM, "out of memory");
	if (getrandom(&repair->random.state, sizeof(repair->random.state), GRND_NONBLOCK) < 0)
		repair->random.state = clock_monotonic_ns(NULL); /* only pauses hang on it */
	TAILQ_INIT(&repair->broken);
	pthread_mutex_init(&repair->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&repair->changed, &monotonic);
	rc = thread_start(&repair->threads[0], "slu-repair", repair_main, repair);
	if (rc < 0) {
		free(repair);
		return rc;
	}
	repair->thread_count = 1;
	*out = repair;
	return 0;
}

void repair_stop(struct repair *repair)
{
	if (!repair)
		return;
	pthread_mutex_lock(&repair->lock);
	repair->stopping = true;
	pthread_cond_broadcast(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
	for (uint32_t i = 0; i < repair->thread_count; i++)
		pthread_join(repair->threads[i], NULL);
	pthread_cond_destroy(&repair->changed);
	pthread_mutex_destroy(&repair->lock);
	free(repair);
}

void repair_ask(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	item->pause_ns = FIRST_PAUSE_NS;
	item->at_ns = 0;
	item->listed = true;
	TAILQ_INSERT_TAIL(&repair->broken, item, link);
	pthread_cond_broadcast(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
}

void repair_forget(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	while (is_attempted(repair, item))
		pthread_cond_wait(&repair->changed, &repair->lock);
	if (item->listed)
		TAILQ_REMOVE(&repair->broken, item, link);
	item->listed = false;
	pthread_mutex_unlock(&repair->lock);
}
