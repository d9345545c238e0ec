/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

#include <signal.h>
#include <string.h>

#include "base/log.h"

int thread_try(pthread_t *thread, const char *name, void *(*run)(void *arg), void *arg)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a fault that is blocked ends the process: memory/guard.h */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread, NULL, run, arg);
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
