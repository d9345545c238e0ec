/* SPDX-License-Identifier: Apache-2.0 */
#include "control/thread.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/environment.h"
#include "base/log.h"
#include "base/thread.h"
#include "base/work.h"
#include "control/loop.h"

struct control_thread {
	struct loop *loop;
	struct watch wake;
	int eventfd;
	pthread_t thread;
	pthread_mutex_t turn; /* one caller at a time */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t done;
	control_fn fn;
	void *arg;
	int result;
	STAILQ_HEAD(task_list, control_task) posted;
};

static void run_posted(struct task_list *tasks)
{
	struct control_task *task;

	while ((task = STAILQ_FIRST(tasks))) {
		STAILQ_REMOVE_HEAD(tasks, link);
		task->run(task);
	}
}

static void run_call(struct control_thread *thread)
{
	int result = thread->fn(thread->arg);

	pthread_mutex_lock(&thread->lock);
	thread->result = result;
	thread->fn = NULL;
	pthread_cond_signal(&thread->done);
	pthread_mutex_unlock(&thread->lock);
}

/* Both are looked at together: what was posted before a call is never run after it. */
static void on_wake(void *arg)
{
	struct control_thread *thread = arg;
	struct task_list tasks = STAILQ_HEAD_INITIALIZER(tasks);
	eventfd_t count;
	bool called;

	work_begin(WORK_EVENT);
	eventfd_read(thread->eventfd, &count);
	pthread_mutex_lock(&thread->lock);
	STAILQ_CONCAT(&tasks, &thread->posted);
	called = thread->fn;
	pthread_mutex_unlock(&thread->lock);
	run_posted(&tasks);
	if (called)
		run_call(thread);
}

/* The one thread of a simulation is at no event of this loop: the next one is ours. */
static int call_at_once(struct control_thread *thread, control_fn fn, void *arg)
{
	thread->fn = fn;
	thread->arg = arg;
	watch_run(&thread->wake);
	return thread->result;
}

int control_call(struct control_thread *thread, control_fn fn, void *arg)
{
	int result;

	if (watch_is_running(thread->loop))
		return fn(arg);
	if (environment_is_stepped())
		return call_at_once(thread, fn, arg);
	pthread_mutex_lock(&thread->turn);
	pthread_mutex_lock(&thread->lock);
	thread->fn = fn;
	thread->arg = arg;
	eventfd_write(thread->eventfd, 1);
	while (thread->fn)
		pthread_cond_wait(&thread->done, &thread->lock);
	result = thread->result;
	pthread_mutex_unlock(&thread->lock);
	pthread_mutex_unlock(&thread->turn);
	return result;
}

void control_post(struct control_thread *thread, struct control_task *task)
{
	pthread_mutex_lock(&thread->lock);
	STAILQ_INSERT_TAIL(&thread->posted, task, link);
	pthread_mutex_unlock(&thread->lock);
	eventfd_write(thread->eventfd, 1);
}

struct loop *control_loop(struct control_thread *thread)
{
	return thread->loop;
}

static void *control_main(void *arg)
{
	struct control_thread *thread = arg;

	loop_ops->run(thread->loop);
	return NULL;
}

static void destroy(struct control_thread *thread)
{
	watch_stop(&thread->wake);
	if (thread->loop)
		loop_ops->close(thread->loop);
	if (thread->eventfd >= 0)
		close(thread->eventfd);
	pthread_cond_destroy(&thread->done);
	pthread_mutex_destroy(&thread->lock);
	pthread_mutex_destroy(&thread->turn);
	free(thread);
}

static int build(struct control_thread *thread)
{
	thread->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (thread->eventfd < 0)
		return fail(-errno, "eventfd: %s", strerror(errno));
	if (loop_ops->open(&thread->loop) < 0)
		return fail(-ENOMEM, "cannot make an event loop");
	watch_init(&thread->wake, thread->loop, thread->eventfd, WATCH_READ, on_wake, thread);
	if (watch_start(&thread->wake, 0) < 0)
		return fail(-ENOMEM, "out of memory");
	return environment_is_stepped()
		       ? 0
		       : thread_start(&thread->thread, "slu-control", control_main, thread);
}

int control_thread_start(struct control_thread **out)
{
	struct control_thread *thread = calloc(1, sizeof(*thread));
	int rc;

	if (!thread)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&thread->turn, NULL);
	pthread_mutex_init(&thread->lock, NULL);
	pthread_cond_init(&thread->done, NULL);
	STAILQ_INIT(&thread->posted);
	rc = build(thread);
	if (rc < 0) {
		destroy(thread);
		return rc;
	}
	*out = thread;
	return 0;
}

static int leave_loop(void *arg)
{
	struct control_thread *thread = arg;

	loop_ops->leave(thread->loop);
	return 0;
}

void control_thread_stop(struct control_thread *thread)
{
	if (!thread)
		return;
	control_call(thread, leave_loop, thread);
	if (!environment_is_stepped())
		pthread_join(thread->thread, NULL);
	destroy(thread);
}
