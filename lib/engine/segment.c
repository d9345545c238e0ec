/* SPDX-License-Identifier: Apache-2.0 */
/* Exported segments and their clients; what clients send is taken in receive.c. */
#include <errno.h>
#include <search.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fork.h"
#include "base/log.h"
#include "base/barrier.h"
#include "base/sized.h"
#include "base/work.h"
#include "directory/p2p.h"
#include "engine/engine_internal.h"
#include "engine/process.h"
#include "transport/grants.h"

/* A client that has left is kept so long for its last notifications to be taken. */
#define LINGER_NS NS_PER_SECOND

/* Of those that leave, so many in one event: others are waiting. */
#define LEAVE_RUN 256u

#define LEAVE_TIMEOUT_NS (2 * NS_PER_SECOND)

static const struct sized sized_info = {SIZED(slu_segment_info, notifications)};

struct slu_segment *segment_find(struct slu_engine *engine, const char *name)
{
	struct slu_segment *segment;

	LIST_FOREACH (segment, &engine->segments, link)
		if (strcmp(segment->name, name) == 0)
			return segment;
	return NULL;
}

/* ---- areas ---- */

static int compare(const void *a, const void *b)
{
	const struct segment_area *one = a, *other = b;
	int by_connection =
		(one->connection > other->connection) - (one->connection < other->connection);

	return by_connection ? by_connection
			     : (one->rights > other->rights) - (one->rights < other->rights);
}

/* The polling thread finds the last ones without looking for them. */
static void area_add(struct slu_segment *segment, struct segment_area *area)
{
	uint32_t added = atomic_load_explicit(&segment->added, memory_order_relaxed);

	place_set_add(&segment->areas, area->place, area);
	atomic_store_explicit(&segment->fresh[added % HOT_FEW], area->place, memory_order_relaxed);
	atomic_store_explicit(&segment->added, added + 1, memory_order_release);
	/* Pairs with the acquire in hot_begin(). */
	atomic_fetch_add_explicit(&segment->changes, 1, memory_order_release);
}

/* Of a client alone, unless its connection has a number. @return 0; -ENOSPC, -ENOMEM, -EMFILE */
static int area_create(struct segment_client *client, uint64_t connection,
		       struct segment_area **out)
{
	struct slu_segment *segment = client->segment;
	struct budget *budget = client->peer.budget;
	struct segment_area *area;
	int wake_fd, rc = admission_check(segment->engine, budget);

	if (rc == 0)
		rc = place_set_reserve(&segment->areas);
	if (rc < 0)
		return rc;
	area = calloc(1, sizeof(*area));
	wake_fd = area ? wake_set_add(segment->wake, (uint32_t)rc)
		       : fail(-ENOMEM, "target is out of memory");
	if (wake_fd < 0) {
		free(area);
		return wake_fd;
	}
	area->connection = connection;
	area->rights = client->rights;
	area->place = (uint32_t)rc;
	rc = client_inbox_init(&area->inbox, client->number, client->rights, wake_fd, budget);
	if (rc == 0 && connection && !tsearch(area, &segment->shared_areas, compare)) {
		client_inbox_fini(&area->inbox);
		rc = fail(-ENOMEM, "target is out of memory");
	}
	if (rc < 0) {
		wake_set_remove(segment->wake, wake_fd);
		free(area);
		return rc;
	}
	atomic_store(&area->inbox.area->armed, 1); /* until its owner polls it */
	area->budget = budget_get(budget);
	atomic_fetch_add(&process_areas, 1);
	*out = area;
	return 0;
}

static int area_get(struct segment_client *client)
{
	const struct segment_area wanted = {.connection = client->peer.connection,
					    .rights = client->rights};
	/* In one process nothing is mapped, and nothing shared. */
	bool shared = client->transport->client->import;
	void *at = shared ? tfind(&wanted, &client->segment->shared_areas, compare) : NULL;
	struct segment_area *area = at ? *(struct segment_area **)at : NULL;
	int rc = area ? 0 : area_create(client, shared ? wanted.connection : 0, &area);

	if (rc < 0)
		return rc;
	area->users++;
	client->area = area;
	return 0;
}

/* Nobody else joins it. */
static void area_forget(struct slu_segment *segment, struct segment_area *area)
{
	if (area->connection)
		tdelete(area, &segment->shared_areas, compare);
}

