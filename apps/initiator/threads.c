/* SPDX-License-Identifier: Apache-2.0 */
#include "initiator/threads.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "numa/placement.h"

struct start {
	struct threads *threads;
	struct worker *worker;
};

static worker_step next_step(struct threads *threads, uint64_t *round)
{
	worker_step step;

	pthread_mutex_lock(&threads->lock);
	while (threads->round == *round)
		pthread_cond_wait(&threads->changed, &threads->lock);
	*round = threads->round;
	step = threads->step;
	pthread_mutex_unlock(&threads->lock);
	return step;
}

static void step_done(struct threads *threads)
{
	pthread_mutex_lock(&threads->lock);
	if (--threads->busy == 0)
		pthread_cond_broadcast(&threads->changed);
	pthread_mutex_unlock(&threads->lock);
}

static void *run(void *arg)
{
	struct threads *threads = ((struct start *)arg)->threads;
	struct worker *worker = ((struct start *)arg)->worker;
	uint64_t round = 0;
	worker_step step;

	free(arg);
	while ((step = next_step(threads, &round))) {
		step(worker);
		step_done(threads);
	}
	return NULL;
}

static int start_one(struct threads *threads)
{
	struct start *start = malloc(sizeof(*start));
	sigset_t all, before;
	int rc;

	if (!start)
		return fail(-ENOMEM, "out of memory for a thread");
	*start = (struct start){threads, &threads->workers[threads->count]};
	/* Signals are the main thread's: it is the one that sleeps. */
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* the library survives it on pages that were taken away */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&threads->ids[threads->count], NULL, run, start);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		free(start);
		return fail(-rc,
			    "thread %u could not be started (%s): lower --threads, or raise the "
			    "limit with ulimit -u",
			    threads->count, strerror(rc));
	}
	threads->count++;
	return 0;
}

/* A step: pin the thread to its core. */
static void pin(struct worker *worker)
{
	worker->pin_error = placement_pin_thread(worker->core);
	if (worker->pin_error)
		worker->broken = true;
}

static int pin_all(struct threads *threads, const int *cores, uint32_t cores_count)
{
	for (uint32_t i = 0; i < threads->count; i++)
		threads->workers[i].core = cores[i % cores_count];
	threads_run(threads, pin);
	for (uint32_t i = 0; i < threads->count; i++)
		if (threads->workers[i].pin_error)
			return fail(
				threads->workers[i].pin_error,
				"--cores: CPU %d cannot be used by this process: see taskset -p $$",
				threads->workers[i].core);
	return 0;
}

int threads_open(struct threads *threads, struct worker *workers, uint32_t count, const int *cores,
		 uint32_t cores_count)
{
	int rc = 0;

	*threads = (struct threads){.workers = workers, .ids = calloc(count, sizeof(pthread_t))};
	if (!threads->ids)
		return fail(-ENOMEM, "out of memory for %u threads", count);
	pthread_mutex_init(&threads->lock, NULL);
	pthread_cond_init(&threads->changed, NULL);
	for (uint32_t i = 0; i < count && !rc; i++)
		rc = start_one(threads);
	if (!rc && cores_count)
		rc = pin_all(threads, cores, cores_count);
	if (rc)
		threads_close(threads);
	return rc;
}

void threads_close(struct threads *threads)
{
	if (!threads->ids)
		return;
	threads_begin(threads, NULL);
	for (uint32_t i = 0; i < threads->count; i++)
		pthread_join(threads->ids[i], NULL);
	pthread_cond_destroy(&threads->changed);
	pthread_mutex_destroy(&threads->lock);
	free(threads->ids);
	threads->ids = NULL;
}

void threads_begin(struct threads *threads, worker_step step)
{
	pthread_mutex_lock(&threads->lock);
	threads->step = step;
	threads->busy = threads->count;
	threads->round++;
	pthread_cond_broadcast(&threads->changed);
	pthread_mutex_unlock(&threads->lock);
}

void threads_end(struct threads *threads)
{
	pthread_mutex_lock(&threads->lock);
	while (threads->busy > 0)
		pthread_cond_wait(&threads->changed, &threads->lock);
	pthread_mutex_unlock(&threads->lock);
}

void threads_run(struct threads *threads, worker_step step)
{
	threads_begin(threads, step);
	threads_end(threads);
}
