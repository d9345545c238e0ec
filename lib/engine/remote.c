/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a remote: name, handshake, import, one path per poller. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "directory/p2p.h"
#include "engine/engine_internal.h"

static const struct slu_remote_options default_options = {.size = sizeof(struct slu_remote_options),
							  .transport = SLU_TRANSPORT_AUTO,
							  .rights =
								  SLU_RIGHT_READ | SLU_RIGHT_WRITE,
							  .timeout_us = 5000000};

void slu_remote_options_init(struct slu_remote_options *options)
{
	*options = default_options;
}

static int check_options(const struct slu_remote_options *options)
{
	const uint32_t all = SLU_RIGHT_READ | SLU_RIGHT_WRITE;

	if (options->size != sizeof(*options))
		return fail(-EINVAL, "remote options of another version: call the init function");
	if (options->rights == 0 || options->rights & ~all)
		return fail(-EINVAL, "rights are a set of READ and WRITE");
	if (options->transport != SLU_TRANSPORT_AUTO && !transport_find(options->transport))
		return fail(-EOPNOTSUPP, "transport %s is not in this build: use shm, or auto",
			    slu_transport_name(options->transport));
	return 0;
}

int remote_connect(struct slu_remote *remote, struct poller *poller)
{
	struct path *path;
	int rc = remote->transport->control->connect(remote, &poller->env, &path);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&remote->engine->lock);
	remote->paths[poller->index] = path;
	pthread_mutex_unlock(&remote->engine->lock);
	return 0;
}

static void add_stats(struct path_stats *sum, const struct path_stats *stats)
{
	sum->reads += stats->reads;
	sum->writes += stats->writes;
	sum->failed += stats->failed;
	sum->bytes_read += stats->bytes_read;
	sum->bytes_written += stats->bytes_written;
}

void remote_disconnect(struct slu_remote *remote, struct poller *poller)
{
	struct path *path = remote->paths[poller->index];

	if (!path)
		return;
	pthread_mutex_lock(&remote->engine->lock);
	add_stats(&remote->retired, &path->stats);
	poller->bytes += path->stats.bytes_read + path->stats.bytes_written;
	remote->paths[poller->index] = NULL;
	pthread_mutex_unlock(&remote->engine->lock);
	remote->transport->control->disconnect(path);
}

/* Under lock. */
static struct path_stats sum_stats(const struct slu_remote *remote)
{
	struct path_stats sum = remote->retired;

	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++)
		if (remote->paths[i])
			add_stats(&sum, &remote->paths[i]->stats);
	return sum;
}

static void on_lost(void *arg, int error)
{
	struct slu_remote *remote = arg;

	log_warning("target %s (segment %s) %s", remote->target, remote->name,
		    error == -ESHUTDOWN     ? "is closing"
		    : error == -EKEYREVOKED ? "has withdrawn our rights"
					    : "has died");
	remote_fail(remote, error);
}

static void on_totals(void *arg, struct client_totals *totals)
{
	struct slu_remote *remote = arg;
	struct path_stats sum;

	pthread_mutex_lock(&remote->engine->lock);
	sum = sum_stats(remote);
	pthread_mutex_unlock(&remote->engine->lock);
	totals->operations = sum.reads + sum.writes;
	totals->bytes_read = sum.bytes_read;
	totals->bytes_written = sum.bytes_written;
}

static const struct session_callbacks callbacks = {.lost = on_lost, .totals = on_totals};

static struct slu_remote *remote_create(struct slu_engine *engine, const char *name,
					uint32_t rights)
{
	struct slu_remote *remote = aligned_alloc(64, (sizeof(*remote) + 63) / 64 * 64);

	if (!remote)
		return NULL;
	memset(remote, 0, sizeof(*remote));
	remote->engine = engine;
	remote->rights = rights;
	remote->node = -1;
	strncpy(remote->name, name, SLU_REMOTE_NAME_MAX);
	return remote;
}

/* ---- a target in another process ---- */

static void take_welcome(struct slu_remote *remote)
{
	const struct client_welcome *welcome = client_welcome(remote->client);

	remote->peer = client_peer(remote->client);
	remote->incarnation = welcome->incarnation;
	remote->pid = welcome->pid;
	strcpy(remote->target, welcome->target);
}

