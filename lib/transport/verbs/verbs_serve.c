/* SPDX-License-Identifier: Apache-2.0 */
/* The target's links, from an offer to their end, and who is granted what on them. */
#include "transport/verbs/verbs_serve.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/budget.h"
#include "base/log.h"
#include "net/proof.h"
#include "base/thread.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_served.h"
#include "transport/verbs/verbs_visit.h"

/**
 * A link whose queue pairs are being connected. The kernel asks the network for the peer's address
 * where it does not know it, and may wait a second for an answer: a thread does, so that nobody
 * else has to.
 */
struct connecting {
	struct verbs_server *server;
	struct served_link *link;
	struct grant *grant; /* NULL: it has ended meanwhile */
	struct transport_later *later;
	uint32_t gid_index;
	struct verbs_connection connection;
	uint32_t psn[VERBS_QUEUES_MAX];
	uint32_t peer_qpn[VERBS_QUEUES_MAX];
	uint32_t peer_psn[VERBS_QUEUES_MAX];
	bool started; /* it has its thread */
	pthread_t thread;
	int result; /* the thread's, like its text */
	char text[256];
	TAILQ_ENTRY(connecting) of_server;
};

#define LINK_SLOTS 1024u

LIST_HEAD(link_list, served_link);

struct verbs_server {
	struct verbs_host *host;
	uint64_t incarnation;
	uint32_t pollers;
	uint32_t next_poller; /* counts links */
	transport_on_poller on_poller;
	void *arg;
	struct grants *grants;
	struct verbs_cm_server *cm; /* NULL: nobody has asked for it */
	struct verbs_exports *exports;
	struct link_list links[LINK_SLOTS];  /* by the connection that they belong to */
	TAILQ_HEAD(, connecting) connecting; /* in their turn; changes under lock */
	uint32_t connecting_threads;
	pthread_mutex_t lock;
	pthread_cond_t connected; /* one fewer is in it */
	struct verbs_service *services[SLU_POLLERS_MAX];
};

/* ---- exported memory ---- */

int verbs_server_export(struct verbs_server *server, const struct export *export, uint64_t *ns)
{
	return verbs_exports_add(server->exports, export, ns);
}

struct close_call {
	struct verbs_service *service;
	const struct export *export;
};

static void close_on_poller(void *arg)
{
	struct close_call *call = arg;

	verbs_service_forget(call->service, call->export);
}

void verbs_server_unexport(struct verbs_server *server, const struct export *export)
{
	for (uint32_t i = 0; i < server->pollers; i++) {
		struct close_call call = {.service = server->services[i], .export = export};

		server->on_poller(server->arg, i, close_on_poller, &call);
	}
	verbs_exports_remove(server->exports, export);
}

/* ---- links ---- */

struct link_call {
	struct verbs_service *service;
	struct served_link *link;
	int result;
};

static void adopt_on_poller(void *arg)
{
	struct link_call *call = arg;

	call->result = verbs_service_adopt(call->service, call->link);
}

static void drop_on_poller(void *arg)
{
	struct link_call *call = arg;

	verbs_service_drop(call->service, call->link);
}

/* Windows first: a device keeps a queue pair that one is bound to. */
static void drop_link(struct verbs_server *server, struct served_link *link)
{
	struct link_call call = {.service = server->services[link->poller], .link = link};
	struct visit *visit;

	while ((visit = LIST_FIRST(&link->visits)))
		visit_close(visit);
	server->on_poller(server->arg, link->poller, drop_on_poller, &call);
	LIST_REMOVE(link, of_server);
	served_link_destroy(link);
}

static struct link_list *links_of(struct verbs_server *server, uint64_t connection)
{
	return &server->links[connection % LINK_SLOTS];
}

static struct served_link *find_link(struct verbs_server *server, uint64_t connection, uint64_t id)
{
	struct served_link *link;

	LIST_FOREACH (link, links_of(server, connection), of_server)
		if (link->owner == connection && link->id == id)
			return link;
	return NULL;
}

static uint32_t count_links(struct verbs_server *server, uint64_t connection)
{
	const struct served_link *link;
	uint32_t count = 0;

	LIST_FOREACH (link, links_of(server, connection), of_server)
		count += link->owner == connection;
	return count;
}

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
			 "receives", (int)VERBS_RECEIVES, "queues", queues);
	return json_object_update_new(answer, text) < 0 ? fail(-ENOMEM, "target is out of memory")
							: 0;
}

