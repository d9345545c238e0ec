/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/repair.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "base/thread.h"

#define FIRST_PAUSE_NS (2 * UINT64_C(1000000))
#define PAUSES         10u /* each twice as long as the one before; the last is a second */
#define ATTEMPT_NS     (5 * NS_PER_SECOND)
#define NEVER_NS       (UINT64_MAX / 2)

struct repair {
	pthread_mutex_t lock;
	pthread_cond_t work;    /* for threads: a lane is ready, or a pause has begun */
	pthread_cond_t changed; /* for those who wait: whose turn it is, or that one is over */
	bool stopping;
	struct random random;
	TAILQ_HEAD(, repair_lane) ready;
	struct repair_turns pausing[PAUSES]; /* by length, so that the first end first */
	uint32_t waiting;                    /* threads */
	uint32_t thread_count;
	pthread_t threads[REPAIR_THREADS_MAX];
};

/* ---- who waits, and where: under lock ---- */

static void enter(struct repair_turns *in, struct repair_turn *turn)
{
	turn->in = in;
	TAILQ_INSERT_TAIL(in, turn, link);
}

static void leave(struct repair_turn *turn)
{
	if (turn->in)
		TAILQ_REMOVE(turn->in, turn, link);
	turn->in = NULL;
}

/* It has changed: who is next? */
static void look(struct repair *repair, struct repair_lane *lane)
{
	const struct repair_turn *first = lane->attempted ? NULL : TAILQ_FIRST(&lane->turns);
	bool ready = first && first == &first->item->asked;

	if (first && !ready)
		pthread_cond_broadcast(&repair->changed);
	if (ready == lane->ready)
		return;
	lane->ready = ready;
	if (ready) {
		TAILQ_INSERT_TAIL(&repair->ready, lane, link);
		pthread_cond_signal(&repair->work);
	} else {
		TAILQ_REMOVE(&repair->ready, lane, link);
	}
}

static void queue(struct repair *repair, struct repair_turn *turn)
{
	leave(turn);
	enter(&turn->item->lane->turns, turn);
	look(repair, turn->item->lane);
}

static void put_off(struct repair *repair, struct repair_item *item)
{
	struct repair_turns *pausing = &repair->pausing[item->pauses];
	const struct repair_turn *last = TAILQ_LAST(pausing, repair_turns);
	uint64_t half = (FIRST_PAUSE_NS << item->pauses) / 2;
	uint64_t at_ns = clock_monotonic_ns(NULL) + half + random_below(&repair->random, half + 1);

	item->asked.at_ns = last && last->at_ns > at_ns ? last->at_ns : at_ns;
	item->pauses += item->pauses < PAUSES - 1;
	enter(pausing, &item->asked);
	pthread_cond_signal(&repair->work);
}

/* @return when the next pause is over */
static uint64_t end_pauses(struct repair *repair)
{
	uint64_t now = clock_monotonic_ns(NULL), next = NEVER_NS;

	for (uint32_t i = 0; i < PAUSES; i++) {
		struct repair_turn *turn;

		while ((turn = TAILQ_FIRST(&repair->pausing[i])) && turn->at_ns <= now)
			queue(repair, turn);
		if (turn && turn->at_ns < next)
			next = turn->at_ns;
	}
	return next;
}

/* ---- attempts: under lock, but for the call ---- */

/* Before the lane is another's: what it has of links is not to be found by the next. */
static void let_go(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_unlock(&repair->lock);
	item->dropped(item);
	pthread_mutex_lock(&repair->lock);
}

