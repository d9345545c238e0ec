/* SPDX-License-Identifier: Apache-2.0 */
/* Who is granted what over RDMA, and what becomes of it when clients go. */
#include "transport/verbs/verbs_serve.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_server.h"

/* ---- exported memory ---- */

int verbs_server_export(void *arg, struct export *export)
{
	struct verbs_server *server = arg;
	struct slu_region *region = export->region;
	uint64_t ns = 0;
	int rc = verbs_exports_add(server->exports, export, &ns);

	if (rc == 0) {
		region->register_ns += ns;
		region->export_devices = server->host->devices->count;
	}
	return rc;
}

/* It goes from poller to poller. */
struct forgetting {
	struct verbs_task task; /* first */
	struct verbs_server *server;
	const struct export *export;
	uint32_t at;
	sem_t done;
};

static void forget_on_poller(struct verbs_task *task)
{
	struct forgetting *forgetting = (struct forgetting *)task;
	struct verbs_server *server = forgetting->server;

	verbs_service_forget(server->services[forgetting->at], forgetting->export);
	if (++forgetting->at == server->pollers)
		sem_post(&forgetting->done);
	else
		verbs_tasks_post(&server->services[forgetting->at]->tasks, task);
}

void verbs_server_unexport(void *arg, const struct export *export)
{
	struct verbs_server *server = arg;
	struct forgetting forgetting = {
		.task.run = forget_on_poller, .server = server, .export = export};

	verbs_worker_wait(&server->worker);
	verbs_exports_remove(server->exports, export);
	sem_init(&forgetting.done, 0, 0);
	verbs_tasks_post(&server->services[0]->tasks, &forgetting.task);
	while (sem_wait(&forgetting.done) < 0)
		;
	sem_destroy(&forgetting.done);
}

/* ---- clients ---- */

static struct link_owner *find_owner(struct verbs_server *server, uint64_t connection)
{
	return (struct link_owner *)owners_find(&server->owners, connection);
}

static struct link_owner *create_owner(struct verbs_server *server, uint64_t connection)
{
	struct link_owner *owner = calloc(1, sizeof(*owner));

	if (!owner)
		return NULL;
	owner->base.connection = connection;
	return (struct link_owner *)owners_add(&server->owners, &owner->base);
}

void link_owner_release(struct verbs_server *server, struct link_owner *owner)
{
	if (owner->grants > 0 || !LIST_EMPTY(&owner->links) || !LIST_EMPTY(&owner->openings))
		return;
	owners_remove(&server->owners, &owner->base);
}

static struct served_link *find_link(const struct link_owner *owner, uint64_t id)
{
	struct served_link *link;

	LIST_FOREACH (link, &owner->links, of_owner)
		if (link->id == id)
			break;
	return link;
}

static void end_links(struct verbs_server *server, struct link_owner *owner)
{
	struct served_link *link = LIST_FIRST(&owner->links), *next;

	for (; link; link = next) { /* the last may take the owner along */
		next = LIST_NEXT(link, of_owner);
		end_link(server, link);
	}
}

void verbs_server_fence(void *server, uint64_t connection, uint64_t id)
{
	struct link_owner *owner = find_owner(server, connection);
	struct served_link *link = owner ? find_link(owner, id) : NULL;

	if (link)
		end_link(server, link);
}

void verbs_server_gone(void *server, uint64_t connection)
{
	struct link_owner *owner = find_owner(server, connection);

	if (!owner)
		return;
	cancel_openings(server, owner, NULL, false);
	end_links(server, owner);
}

struct marker {
	struct verbs_ending ending; /* first */
	void (*fn)(void *arg);
	void *arg;
};

static void pass_marker(struct verbs_task *task)
{
	struct marker *marker =
		(struct marker *)((char *)task - offsetof(struct marker, ending.task));

	marker->fn(marker->arg);
	free(marker);
}

int verbs_server_after(void *server, void (*fn)(void *arg), void *arg)
{
	struct marker *marker = calloc(1, sizeof(*marker));

	if (!marker)
		return fail(-ENOMEM, "target is out of memory");
	marker->ending.task.run = pass_marker;
	marker->fn = fn;
	marker->arg = arg;
	verbs_worker_after(&((struct verbs_server *)server)->worker, &marker->ending);
	return 0;
}

void verbs_server_settle(void *server)
{
	verbs_worker_wait(&((struct verbs_server *)server)->worker);
}

/* ---- grants ---- */

int verbs_server_grant(void *arg, const struct grant *grant, json_t *description,
		       struct grant **out)
{
	struct verbs_server *server = arg;
	struct granted *granted = calloc(1, sizeof(*granted));
	struct grant with = *grant;
	struct link_owner *owner = find_owner(server, grant->connection);
	int rc = 0;

	if (!owner)
		owner = create_owner(server, grant->connection);
	if (!granted || !owner)
		rc = fail(-ENOMEM, "target is out of memory");
	with.more = granted;
	if (rc == 0)
		rc = grants_add(server->grants, &with, description, out);
	if (rc < 0) {
		free(granted);
		if (owner)
			link_owner_release(server, owner);
		return rc;
	}
	granted->server = server;
	granted->owner = owner;
	granted->grant = *out;
	owner->grants++;
	return 0;
}