static int adopt_link(struct verbs_server *server, struct served_link *link)
{
	struct link_call call = {.service = server->services[link->poller], .link = link};

	server->on_poller(server->arg, link->poller, adopt_on_poller, &call);
	return call.result < 0 ? fail(call.result, "the target has no room for another link") : 0;
}

/* ---- connected by the session ---- */

static int take_numbers(struct connecting *connecting, const struct offer *offer)
{
	json_t *text;
	size_t i;

	json_array_foreach (offer->queues, i, text) {
		json_int_t qpn, psn;

		if (json_unpack(text, "[I, I]", &qpn, &psn) < 0 || qpn < 0 || qpn > 0xffffff ||
		    psn < 0 || psn > 0xffffff)
			return bad_offer();
		connecting->peer_qpn[i] = (uint32_t)qpn;
		connecting->peer_psn[i] = (uint32_t)psn;
		connecting->psn[i] = (uint32_t)secret_number() & 0xffffff;
	}
	return 0;
}

static int connect_queues(struct connecting *connecting)
{
	struct served_link *link = connecting->link;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < link->count; i++) {
		connecting->connection.psn = connecting->psn[i];
		connecting->connection.peer_qpn = connecting->peer_qpn[i];
		connecting->connection.peer_psn = connecting->peer_psn[i];
		rc = verbs_queue_connect(link->queues[i], link->device, &connecting->connection);
	}
	return rc;
}

static json_t *list_queues(const struct connecting *connecting)
{
	const struct served_link *link = connecting->link;
	json_t *queues = json_array();

	for (uint32_t i = 0; i < link->count; i++)
		json_array_append_new(queues,
				      json_pack("[I, I]", (json_int_t)link->queues[i]->qp->qp_num,
						(json_int_t)connecting->psn[i]));
	return queues;
}

/* The link is the server's from now on, or gone. */
static int take_connected(struct connecting *connecting, json_t *answer)
{
	struct verbs_server *server = connecting->server;
	struct served_link *link = connecting->link;
	int rc = connecting->result;

	if (rc < 0)
		fail(rc, "%s", connecting->text);
	else if (!connecting->grant)
		rc = fail(-ECANCELED, "the session was closed");
	else
		rc = describe_link(link, connecting->gid_index, &connecting->connection,
				   list_queues(connecting), answer);
	if (rc == 0)
		rc = adopt_link(server, link);
	if (rc < 0) {
		served_link_destroy(link);
		return rc;
	}
	LIST_INSERT_HEAD(links_of(server, link->owner), link, of_server);
	rc = visit_open(server->exports, connecting->grant, link, answer);
	if (rc < 0)
		drop_link(server, link);
	return rc;
}

/* It is connected, or will not be. */
static void conclude(struct connecting *connecting)
{
	struct verbs_server *server = connecting->server;
	json_t *answer = json_object();
	int rc = take_connected(connecting, answer);

	if (rc < 0) {
		json_decref(answer);
		answer = NULL;
	}
	connecting->later->end(connecting->later, connecting->grant ? rc : -ECANCELED, answer);
	pthread_mutex_lock(&server->lock);
	TAILQ_REMOVE(&server->connecting, connecting, of_server);
	pthread_cond_signal(&server->connected);
	pthread_mutex_unlock(&server->lock); /* which may be gone then */
	free(connecting);
}

static void set_result(struct connecting *connecting, int result)
{
	connecting->result = result;
	if (result < 0)
		snprintf(connecting->text, sizeof(connecting->text), "%s", slu_last_error());
}

static void finish_connecting(void *arg);

static void *connecting_main(void *arg)
{
	struct connecting *connecting = arg;

	set_result(connecting, connect_queues(connecting));
	connecting->later->post(connecting->later, finish_connecting, connecting);
	return NULL;
}

static int start_connecting(struct connecting *connecting)
{
	int rc = thread_start(&connecting->thread, "slu-connect", connecting_main, connecting);

	connecting->started = rc == 0;
	connecting->server->connecting_threads += rc == 0;
	return rc;
}

/* Those whose turn it is; who has gone meanwhile needs no thread. */
static void start_waiting(struct verbs_server *server)
{
	struct connecting *connecting = TAILQ_FIRST(&server->connecting);

	while (connecting && server->connecting_threads < VERBS_CONNECTING_MAX) {
		struct connecting *next = TAILQ_NEXT(connecting, of_server);

		if (!connecting->started) {
			int rc = connecting->grant ? start_connecting(connecting) : -ECANCELED;

			if (rc < 0) {
				set_result(connecting, rc);
				conclude(connecting);
			}
		}
		connecting = next;
	}
}

