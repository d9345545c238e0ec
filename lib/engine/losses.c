/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory whose pages somebody took away (memory/guard.h). Whoever copies looks by himself and fails
 * what he copied; here, on the control thread, the rest ends and is said: sessions on a segment
 * that is lost, clients whose area is, remotes of ours. All others go on.
 */
#include <errno.h>
#include <unistd.h>

#include "base/log.h"
#include "base/work.h"
#include "engine/engine_internal.h"

int losses_check(const struct slu_segment *segment)
{
	if (!region_is_dead(segment->export.region))
		return 0;
	return fail(
		-EFAULT,
		"segment %s has lost its memory: a process that may write to it in shared memory, "
		"or has the file that was imported, took pages away, or the machine found them "
		"broken; export it anew, and see who is a --shm-writer",
		segment->name);
}

static bool is_lost(void *arg, void *unused)
{
	struct segment_client *client = arg;

	(void)unused;
	if (!region_is_dead(client->segment->export.region) &&
	    !(client->area && guard_is_dead(client->area->inbox.guard)))
		return false;
	client->reason = -EFAULT;
	return true;
}

static void end_sessions(struct slu_engine *engine)
{
	struct slu_segment *segment;

	LIST_FOREACH (segment, &engine->segments, link) {
		if (segment->lost || losses_check(segment) == 0)
			continue;
		segment->lost = true;
		log_error("%s", slu_last_error());
	}
	server_revoke_soon(engine->server, is_lost, NULL, -EFAULT);
}

static void end_remotes(struct slu_engine *engine)
{
	struct slu_remote *remote;

	pthread_mutex_lock(&engine->lock);
	LIST_FOREACH (remote, &engine->remotes, link) {
		const struct transport_client *client = remote->transport->client;

		if (client->is_lost && client->is_lost(remote->view))
			remote_fail(remote, -EFAULT);
	}
	pthread_mutex_unlock(&engine->lock);
}

static void on_loss(void *arg)
{
	struct slu_engine *engine = arg;

	work_begin(WORK_EVENT);
	guard_clear(engine->losses.fd);
	end_sessions(engine);
	end_remotes(engine);
}

int losses_watch(struct slu_engine *engine)
{
	int fd = guard_open();

	if (fd < 0)
		return fd;
	watch_init(&engine->losses, control_loop(engine->control), fd, WATCH_READ, on_loss, engine);
	if (watch_start(&engine->losses, 0) == 0)
		return 0;
	close(fd);
	return fail(-ENOMEM, "out of memory");
}

static int unwatch(void *arg)
{
	struct slu_engine *engine = arg;

	watch_stop(&engine->losses);
	return 0;
}

void losses_unwatch(struct slu_engine *engine)
{
	if (!engine->losses.started)
		return;
	control_call(engine->control, unwatch, engine);
	close(engine->losses.fd);
}