/* Its descriptors stay with us, though none of its clients does. */
static void set_lingers(struct segment_area *area, bool lingers)
{
	if (area->lingers == lingers)
		return;
	area->lingers = lingers;
	budget_linger(area->budget, lingers ? 1 : -1);
}

static void area_put(struct slu_segment *segment, struct segment_area *area)
{
	if (--area->users > 0)
		return;
	set_lingers(area, false);
	atomic_fetch_sub(&process_areas, 1);
	wake_set_remove(segment->wake, area->inbox.wake_fd);
	client_inbox_fini(&area->inbox);
	budget_put(area->budget);
	free(area);
}

/* ---- clients: control thread ---- */

/* On no list, and in no set that anybody reads. */
static void client_destroy(struct segment_client *client)
{
	const struct transport *transport = client->transport;
	struct slu_engine *engine = client->segment->engine;

	work_count(WORK_ITEMS, 1);
	if (client->area)
		area_put(client->segment, client->area);
	else
		transport->target->revoke(engine->env.servers[transport->id], client->granted,
					  client->reason ? client->reason : -ESHUTDOWN);
	sender_put(client->sender);
	budget_put(client->peer.budget);
	free(client);
}

static void join_set(struct segment_client *client)
{
	struct slu_segment *segment = client->segment;

	place_set_add(&segment->sessions, client->place, client);
	client->area->present++;
	set_lingers(client->area, false);
	if (client->area->members++ == 0)
		area_add(segment, client->area);
}

static void leave_one(struct segment_client *client)
{
	struct slu_segment *segment = client->segment;

	place_set_remove(&segment->sessions, client->place);
	if (--client->area->members > 0)
		return;
	place_set_remove(&segment->areas, client->area->place);
	/* Pairs with the acquire in hot_begin(). */
	atomic_fetch_add_explicit(&segment->changes, 1, memory_order_release);
	area_forget(segment, client->area);
}

static bool may_leave(const struct slu_segment *segment, const struct segment_client *client,
		      uint64_t now_ns)
{
	return segment->closing || client->leaves_ns <= now_ns;
}

/*
 * Out of the sets go those whose time has come, and areas with their last. The heavy barrier pairs
 * with the light ones in begin_polling() and answer_shared(): who polls or answers from now on does
 * not see them, who does so already we see at it.
 */
static void leave_set(struct slu_segment *segment)
{
	uint64_t now_ns = clock_monotonic_ns(NULL);
	struct segment_client *client;

	for (uint32_t i = 0; i < LEAVE_RUN; i++) {
		client = TAILQ_FIRST(&segment->leaving);
		if (!client || !may_leave(segment, client, now_ns))
			break;
		leave_one(client);
		TAILQ_REMOVE(&segment->leaving, client, link);
		TAILQ_INSERT_TAIL(&segment->left, client, link);
	}
	if (TAILQ_EMPTY(&segment->left))
		return;
	barrier_heavy();
	segment->left_during = atomic_load_explicit(&segment->polls, memory_order_acquire);
	requests_note_answering(segment->requests, &segment->left_while);
}

/* Is whoever was polling, or answering, when they left the set still at it? */
static bool may_be_held(const struct slu_segment *segment)
{
	return (segment->left_during & 1 &&
		atomic_load_explicit(&segment->polls, memory_order_acquire) ==
			segment->left_during) ||
	       requests_are_answering(segment->requests, &segment->left_while);
}

static void destroy_left(struct slu_segment *segment)
{
	struct segment_client *client;

	if (may_be_held(segment))
		return;
	while ((client = TAILQ_FIRST(&segment->left))) {
		TAILQ_REMOVE(&segment->left, client, link);
		client_destroy(client);
	}
}

static void post_leave(struct slu_segment *segment)
{
	if (!segment->leave_posted)
		control_post(segment->engine->control, &segment->leave);
	segment->leave_posted = true;
}

/* What cannot be waited for is not. */
static void wait_for_next(struct slu_segment *segment)
{
	const struct segment_client *next = TAILQ_FIRST(&segment->leaving);
	uint64_t now_ns = clock_monotonic_ns(NULL);

	if (!next && TAILQ_EMPTY(&segment->left))
		return;
	if (!TAILQ_EMPTY(&segment->left) || may_leave(segment, next, now_ns) ||
	    watch_start(&segment->linger, (next->leaves_ns - now_ns) / NS_PER_US) < 0)
		post_leave(segment);
}

