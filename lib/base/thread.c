/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"

static cpu_set_t kept_to;
static _Atomic bool keeps;

void thread_keep_to(const cpu_set_t *cpus)
{
	kept_to = *cpus;
	atomic_store(&keeps, true);
}

const cpu_set_t *thread_cpus(void)
{
	return atomic_load(&keeps) ? &kept_to : NULL;
}

static int create(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attributes;
	int error;

	pthread_attr_init(&attributes);
	if (thread_cpus())
		pthread_attr_setaffinity_np(&attributes, sizeof(kept_to), &kept_to);
	error = pthread_create(thread, &attributes, run, arg);
	pthread_attr_destroy(&attributes);
	return error;
}

int thread_try(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault that is blocked ends the process: memory/guard.h */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = create(thread, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!error)
		pthread_setname_np(*thread, name);
	return -error;
}

int thread_start(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg)
{
	int rc = thread_try(thread, name, run, arg);

	if (rc < 0)
		return fail(rc,
			    "cannot start thread %s: %s (is a limit of processes or tasks "
			    "reached? ulimit -u, TasksMax)",
			    name, strerror(-rc));
	return 0;
}