static void finish_connecting(void *arg)
{
	struct connecting *connecting = arg;

	pthread_join(connecting->thread, NULL);
	connecting->server->connecting_threads--;
	start_waiting(connecting->server);
	conclude(connecting); /* last: the server may be gone then */
}

static int may_connect(const struct verbs_server *server, uint64_t connection)
{
	const struct connecting *connecting;

	TAILQ_FOREACH (connecting, &server->connecting, of_server)
		if (connecting->link->owner == connection)
			return fail(-EBUSY, "another link of this client is being connected");
	return 0;
}

/* @return TRANSPORT_LATER; -errno: nothing has begun */
static int connect_link(struct verbs_server *server, struct served_link *link,
			const struct offer *offer, struct grant *grant,
			struct transport_later *later)
{
	struct connecting *connecting = calloc(1, sizeof(*connecting));
	int rc = connecting ? describe_connection(server, offer, &connecting->connection)
			    : fail(-ENOMEM, "target is out of memory");

	if (rc == 0)
		rc = take_numbers(connecting, offer);
	if (rc < 0) {
		free(connecting);
		return rc;
	}
	connecting->server = server;
	connecting->link = link;
	connecting->grant = grant;
	connecting->later = later;
	connecting->gid_index = (uint32_t)offer->gid_index;
	pthread_mutex_lock(&server->lock);
	TAILQ_INSERT_TAIL(&server->connecting, connecting, of_server);
	pthread_mutex_unlock(&server->lock);
	if (server->connecting_threads < VERBS_CONNECTING_MAX)
		rc = start_connecting(connecting);
	if (rc == 0)
		return TRANSPORT_LATER;
	pthread_mutex_lock(&server->lock);
	TAILQ_REMOVE(&server->connecting, connecting, of_server);
	pthread_mutex_unlock(&server->lock);
	free(connecting);
	return rc;
}

/* What is being connected for it is not wanted any more. */
static void forget_grant(struct verbs_server *server, const struct grant *grant)
{
	struct connecting *connecting;

	TAILQ_FOREACH (connecting, &server->connecting, of_server)
		if (connecting->grant == grant)
			connecting->grant = NULL;
}

/* ---- connected by librdmacm ---- */

static int describe_invitation(const struct verbs_server *server, const char *token, json_t *answer)
{
	json_t *cm = json_pack("{s:{s:i, s:s}}", "cm", "port",
			       (int)verbs_cm_server_port(server->cm), "token", token);

	return json_object_update_new(answer, cm) < 0 ? fail(-ENOMEM, "target is out of memory")
						      : 0;
}

/* The client connects the queue pairs by librdmacm, then asks again. */
static int invite(struct verbs_server *server, struct served_link *link, const struct offer *offer,
		  json_t *answer)
{
	struct verbs_connection connection;
	const struct verbs_cm_link expected = {.id = link->id,
					       .device = link->device,
					       .connection = &connection,
					       .queues = link->queues,
					       .count = link->count};
	char token[SECRET_TEXT];
	int rc = describe_connection(server, offer, &connection);

	if (rc == 0 && !server->cm)
		rc = verbs_cm_server_create(&server->cm);
	if (rc == 0)
		rc = verbs_cm_expect(server->cm, &expected, token, &link->cm);
	if (rc == 0)
		rc = describe_link(link, (uint32_t)offer->gid_index, &connection, json_array(),
				   answer);
	if (rc == 0)
		rc = describe_invitation(server, token, answer);
	link->waits = true;
	return rc;
}

/* Those whose client did not come have queue pairs for nothing. */
static void drop_uninvited(struct verbs_server *server, uint64_t connection)
{
	struct served_link *link = LIST_FIRST(links_of(server, connection));

	while (link) {
		struct served_link *next = LIST_NEXT(link, of_server);

		if (link->waits && verbs_cm_has_expired(link->cm))
			drop_link(server, link);
		link = next;
	}
}

/* It asks again: are they connected? */
static int take_invited(struct verbs_server *server, struct served_link *link)
{
	int rc = 0;

	if (!verbs_cm_is_connected(link->cm))
		return fail(-EPROTO, "the queue pairs of this link are not connected by librdmacm "
				     "yet");
	rc = adopt_link(server, link);
	link->waits = rc < 0;
	return rc;
}