/* The next step: those that have left the set are destroyed before others leave it. */
static void leave(struct slu_segment *segment)
{
	destroy_left(segment);
	if (TAILQ_EMPTY(&segment->left)) {
		leave_set(segment);
		destroy_left(segment);
	}
	wait_for_next(segment);
}

static void on_leave(struct control_task *task)
{
	struct slu_segment *segment =
		(struct slu_segment *)((char *)task - offsetof(struct slu_segment, leave));

	segment->leave_posted = false;
	leave(segment);
}

static void on_linger(void *arg)
{
	work_begin(WORK_EVENT);
	leave(arg);
}

/* @return number of fds, or an error */
static int publish_to(struct segment_client *client, json_t *grant, int fds[TRANSPORT_FDS_MAX],
		      uint32_t *close_mask)
{
	const struct transport *transport = client->transport;
	struct slu_segment *segment = client->segment;
	const struct grant granted = {.export = &segment->export,
				      .rights = client->rights,
				      .sender = client->sender,
				      .connection = client->peer.connection};
	int rc;

	if (transport->target->grant)
		return transport->target->grant(segment->engine->env.servers[transport->id],
						&granted, grant, &client->granted);
	rc = place_set_reserve(&segment->sessions);
	if (rc < 0)
		return rc;
	client->place = (uint32_t)rc;
	rc = area_get(client);
	if (rc < 0)
		return rc;
	rc = transport->target->publish(&segment->export, client->rights, &client->area->inbox,
					segment_session(client), grant, fds, close_mask);
	if (rc >= 0) {
		join_set(client);
		return rc;
	}
	if (client->area->members == 0)
		area_forget(segment, client->area);
	area_put(segment, client->area);
	return rc;
}

/* One session of its budget becomes the sender's. */
static int introduce(struct segment_client *client)
{
	struct slu_segment *segment = client->segment;
	const char *identity = identity_get(segment->engine, client->peer.identity);
	int rc = identity ? budget_take(client->peer.budget, SLU_LIMIT_SESSIONS, 1)
			  : fail(-ENOMEM, "target is out of memory");

	if (rc < 0)
		return rc;
	client->sender =
		sender_create(&segment->departures, client->number, identity, client->peer.budget);
	if (client->sender)
		return 0;
	budget_give(client->peer.budget, SLU_LIMIT_SESSIONS, 1);
	return fail(-ENOMEM, "target is out of memory");
}

int segment_admit(struct slu_segment *segment, const struct peer_info *peer,
		  const struct transport *transport, uint32_t rights, json_t *grant,
		  int fds[TRANSPORT_FDS_MAX], uint32_t *close_mask, struct segment_client **out)
{
	struct segment_client *client = calloc(1, sizeof(*client));
	int count;

	if (!client)
		return fail(-ENOMEM, "out of memory");
	if (++segment->engine->next_client == 0)
		segment->engine->next_client = 1; /* 0 is nobody */
	client->number = segment->engine->next_client;
	client->segment = segment;
	client->transport = transport;
	client->peer = *peer;
	client->rights = rights;
	*close_mask = 0;
	count = introduce(client);
	if (count == 0)
		count = publish_to(client, grant, fds, close_mask);
	if (count < 0) {
		sender_put(client->sender);
		free(client);
		return count;
	}
	budget_get(peer->budget);
	TAILQ_INSERT_TAIL(&segment->clients, client, link);
	atomic_fetch_add(&segment->present, 1);
	atomic_fetch_add(&segment->clients_total, 1);
	*out = client;
	return count;
}

/* What dies may have stored something and not rung: its owner looks. */
static void ring_for_lost(struct segment_area *area)
{
	if (!area->lost)
		wake_ring(area->inbox.wake_fd);
	area->lost = true;
}

