/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A grant is opened on a link, by steps of several threads:
 *
 *   a thread of its own      the link's queue pairs are made and connected, if it is a new one
 *   the worker               windows are made
 *   the link's poller        takes the link on and binds the windows
 *   the control thread       answers; begins each step
 *
 * With librdmacm the first step ends with an answer, and the client asks again.
 */
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/budget.h"
#include "base/log.h"
#include "base/random.h"
#include "base/thread.h"
#include "base/work.h"
#include "net/proof.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_server.h"

struct opening {
	struct verbs_server *server;
	struct link_owner *owner;
	struct grant *grant; /* NULL: it has ended meanwhile */
	struct transport_later *later;
	struct served_link *link;
	struct visit *visit;
	json_t *answer;
	struct verbs_task task;
	bool adopts; /* the poller had not had the link before */
	LIST_ENTRY(opening) of_owner;
	int result; /* of the latest step, like its text */
	char text[256];

	/* Of a link that is made. */
	uint32_t queues;
	bool invites; /* the client connects it by librdmacm */
	uint32_t gid_index;
	struct verbs_connection connection;
	uint32_t psn[VERBS_QUEUES_MAX];
	uint32_t peer_qpn[VERBS_QUEUES_MAX];
	uint32_t peer_psn[VERBS_QUEUES_MAX];
	bool started; /* it has its thread */
	pthread_t thread;
	TAILQ_ENTRY(opening) of_server;
};

static void set_result(struct opening *opening, int result)
{
	opening->result = result;
	if (result < 0)
		snprintf(opening->text, sizeof(opening->text), "%s", slu_last_error());
}

/* ---- the end of it ---- */

static struct opening *opening_create(struct verbs_server *server, struct grant *grant,
				      struct served_link *link, struct transport_later *later)
{
	struct opening *opening = calloc(1, sizeof(*opening));

	if (!opening)
		return NULL;
	opening->server = server;
	opening->owner = ((struct granted *)grant->more)->owner;
	opening->grant = grant;
	opening->link = link;
	opening->later = later;
	opening->answer = json_object();
	LIST_INSERT_HEAD(&opening->owner->openings, opening, of_owner);
	pthread_mutex_lock(&server->lock);
	server->openings++;
	pthread_mutex_unlock(&server->lock);
	return opening;
}

static void opening_free(struct opening *opening)
{
	struct verbs_server *server = opening->server;

	LIST_REMOVE(opening, of_owner);
	link_owner_release(server, opening->owner);
	json_decref(opening->answer);
	free(opening);
	pthread_mutex_lock(&server->lock);
	if (--server->openings == 0)
		pthread_cond_broadcast(&server->opened);
	pthread_mutex_unlock(&server->lock); /* which may be gone then */
}

/* It is answered, and over. */
static void conclude(struct opening *opening, int rc)
{
	struct transport_later *later = opening->later;

	work_count(WORK_ITEMS, 1);
	later->end(later, opening->grant ? rc : -ECANCELED,
		   rc == 0 && opening->grant ? json_incref(opening->answer) : NULL);
	opening_free(opening);
}

/* A client that got no answer in time asks again: what it was given then is given back. */
static void end_earlier_visit(struct verbs_server *server, struct granted *granted,
			      const struct served_link *link)
{
	struct visit *visit;

	LIST_FOREACH (visit, &granted->visits, of_grant)
		if (visit->on == link)
			break;
	if (visit)
		end_visit(server, visit);
}

/* ---- a grant on a link ---- */

static int explain_binding(const struct opening *opening)
{
	if (!opening->adopts) /* it makes another */
		return fail(-ENOENT, "this link has failed: another is needed");
	return fail(-EIO, "a memory window cannot be bound: the queue pair has failed, or the "
			  "client does not take in what it is sent");
}

