/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing a remote: the choice of a transport, session, import, a path per poller. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/sized.h"
#include "engine/choose.h"
#include "engine/engine_internal.h"
#include "transport/buffers.h"
#include "transport/repair.h"

#define PATH_TEXT 384u /* of one path, as its transport describes it */

static const struct slu_remote_options default_options = {.transport = SLU_TRANSPORT_AUTO,
							  .rights =
								  SLU_RIGHT_READ | SLU_RIGHT_WRITE,
							  .timeout_us = 5000000};

static const struct sized sized_options = {SIZED(slu_remote_options, timeout_us),
					   .defaults = &default_options};
static const struct sized sized_info = {SIZED(slu_remote_info, reserved)};
static const struct sized sized_usage = {SIZED(slu_usage, cpu_ns)};

void slu_remote_options_init(struct slu_remote_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

static int check_options(const struct slu_remote_options *options)
{
	const uint32_t all = SLU_RIGHT_READ | SLU_RIGHT_WRITE;

	if (options->rights == 0 || options->rights & ~all)
		return fail(-EINVAL, "rights are a set of READ and WRITE");
	if ((unsigned)options->transport > SLU_TRANSPORT_FAKE)
		return fail(-EINVAL, "libsluice %s has no transport number %d", slu_version(),
			    (int)options->transport);
	return 0;
}

int remote_connect(struct slu_remote *remote, struct poller *poller)
{
	struct path *path;
	int rc = remote->transport->client->connect(remote, &poller->env, &path);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&remote->engine->lock);
	remote->paths[poller->index] = path;
	pthread_mutex_unlock(&remote->engine->lock);
	return 0;
}

static void add_stats(struct path_stats *sum, const struct path_stats *stats)
{
	counter_add(&sum->reads, counter_read(&stats->reads));
	counter_add(&sum->writes, counter_read(&stats->writes));
	counter_add(&sum->failed, counter_read(&stats->failed));
	counter_add(&sum->bytes_read, counter_read(&stats->bytes_read));
	counter_add(&sum->bytes_written, counter_read(&stats->bytes_written));
	counter_add(&sum->doorbells, counter_read(&stats->doorbells));
	counter_add(&sum->signalled, counter_read(&stats->signalled));
}

void remote_disconnect(struct slu_remote *remote, struct poller *poller)
{
	struct path *path = remote->paths[poller->index];

	if (!path)
		return;
	pthread_mutex_lock(&remote->engine->lock);
	add_stats(&remote->retired, &path->stats);
	poller->bytes += path_bytes(path);
	remote->paths[poller->index] = NULL;
	pthread_mutex_unlock(&remote->engine->lock);
	remote->transport->client->disconnect(path);
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

/* Under lock. */
static uint32_t sum_connections(const struct slu_remote *remote)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++)
		if (remote->paths[i])
			sum += remote->paths[i]->connections;
	return sum;
}

static const char *describe_loss(int error)
{
	switch (error) {
	case -ESHUTDOWN:
		return "is closing";
	case -EKEYREVOKED:
		return "has withdrawn our right";
	case -EFAULT:
		return "has lost the segment's memory";
	default:
		return "has died, or the way to it is cut";
	}
}

