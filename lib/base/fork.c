/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fork.h"

#include <errno.h>
#include <pthread.h>

#include "base/log.h"

bool fork_has_happened;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list; held while forking */
static LIST_HEAD(, fork_hook) hooks = LIST_HEAD_INITIALIZER(hooks);

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
	struct fork_hook *hook;

	fork_has_happened = true;
	LIST_FOREACH (hook, &hooks, link)
		hook->in_child(hook);
	pthread_mutex_unlock(&lock);
}

static void prepare(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

void fork_prepare(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, prepare);
}

void fork_watch(struct fork_hook *hook)
{
	pthread_mutex_lock(&lock);
	LIST_INSERT_HEAD(&hooks, hook, link);
	pthread_mutex_unlock(&lock);
}

void fork_unwatch(struct fork_hook *hook)
{
	if (!hook->in_child)
		return;
	pthread_mutex_lock(&lock);
	LIST_REMOVE(hook, link);
	pthread_mutex_unlock(&lock);
	hook->in_child = NULL;
}

int fork_refuse(void)
{
	return fail(-ECHILD,
		    "the engine was opened before fork(), by the parent: a child has none, "
		    "exec a program that opens one");
}