/* The link and the visit are the client's; or, without one of them, neither is. */
static void finish(void *arg)
{
	struct opening *opening = arg;
	struct verbs_server *server = opening->server;
	struct served_link *link = opening->link;
	int rc = opening->result;

	if (rc == -EIO)
		rc = explain_binding(opening);
	else if (rc < 0)
		fail(rc, "%s", opening->text);
	else
		rc = visit_describe(opening->visit, opening->answer);
	if (rc == 0 && opening->grant && link->owner) {
		struct granted *granted = opening->grant->more;

		end_earlier_visit(server, granted, link);
		LIST_INSERT_HEAD(&granted->visits, opening->visit, of_grant);
		LIST_INSERT_HEAD(&link->visits, opening->visit, of_link);
	} else {
		rc = rc < 0 ? rc : fail(-ENOENT, "this link has ended: another is needed");
		discard_visit(server, opening->visit);
	}
	link->openings--;
	if (link->owner && atomic_load(&link->failed))
		end_link(server, link);
	else
		leave_link(server, link);
	conclude(opening, rc);
}

static void tell(struct opening *opening)
{
	opening->later->post(opening->later, finish, opening);
}

static void on_bound(struct binding *binding, int result)
{
	struct visit *visit = (struct visit *)((char *)binding - offsetof(struct visit, binding));

	visit->opening->result = result;
	tell(visit->opening);
}

static void adopt_and_bind(struct verbs_task *task)
{
	struct opening *opening = (struct opening *)((char *)task - offsetof(struct opening, task));
	struct served_link *link = opening->link;
	struct binding *binding = &opening->visit->binding;

	opening->adopts = !link->adopted;
	if (opening->adopts) {
		int rc = verbs_service_adopt(link->service, link);

		link->adopted = rc == 0;
		if (rc < 0)
			set_result(opening, fail(rc, "the target has no room for another link"));
	}
	/* Nobody has looked at what was sent on it: its client may not know that it has failed. */
	for (uint32_t i = 0; i < link->count; i++)
		served_link_take_back(link, i);
	if (opening->result == 0 && served_link_has_failed(link))
		opening->result = -EIO;
	if (opening->result < 0 || binding->each == 0) {
		tell(opening);
		return;
	}
	binding->bound = on_bound;
	verbs_service_bind(link->service, link, binding);
}

static void prepare(struct verbs_task *task)
{
	struct opening *opening = (struct opening *)((char *)task - offsetof(struct opening, task));

	set_result(opening, visit_prepare(opening->visit));
	if (opening->result < 0) {
		tell(opening);
		return;
	}
	task->run = adopt_and_bind;
	verbs_tasks_post(&opening->link->service->tasks, task);
}

/* @return 0: it goes on elsewhere; -ENOMEM */
static int begin_visit(struct opening *opening)
{
	struct verbs_server *server = opening->server;
	int rc = visit_create(server->exports, opening->grant, opening->link, &opening->visit);

	if (rc < 0)
		return rc;
	opening->visit->opening = opening;
	opening->link->openings++;
	opening->task.run = prepare;
	verbs_tasks_post(&server->worker.tasks, &opening->task);
	return 0;
}

int open_on_link(struct verbs_server *server, struct grant *grant, struct served_link *link,
		 struct transport_later *later)
{
	struct opening *opening;
	int rc;

	if (link->waits && !verbs_cm_is_connected(link->cm))
		return fail(-EPROTO, "the queue pairs of this link are not connected by librdmacm "
				     "yet");
	opening = opening_create(server, grant, link, later);
	if (!opening)
		return fail(-ENOMEM, "target is out of memory");
	rc = begin_visit(opening);
	if (rc < 0) {
		opening_free(opening);
		return rc;
	}
	link->waits = false;
	return TRANSPORT_LATER;
}

void cancel_openings(struct verbs_server *server, struct link_owner *owner,
		     const struct grant *grant, bool at_once)
{
	struct opening *opening;

	LIST_FOREACH (opening, &owner->openings, of_owner) {
		if (grant && opening->grant != grant)
			continue;
		opening->grant = NULL;
		if (at_once && opening->visit && opening->link->owner)
			end_link(server, opening->link);
	}
}

/* ---- what a client says of a new link ---- */