void segment_leave(struct segment_client *client, bool lost)
{
	struct slu_segment *segment = client->segment;

	atomic_fetch_sub(&segment->present, 1);
	if (lost) {
		atomic_fetch_add(&segment->clients_lost, 1);
		atomic_store(&client->sender->lost, true);
	}
	TAILQ_REMOVE(&segment->clients, client, link);
	if (!client->area) {
		client_destroy(client);
		return;
	}
	if (lost)
		ring_for_lost(client->area);
	if (--client->area->present == 0)
		set_lingers(client->area, true);
	/* Notifications that nobody ever polls for are not waited for. */
	if (atomic_load(&segment->polls) > 0)
		client->leaves_ns = clock_monotonic_ns(NULL) + LINGER_NS;
	TAILQ_INSERT_TAIL(&segment->leaving, client, link);
	if (!segment->linger.started)
		post_leave(segment);
}

/* May it write in shared memory, and so also take pages away? */
static bool may_write_in_memory(const struct slu_segment *segment, const struct peer_info *peer)
{
	const struct trust *writers = &segment->engine->shm_writers;

	if (!segment->written_in_memory || peer->owner)
		return segment->written_in_memory;
	for (uint32_t i = 0; i < writers->count; i++)
		if (writers->uids[i] == peer->uid)
			return true;
	return false;
}

/*
 * May it have the descriptor? Whoever does reaches the whole file, whatever is mapped of it, so
 * that of a part is for those only who can do anything to us anyhow.
 *
 * @return 0; -EOPNOTSUPP
 */
static int check_shared(const struct slu_segment *segment, const struct peer_info *peer,
			uint32_t rights)
{
	if (segment->not_shared[0])
		return fail(-EOPNOTSUPP, "segment %s is not to be had in shared memory: %s",
			    segment->name, segment->not_shared);
	if (segment->partial && !peer->owner)
		return fail(-EOPNOTSUPP,
			    "segment %s is a part of its memory, of which a descriptor reaches "
			    "all: only processes of the target's user and root share it; go "
			    "another way",
			    segment->name);
	if (rights & SLU_RIGHT_WRITE && !may_write_in_memory(segment, peer))
		return fail(
			-EOPNOTSUPP, "%s may not write segment %s in shared memory: %s",
			peer->identity, segment->name,
			segment->written_in_memory
				? "name that user with --shm-writer at the target, or go another "
				  "way"
				: "nobody may, its memory is sealed against it; go another way");
	return 0;
}

/* The client offers what can work on its side; here is what can work on ours. */
static bool can_serve(const struct slu_segment *segment, const struct peer_info *peer,
		      uint32_t rights, const struct transport *transport)
{
	if (transport->target->create)
		return serve_has(segment->engine, peer, transport);
	if (!transport->client->import || !peer->is_unix)
		return false; /* descriptors must be passed */
	return check_shared(segment, peer, rights) == 0;
}

static const struct transport *choose_transport(const struct slu_segment *segment,
						const struct peer_info *peer, uint32_t rights,
						const json_t *names)
{
	size_t i;
	json_t *name;

	json_array_foreach ((json_t *)names, i, name) {
		const char *text = json_string_value(name);
		int id = text ? transport_parse(text) : -1;
		const struct transport *transport =
			id < 0 ? NULL : transport_find((enum slu_transport)id);

		if (transport && can_serve(segment, peer, rights, transport))
			return transport;
	}
	return NULL;
}

static int describe(const struct slu_segment *segment, const struct transport *transport,
		    uint32_t rights, json_t *opened, json_t *grant)
{
	const struct export *export = &segment->export;
	json_t *fields = json_pack("{s:s, s:I, s:I, s:I, s:i, s:O}", "transport",
				   slu_transport_name(transport->id), "length",
				   (json_int_t) export->length, "rights", (json_int_t)rights,
				   "page_bytes", (json_int_t) export->region->page_bytes, "node",
				   export->region->node, "grant", grant);
	int rc = fields ? json_object_update(opened, fields) : -1;

	json_decref(fields);
	return rc;
}