static void on_lost(void *arg, int error)
{
	struct slu_remote *remote = arg;

	log_peer(SLU_LOG_WARNING, "target %s (segment %s) %s", remote->target, remote->name,
		 describe_loss(error));
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

static int take_grant(struct slu_remote *remote, struct transport_peer *peer,
		      const struct client_grant *grant, enum slu_transport transport)
{
	if (grant->transport != transport)
		return fail(-EPROTO, "the target chose a transport that we did not offer");
	remote->transport = transport_find(transport);
	remote->length = grant->length;
	remote->page_bytes = grant->page_bytes;
	remote->node = grant->node;
	return remote->transport->client->import(peer, json_object_get(grant->opened, "grant"),
						 grant->length, remote->rights, grant->fds,
						 grant->fd_count, &remote->view);
}

static void take_welcome(struct slu_remote *remote, const struct client_welcome *welcome)
{
	remote->incarnation = welcome->incarnation;
	remote->pid = welcome->pid;
	strcpy(remote->target, welcome->target);
}

/* A grant that is of no use is given back: another transport may be tried. */
static int open_session(struct slu_remote *remote, const struct choice *choice,
			enum slu_transport transport, uint64_t until_ns)
{
	struct client *client = choice_connection(choice, transport);
	struct session_request request = {.segment = choice->name.segment,
					  .rights = remote->rights,
					  .transports = &transport,
					  .transport_count = 1,
					  .until_ns = until_ns,
					  .callbacks = &callbacks,
					  .arg = remote};
	struct client_grant grant;
	int rc;

	take_welcome(remote, client_welcome(client));
	rc = session_open(client, &request, &remote->session, &grant);
	if (rc < 0)
		return rc;
	rc = take_grant(remote, client_peer(client), &grant, transport);
	client_grant_free(&grant);
	if (rc < 0) {
		session_close(remote->session);
		remote->session = NULL;
		return rc;
	}
	remote->client = client;
	remote->peer = client_peer(client);
	remote->fence = remote->peer->fence;
	return 0;
}

/*
 * The target may have no shared memory for us, who are no --shm-writer. And a connection over a
 * Unix socket that was tried for the sake of shared memory alone may know us by another name than
 * the one that the caller's address leads to, and refuse us. Then the next candidate is taken, and
 * this one says why it was not.
 */
static bool may_go_on(const struct choice *choice, enum slu_transport transport, int error)
{
	return transport_find(transport)->client->local &&
	       (error == -EOPNOTSUPP || (error == -EACCES && choice->local != choice->connection));
}

static int open_chosen(struct slu_remote *remote, struct choice *choice, enum slu_transport wanted,
		       uint64_t until_ns)
{
	for (;;) {
		const struct slu_candidate *taken = choice_taken(choice);
		enum slu_transport transport;
		int rc;

		if (!taken)
			return choice_fail(choice, wanted);
		transport = taken->transport;
		rc = open_session(remote, choice, transport, until_ns);
		if (rc == 0 || !may_go_on(choice, transport, rc))
			return rc;
		choice_refuse(choice, transport, wanted, slu_last_error());
	}
}

/* @param failed  what was tried in vain; AUTO: nothing was */
static int open_elsewhere(struct slu_remote *remote, enum slu_transport wanted, uint64_t until_ns,
			  enum slu_transport failed, const char *why)
{
	struct choice choice;
	int rc = choice_make(&choice, remote->engine->clients, &remote->engine->env, remote->name,
			     wanted, until_ns);

	if (rc == 0 && failed != SLU_TRANSPORT_AUTO)
		choice_refuse(&choice, failed, wanted, why);
	if (rc == 0)
		rc = open_chosen(remote, &choice, wanted, until_ns);
	memcpy(remote->candidates, choice.candidates, sizeof(remote->candidates));
	remote->candidate_count = choice.count;
	choice_release(&choice, remote->client);
	return rc;
}

/* ---- a segment of this engine itself ---- */

static const struct peer_info ourselves = {.owner = true};

struct local_open {
	struct slu_remote *remote;
	const struct transport *transport;
};

static int open_local(void *arg)
{
	struct local_open *call = arg;
	struct slu_remote *remote = call->remote;
	struct slu_segment *segment = segment_find(remote->engine, remote->name);
	uint32_t close_mask;
	int fds[TRANSPORT_FDS_MAX];
	int rc;

	if (!segment)
		return -ENOENT;
	if (remote->rights & ~segment->export.rights)
		return -EACCES;
	rc = segment_admit(segment, &ourselves, call->transport, remote->rights, NULL, fds,
			   &close_mask, &remote->local);
	if (rc < 0)
		return rc;
	rc = call->transport->client->import_local(&segment->export, remote->rights,
						   &remote->local->area->inbox,
						   segment_session(remote->local), &remote->view);
	if (rc < 0)
		return rc;
	remote->transport = call->transport;
	remote->length = segment->export.length;
	remote->page_bytes = segment->export.region->page_bytes;
	remote->node = segment->export.region->node;
	return 0;
}

static int open_in_engine(struct slu_remote *remote, const struct transport *transport)
{
	struct local_open call = {.remote = remote, .transport = transport};
	int rc = control_call(remote->engine->control, open_local, &call);

	if (rc == -ENOENT)
		return fail(rc, "this engine exports no segment \"%s\"", remote->name);
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
static void link_remote(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;

	pthread_mutex_lock(&engine->lock);
	LIST_INSERT_HEAD(&engine->remotes, remote, link);
	engine->remote_count++;
	remote->linked = true;
	pthread_mutex_unlock(&engine->lock);
}

static void unlink_remote(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;

	if (!remote->linked)
		return;
	pthread_mutex_lock(&engine->lock);
	LIST_REMOVE(remote, link);
	engine->remote_count--;
	remote->linked = false;
	pthread_mutex_unlock(&engine->lock);
}

static bool has_path(const struct slu_remote *remote)
{
	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++)
		if (remote->paths[i])
			return true;
	return false;
}

/* Without a poller nothing is connected yet: does it get through at all? */
static int try_path(struct slu_remote *remote, uint64_t until_ns)
{
	const struct transport_client *transport = remote->transport->client;
	struct schedule nobody = {0};
	struct path_env env = {.transport = &remote->engine->env,
			       .schedule = &nobody,
			       .poller = TRANSPORT_NO_POLLER,
			       .node = -1,
			       .epoll_fd = -1};
	struct path *path;
	int rc;

	if (!transport->trying)
		return 0;
	env.buffers = buffers_create(env.transport);
	rc = env.buffers ? transport->connect(remote, &env, &path) : fail(-ENOMEM, "out of memory");
	if (rc == 0) {
		rc = repair_now(env.transport->repair, path->making, NULL, until_ns);
		transport->disconnect(path);
	}
	buffers_put(env.buffers);
	return rc;
}

/* Under opening. A queue that is opened from now on makes a path of its own. */
static int connect_paths(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;
	int rc = 0;

	if (engine->remote_count == SLU_REMOTES_MAX)
		return fail(-ENOSPC, "%d remotes are open", SLU_REMOTES_MAX);
	if (remote->peer && !engine->env.repair)
		rc = repair_start(&engine->env.repair);
	for (uint32_t i = 0; rc == 0 && i < SLU_POLLERS_MAX; i++)
		if (engine->pollers[i])
			rc = remote_connect(remote, engine->pollers[i]);
	if (rc == 0)
		link_remote(remote);
	return rc;
}

/* Its queue may be closed meanwhile. No lock is held: who opens or closes something else goes on.
 */
static int make_link(struct slu_remote *remote, uint32_t poller, uint64_t until_ns)
{
	struct slu_engine *engine = remote->engine;
	struct repair_item *making;

	pthread_mutex_lock(&engine->lock);
	making = remote->paths[poller] ? remote->paths[poller]->making : NULL;
	if (making)
		return repair_now(engine->env.repair, making, &engine->lock, until_ns);
	pthread_mutex_unlock(&engine->lock);
	return 0;
}

static int make_links(struct slu_remote *remote, uint64_t until_ns)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < SLU_POLLERS_MAX; i++)
		rc = make_link(remote, i, until_ns);
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
	if (remote->local)
		control_call(remote->engine->control, leave_local, remote->local);
	if (remote->view)
		remote->transport->client->release(remote->view);
	client_release(remote->client);
	free(remote);
}