/* The first in its lane, which is free. It may be asked for again meanwhile. */
static int attempt(struct repair *repair, struct repair_turn *turn, uint64_t until_ns)
{
	struct repair_item *item = turn->item;
	struct repair_lane *lane = item->lane;
	bool asked = turn == &item->asked;
	int rc;

	leave(turn);
	lane->attempted = item;
	look(repair, lane);
	pthread_mutex_unlock(&repair->lock);
	rc = item->attempt(item, until_ns);
	asked = asked && rc < 0 && !item->hopeless;
	if (asked)
		log_peer(SLU_LOG_WARNING, "no link to target %s yet: %s", item->target,
			 slu_last_error());
	pthread_mutex_lock(&repair->lock);
	if (lane->dropped)
		let_go(repair, item);
	else if (asked && !item->asked.in)
		put_off(repair, item);
	lane->attempted = NULL;
	lane->dropped = false;
	lane->over++;
	look(repair, lane);
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

/* Under lock. The turn of who is first in a lane that is free. NULL: nobody, before @p next_ns */
static struct repair_turn *next_turn(struct repair *repair, uint64_t *next_ns)
{
	const struct repair_lane *lane;

	*next_ns = end_pauses(repair);
	lane = TAILQ_FIRST(&repair->ready);
	return lane ? TAILQ_FIRST(&lane->turns) : NULL;
}

bool repair_step(struct repair *repair)
{
	struct repair_turn *turn;
	uint64_t next_ns;

	pthread_mutex_lock(&repair->lock);
	turn = next_turn(repair, &next_ns);
	if (turn)
		attempt(repair, turn, clock_monotonic_ns(NULL) + ATTEMPT_NS);
	pthread_mutex_unlock(&repair->lock);
	return turn != NULL;
}

static void *repair_main(void *arg)
{
	struct repair *repair = arg;

	pthread_mutex_lock(&repair->lock);
	while (!repair->stopping) {
		uint64_t next_ns;
		struct repair_turn *turn = next_turn(repair, &next_ns);

		if (!turn) {
			repair->waiting++;
			condition_wait(&repair->work, &repair->lock, next_ns);
			repair->waiting--;
			continue;
		}
		leave_another(repair);
		attempt(repair, turn, clock_monotonic_ns(NULL) + ATTEMPT_NS);
	}
	pthread_mutex_unlock(&repair->lock);
	return NULL;
}

int repair_start(struct repair **out)
{
	struct repair *repair = calloc(1, sizeof(*repair));
	int rc = 0;

	if (!repair)
		return fail(-ENOMEM, "out of memory");
	repair->random.state = random_word();
	TAILQ_INIT(&repair->ready);
	for (uint32_t i = 0; i < PAUSES; i++)
		TAILQ_INIT(&repair->pausing[i]);
	pthread_mutex_init(&repair->lock, NULL);
	condition_init(&repair->work);
	condition_init(&repair->changed);
	repair->thread_count = !environment_is_stepped();
	if (repair->thread_count > 0)
		rc = thread_start(&repair->threads[0], "slu-repair", repair_main, repair);
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
	pthread_cond_broadcast(&repair->work);
	pthread_mutex_unlock(&repair->lock);
	for (uint32_t i = 0; i < repair->thread_count; i++)
		pthread_join(repair->threads[i], NULL);
	pthread_cond_destroy(&repair->changed);
	pthread_cond_destroy(&repair->work);
	pthread_mutex_destroy(&repair->lock);
	free(repair);
}

void repair_lane_init(struct repair_lane *lane)
{
	*lane = (struct repair_lane){0};
	TAILQ_INIT(&lane->turns);
}

void repair_ask(struct repair *repair, struct repair_item *item)
{
	pthread_mutex_lock(&repair->lock);
	item->pauses = 0;
	if (item->asked.in != &item->lane->turns) {
		item->asked.item = item;
		queue(repair, &item->asked);
	}
	pthread_mutex_unlock(&repair->lock);
}

int repair_now(struct repair *repair, struct repair_item *item, pthread_mutex_t *held,
	       uint64_t until_ns)
{
	struct repair_turn turn = {.item = item};
	struct repair_lane *lane = item->lane;
	int rc = 0;

	pthread_mutex_lock(&repair->lock);
	if (held)
		pthread_mutex_unlock(held);
	LIST_INSERT_HEAD(&item->callers, &turn, of_item);
	queue(repair, &turn);
	while (rc == 0 && turn.item && (lane->attempted || TAILQ_FIRST(&lane->turns) != &turn))
		if (!condition_wait(&repair->changed, &repair->lock, until_ns))
			rc = fail(-ETIMEDOUT, "the target did not answer in time");
	if (turn.item)
		LIST_REMOVE(&turn, of_item);
	if (turn.item && rc == 0)
		rc = attempt(repair, &turn, until_ns);
	else if (turn.item) {
		leave(&turn);
		look(repair, lane);
	}
	pthread_mutex_unlock(&repair->lock);
	return rc;
}

void repair_drop(struct repair *repair, struct repair_item *item)
{
	struct repair_lane *lane = item->lane;
	struct repair_turn *turn;

	pthread_mutex_lock(&repair->lock);
	leave(&item->asked);
	LIST_FOREACH (turn, &item->callers, of_item) {
		leave(turn);
		turn->item = NULL;
	}
	pthread_cond_broadcast(&repair->changed);
	look(repair, lane);
	if (lane->attempted == item)
		lane->dropped = true;
	else
		let_go(repair, item);
	pthread_mutex_unlock(&repair->lock);
}

void repair_settle(struct repair *repair, const struct repair_lane *lane)
{
	uint64_t over;

	if (!repair)
		return;
	pthread_mutex_lock(&repair->lock);
	over = lane->over;
	while (lane->dropped && lane->over == over)
		condition_wait(&repair->changed, &repair->lock, NEVER_NS);
	pthread_mutex_unlock(&repair->lock);
}