static int bad_offer(void)
{
	return fail(-EPROTO, "queue pairs were offered that cannot be");
}

/** What a client says of a new link. */
struct offer {
	int device;
	int gid_index;
	int lid;
	int mtu;
	int reads;
	const char *gid;
	json_t *queues;
};

static int parse_offer(const struct verbs_devices *devices, const json_t *text, struct offer *offer)
{
	const struct verbs_device *device;

	if (json_unpack((json_t *)(uintptr_t)text, "{s:i, s:i, s:s, s:i, s:i, s:i, s:o}", "device",
			&offer->device, "gid_index", &offer->gid_index, "gid", &offer->gid, "lid",
			&offer->lid, "mtu", &offer->mtu, "reads", &offer->reads, "queues",
			&offer->queues) < 0 ||
	    offer->device < 0 || (uint32_t)offer->device >= devices->count)
		return bad_offer();
	device = &devices->devices[offer->device];
	if (offer->gid_index < 0 || (uint32_t)offer->gid_index >= device->gid_count ||
	    offer->lid < 0 || offer->lid > UINT16_MAX || offer->reads < 0 ||
	    !json_is_array(offer->queues) || json_array_size(offer->queues) < 1 ||
	    json_array_size(offer->queues) > VERBS_QUEUES_MAX)
		return bad_offer();
	if (!verbs_mtu_from_bytes(offer->mtu))
		return fail(-EPROTO, "there is no RDMA MTU of %d bytes", offer->mtu);
	return 0;
}

static int min(int a, int b)
{
	return a < b ? a : b;
}

static int describe_connection(const struct verbs_server *server, const struct offer *offer,
			       struct verbs_connection *connection)
{
	const struct verbs_device *device = &server->host->devices->devices[offer->device];

	verbs_connection_init(server->host, device, (uint32_t)offer->gid_index, connection);
	connection->mtu = verbs_mtu_from_bytes(min(offer->mtu, (int)verbs_mtu_bytes(device->mtu)));
	connection->reads_in =
		(uint8_t)min(min(offer->reads, device->attr.max_qp_rd_atom), UINT8_MAX);
	connection->peer_lid = (uint16_t)offer->lid;
	return verbs_gid_from_hex(offer->gid, &connection->peer_gid) ? 0 : bad_offer();
}

/* Consumes @p queues. */
static int describe_link(const struct served_link *link, uint32_t gid_index,
			 const struct verbs_connection *connection, json_t *queues, json_t *answer)
{
	char gid[VERBS_GID_HEX];
	json_t *text;

	verbs_gid_to_hex(&link->device->gids[gid_index].gid, gid);
	text = json_pack("{s:s, s:i, s:i, s:i, s:i, s:o}", "gid", gid, "lid",
			 (int)link->device->port_attr.lid, "mtu",
			 (int)verbs_mtu_bytes(connection->mtu), "reads", connection->reads_in,
			 "receives", (int)link->share, "queues", queues);
	return json_object_update_new(answer, text) < 0 ? fail(-ENOMEM, "target is out of memory")
							: 0;
}

/* ---- making it ---- */

static int take_numbers(struct opening *opening, const struct offer *offer)
{
	json_t *text;
	size_t i;

	json_array_foreach (offer->queues, i, text) {
		json_int_t qpn, psn;

		if (json_unpack(text, "[I, I]", &qpn, &psn) < 0 || qpn < 0 || qpn > 0xffffff ||
		    psn < 0 || psn > 0xffffff)
			return bad_offer();
		opening->peer_qpn[i] = (uint32_t)qpn;
		opening->peer_psn[i] = (uint32_t)psn;
		opening->psn[i] = (uint32_t)random_word() & 0xffffff;
	}
	return 0;
}

static int connect_queues(struct opening *opening)
{
	struct served_link *link = opening->link;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < link->count; i++) {
		opening->connection.psn = opening->psn[i];
		opening->connection.peer_qpn = opening->peer_qpn[i];
		opening->connection.peer_psn = opening->peer_psn[i];
		rc = verbs_queue_connect(link->queues[i], link->device, &opening->connection);
	}
	return rc;
}