static void leave_paths(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;

	pthread_mutex_lock(&engine->opening);
	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++)
		if (engine->pollers[i])
			remote_disconnect(remote, engine->pollers[i]);
	unlink_remote(remote);
	pthread_mutex_unlock(&engine->opening);
	if (remote->peer)
		repair_settle(engine->env.repair, &remote->peer->lanes[remote->transport->id]);
}

/* Also one whose opening failed on the way. */
static void close_remote(struct slu_remote *remote)
{
	struct slu_engine *engine = remote->engine;

	/* Inline pollers are their owners': by contract they have nothing left of it. */
	for (uint32_t i = 0; i < engine->poller_threads; i++)
		if (remote->paths[i])
			poller_drain(engine->pollers[i], remote);
	leave_paths(remote);
	remote_destroy(remote);
}

/* The session may have ended already: then nothing is permitted, now or later. */
static void permit(struct slu_remote *remote)
{
	uint32_t opcodes = transport_permitted(remote->rights);

	if (!remote->transport->client->capabilities.atomics)
		opcodes &= ~(1u << SLU_FETCH_ADD | 1u << SLU_COMPARE_SWAP);
	atomic_store(&remote->permitted, opcodes);
	if (atomic_load(&remote->state) != 0)
		atomic_store(&remote->permitted, 0);
}

