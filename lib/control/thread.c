/* SPDX-License-Identifier: Apache-2.0 */
#include "control/thread.h"

#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "base/work.h"

struct control_thread {
	struct event_base *base;
	struct event *wake;
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
static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct control_thread *thread = arg;
	struct task_list tasks = STAILQ_HEAD_INITIALIZER(tasks);
	eventfd_t count;
	bool called;

	(void)what;
	work_begin(WORK_EVENT);
	eventfd_read(fd, &count);
	pthread_mutex_lock(&thread->lock);
	STAILQ_CONCAT(&tasks, &thread->posted);
	called = thread->fn;
	pthread_mutex_unlock(&thread->lock);
	run_posted(&tasks);
	if (called)
		run_call(thread);
}

int control_call(struct control_thread *thread, control_fn fn, void *arg)
{
	int result;

	if (pthread_equal(pthread_self(), thread->thread))
		return fn(arg);
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

struct event_base *control_base(struct control_thread *thread)
{
	return thread->base;
}

static void *control_main(void *arg)
{
	struct control_thread *thread = arg;

	event_base_dispatch(thread->base);
	return NULL;
}

static void destroy(struct control_thread *thread)
{
	if (thread->wake)
		event_free(thread->wake);
	if (thread->base)
		event_base_free(thread->base);
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
	thread->base = event_base_new();
	if (!thread->base)
		return fail(-ENOMEM, "cannot make an event loop");
	thread->wake =
		event_new(thread->base, thread->eventfd, EV_READ | EV_PERSIST, on_wake, thread);
	if (!thread->wake || event_add(thread->wake, NULL) < 0)
		return fail(-ENOMEM, "out of memory");
	return thread_start(&thread->thread, "slu-control", control_main, thread);
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

static int break_loop(void *arg)
{
	struct control_thread *thread = arg;

	return event_base_loopbreak(thread->base);
}

void control_thread_stop(struct control_thread *thread)
{
	if (!thread)
		return;
	control_call(thread, break_loop, thread);
	pthread_join(thread->thread, NULL);
	destroy(thread);
}