static int admit(struct slu_segment *segment, const struct peer_info *peer,
		 const struct transport *transport, uint32_t rights, json_t *opened,
		 int fds[MESSAGE_FDS_MAX], uint32_t *close_mask, void **client)
{
	json_t *grant = json_object();
	struct segment_client *admitted = NULL;
	int count = -ENOMEM;

	if (grant)
		count = segment_admit(segment, peer, transport, rights, grant, fds, close_mask,
				      &admitted);
	if (count >= 0 && describe(segment, transport, rights, opened, grant) < 0) {
		segment_leave(admitted, false);
		for (uint32_t i = 0; i < TRANSPORT_FDS_MAX; i++)
			if (*close_mask & 1u << i)
				close(fds[i]);
		*close_mask = 0;
		count = fail(-ENOMEM, "target is out of memory");
	}
	json_decref(grant);
	if (count >= 0)
		*client = admitted;
	return count;
}

static const char *const rights_names[] = {"nothing", "read", "write", "read and write"};

/* Who has no right at all on a name is not told whether there is such a segment. */
static int hide(const struct slu_engine *engine, const struct peer_info *peer, const char *name)
{
	return fail(
		-EACCES,
		"target %s has no segment \"%.63s\", or none that %s may use: its configuration "
		"grants that under [identity %s]",
		engine->name, name, peer->identity, peer->identity);
}

/* @p segment: of that name, or NULL */
static int check_rights(const struct slu_engine *engine, const struct slu_segment *segment,
			const struct peer_info *peer, const char *name, uint32_t rights)
{
	uint32_t allowed = access_rights(engine->access, peer->identity, peer->owner, name);

	if (rights == 0 || rights & ~(uint32_t)(SLU_RIGHT_READ | SLU_RIGHT_WRITE))
		return fail(-EPROTO, "rights %u are not known", rights);
	if (allowed == 0)
		return hide(engine, peer, name);
	if (!segment)
		return fail(-ENOENT, "target %s has no segment \"%.63s\"", engine->name, name);
	if (rights & ~segment->export.rights)
		return fail(-EACCES, "segment %s is %s", segment->name,
			    segment->export.rights == SLU_RIGHT_READ ? "read-only" : "write-only");
	if (rights & ~allowed)
		return fail(-EACCES,
			    "%s asked to %s segment %s and may do %s: the target's configuration "
			    "grants it under [identity %s]",
			    peer->identity, rights_names[rights], segment->name,
			    rights_names[allowed & segment->export.rights], peer->identity);
	return 0;
}

static int no_transport(const struct slu_segment *segment, const struct peer_info *peer,
			uint32_t rights)
{
	const struct slu_engine *engine = segment->engine;
	char names[64] = "";

	if (peer->is_unix && check_shared(segment, peer, rights) < 0)
		return -EOPNOTSUPP;
	for (unsigned id = 0; id < TRANSPORTS; id++) {
		const struct transport *transport = transport_find((enum slu_transport)id);
		size_t length = strlen(names);

		if (transport && can_serve(segment, peer, rights, transport))
			snprintf(names + length, sizeof(names) - length, " %s",
				 slu_transport_name(transport->id));
	}
	return fail(-EOPNOTSUPP,
		    "target %s has none of the transports asked for: over this connection it has%s",
		    engine->name, *names ? names : " none");
}

static int on_open(void *arg, const struct peer_info *peer, const char *name, uint32_t rights,
		   const json_t *transports, json_t *opened, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	struct slu_engine *engine = arg;
	struct slu_segment *segment = segment_find(engine, name);
	const struct transport *transport;
	int rc = check_rights(engine, segment, peer, name, rights);

	if (rc == -EACCES)
		log_peer(SLU_LOG_WARNING, "a client is refused: %s", slu_last_error());
	if (rc < 0)
		return rc;
	rc = losses_check(segment);
	if (rc < 0)
		return rc;
	transport = choose_transport(segment, peer, rights, transports);
	if (!transport)
		return no_transport(segment, peer, rights);
	return admit(segment, peer, transport, rights, opened, fds, close_mask, client);
}

/* A path that is answered later. */
struct late_path {
	struct transport_later later; /* first */
	struct control_task task;
	struct slu_engine *engine;
	struct path_ask ask;
	void (*fn)(void *arg);
	void *arg;
};

static void run_late(struct control_task *task)
{
	struct late_path *late =
		(struct late_path *)((char *)task - offsetof(struct late_path, task));

	late->fn(late->arg);
}

static void post_late(struct transport_later *later, void (*fn)(void *arg), void *arg)
{
	struct late_path *late = (struct late_path *)later;

	late->fn = fn;
	late->arg = arg;
	control_post(late->engine->control, &late->task);
}