static int connect_remote(struct slu_remote *remote, uint64_t until_ns)
{
	bool no_path;
	int rc;

	permit(remote);
	pthread_mutex_lock(&remote->engine->opening);
	rc = connect_paths(remote);
	no_path = !has_path(remote);
	pthread_mutex_unlock(&remote->engine->opening);
	if (rc < 0)
		return rc;
	return no_path ? try_path(remote, until_ns) : make_links(remote, until_ns);
}

/* To a remote that was prepared; nothing of what was opened stays. */
static void undo(struct slu_remote *remote)
{
	leave_paths(remote);
	session_close(remote->session);
	if (remote->view)
		remote->transport->client->release(remote->view);
	client_release(remote->client);
	remote->session = NULL;
	remote->client = NULL;
	remote->peer = NULL;
	remote->fence = NULL;
	remote->view = NULL;
	remote->transport = NULL;
	atomic_store(&remote->state, 0);
}

/* That there are devices at both ends does not say that they reach each other: it is found out in
 * half of the time, and the rest is for another way. */
static bool may_do_without(const struct slu_remote *remote, enum slu_transport wanted)
{
	return wanted == SLU_TRANSPORT_AUTO && remote->transport->client->trying;
}

static int open_remote(struct slu_remote *remote, const struct slu_remote_options *options)
{
	const struct transport *transport = transport_find(options->transport);
	uint64_t until_ns = clock_deadline_ns(options->timeout_us);
	enum slu_transport failed;
	char why[SLU_REASON_MAX];
	int rc;

	if (transport && transport->client->import_local)
		rc = open_in_engine(remote, transport);
	else
		rc = open_elsewhere(remote, options->transport, until_ns, SLU_TRANSPORT_AUTO, NULL);
	if (rc < 0)
		return rc;
	if (!may_do_without(remote, options->transport))
		return connect_remote(remote, until_ns);
	rc = connect_remote(remote, clock_halfway_ns(until_ns));
	if (rc == 0 || atomic_load(&remote->state) != 0)
		return rc;
	failed = remote->transport->id;
	snprintf(why, sizeof(why), "%s", slu_last_error());
	undo(remote);
	rc = open_elsewhere(remote, options->transport, until_ns, failed, why);
	return rc < 0 ? rc : connect_remote(remote, until_ns);
}

/* Take and check the arguments and make a remote that is not open. */
static int prepare(struct slu_engine *engine, const char *name,
		   const struct slu_remote_options *given, struct slu_remote_options *options,
		   struct slu_remote **remote)
{
	int rc = fork_check();

	if (rc == 0)
		rc = sized_take(&sized_options, given, options);
	if (rc == 0)
		rc = check_options(options);
	if (rc < 0)
		return rc;
	if (strlen(name) > SLU_REMOTE_NAME_MAX)
		return fail(-EINVAL, "the name of a remote has at most %d bytes",
			    SLU_REMOTE_NAME_MAX);
	*remote = remote_create(engine, name, options->rights);
	return *remote ? 0 : fail(-ENOMEM, "out of memory");
}

int slu_remote_open(struct slu_engine *engine, const char *name,
		    const struct slu_remote_options *given, struct slu_remote **out)
{
	struct slu_remote_options options;
	struct slu_remote *remote;
	int rc = prepare(engine, name, given, &options, &remote);

	if (rc < 0)
		return rc;
	rc = open_remote(remote, &options);
	if (rc < 0) {
		close_remote(remote);
		return rc;
	}
	*out = remote;
	return 0;
}

static uint32_t copy_candidates(const struct slu_remote *remote, struct slu_candidate *out,
				uint32_t n)
{
	uint32_t count = remote->candidate_count < n ? remote->candidate_count : n;

	memcpy(out, remote->candidates, count * sizeof(*out));
	return count;
}

