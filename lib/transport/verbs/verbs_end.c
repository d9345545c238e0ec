/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ends: of a link (its poller lets go of it, the worker destroys it), of a grant on a link (the
 * worker closes its windows), of a grant (its client's pollers let go of it).
 */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/work.h"
#include "transport/verbs/verbs_server.h"

/* ---- a link ---- */

static struct served_link *link_of(struct verbs_task *task)
{
	return (struct served_link *)((char *)task - offsetof(struct served_link, ending.task));
}

/* Windows first: a device keeps a queue pair that one is bound to. */
static void destroy_link(struct verbs_task *task)
{
	struct served_link *link = link_of(task);
	struct visit *visit;

	while ((visit = LIST_FIRST(&link->visits))) {
		LIST_REMOVE(visit, of_link);
		visit_close(visit);
		free(visit);
	}
	served_link_close(link);
	verbs_worker_end(&link->server->worker, &link->ending);
	free(link);
}

static void empty_again(struct verbs_task *task)
{
	struct served_link *link = link_of(task);

	receives_empty(link);
	task->run = destroy_link;
	verbs_tasks_post(&link->server->worker.tasks, task);
}

/* A receive that the device had in its hands when the link failed: with its queue pair it is lost.
 */
static void come_back(struct verbs_task *task)
{
	task->run = empty_again;
	verbs_tasks_post(&link_of(task)->service->tasks, task);
}

static void drop_link(struct verbs_task *task)
{
	struct served_link *link = link_of(task);

	verbs_service_drop(link->service, link);
	task->run = come_back;
	verbs_tasks_post(&link->server->worker.tasks, task);
}

static void post_drop(struct served_link *link)
{
	struct visit *visit;

	LIST_FOREACH (visit, &link->visits, of_link)
		LIST_REMOVE(visit, of_grant);
	link->ending.task.run = drop_link;
	verbs_tasks_post(&link->service->tasks, &link->ending.task);
}

static void fail_link(struct verbs_task *task)
{
	served_link_fail(
		(struct served_link *)((char *)task - offsetof(struct served_link, failing)));
}

/* What is being opened on it comes back as soon as it has failed; the last takes it along. */
void end_link(struct verbs_server *server, struct served_link *link)
{
	struct link_owner *owner = link->owner;

	work_count(WORK_ITEMS, 1);
	verbs_worker_begin(&server->worker, &link->ending);
	LIST_REMOVE(link, of_owner);
	link->owner = NULL;
	link_owner_release(server, owner);
	if (link->openings == 0) {
		post_drop(link);
		return;
	}
	link->failing.run = fail_link;
	verbs_tasks_post(&link->service->tasks, &link->failing);
}

void leave_link(struct verbs_server *server, struct served_link *link)
{
	if (link->openings > 0)
		return;
	if (!link->owner)
		post_drop(link);
	else if (LIST_EMPTY(&link->visits) && !link->waits)
		end_link(server, link);
}

static void destroy_unmade(struct verbs_task *task)
{
	struct served_link *link = link_of(task);

	served_link_close(link);
	verbs_worker_end(&link->server->worker, &link->ending);
	free(link);
}

void end_unmade_link(struct verbs_server *server, struct served_link *link)
{
	verbs_worker_begin(&server->worker, &link->ending);
	link->ending.task.run = destroy_unmade;
	verbs_tasks_post(&server->worker.tasks, &link->ending.task);
}

/* ---- a grant on a link ---- */

static void destroy_visit(struct verbs_task *task)
{
	struct visit *visit = (struct visit *)((char *)task - offsetof(struct visit, ending.task));
	struct verbs_server *server = visit->on->server;

	visit_close(visit);
	verbs_worker_end(&server->worker, &visit->ending);
	free(visit);
}

void discard_visit(struct verbs_server *server, struct visit *visit)
{
	work_count(WORK_ITEMS, 1);
	verbs_worker_begin(&server->worker, &visit->ending);
	visit->ending.task.run = destroy_visit;
	verbs_tasks_post(&server->worker.tasks, &visit->ending.task);
}

void end_visit(struct verbs_server *server, struct visit *visit)
{
	struct served_link *link = visit->on;

	LIST_REMOVE(visit, of_grant);
	LIST_REMOVE(visit, of_link);
	discard_visit(server, visit);
	leave_link(server, link);
}

/* ---- a grant ---- */

static struct granted *granted_of(struct verbs_task *task)
{
	return (struct granted *)((char *)task - offsetof(struct granted, ending.task));
}

static void forget_grant(struct verbs_task *task)
{
	struct granted *granted = granted_of(task);

	grants_free(granted->server->grants, granted->grant);
	verbs_worker_end(&granted->server->worker, &granted->ending);
	free(granted);
}

static void pass_on(struct granted *granted);

static void on_poller(struct verbs_task *task)
{
	struct granted *granted = granted_of(task);

	if (!granted->has_ended)
		receives_catch_up(granted->server->services[granted->at]);
	pass_on(granted);
}

/*
 * In the first round each poller deals with what was sent before the client closed, which is not to
 * be lost. In the second each has begun a new turn: then none has the grant in its hands any more.
 */
static void pass_on(struct granted *granted)
{
	struct verbs_server *server = granted->server;
	struct verbs_task *task = &granted->ending.task;

	granted->at = poller_set_take(&granted->left);
	if (granted->at == SLU_POLLERS_MAX && !granted->has_ended) {
		grants_end(server->grants, granted->grant, granted->reason);
		granted->has_ended = true;
		granted->left = granted->pollers;
		granted->at = poller_set_take(&granted->left);
	}
	if (granted->at == SLU_POLLERS_MAX) {
		task->run = forget_grant;
		verbs_tasks_post(&server->worker.tasks, task);
		return;
	}
	task->run = on_poller;
	verbs_tasks_post(&server->services[granted->at]->tasks, task);
}

void end_grant(struct granted *granted, int reason)
{
	struct verbs_server *server = granted->server;

	work_count(WORK_ITEMS, 1);
	granted->reason = reason;
	granted->pollers = granted->left = granted->owner->base.pollers;
	if (reason == -EKEYREVOKED) {
		grants_end(server->grants, granted->grant, reason);
		granted->has_ended = true;
	}
	verbs_worker_begin(&server->worker, &granted->ending);
	pass_on(granted);
}