static void late_destroy(struct late_path *late)
{
	budget_give(late->later.budget, SLU_LIMIT_REQUESTS, 1);
	budget_put(late->later.budget);
	free(late);
}

/* Without its session the server itself may have gone. */
static void end_late(struct transport_later *later, int error, json_t *answer)
{
	struct late_path *late = (struct late_path *)later;

	if (error != -ECANCELED)
		server_answer_path(late->engine->server, &late->ask, error, answer);
	late_destroy(late);
}

static int on_path(void *arg, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	const struct segment_client *client = arg;
	const struct transport *transport = client->transport;
	struct slu_engine *engine = client->segment->engine;
	struct late_path *late;
	int rc;

	if (!transport->target->join)
		return fail(-EOPNOTSUPP, "over %s no path has to be asked for",
			    slu_transport_name(transport->id));
	rc = budget_take(client->peer.budget, SLU_LIMIT_REQUESTS, 1);
	if (rc < 0)
		return rc;
	late = malloc(sizeof(*late));
	if (!late) {
		budget_give(client->peer.budget, SLU_LIMIT_REQUESTS, 1);
		return fail(-ENOMEM, "target is out of memory");
	}
	*late = (struct late_path){.later = {.post = post_late,
					     .end = end_late,
					     .budget = budget_get(client->peer.budget)},
				   .task = {.run = run_late},
				   .engine = engine,
				   .ask = *ask};
	rc = transport->target->join(engine->env.servers[transport->id], client->granted, offer,
				     answer, &late->later);
	if (rc == TRANSPORT_LATER)
		return SERVER_LATER;
	late_destroy(late);
	return rc;
}

static void on_moved(void *arg, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	struct segment_client *client = arg;
	struct slu_segment *segment = client->segment;

	/* Totals only grow; what shrinks is a lie and not counted. */
	if (operations < client->operations || bytes_read < client->bytes_read ||
	    bytes_written < client->bytes_written)
		return;
	atomic_fetch_add(&segment->operations, operations - client->operations);
	atomic_fetch_add(&segment->bytes_read, bytes_read - client->bytes_read);
	atomic_fetch_add(&segment->bytes_written, bytes_written - client->bytes_written);
	client->operations = operations;
	client->bytes_read = bytes_read;
	client->bytes_written = bytes_written;
}

static void on_close(void *arg, bool lost)
{
	segment_leave(arg, lost);
}

const struct server_callbacks segment_callbacks = {
	.open = on_open,
	.describe = serve_describe,
	.path = on_path,
	.moved = on_moved,
	.close = on_close,
	.attach = serve_attach,
	.fence = serve_fence,
	.gone = serve_gone,
	.settle = serve_settle,
	.entitled = rights_any,
};

/* ---- exporting ---- */

static const struct slu_segment_options default_options = {0};

static const struct sized sized_options = {SIZED(slu_segment_options, length_bytes),
					   .defaults = &default_options};

void slu_segment_options_init(struct slu_segment_options *options, size_t size)
{
	sized_init(&sized_options, options, size);
}

static int check_export(const char *name, const struct slu_region *region, uint32_t rights)
{
	int rc = p2p_check_segment(name);

	if (rc < 0)
		return rc;
	if (rights == 0 || rights & ~(uint32_t)(SLU_RIGHT_READ | SLU_RIGHT_WRITE))
		return fail(-EINVAL, "rights are a set of READ and WRITE");
	if (region_is_dead(region))
		return fail(-EFAULT, "segment %s: the region has lost its memory: allocate it anew",
			    name);
	return 0;
}

/* Which part of the region. */
static int take_part(const struct slu_region *region, const struct slu_segment_options *given,
		     struct export *export)
{
	struct slu_segment_options options;
	int rc = sized_take(&sized_options, given, &options);
	uint64_t offset, length;

	if (rc < 0)
		return rc;
	offset = options.offset_bytes;
	length = options.length_bytes;
	if (offset >= region->length || length > region->length - offset)
		return fail(-ERANGE,
			    "a segment of %lu bytes from byte %lu on lies outside its region, "
			    "which has %lu",
			    length, offset, region->length);
	export->addr = region->addr + offset;
	export->length = length ? length : region->length - offset;
	return 0;
}