static void take_made(void *arg);

/* By a thread of its own: devices take their time, and the kernel may have to ask the network. */
static void *make(void *arg)
{
	struct opening *opening = arg;
	int rc = verbs_memory_use(&opening->server->host->buffers, opening->link->device);

	if (rc == 0)
		rc = served_link_make(opening->link, opening->queues);
	if (rc == 0 && !opening->invites)
		rc = connect_queues(opening);
	set_result(opening, rc);
	opening->later->post(opening->later, take_made, opening);
	return NULL;
}

static int start_making(struct opening *opening)
{
	int rc = thread_start(&opening->thread, "slu-connect", make, opening);

	opening->started = rc == 0;
	opening->server->making_threads += rc == 0;
	return rc;
}

/* No poller has had it. */
static void give_up(struct opening *opening, int rc)
{
	TAILQ_REMOVE(&opening->server->making, opening, of_server);
	opening->owner->makes_link = false;
	end_unmade_link(opening->server, opening->link);
	conclude(opening, rc);
}

/* Those whose turn it is; who has gone meanwhile needs no thread. */
static void start_waiting(struct verbs_server *server)
{
	struct opening *opening = TAILQ_FIRST(&server->making);

	while (opening && server->making_threads < VERBS_CONNECTING_MAX) {
		struct opening *next = TAILQ_NEXT(opening, of_server);

		if (!opening->started) {
			int rc = opening->grant ? start_making(opening) : -ECANCELED;

			if (rc < 0)
				give_up(opening, rc);
		}
		opening = next;
	}
}

static json_t *list_queues(const struct opening *opening)
{
	const struct served_link *link = opening->link;
	json_t *queues = json_array();

	for (uint32_t i = 0; i < link->count; i++)
		json_array_append_new(queues,
				      json_pack("[I, I]", (json_int_t)link->queues[i]->qp->qp_num,
						(json_int_t)opening->psn[i]));
	return queues;
}

static int describe_invitation(const struct verbs_server *server, const char *token, json_t *answer)
{
	json_t *cm = json_pack("{s:{s:i, s:s}}", "cm", "port",
			       (int)verbs_cm_server_port(server->cm), "token", token);

	return json_object_update_new(answer, cm) < 0 ? fail(-ENOMEM, "target is out of memory")
						      : 0;
}

/* The client connects the queue pairs by librdmacm, then asks again. */
static int invite(struct opening *opening)
{
	struct verbs_server *server = opening->server;
	struct served_link *link = opening->link;
	const struct verbs_cm_link expected = {.id = link->id,
					       .device = link->device,
					       .connection = &opening->connection,
					       .queues = link->queues,
					       .count = link->count};
	char token[SECRET_TEXT];
	int rc = server->cm ? 0 : verbs_cm_server_create(&server->cm);

	if (rc == 0)
		rc = verbs_cm_expect(server->cm, &expected, token, &link->cm);
	if (rc == 0)
		rc = describe_link(link, opening->gid_index, &opening->connection, json_array(),
				   opening->answer);
	if (rc == 0)
		rc = describe_invitation(server, token, opening->answer);
	link->waits = rc == 0;
	return rc;
}

static int go_on(struct opening *opening)
{
	int rc = opening->result;

	if (rc < 0)
		return fail(rc, "%s", opening->text);
	if (!opening->grant)
		return fail(-ECANCELED, "the session was closed");
	if (opening->invites)
		return invite(opening);
	rc = describe_link(opening->link, opening->gid_index, &opening->connection,
			   list_queues(opening), opening->answer);
	return rc < 0 ? rc : begin_visit(opening);
}