static int take_grant(struct slu_remote *remote, const struct client_grant *grant)
{
	remote->transport = transport_find(grant->transport);
	if (!remote->transport || !remote->transport->memory->import)
		return fail(-EPROTO, "the target chose a transport that we did not offer");
	remote->length = grant->length;
	remote->page_bytes = grant->page_bytes;
	remote->node = grant->node;
	return remote->transport->memory->import(json_object_get(grant->opened, "grant"),
						 grant->length, remote->rights, grant->fds,
						 grant->fd_count, &remote->view);
}

static int open_session(struct slu_remote *remote, const struct slu_remote_options *options)
{
	const enum slu_transport transport =
		options->transport == SLU_TRANSPORT_AUTO ? SLU_TRANSPORT_SHM : options->transport;
	struct session_request request = {.rights = options->rights,
					  .transports = &transport,
					  .transport_count = 1,
					  .timeout_us = options->timeout_us,
					  .callbacks = &callbacks,
					  .arg = remote};
	struct client_grant grant;
	struct p2p_name name;
	int rc = p2p_parse(remote->name, &name);

	if (rc < 0)
		return rc;
	rc = client_connect(remote->engine->clients, &name.endpoint, name.segment,
			    options->timeout_us, &remote->client);
	if (rc < 0)
		return rc;
	take_welcome(remote);
	request.segment = name.segment;
	rc = session_open(remote->client, &request, &remote->session, &grant);
	if (rc < 0)
		return rc;
	rc = take_grant(remote, &grant);
	client_grant_free(&grant);
	return rc;
}

/* ---- a segment of this process ---- */

struct local_open {
	struct slu_remote *remote;
	const struct transport *transport;
};

static int open_local(void *arg)
{
	struct local_open *call = arg;
	struct slu_remote *remote = call->remote;
	struct slu_segment *segment = segment_find(remote->engine, remote->name);
	const struct transport_memory *memory = call->transport->memory;
	uint32_t close_mask;
	int fds[TRANSPORT_FDS_MAX];
	int rc;

	if (!segment)
		return -ENOENT;
	if (remote->rights & ~segment->export.rights)
		return -EACCES;
	rc = segment_admit(segment, call->transport, remote->rights, NULL, fds, &close_mask,
			   &remote->local);
	if (rc < 0)
		return rc;
	rc = memory->import_local(&segment->export, remote->rights, remote->local->inbox,
				  &remote->view);
	if (rc < 0)
		return rc;
	remote->transport = call->transport;
	remote->length = segment->export.length;
	remote->page_bytes = segment->export.region->page_bytes;
	remote->node = segment->export.region->node;
	return 0;
}

static int open_in_process(struct slu_remote *remote, const struct transport *transport)
{
	struct local_open call = {.remote = remote, .transport = transport};
	int rc = control_call(remote->engine->control, open_local, &call);

	if (rc == -ENOENT)
		return fail(rc, "this process exports no segment \"%s\"", remote->name);
	if (rc == -EACCES)
		return fail(rc, "segment \"%s\" does not grant these rights", remote->name);
	if (rc < 0)
		return fail(rc, "cannot open \"%s\": %s", remote->name, slu_strerror(rc));
	strcpy(remote->target, remote->engine->name);
	remote->incarnation = remote->engine->incarnation;
	return 0;
}

/* ---- both ---- */

/* Under opening. */
static int connect_paths(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;
	int rc = 0;

	if (engine->remote_count == SLU_REMOTES_MAX)
		rc = fail(-ENOSPC, "%d remotes are open", SLU_REMOTES_MAX);
	for (uint32_t i = 0; rc == 0 && i < SLU_POLLERS_MAX; i++)
		if (engine->pollers[i])
			rc = remote_connect(remote, engine->pollers[i]);
	pthread_mutex_lock(&engine->lock);
	LIST_INSERT_HEAD(&engine->remotes, remote, link);
	engine->remote_count++;
	pthread_mutex_unlock(&engine->lock);
	return rc;
}