/*
 * Who may have it in shared memory. A part is not sealed for its own sake, since others of the same
 * file may be written: it is shared with those only whom a seal would not stop from anything.
 */
static int share(struct slu_segment *segment)
{
	const struct export *export = &segment->export;
	struct slu_engine *engine = segment->engine;
	struct slu_region *region = export->region;
	uint64_t offset = (uint64_t)(export->addr - region->addr);
	bool whole = export->length == region->length;
	unsigned wanted = engine->no_shm_writers             ? ARENA_SEALED
			  : export->rights & SLU_RIGHT_WRITE ? ARENA_WRITTEN
			  : whole                            ? ARENA_SEALED
							     : 0;
	int rc;

	pthread_mutex_lock(&engine->lock);
	rc = arena_share(&region->arena, offset, export->length, wanted);
	pthread_mutex_unlock(&engine->lock);
	if (rc == -EOPNOTSUPP)
		snprintf(segment->not_shared, sizeof(segment->not_shared), "%s", slu_last_error());
	if (rc < 0)
		return rc == -EOPNOTSUPP ? 0 : rc;
	segment->written_in_memory = rc & ARENA_WRITTEN;
	segment->partial = !(rc & ARENA_WHOLE);
	return 0;
}

static void segment_destroy(struct slu_segment *segment)
{
	fork_unwatch(&segment->forked);
	departures_fini(&segment->departures);
	inbox_destroy(segment->inbox);
	requests_destroy(segment->requests);
	wake_set_destroy(segment->wake);
	hot_fini(&segment->hot);
	place_set_free(&segment->areas);
	place_set_free(&segment->sessions);
	free(segment);
}

static int add_segment(void *arg)
{
	struct slu_segment *segment = arg;
	struct slu_engine *engine = segment->engine;

	if (segment_find(engine, segment->name))
		return -EADDRINUSE;
	if (engine->segment_count == SLU_SEGMENTS_MAX)
		return -ENOSPC;
	engine->segment_count++;
	watch_init(&segment->linger, control_loop(engine->control), -1, WATCH_ONCE, on_linger,
		   segment);
	LIST_INSERT_HEAD(&engine->segments, segment, link);
	return 0;
}

/* A stranger has it. Clients don't speak to strangers; by another way they still come to us. */
static int do_without_name(const struct slu_segment *segment)
{
	if (!segment->engine->socket && !segment->engine->tcp_listener)
		return -EADDRINUSE;
	log_warning("segment %s is not to be found by its name alone: %s", segment->name,
		    slu_last_error());
	return 0;
}

/* On failure the segment is gone. */
static int publish(struct slu_segment *segment)
{
	struct sockaddr_un address;
	socklen_t length;
	int rc = control_call(segment->engine->control, add_segment, segment);

	if (rc < 0) {
		rc = rc == -EADDRINUSE
			     ? fail(rc, "this engine exports a segment \"%s\" already",
				    segment->name)
			     : fail(rc, "%d segments are exported already", SLU_SEGMENTS_MAX);
		serve_unexport(segment->engine, &segment->export);
		segment_destroy(segment);
		return rc;
	}
	p2p_segment_address(segment->name, &address, &length);
	rc = server_listen(segment->engine->server, &address, length, &segment->listener);
	if (rc == -EPERM)
		rc = do_without_name(segment);
	if (rc < 0)
		slu_segment_close(segment);
	return rc;
}

/* What the polling thread works with. @return 0; -ENOMEM, -EMFILE */
static int prepare_polling(struct slu_segment *segment)
{
	uint32_t pollers = segment->engine->poller_threads;
	int rc = wake_set_create(&segment->wake);

	if (rc < 0)
		return rc;
	segment->departures.eventfd = wake_set_eventfd(segment->wake);
	segment->requests = requests_create();
	if (!segment->requests)
		return fail(-ENOMEM, "out of memory");
	rc = hot_init(&segment->hot);
	if (rc == 0 && pollers > 0)
		rc = inbox_create(serve_lanes(segment->engine), wake_set_eventfd(segment->wake),
				  &segment->inbox);
	segment->export.inbox = segment->inbox;
	return rc;
}

