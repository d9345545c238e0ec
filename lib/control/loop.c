/* SPDX-License-Identifier: Apache-2.0 */
#include "control/loop.h"

#include <errno.h>
#include <event2/event.h>

/* ---- libevent ---- */

static struct event_base *base_of(struct loop *loop)
{
	return (struct event_base *)loop;
}

static int open_base(struct loop **loop)
{
	struct event_base *base = event_base_new();

	*loop = (struct loop *)base;
	return base ? 0 : -ENOMEM;
}

static void close_base(struct loop *loop)
{
	event_base_free(base_of(loop));
}

static void run_base(struct loop *loop)
{
	event_base_dispatch(base_of(loop));
}

static void leave_base(struct loop *loop)
{
	event_base_loopbreak(base_of(loop));
}

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	watch_run(arg);
}

static void init_event(struct watch *watch)
{
	static const short flags[] = {[WATCH_READ] = EV_READ | EV_PERSIST,
				      [WATCH_WRITE] = EV_WRITE | EV_PERSIST,
				      [WATCH_ONCE] = 0,
				      [WATCH_EVERY] = EV_PERSIST};

	event_assign(&watch->event, base_of(watch->loop), watch->fd, flags[watch->kind], on_event,
		     watch);
}

static int start_event(struct watch *watch, uint64_t after_us)
{
	const struct timeval after = {.tv_sec = (time_t)(after_us / 1000000),
				      .tv_usec = (suseconds_t)(after_us % 1000000)};

	return event_add(&watch->event, watch->fd < 0 ? &after : NULL) == 0 ? 0 : -ENOMEM;
}

static void stop_event(struct watch *watch)
{
	event_del(&watch->event);
}

static void trigger_event(struct watch *watch)
{
	event_active(&watch->event, 0, 0);
}

static const struct loop_ops libevent = {.open = open_base,
					 .close = close_base,
					 .run = run_base,
					 .leave = leave_base,
					 .init = init_event,
					 .start = start_event,
					 .stop = stop_event,
					 .trigger = trigger_event};

const struct loop_ops *loop_ops = &libevent;

/* ---- whichever it is ---- */

void watch_init(struct watch *watch, struct loop *loop, int fd, enum watch_kind kind,
		void (*fn)(void *arg), void *arg)
{
	*watch = (struct watch){.loop = loop, .fn = fn, .arg = arg, .fd = fd, .kind = kind};
	loop_ops->init(watch);
}

int watch_start(struct watch *watch, uint64_t after_us)
{
	int rc = watch->started && watch->fd >= 0 ? 0 : loop_ops->start(watch, after_us);

	watch->started |= rc == 0;
	return rc;
}

void watch_stop(struct watch *watch)
{
	if (watch->loop)
		loop_ops->stop(watch);
	watch->started = false;
}

void watch_trigger(struct watch *watch)
{
	loop_ops->trigger(watch);
}

static _Thread_local const struct loop *running;

bool watch_is_running(const struct loop *loop)
{
	return running == loop;
}

void watch_run(struct watch *watch)
{
	const struct loop *outer = running;

	running = watch->loop;
	if (watch->kind == WATCH_ONCE)
		watch->started = false;
	watch->fn(watch->arg); /* which may free it */
	running = outer;
}