static int leave_local(void *arg)
{
	segment_leave(arg, false);
	return 0;
}

static void remote_destroy(struct slu_remote *remote)
{
	session_close(remote->session);
	client_release(remote->client);
	if (remote->local)
		control_call(remote->engine->control, leave_local, remote->local);
	if (remote->view)
		remote->transport->memory->release(remote->view);
	free(remote);
}

static int open_remote(struct slu_remote *remote, const struct slu_remote_options *options)
{
	const struct transport *transport = transport_find(options->transport);

	if (transport && transport->memory->import_local)
		return open_in_process(remote, transport);
	return open_session(remote, options);
}

int slu_remote_open(struct slu_engine *engine, const char *name,
		    const struct slu_remote_options *options, struct slu_remote **out)
{
	struct slu_remote *remote;
	int rc;

	if (!options)
		options = &default_options;
	rc = check_options(options);
	if (rc < 0)
		return rc;
	if (strlen(name) > SLU_REMOTE_NAME_MAX)
		return fail(-EINVAL, "the name of a remote has at most %d bytes",
			    SLU_REMOTE_NAME_MAX);
	remote = remote_create(engine, name, options->rights);
	if (!remote)
		return fail(-ENOMEM, "out of memory");
	rc = open_remote(remote, options);
	if (rc < 0) {
		remote_destroy(remote);
		return rc;
	}
	/* If the target has gone meanwhile, so has the permission; on_lost() may come right now. */
	atomic_store(&remote->permitted, transport_permitted(remote->rights));
	if (atomic_load(&remote->state) != 0)
		atomic_store(&remote->permitted, 0);
	pthread_mutex_lock(&engine->opening);
	rc = connect_paths(remote);
	pthread_mutex_unlock(&engine->opening);
	if (rc < 0) {
		slu_remote_close(remote);
		return rc;
	}
	*out = remote;
	return 0;
}

static void drain(struct poller *poller, void *arg)
{
	poller_drain(poller, arg);
}

void slu_remote_close(struct slu_remote *remote)
{
	struct slu_engine *engine;

	if (!remote)
		return;
	engine = remote->engine;
	/* Inline pollers are their owners': by contract they have nothing left of it. */
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		poller_call(engine->pollers[i], drain, remote);
	session_close(remote->session); /* reports the totals, for which the paths must stand */
	remote->session = NULL;
	pthread_mutex_lock(&engine->opening);
	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++)
		if (engine->pollers[i])
			remote_disconnect(remote, engine->pollers[i]);
	pthread_mutex_lock(&engine->lock);
	LIST_REMOVE(remote, link);
	engine->remote_count--;
	pthread_mutex_unlock(&engine->lock);
	pthread_mutex_unlock(&engine->opening);
	remote_destroy(remote);
}

int slu_remote_get_info(struct slu_remote *remote, struct slu_remote_info *info)
{
	struct path_stats sum;

	if (info->size != sizeof(*info))
		return fail(-EINVAL, "slu_remote_info of another version: set its size");
	pthread_mutex_lock(&remote->engine->lock);
	sum = sum_stats(remote);
	pthread_mutex_unlock(&remote->engine->lock);
	info->name = remote->name;
	info->target = remote->target;
	info->transport = remote->transport->id;
	info->incarnation = remote->incarnation;
	info->length_bytes = remote->length;
	info->rights = remote->rights;
	info->page_bytes = remote->page_bytes;
	info->node = remote->node;
	info->pid = remote->pid;
	info->state = atomic_load(&remote->state);
	info->reads = sum.reads;
	info->writes = sum.writes;
	info->failed = sum.failed;
	info->bytes_read = sum.bytes_read;
	info->bytes_written = sum.bytes_written;
	return 0;
}

uint64_t slu_remote_length(const struct slu_remote *remote)
{
	return remote->length;
}

int slu_remote_get_usage(struct slu_remote *remote, uint64_t timeout_us, struct slu_usage *usage)
{
	if (!remote->session)
		return fail(-EOPNOTSUPP, "the target of \"%s\" is this process", remote->name);
	return session_usage(remote->session, timeout_us, &usage->cpu_ns);
}