/* The keys come when its queue pairs are connected. @return 0 by librdmacm; TRANSPORT_LATER */
static int make_link(struct verbs_server *server, struct grant *grant, uint64_t id,
		     const json_t *text, json_t *answer, struct transport_later *later)
{
	struct verbs_devices *devices = server->host->devices;
	struct served_link *link;
	struct offer offer;
	int rc;

	if (!json_object_get(text, "queues"))
		return fail(-ENOENT,
			    "there is no such link, and no queue pairs are offered for it");
	drop_uninvited(server, grant->connection);
	if (count_links(server, grant->connection) >= VERBS_LINKS_MAX)
		return fail(-ENOSPC, "this client has %d links already", VERBS_LINKS_MAX);
	rc = may_connect(server, grant->connection);
	if (rc == 0)
		rc = parse_offer(devices, text, &offer);
	if (rc == 0)
		rc = budget_take(later->budget, SLU_LIMIT_LINKS, 1);
	if (rc < 0)
		return rc;
	rc = served_link_create(server->services[server->next_poller % server->pollers],
				&devices->devices[offer.device],
				(uint32_t)json_array_size(offer.queues), &link);
	if (rc < 0) {
		budget_give(later->budget, SLU_LIMIT_LINKS, 1);
		return rc;
	}
	link->budget = budget_get(later->budget);
	link->owner = grant->connection;
	link->id = id;
	link->poller = server->next_poller % server->pollers;
	if (json_is_true(json_object_get(text, "cm")))
		rc = invite(server, link, &offer, answer);
	else
		rc = connect_link(server, link, &offer, grant, later);
	if (rc < 0) {
		served_link_destroy(link);
		return rc;
	}
	server->next_poller++;
	if (rc == 0)
		LIST_INSERT_HEAD(links_of(server, link->owner), link, of_server);
	return rc;
}

/* One that the client has lost: what is left of it here would stay until the client goes. */
static void drop_replaced(struct verbs_server *server, uint64_t connection, const json_t *offer)
{
	const char *text = json_string_value(json_object_get(offer, "instead"));
	uint64_t id;

	if (text && sscanf(text, "%16" SCNx64, &id) == 1)
		verbs_server_fence(server, connection, id);
}

/* ---- what the engine asks for ---- */

void verbs_server_fence(struct verbs_server *server, uint64_t connection, uint64_t id)
{
	struct served_link *link = find_link(server, connection, id);

	if (link)
		drop_link(server, link);
}

int verbs_server_grant(struct verbs_server *server, const struct grant *grant, json_t *description,
		       struct grant **out)
{
	struct visit_list *visits = calloc(1, sizeof(*visits));
	struct grant with = *grant;
	int rc;

	if (!visits)
		return fail(-ENOMEM, "target is out of memory");
	with.more = visits;
	rc = grants_add(server->grants, &with, description, out);
	if (rc < 0)
		free(visits);
	return rc;
}

/* A client that got no answer in time asks again: what it was given then is given back. */
static void close_earlier_visit(const struct grant *grant, const struct served_link *link)
{
	const struct visit_list *visits = grant->more;
	struct visit *visit;

	LIST_FOREACH (visit, visits, of_grant) {
		if (visit->on != link)
			continue;
		visit_close(visit);
		return;
	}
}

/* The client does not know yet that it has failed, and hears that there is none: it makes another.
 */
static struct served_link *find_sound_link(struct verbs_server *server, uint64_t connection,
					   uint64_t id)
{
	struct served_link *link = find_link(server, connection, id);

	if (!link || !atomic_load(&link->failed))
		return link;
	drop_link(server, link);
	return NULL;
}

/* On a link that is there. */
static int join_link(struct verbs_server *server, struct grant *grant, struct served_link *link,
		     json_t *answer)
{
	bool was_invited = link->waits;
	int rc = was_invited ? take_invited(server, link) : 0;

	if (rc < 0)
		return rc;
	close_earlier_visit(grant, link);
	rc = visit_open(server->exports, grant, link, answer);
	if (rc < 0 && (was_invited || rc == -EIO))
		drop_link(server, link);
	if (rc == -EIO && !was_invited)
		rc = fail(-ENOENT, "this link has failed: another is needed");
	return rc;
}