/* What was chosen and then failed could not be used after all. */
static void blame_chosen(struct slu_remote *remote)
{
	for (uint32_t i = 0; i < remote->candidate_count; i++) {
		struct slu_candidate *candidate = &remote->candidates[i];

		if (!candidate->chosen)
			continue;
		candidate->chosen = candidate->usable = false;
		snprintf(candidate->reason, sizeof(candidate->reason), "%s", slu_last_error());
	}
}

int slu_remote_explain(struct slu_engine *engine, const char *name,
		       const struct slu_remote_options *given, struct slu_candidate *out,
		       uint32_t n)
{
	struct slu_remote_options options;
	struct slu_remote *remote;
	int rc = prepare(engine, name, given, &options, &remote);

	if (rc < 0)
		return rc;
	rc = open_remote(remote, &options);
	if (rc < 0)
		blame_chosen(remote);
	if (rc == 0 || remote->candidate_count > 0)
		rc = (int)copy_candidates(remote, out, n);
	close_remote(remote);
	return rc;
}

int slu_remote_get_candidates(struct slu_remote *remote, struct slu_candidate *out, uint32_t n)
{
	return fork_is_child() ? fork_refuse() : (int)copy_candidates(remote, out, n);
}

void slu_remote_close(struct slu_remote *remote)
{
	if (remote && !fork_is_child())
		close_remote(remote);
}

/* Under lock. */
static void describe_stats(const struct slu_remote *remote, struct slu_remote_info *info)
{
	struct path_stats sum = sum_stats(remote);

	info->connections = sum_connections(remote);
	info->reads = sum.reads;
	info->writes = sum.writes;
	info->failed = sum.failed;
	info->bytes_read = sum.bytes_read;
	info->bytes_written = sum.bytes_written;
	info->doorbells = sum.doorbells;
	info->signalled = sum.signalled;
}

/* Under lock. Paths over the same rail have the same text, which is there once. */
static void describe_paths(const struct slu_remote *remote, struct slu_remote_info *info)
{
	char text[PATH_TEXT];
	size_t length = 0;

	for (uint32_t i = 0; i < SLU_POLLERS_MAX; i++) {
		struct path *path = remote->paths[i];

		if (!path || !remote->transport->client->describe)
			continue;
		remote->transport->client->describe(path, text, sizeof(text));
		if (length == 0)
			info->connect_ns = atomic_load(&path->connect_ns);
		if (strstr(info->path, text) || length + strlen(text) + 3 > sizeof(info->path))
			continue;
		length += (size_t)snprintf(info->path + length, sizeof(info->path) - length, "%s%s",
					   length ? "; " : "", text);
	}
}

int slu_remote_get_info(struct slu_remote *remote, struct slu_remote_info *info)
{
	struct slu_remote_info own = {
		.name = remote->name,
		.target = remote->target,
		.identity = remote->client ? client_welcome(remote->client)->identity : "",
		.address = remote->client ? client_welcome(remote->client)->address : "",
		.incarnation = remote->incarnation,
		.length_bytes = remote->length,
		.page_bytes = remote->page_bytes,
		.transport = remote->transport->id,
		.rights = remote->rights,
		.node = remote->node,
		.pid = remote->pid,
		.state = atomic_load(&remote->state),
	};

	if (fork_is_child())
		return fork_refuse();
	pthread_mutex_lock(&remote->engine->lock);
	describe_stats(remote, &own);
	describe_paths(remote, &own);
	pthread_mutex_unlock(&remote->engine->lock);
	own.encrypted =
		own.connections > 0 && remote->transport->client->dials && remote->peer->encrypted;
	return sized_give(&sized_info, &own, info);
}

uint64_t slu_remote_length(const struct slu_remote *remote)
{
	return fork_check() < 0 ? 0 : remote->length;
}

int slu_remote_get_usage(struct slu_remote *remote, uint64_t timeout_us, struct slu_usage *usage)
{
	struct slu_usage own = {0};
	int rc = fork_check();

	if (rc < 0)
		return rc;
	if (!remote->session)
		return fail(-EOPNOTSUPP, "the target of \"%s\" is this engine", remote->name);
	rc = session_usage(remote->session, timeout_us, &own.cpu_ns);
	return rc < 0 ? rc : sized_give(&sized_usage, &own, usage);
}