/* One that the client has lost: what is left of it here would stay until the client goes. */
static void end_replaced(struct verbs_server *server, const struct link_owner *owner,
			 const json_t *offer)
{
	const char *text = json_string_value(json_object_get(offer, "instead"));
	struct served_link *link;
	uint64_t id;

	if (!text || sscanf(text, "%16" SCNx64, &id) != 1)
		return;
	link = find_link(owner, id);
	if (link)
		end_link(server, link);
}

/* The client does not know yet that it has failed, and hears that there is none: it makes another.
 */
static struct served_link *find_sound_link(struct verbs_server *server,
					   const struct link_owner *owner, uint64_t id)
{
	struct served_link *link = find_link(owner, id);

	if (!link || !atomic_load(&link->failed))
		return link;
	end_link(server, link);
	return NULL;
}

int verbs_server_join(void *arg, struct grant *grant, const json_t *offer, json_t *answer,
		      struct transport_later *later)
{
	struct verbs_server *server = arg;
	const struct link_owner *owner = ((struct granted *)grant->more)->owner;
	uint64_t id, incarnation;
	const char *id_text, *incarnation_text;
	struct served_link *link;

	(void)answer;
	if (json_unpack((json_t *)(uintptr_t)offer, "{s:s, s:s}", "link", &id_text, "incarnation",
			&incarnation_text) < 0 ||
	    sscanf(id_text, "%16" SCNx64, &id) != 1 ||
	    sscanf(incarnation_text, "%16" SCNx64, &incarnation) != 1)
		return fail(-EPROTO, "queue pairs were offered that cannot be");
	if (incarnation != server->incarnation)
		return fail(-ESTALE, "the target was restarted: open the segment again");
	link = find_sound_link(server, owner, id);
	if (link)
		return open_on_link(server, grant, link, later);
	end_replaced(server, owner, offer);
	return open_with_link(server, grant, id, offer, later);
}

/* Keys of a registration are good for every queue pair: only without any are they good for none. */
static bool must_end_links(const struct verbs_server *server, int reason)
{
	if (reason != -EKEYREVOKED)
		return false;
	for (uint32_t i = 0; i < server->host->devices->count; i++)
		if (!server->host->devices->devices[i].windows)
			return true;
	return false;
}

void verbs_server_revoke(void *arg, struct grant *grant, int reason)
{
	struct verbs_server *server = arg;
	struct granted *granted;
	struct link_owner *owner;
	struct visit *visit;

	if (!grant)
		return;
	granted = grant->more;
	owner = granted->owner;
	cancel_openings(server, owner, grant, reason == -EKEYREVOKED);
	while ((visit = LIST_FIRST(&granted->visits)))
		end_visit(server, visit);
	if (must_end_links(server, reason))
		end_links(server, owner);
	end_grant(granted, reason);
	owner->grants--;
	link_owner_release(server, owner);
}

/* ---- life ---- */

int verbs_server_create(const struct serving_env *env, void **out)
{
	struct verbs_host *host = env->transport->hosts[SLU_TRANSPORT_VERBS];
	struct verbs_server *server;
	int rc;

	if (host->devices->count == 0)
		return 0;
	server = calloc(1, sizeof(*server));
	if (!server)
		return fail(-ENOMEM, "out of memory");
	server->host = host;
	server->incarnation = env->incarnation;
	server->pollers = env->pollers;
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->opened, NULL);
	TAILQ_INIT(&server->making);
	rc = grants_create(&server->grants);
	if (rc == 0)
		rc = verbs_exports_create(host->devices, &server->exports);
	if (rc == 0)
		rc = verbs_worker_start(&server->worker);
	for (uint32_t i = 0; rc == 0 && i < env->pollers; i++)
		rc = verbs_service_create(server->grants, i, env->first_lane + i, env->buffers[i],
					  &server->services[i]);
	if (rc < 0) {
		verbs_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

void verbs_server_stop(void *arg)
{
	struct verbs_server *server = arg;

	pthread_mutex_lock(&server->lock);
	while (server->openings > 0)
		pthread_cond_wait(&server->opened, &server->lock);
	pthread_mutex_unlock(&server->lock);
	verbs_worker_wait(&server->worker);
}

void verbs_server_destroy(void *arg)
{
	struct verbs_server *server = arg;

	if (!server)
		return;
	verbs_worker_stop(&server->worker);
	for (uint32_t i = 0; i < server->pollers; i++)
		verbs_service_destroy(server->services[i]);
	verbs_cm_server_destroy(server->cm);
	verbs_exports_destroy(server->exports);
	grants_destroy(server->grants);
	pthread_cond_destroy(&server->opened);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

struct transport_service *verbs_server_service(void *server, uint32_t poller)
{
	return (struct transport_service *)((struct verbs_server *)server)->services[poller];
}

json_t *verbs_server_describe(void *server)
{
	return verbs_describe_devices(((struct verbs_server *)server)->host->devices);
}