static struct slu_segment *segment_create(struct slu_engine *engine, const char *name,
					  const struct export *export)
{
	struct slu_segment *segment = aligned_alloc(64, sizeof(*segment));

	if (!segment)
		return NULL;
	memset(segment, 0, sizeof(*segment));
	segment->export = *export;
	strcpy(segment->name, name);
	segment->engine = engine;
	TAILQ_INIT(&segment->clients);
	TAILQ_INIT(&segment->leaving);
	TAILQ_INIT(&segment->left);
	segment->leave.run = on_leave;
	segment->forked.in_child = segment_shut_in_child;
	fork_watch(&segment->forked);
	return segment;
}

int slu_segment_export(struct slu_engine *engine, const char *name, struct slu_region *region,
		       uint32_t rights, const struct slu_segment_options *options,
		       struct slu_segment **out)
{
	struct export export = {.region = region, .rights = rights};
	struct slu_segment *segment;
	int rc = fork_check();

	if (rc == 0)
		rc = check_export(name, region, rights);
	if (rc == 0)
		rc = take_part(region, options, &export);
	if (rc < 0)
		return rc;
	segment = segment_create(engine, name, &export);
	if (!segment)
		return fail(-ENOMEM, "out of memory");
	rc = share(segment);
	if (rc == 0)
		rc = prepare_polling(segment);
	if (rc == 0)
		rc = serve_export(segment->engine, &segment->export);
	if (rc < 0) {
		segment_destroy(segment);
		return rc;
	}
	rc = publish(segment);
	if (rc < 0)
		return rc;
	*out = segment;
	return 0;
}

static bool is_client_of(void *client, void *segment)
{
	return ((struct segment_client *)client)->segment == segment;
}

static int remove_segment(void *arg)
{
	struct slu_segment *segment = arg;

	LIST_REMOVE(segment, link);
	segment->engine->segment_count--;
	return 0;
}

/* No session is left; but clients of this engine itself may be, and those that linger. @return 1
 * more */
static int drop_clients(void *arg)
{
	struct slu_segment *segment = arg;
	struct segment_client *client = TAILQ_FIRST(&segment->clients);

	segment->closing = true;
	watch_stop(&segment->linger);
	for (uint32_t i = 0; i < LEAVE_RUN && client; i++) {
		segment_leave(client, false);
		client = TAILQ_FIRST(&segment->clients);
	}
	leave(segment);
	return client || segment->leave_posted || !TAILQ_EMPTY(&segment->leaving) ||
	       !TAILQ_EMPTY(&segment->left);
}

/* Once for all: who does not leave when the engine is drained keeps no segment waiting after that.
 */
static uint64_t leave_until(const struct slu_engine *engine)
{
	uint64_t told_ns = atomic_load(&engine->drained_ns);

	return (told_ns ? told_ns : clock_monotonic_ns(NULL)) + LEAVE_TIMEOUT_NS;
}

void slu_segment_close(struct slu_segment *segment)
{
	struct slu_engine *engine;
	uint64_t until;

	if (!segment || fork_is_child())
		return;
	engine = segment->engine;
	slu_segment_unserve(segment);
	until = leave_until(engine);
	server_unlisten(engine->server, segment->listener);
	control_call(engine->control, remove_segment, segment);
	server_dismiss(engine->server, is_client_of, segment);
	while (atomic_load(&segment->present) > 0 && clock_monotonic_ns(NULL) < until)
		pause_us(2000);
	server_drop(engine->server, is_client_of, segment);
	while (control_call(engine->control, drop_clients, segment) > 0)
		;
	serve_unexport(segment->engine, &segment->export);
	segment_destroy(segment);
}

int slu_segment_get_info(struct slu_segment *segment, struct slu_segment_info *info)
{
	struct slu_segment_info own = {
		.name = segment->name,
		.length_bytes = segment->export.length,
		.rights = segment->export.rights,
		.clients = atomic_load(&segment->present),
		.clients_total = atomic_load(&segment->clients_total),
		.clients_lost = atomic_load(&segment->clients_lost),
		.operations = atomic_load(&segment->operations),
		.bytes_read = atomic_load(&segment->bytes_read),
		.bytes_written = atomic_load(&segment->bytes_written),
		.notifications = atomic_load(&segment->notifications),
	};

	return fork_is_child() ? fork_refuse() : sized_give(&sized_info, &own, info);
}