int verbs_server_join(struct verbs_server *server, struct grant *grant, const json_t *offer,
		      json_t *answer, struct transport_later *later)
{
	uint64_t id, incarnation;
	const char *id_text, *incarnation_text;
	struct served_link *link;

	if (json_unpack((json_t *)(uintptr_t)offer, "{s:s, s:s}", "link", &id_text, "incarnation",
			&incarnation_text) < 0 ||
	    sscanf(id_text, "%16" SCNx64, &id) != 1 ||
	    sscanf(incarnation_text, "%16" SCNx64, &incarnation) != 1)
		return bad_offer();
	if (incarnation != server->incarnation)
		return fail(-ESTALE, "the target was restarted: open the segment again");
	link = find_sound_link(server, grant->connection, id);
	if (link)
		return join_link(server, grant, link, answer);
	drop_replaced(server, grant->connection, offer);
	return make_link(server, grant, id, offer, answer, later);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void end_links(struct verbs_server *server, uint64_t connection)
{
	struct served_link *link = LIST_FIRST(links_of(server, connection));

	while (link) {
		struct served_link *next = LIST_NEXT(link, of_server);

		if (link->owner == connection)
			drop_link(server, link);
		link = next;
	}
}

/* A link goes with the last that it was used for. */
static void leave_link(struct verbs_server *server, struct visit *visit)
{
	struct served_link *link = visit->on;

	visit_close(visit);
	if (LIST_EMPTY(&link->visits))
		drop_link(server, link);
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

static void catch_up_on_poller(void *arg)
{
	struct link_call *call = arg;

	verbs_service_catch_up(call->service, call->link);
}

static void catch_up_link(struct verbs_server *server, struct served_link *link)
{
	struct link_call call = {.service = server->services[link->poller], .link = link};

	server->on_poller(server->arg, link->poller, catch_up_on_poller, &call);
}

/* What was sent before the client closed is not to be lost. */
static void catch_up(struct verbs_server *server, const struct visit_list *visits)
{
	struct visit *visit;

	LIST_FOREACH (visit, visits, of_grant)
		catch_up_link(server, visit->on);
}

void verbs_server_gone(struct verbs_server *server, uint64_t connection)
{
	struct served_link *link;
	struct connecting *connecting;

	TAILQ_FOREACH (connecting, &server->connecting, of_server)
		if (connecting->grant && connecting->grant->connection == connection)
			connecting->grant = NULL;
	LIST_FOREACH (link, links_of(server, connection), of_server)
		if (link->owner == connection && !link->waits)
			catch_up_link(server, link);
	end_links(server, connection);
}

void verbs_server_revoke(struct verbs_server *server, struct grant *grant, int reason)
{
	struct visit_list *visits;
	struct visit *visit;

	if (!grant)
		return;
	visits = grant->more;
	forget_grant(server, grant);
	if (reason != -EKEYREVOKED)
		catch_up(server, visits);
	grants_end(server->grants, grant, reason);
	while ((visit = LIST_FIRST(visits)))
		leave_link(server, visit);
	if (must_end_links(server, reason))
		end_links(server, grant->connection);
	/* Once each has begun a new turn, none has the grant in its hands any more. Where its
	 * client has no link, none ever looks it up. */
	if (count_links(server, grant->connection) > 0)
		for (uint32_t i = 0; i < server->pollers; i++)
			server->on_poller(server->arg, i, nothing, NULL);
	grants_free(server->grants, grant);
	free(visits);
}

int verbs_server_create(struct verbs_host *host, uint64_t incarnation, uint32_t pollers,
			transport_on_poller on_poller, void *arg, struct verbs_server **out)
{
	struct verbs_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return fail(-ENOMEM, "out of memory");
	server->host = host;
	server->incarnation = incarnation;
	server->pollers = pollers;
	server->on_poller = on_poller;
	server->arg = arg;
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->connected, NULL);
	TAILQ_INIT(&server->connecting);
	rc = grants_create(&server->grants);
	if (rc == 0)
		rc = verbs_exports_create(host->devices, on_poller, arg, &server->exports);
	for (uint32_t i = 0; rc == 0 && i < pollers; i++)
		rc = verbs_service_create(host, server->grants, pollers, i, &server->services[i]);
	if (rc < 0) {
		verbs_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

void verbs_server_destroy(struct verbs_server *server)
{
	if (!server)
		return;
	pthread_mutex_lock(&server->lock);
	while (!TAILQ_EMPTY(&server->connecting))
		pthread_cond_wait(&server->connected, &server->lock);
	pthread_mutex_unlock(&server->lock);
	for (uint32_t i = 0; i < server->pollers; i++)
		verbs_service_destroy(server->services[i]);
	verbs_cm_server_destroy(server->cm);
	verbs_exports_destroy(server->exports);
	grants_destroy(server->grants);
	pthread_cond_destroy(&server->connected);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

struct transport_service *verbs_server_service(struct verbs_server *server, uint32_t poller)
{
	return (struct transport_service *)server->services[poller];
}
