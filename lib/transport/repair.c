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

struct repair {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_cond_t attempted; /* mending is another */
	struct repair_item *mending;
	bool stopping;
	struct random random;
	TAILQ_HEAD(, repair_item) broken;
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

/* Under lock. The one that is due first, or NULL. */
static struct repair_item *first(struct repair *repair)
{
	struct repair_item *item, *best = NULL;

	TAILQ_FOREACH (item, &repair->broken, link)
		if (!best || item->at_ns < best->at_ns)
			best = item;
	return best;
}

/* Under lock. */
static void wait_until(struct repair *repair, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_SECOND),
			      .tv_nsec = (long)(at_ns % NS_PER_SECOND)};

	pthread_cond_timedwait(&repair->changed, &repair->lock, &at);
}

/* Under lock, but for the attempt; meanwhile the item cannot be forgotten. */
static void mend(struct repair *repair, struct repair_item *item)
{
	bool over;

	TAILQ_REMOVE(&repair->broken, item, link);
	item->listed = false;
	repair->mending = item;
	pthread_mutex_unlock(&repair->lock);
	over = item->attempt(item);
	pthread_mutex_lock(&repair->lock);
	repair->mending = NULL;
	pthread_cond_broadcast(&repair->attempted);
	if (!over)
		put_off(repair, item);
}

static void *repair_main(void *arg)
{
	struct repair *repair = arg;

	pthread_mutex_lock(&repair->lock);
	while (!repair->stopping) {
		struct repair_item *item = first(repair);

		if (!item)
			pthread_cond_wait(&repair->changed, &repair->lock);
		else if (item->at_ns > clock_monotonic_ns(NULL))
			wait_until(repair, item->at_ns);
		else
			mend(repair, item);
	}
	pthread_mutex_unlock(&repair->lock);
	return NULL;
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
	pthread_cond_init(&repair->attempted, NULL);
	rc = thread_start(&repair->thread, "slu-repair", repair_main, repair);
	if (rc < 0) {
		free(repair);
		return rc;
	}
	*out = repair;
	return 0;
}

void repair_stop(struct repair *repair)
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

void repair_ask(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	item->pause_ns = FIRST_PAUSE_NS;
	item->at_ns = 0;
	item->listed = true;
	TAILQ_INSERT_TAIL(&repair->broken, item, link);
	pthread_cond_signal(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
}

void repair_forget(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	while (repair->mending == item)
		pthread_cond_wait(&repair->attempted, &repair->lock);
	if (item->listed)
		TAILQ_REMOVE(&repair->broken, item, link);
	item->listed = false;
	pthread_mutex_unlock(&repair->lock);
}
