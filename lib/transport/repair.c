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
#define ATTEMPT_NS       (5 * NS_PER_SECOND)
#define NEVER_NS         (UINT64_MAX / 2)

/* An attempt that is under way. */
struct turn {
	uint64_t number;
	const struct transport_peer *peer;
	const void *lane;
	LIST_ENTRY(turn) link;
};

struct repair {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* what is broken, or whose turn it is */
	bool stopping;
	struct random random;
	TAILQ_HEAD(, repair_item) broken;
	LIST_HEAD(, turn) turns;
	uint64_t next_turn;
	uint32_t waiting; /* threads */
	uint32_t thread_count;
	pthread_t threads[REPAIR_THREADS_MAX];
};

/* Under lock. */
static void list(struct repair *repair, struct repair_item *item)
{
	item->listed = true;
	TAILQ_INSERT_TAIL(&repair->broken, item, link);
}

/* Under lock. */
static void unlist(struct repair *repair, struct repair_item *item)
{
	if (item->listed)
		TAILQ_REMOVE(&repair->broken, item, link);
	item->listed = false;
}

/* Under lock. */
static void put_off(struct repair *repair, struct repair_item *item)
{
	uint64_t pause = item->pause_ns;

	item->pause_ns = pause * 2 < LONGEST_PAUSE_NS ? pause * 2 : LONGEST_PAUSE_NS;
	item->at_ns =
		clock_monotonic_ns(NULL) + pause / 2 + random_below(&repair->random, pause / 2 + 1);
	list(repair, item);
}

/* Under lock. */
static bool is_free(const struct repair *repair, const void *lane)
{
	const struct turn *turn;

	LIST_FOREACH (turn, &repair->turns, link)
		if (turn->lane == lane)
			return false;
	return true;
}

/* Under lock. The one that is due first, of those whose lane is free; or NULL. */
static struct repair_item *first(const struct repair *repair)
{
	struct repair_item *item, *best = NULL;

	TAILQ_FOREACH (item, &repair->broken, link)
		if ((!best || item->at_ns < best->at_ns) && is_free(repair, item->lane))
			best = item;
	return best;
}

/* Under lock. @return false: the time has come */
static bool wait_until(struct repair *repair, uint64_t at_ns)
{
	struct timespec at = {.tv_sec = (time_t)(at_ns / NS_PER_SECOND),
			      .tv_nsec = (long)(at_ns % NS_PER_SECOND)};

	return pthread_cond_timedwait(&repair->changed, &repair->lock, &at) != ETIMEDOUT;
}

/* Under lock, but for the call: the last one frees it. */
static void let_go(struct repair *repair, struct repair_item *item)
{
	if (item->holders > 0 || !item->gone)
		return;
	pthread_mutex_unlock(&repair->lock);
	item->dropped(item);
	pthread_mutex_lock(&repair->lock);
}

/* Under lock, but for the attempt. Its lane is free. What is asked for meanwhile is listed. */
static int attempt(struct repair *repair, struct repair_item *item, uint64_t until_ns)
{
	struct turn turn = {.number = repair->next_turn++, .peer = item->peer, .lane = item->lane};
	bool asked = item->listed;
	int rc;

	unlist(repair, item);
	item->holders++;
	LIST_INSERT_HEAD(&repair->turns, &turn, link);
	pthread_mutex_unlock(&repair->lock);
	rc = item->attempt(item, until_ns);
	if (rc < 0 && asked && !item->hopeless)
		log_peer(SLU_LOG_WARNING, "no link to target %s yet: %s", item->target,
			 slu_last_error());
	pthread_mutex_lock(&repair->lock);
	if (rc < 0 && asked && !item->hopeless && !item->listed && !item->gone)
		put_off(repair, item);
	item->holders--;
	let_go(repair, item);
	LIST_REMOVE(&turn, link);
	pthread_cond_broadcast(&repair->changed);
	return rc;
}

static void *repair_main(void *arg);

/* Under lock. While this thread is in one lane another one looks after the others. */
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
			repair->waiting++;
			wait_until(repair, item ? item->at_ns : NEVER_NS);
			repair->waiting--;
			continue;
		}
		leave_another(repair);
		attempt(repair, item, clock_monotonic_ns(NULL) + ATTEMPT_NS);
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
	if (!item->listed)
		list(repair, item);
	pthread_cond_broadcast(&repair->changed);
	pthread_mutex_unlock(&repair->lock);
}

void repair_hold(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	item->holders++;
	pthread_mutex_unlock(&repair->lock);
}

int repair_now(struct repair *repair, struct repair_item *item, uint64_t until_ns)
{
	int rc = 0;

	pthread_mutex_lock(&repair->lock);
	while (rc == 0 && !is_free(repair, item->lane))
		if (!wait_until(repair, until_ns))
			rc = fail(-ETIMEDOUT, "the target did not answer in time");
	if (rc == 0 && !item->gone)
		rc = attempt(repair, item, until_ns);
	item->holders--;
	let_go(repair, item);
	pthread_mutex_unlock(&repair->lock);
	return rc;
}

void repair_drop(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	unlist(repair, item);
	item->gone = true;
	let_go(repair, item);
	pthread_mutex_unlock(&repair->lock);
}

/* Under lock. Are all turns of the peer over that have begun before that number? */
static bool is_settled(const struct repair *repair, const struct transport_peer *peer,
		       uint64_t before)
{
	const struct turn *turn;

	LIST_FOREACH (turn, &repair->turns, link)
		if (turn->peer == peer && turn->number < before)
			return false;
	return true;
}

void repair_settle(struct repair *repair, const struct transport_peer *peer)
{
	uint64_t before;

	if (!repair)
		return;
	pthread_mutex_lock(&repair->lock);
	before = repair->next_turn;
	while (!is_settled(repair, peer, before))
		pthread_cond_wait(&repair->changed, &repair->lock);
	pthread_mutex_unlock(&repair->lock);
}
