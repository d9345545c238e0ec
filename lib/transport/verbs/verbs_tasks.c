/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_tasks.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"

/* ---- those posted to one thread ---- */

int verbs_tasks_init(struct verbs_tasks *tasks)
{
	atomic_init(&tasks->newest, NULL);
	tasks->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return tasks->eventfd < 0 ? fail(-errno, "eventfd: %s", strerror(errno)) : 0;
}

void verbs_tasks_fini(struct verbs_tasks *tasks)
{
	if (tasks->eventfd >= 0)
		close(tasks->eventfd);
	tasks->eventfd = -1;
}

void verbs_tasks_post(struct verbs_tasks *tasks, struct verbs_task *task)
{
	struct verbs_task *newest = atomic_load_explicit(&tasks->newest, memory_order_relaxed);

	do
		task->next = newest;
	while (!atomic_compare_exchange_weak_explicit(&tasks->newest, &newest, task,
						      memory_order_release, memory_order_relaxed));
	/* Who posted the one before has woken the thread; ours may be gone by now. */
	if (!newest)
		eventfd_write(tasks->eventfd, 1);
}

static struct verbs_task *oldest_first(struct verbs_task *newest)
{
	struct verbs_task *first = NULL;

	while (newest) {
		struct verbs_task *older = newest->next;

		newest->next = first;
		first = newest;
		newest = older;
	}
	return first;
}

/* Before they are looked at: whoever finds none there writes it again. */
static void read_event(struct verbs_tasks *tasks)
{
	eventfd_t posted;

	eventfd_read(tasks->eventfd, &posted);
}

/* What was run may be told of only now: left in the eventfd it would keep the thread awake. */
bool verbs_tasks_rest(struct verbs_tasks *tasks)
{
	read_event(tasks);
	return !verbs_tasks_pending(tasks);
}

uint32_t verbs_tasks_run(struct verbs_tasks *tasks)
{
	struct verbs_task *task;
	uint32_t n = 0;

	read_event(tasks);
	/* Pairs with the release in verbs_tasks_post(). */
	task = oldest_first(atomic_exchange_explicit(&tasks->newest, NULL, memory_order_acquire));
	while (task) {
		struct verbs_task *next = task->next;

		task->run(task);
		task = next;
		n++;
	}
	return n;
}

/* ---- the worker ---- */

static void stop(struct verbs_task *task)
{
	struct verbs_worker *worker =
		(struct verbs_worker *)((char *)task - offsetof(struct verbs_worker, stop));

	worker->stopping = true;
}

static void *worker_main(void *arg)
{
	struct verbs_worker *worker = arg;
	struct pollfd wait = {.fd = worker->tasks.eventfd, .events = POLLIN};

	while (!worker->stopping) {
		poll(&wait, 1, -1);
		verbs_tasks_run(&worker->tasks);
	}
	return NULL;
}

int verbs_worker_start(struct verbs_worker *worker)
{
	int rc = verbs_tasks_init(&worker->tasks);

	pthread_mutex_init(&worker->lock, NULL);
	TAILQ_INIT(&worker->endings);
	worker->stopping = false;
	if (rc == 0)
		rc = thread_start(&worker->thread, "slu-verbs", worker_main, worker);
	worker->started = rc == 0;
	if (rc < 0) {
		verbs_tasks_fini(&worker->tasks);
		pthread_mutex_destroy(&worker->lock);
	}
	return rc;
}

void verbs_worker_stop(struct verbs_worker *worker)
{
	if (!worker->started)
		return;
	worker->stop.run = stop;
	verbs_tasks_post(&worker->tasks, &worker->stop);
	pthread_join(worker->thread, NULL);
	verbs_tasks_fini(&worker->tasks);
	pthread_mutex_destroy(&worker->lock);
	worker->started = false;
}

/* Markers that nothing stands before are reached. */
static void reach_markers(struct verbs_worker *worker)
{
	struct verbs_ending *first;

	while ((first = TAILQ_FIRST(&worker->endings)) && first->is_marker) {
		TAILQ_REMOVE(&worker->endings, first, link);
		verbs_tasks_post(&worker->tasks, &first->task);
	}
}

static void enter(struct verbs_worker *worker, struct verbs_ending *ending, bool is_marker)
{
	ending->is_marker = is_marker;
	pthread_mutex_lock(&worker->lock);
	TAILQ_INSERT_TAIL(&worker->endings, ending, link);
	reach_markers(worker);
	pthread_mutex_unlock(&worker->lock);
}

void verbs_worker_begin(struct verbs_worker *worker, struct verbs_ending *ending)
{
	enter(worker, ending, false);
}

void verbs_worker_end(struct verbs_worker *worker, struct verbs_ending *ending)
{
	pthread_mutex_lock(&worker->lock);
	TAILQ_REMOVE(&worker->endings, ending, link);
	reach_markers(worker);
	pthread_mutex_unlock(&worker->lock);
}

void verbs_worker_after(struct verbs_worker *worker, struct verbs_ending *marker)
{
	enter(worker, marker, true);
}

struct waiting {
	struct verbs_ending marker; /* first */
	sem_t reached;
};

static void on_reached(struct verbs_task *task)
{
	struct waiting *waiting =
		(struct waiting *)((char *)task - offsetof(struct waiting, marker.task));

	sem_post(&waiting->reached);
}

void verbs_worker_wait(struct verbs_worker *worker)
{
	struct waiting waiting = {.marker.task.run = on_reached};

	sem_init(&waiting.reached, 0, 0);
	verbs_worker_after(worker, &waiting.marker);
	while (sem_wait(&waiting.reached) < 0)
		;
	sem_destroy(&waiting.reached);
}