/* It is made, or will not be. The server may be gone at the end. */
static void take_made(void *arg)
{
	struct opening *opening = arg;
	struct verbs_server *server = opening->server;
	struct link_owner *owner = opening->owner;
	int rc;

	pthread_join(opening->thread, NULL);
	server->making_threads--;
	rc = go_on(opening);
	if (rc < 0) {
		start_waiting(server);
		give_up(opening, rc);
		return;
	}
	TAILQ_REMOVE(&server->making, opening, of_server);
	owner->makes_link = false;
	opening->link->owner = owner;
	LIST_INSERT_HEAD(&owner->links, opening->link, of_owner);
	start_waiting(server);
	if (opening->invites)
		conclude(opening, 0);
}

/* Those whose client did not come have queue pairs for nothing. @return how many there are */
static uint32_t drop_uninvited(struct verbs_server *server, struct link_owner *owner)
{
	struct served_link *link = LIST_FIRST(&owner->links), *next;
	uint32_t count = 0;

	for (; link; link = next) {
		next = LIST_NEXT(link, of_owner);
		if (link->waits && verbs_cm_has_expired(link->cm))
			end_link(server, link);
		else
			count++;
	}
	return count;
}

static struct served_link *link_create(struct verbs_server *server, uint64_t connection,
				       uint64_t id, struct verbs_device *device)
{
	struct served_link *link = calloc(1, sizeof(*link));

	if (!link)
		return NULL;
	link->server = server;
	link->service = server->services[server->next_poller++ % server->pollers];
	link->device = device;
	link->connection = connection;
	link->id = id;
	STAILQ_INIT(&link->bindings);
	return link;
}

static int read_offer(struct verbs_server *server, const json_t *text, struct opening *opening,
		      uint32_t *device)
{
	struct offer offer;
	int rc = parse_offer(server->host->devices, text, &offer);

	if (rc == 0)
		rc = describe_connection(server, &offer, &opening->connection);
	if (rc < 0)
		return rc;
	*device = (uint32_t)offer.device;
	opening->gid_index = (uint32_t)offer.gid_index;
	opening->queues = (uint32_t)json_array_size(offer.queues);
	opening->invites = json_is_true(json_object_get(text, "cm"));
	return opening->invites ? 0 : take_numbers(opening, &offer);
}

static int begin_making(struct opening *opening, uint64_t id, const json_t *offer)
{
	struct verbs_server *server = opening->server;
	struct link_owner *owner = opening->owner;
	struct budget *budget = opening->later->budget;
	uint32_t device;
	int rc = read_offer(server, offer, opening, &device);

	if (rc == 0)
		rc = budget_take(budget, SLU_LIMIT_LINKS, 1);
	if (rc < 0)
		return rc;
	opening->link = link_create(server, owner->base.connection, id,
				    &server->host->devices->devices[device]);
	if (opening->link && server->making_threads < VERBS_CONNECTING_MAX)
		rc = start_making(opening);
	if (!opening->link || rc < 0) {
		free(opening->link);
		budget_give(budget, SLU_LIMIT_LINKS, 1);
		return rc < 0 ? rc : fail(-ENOMEM, "target is out of memory");
	}
	opening->link->budget = budget_get(budget);
	poller_set_add(&owner->base.pollers, opening->link->service->index);
	owner->makes_link = true;
	TAILQ_INSERT_TAIL(&server->making, opening, of_server);
	return 0;
}

int open_with_link(struct verbs_server *server, struct grant *grant, uint64_t id,
		   const json_t *offer, struct transport_later *later)
{
	struct link_owner *owner = ((struct granted *)grant->more)->owner;
	struct opening *opening;
	int rc;

	if (!json_object_get(offer, "queues"))
		return fail(-ENOENT,
			    "there is no such link, and no queue pairs are offered for it");
	if (drop_uninvited(server, owner) >= VERBS_LINKS_MAX)
		return fail(-ENOSPC, "this client has %d links already", VERBS_LINKS_MAX);
	if (owner->makes_link)
		return fail(-EBUSY, "another link of this client is being connected");
	opening = opening_create(server, grant, NULL, later);
	if (!opening)
		return fail(-ENOMEM, "target is out of memory");
	rc = begin_making(opening, id, offer);
	if (rc == 0)
		return TRANSPORT_LATER;
	opening_free(opening);
	return rc;
}
