/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Tasks that threads of a target hand each other: whoever posts one goes on at once and is told by
 * another task. A poller runs those posted to it between two of its turns; the worker is a thread
 * for what a device takes its time for, and knows what has begun to end and is not over.
 *
 * A task belongs to the object that it is about, which nobody frees before it has run.
 */
#ifndef VERBS_VERBS_TASKS_H
#define VERBS_VERBS_TASKS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct verbs_task {
	void (*run)(struct verbs_task *task);
	struct verbs_task *next; /* older than it, while it is posted */
};

/** Those posted to one thread. */
struct verbs_tasks {
	_Atomic(struct verbs_task *) newest;
	int eventfd; /* readable when there are some; also once more for what was seen before */
};

/** @return 0; -EMFILE, -errno */
int verbs_tasks_init(struct verbs_tasks *tasks);

/** All have run. Accepts what was not initialized but for its eventfd, -1. */
void verbs_tasks_fini(struct verbs_tasks *tasks);

/** Have @p task run by their thread, after those that were posted before. Any thread. */
void verbs_tasks_post(struct verbs_tasks *tasks, struct verbs_task *task);

static inline bool verbs_tasks_pending(const struct verbs_tasks *tasks)
{
	return atomic_load_explicit(&tasks->newest, memory_order_relaxed) != NULL;
}

/** Their thread, before it sleeps on the eventfd. @return false: there are some */
bool verbs_tasks_rest(struct verbs_tasks *tasks);

/** Their thread: run what is there. @return how many */
uint32_t verbs_tasks_run(struct verbs_tasks *tasks);

/** Something that ends by steps of several threads. */
struct verbs_ending {
	bool is_marker;
	struct verbs_task task; /* of the step that is next; of a marker, when it is reached */
	TAILQ_ENTRY(verbs_ending) link;
};

struct verbs_worker {
	struct verbs_tasks tasks;
	pthread_t thread;
	bool started;
	bool stopping; /* its own */
	struct verbs_task stop;
	pthread_mutex_t lock;
	TAILQ_HEAD(, verbs_ending) endings; /* in the order in which they began */
};

/** @return 0; -ENOMEM, -EAGAIN */
int verbs_worker_start(struct verbs_worker *worker);

/** Nothing is ending any more. Accepts one that was never started. */
void verbs_worker_stop(struct verbs_worker *worker);

/** Control thread: from now on until it is over, those who wait for endings wait for it. */
void verbs_worker_begin(struct verbs_worker *worker, struct verbs_ending *ending);

/** The worker: it is over. */
void verbs_worker_end(struct verbs_worker *worker, struct verbs_ending *ending);

/** Have the marker's task run by the worker once all that began before is over. Any thread. */
void verbs_worker_after(struct verbs_worker *worker, struct verbs_ending *marker);

/** Wait for all that began before. Neither the control thread, nor the worker, nor a poller. */
void verbs_worker_wait(struct verbs_worker *worker);

#endif
