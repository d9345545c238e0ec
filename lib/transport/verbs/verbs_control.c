/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of verbs: links of queue pairs, and paths over them. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "net/proof.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_cm.h"
#include "transport/verbs/verbs_serve.h"

/* A new link has so long to carry its first byte. */
#define PROBE_NS (3 * NS_PER_SECOND)

#define HEX64_TEXT 17u

/* ---- links ---- */

static void give_back(struct verbs_link *link)
{
	struct buffer *first = link->sending.own, *next;
	uint32_t shared = link->sending.out > 0 ? link->sending.out - 1 : 0;

	if (!link->receiving)
		return;
	if (first)
		first->next = NULL;
	else
		first = link->left;
	for (struct buffer *each = link->receiving; each; each = next) {
		next = each->next;
		each->next = first;
		first = each;
	}
	buffers_return(link->buffers, first, VERBS_CLIENT_RECEIVES + 1, shared);
}

static void link_destroy(struct verbs_link *link)
{
	if (!link)
		return;
	verbs_cm_destroy(link->cm);
	for (uint32_t i = 0; i < link->count; i++) {
		verbs_queue_destroy(link->ends[i]->queue);
		free(link->ends[i]);
	}
	if (link->receive_cq)
		ibv_destroy_cq(link->receive_cq);
	if (link->channel)
		ibv_destroy_comp_channel(link->channel);
	give_back(link);
	buffers_put(link->buffers);
	link->peer->forgo(link->ticket);
	free(link);
}

static int add_end(struct verbs_link *link)
{
	struct ibv_device_attr *attr = &link->port->attr;
	struct verbs_queue_options options = {
		.depth = attr->max_qp_wr < (int)VERBS_DEPTH ? (uint32_t)attr->max_qp_wr
							    : VERBS_DEPTH,
		.receives = link->count == 0 ? VERBS_CLIENT_RECEIVES : 0,
		.inline_bytes = VERBS_INLINE_WANT,
		.receive_cq = link->receive_cq,
		.channel = link->channel};
	struct verbs_end *end = calloc(1, sizeof(*end));
	int rc;

	if (!end)
		return fail(-ENOMEM, "out of memory");
	rc = verbs_queue_create(link->port, &options, &end->queue);
	if (rc < 0) {
		free(end);
		return rc;
	}
	link->direct = end->queue->direct;
	link->ends[link->count++] = end;
	if (end->queue->inline_bytes < sizeof(struct verbs_message))
		return fail(-EOPNOTSUPP, "%s takes only %u bytes inline", link->port->name,
			    end->queue->inline_bytes);
	return verbs_queue_initialise(end->queue, link->port, 0);
}

/* What it receives with, and one to send with. */
static int borrow(struct verbs_link *link)
{
	int rc = buffers_lend(link->buffers, VERBS_CLIENT_RECEIVES + 1, VERBS_CALLS - 1,
			      &link->receiving);

	if (rc < 0)
		return rc;
	link->sending.own = link->receiving;
	link->receiving = link->receiving->next;
	return 0;
}

static int make_channel(struct verbs_link *link)
{
	link->channel = ibv_create_comp_channel(link->port->context);
	if (!link->channel ||
	    fcntl(link->channel->fd, F_SETFL, fcntl(link->channel->fd, F_GETFL) | O_NONBLOCK) < 0)
		return fail(-errno, "%s has no completion channel for us: %s", link->port->name,
			    strerror(errno));
	link->receive_cq = ibv_create_cq(link->port->context, (int)VERBS_CLIENT_RECEIVES, NULL,
					 link->channel, 0);
	if (!link->receive_cq)
		return fail(-errno,
			    "%s has no completion queue of %u entries for us: %s (its limits: %d "
			    "queues of %d entries; are others using them up?)",
			    link->port->name, VERBS_CLIENT_RECEIVES, strerror(errno),
			    link->port->attr.max_cq, link->port->attr.max_cqe);
	return 0;
}

static int link_create(struct verbs_host *host, struct verbs_path *path,
		       const struct verbs_pair *pair, struct verbs_link **out)
{
	const struct path_env *env = &path->env;
	const struct slu_rdma_options *options = &host->devices->options;
	uint32_t bulk = options->queue_pairs ? options->queue_pairs : 1;
	struct verbs_link *link = calloc(1, sizeof(*link));
	int rc;

	if (!link)
		return fail(-ENOMEM, "out of memory");
	link->pair = *pair;
	link->port = &host->devices->devices[pair->device];
	link->device = pair->device;
	link->next = 1;
	link_init(&link->link, &verbs_link_ops, env->schedule);
	link->link.wakes = true;
	link->epoll_fd = env->epoll_fd;
	link->id = random_word();
	link->peer = path->path.remote->peer;
	link->ticket = link->peer->ticket(link->peer, link->id);
	link->buffers = buffers_get(env->buffers);
	rc = link->ticket ? borrow(link) : fail(-ENOMEM, "out of memory");
	if (rc == 0)
		rc = make_channel(link);
	for (uint32_t i = 0; rc == 0 && i < 1 + bulk; i++)
		rc = add_end(link);
	if (rc < 0) {
		link_destroy(link);
		return rc;
	}
	*out = link;
	return 0;
}

/* ---- what we ask the target ---- */

static struct verbs_peer *peer_of(const struct verbs_path *path)
{
	return path->path.remote->peer->private[SLU_TRANSPORT_VERBS];
}

static json_t *make_offer(const struct slu_remote *remote, const struct verbs_link *link)
{
	char id[HEX64_TEXT], incarnation[HEX64_TEXT];

	snprintf(id, sizeof(id), "%016" PRIx64, link->id);
	snprintf(incarnation, sizeof(incarnation), "%016" PRIx64, remote->incarnation);
	return json_pack("{s:s, s:s}", "link", id, "incarnation", incarnation);
}

/*
 * A poller has one link to a target: a new one replaces the latest, of which the target may have
 * something left, as it does not hear when a link is given up.
 */
static uint64_t *latest_link(const struct verbs_path *path)
{
	return &peer_of(path)->latest[path->poller];
}

static int add_queues(const struct verbs_path *path, const struct verbs_link *link, bool cm,
		      uint32_t psns[], json_t *offer)
{
	char gid[VERBS_GID_HEX], dead[HEX64_TEXT];
	json_t *queues = json_array();

	for (uint32_t i = 0; i < link->count; i++) {
		psns[i] = (uint32_t)random_word() & 0xffffff;
		json_array_append_new(
			queues, json_pack("[I, I]", (json_int_t)link->ends[i]->queue->qp->qp_num,
					  (json_int_t)psns[i]));
	}
	verbs_gid_to_hex(&link->port->gids[link->pair.gid].gid, gid);
	snprintf(dead, sizeof(dead), "%016" PRIx64, *latest_link(path));
	json_object_set_new(offer, "instead", json_string(dead));
	if (cm)
		json_object_set_new(offer, "cm", json_true());
	return json_object_update_new(
		offer, json_pack("{s:i, s:i, s:s, s:i, s:i, s:i, s:o}", "device",
				 (int)link->pair.peer_device, "gid_index", (int)link->pair.peer_gid,
				 "gid", gid, "lid", (int)link->port->port_attr.lid, "mtu",
				 (int)verbs_mtu_bytes(link->pair.mtu), "reads",
				 link->port->attr.max_qp_init_rd_atom, "queues", queues));
}

static int bad_answer(void)
{
	return fail(-EPROTO, "the target's answer about its queue pairs cannot be");
}

/* The keys of the segment, for each queue pair and each slice. */
static int parse_keys(const json_t *answer, const struct verbs_link *link, uint64_t length,
		      uint64_t *base, uint32_t **out)
{
	uint64_t slices = (length + VERBS_SLICE_BYTES - 1) >> VERBS_SLICE_SHIFT;
	const char *text;
	json_t *keys, *list, *key;
	uint32_t *parsed;
	size_t i, k;

	if (json_unpack((json_t *)(uintptr_t)answer, "{s:s, s:o}", "base", &text, "keys", &keys) <
		    0 ||
	    sscanf(text, "%16" SCNx64, base) != 1 || json_array_size(keys) != link->count ||
	    json_array_size(json_array_get(keys, 0)) != slices) /* before there is room for them */
		return bad_answer();
	parsed = calloc((size_t)link->count * slices, sizeof(*parsed));
	if (!parsed)
		return fail(-ENOMEM, "out of memory");
	json_array_foreach (keys, i, list) {
		bool good = json_array_size(list) == slices;

		json_array_foreach (list, k, key)
			good = good && json_is_string(key) &&
			       sscanf(json_string_value(key), "%8" SCNx32,
				      &parsed[i * slices + k]) == 1;
		if (!good) {
			free(parsed);
			return bad_answer();
		}
	}
	*out = parsed;
	return 0;
}

static int parse_queue(json_t *text, struct verbs_connection *connection)
{
	json_int_t qpn, psn;

	if (json_unpack(text, "[I, I]", &qpn, &psn) < 0 || qpn < 0 || qpn > 0xffffff || psn < 0 ||
	    psn > 0xffffff)
		return bad_answer();
	connection->peer_qpn = (uint32_t)qpn;
	connection->peer_psn = (uint32_t)psn;
	return 0;
}

static int parse_link(struct verbs_host *host, struct verbs_link *link, const json_t *answer,
		      struct verbs_connection *connection, json_t **queues)
{
	const char *gid;
	int lid, mtu, reads, receives;

	if (json_unpack((json_t *)(uintptr_t)answer, "{s:s, s:i, s:i, s:i, s:i, s:o}", "gid", &gid,
			"lid", &lid, "mtu", &mtu, "reads", &reads, "receives", &receives, "queues",
			queues) < 0 ||
	    lid < 0 || lid > UINT16_MAX || reads < 0 ||
	    reads > link->port->attr.max_qp_init_rd_atom || receives < 2 || receives > 65536 ||
	    mtu > (int)verbs_mtu_bytes(link->pair.mtu))
		return bad_answer();
	verbs_connection_init(host, link->port, link->pair.gid, connection);
	connection->peer_lid = (uint16_t)lid;
	connection->mtu = link->pair.mtu = verbs_mtu_from_bytes(mtu);
	connection->reads_out = (uint8_t)(reads < UINT8_MAX ? reads : UINT8_MAX);
	if (!verbs_gid_from_hex(gid, &connection->peer_gid) || !connection->mtu)
		return bad_answer();
	link->credits = link->peer_receives = (uint32_t)receives;
	link->reads = (uint32_t)reads;
	return 0;
}

static int connect_by_cm(struct verbs_link *link, const struct verbs_connection *connection,
			 const json_t *answer, uint64_t until_ns)
{
	struct verbs_queue *queues[VERBS_QUEUES_MAX];
	const struct verbs_cm_link to_connect = {.id = link->id,
						 .device = link->port,
						 .connection = connection,
						 .queues = queues,
						 .count = link->count};
	const char *token;
	int port;

	if (json_unpack((json_t *)(uintptr_t)answer, "{s:{s:i, s:s}}", "cm", "port", &port, "token",
			&token) < 0 ||
	    port <= 0 || port > UINT16_MAX)
		return bad_answer();
	for (uint32_t i = 0; i < link->count; i++)
		queues[i] = link->ends[i]->queue;
	return verbs_cm_connect(&to_connect, &link->port->gids[link->pair.gid],
				&connection->peer_gid, (uint16_t)port, token, until_ns, &link->cm);
}

static int connect_ends(struct verbs_host *host, struct verbs_link *link, const uint32_t *psns,
			const json_t *answer, uint64_t until_ns)
{
	struct verbs_connection connection;
	json_t *queues;
	int rc = parse_link(host, link, answer, &connection, &queues);

	if (rc == 0 && host->devices->options.cm)
		return connect_by_cm(link, &connection, answer, until_ns);
	if (rc == 0 && json_array_size(queues) != link->count)
		return bad_answer();
	for (uint32_t i = 0; rc == 0 && i < link->count; i++) {
		connection.psn = psns[i];
		rc = parse_queue(json_array_get(queues, i), &connection);
		if (rc == 0)
			rc = verbs_queue_connect(link->ends[i]->queue, link->port, &connection);
	}
	return rc < 0 ? rc : 0;
}

/* ---- joining ---- */

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int join_old(struct verbs_path *path, const struct verbs_link *link, uint64_t until_ns,
		    uint64_t *base, uint32_t **keys)
{
	struct slu_remote *remote = path->path.remote;
	json_t *offer = make_offer(remote, link), *answer = NULL;
	int rc;

	if (!offer)
		return fail(-ENOMEM, "out of memory");
	rc = remote->peer->ask(remote->session, offer, until_ns, &answer);
	if (rc == 0)
		rc = parse_keys(answer, link, remote->length, base, keys);
	json_decref(answer);
	json_decref(offer);
	return rc;
}

static int join_new(struct verbs_host *host, struct verbs_path *path, struct verbs_link *link,
		    uint64_t until_ns, uint64_t *base, uint32_t **keys)
{
	struct slu_remote *remote = path->path.remote;
	json_t *offer = make_offer(remote, link), *answer = NULL;
	uint32_t psns[VERBS_QUEUES_MAX];
	int rc = 0;

	if (!offer || add_queues(path, link, host->devices->options.cm, psns, offer) < 0)
		rc = fail(-ENOMEM, "out of memory");
	if (rc == 0)
		rc = verbs_link_receive_all(link);
	if (rc == 0) {
		*latest_link(path) = link->id; /* also if no answer comes */
		rc = remote->peer->ask(remote->session, offer, until_ns, &answer);
	}
	if (rc == 0)
		rc = connect_ends(host, link, psns, answer, until_ns);
	if (rc == 0)
		rc = verbs_link_probe(link, sooner(until_ns, clock_monotonic_ns(NULL) + PROBE_NS));
	if (rc == 0) /* only now the target has queue pairs to give keys for */
		rc = link->cm ? join_old(path, link, until_ns, base, keys)
			      : parse_keys(answer, link, remote->length, base, keys);
	json_decref(answer);
	json_decref(offer);
	return rc;
}

static int make_link(struct verbs_host *host, struct verbs_path *path, uint64_t until_ns,
		     struct verbs_link **out, uint64_t *base, uint32_t **keys)
{
	const json_t *welcome = json_object_get(path->path.remote->peer->transports, "verbs");
	struct verbs_link *link = NULL;
	struct verbs_pair pair;
	uint64_t begun;
	int rc = verbs_pair_choose(host->devices, welcome, path->env.node, path->poller, &pair);

	if (rc == 0)
		rc = verbs_memory_use(&host->memory, &host->devices->devices[pair.device]);
	if (rc == 0)
		rc = verbs_memory_use(&host->buffers, &host->devices->devices[pair.device]);
	begun = clock_monotonic_ns(NULL);
	if (rc == 0)
		rc = link_create(host, path, &pair, &link);
	if (rc < 0)
		return rc;
	rc = join_new(host, path, link, until_ns, base, keys);
	if (rc < 0) {
		verbs_link_drain(link);
		link_destroy(link);
		return rc;
	}
	link->connect_ns = clock_monotonic_ns(NULL) - begun;
	*out = link;
	return 0;
}

static struct verbs_link **link_at(const struct verbs_path *path)
{
	return &peer_of(path)->links[path->poller];
}

/* @return NULL: there is none that lives */
static struct verbs_link *get_link(const struct verbs_path *path)
{
	pthread_mutex_t *joining = &peer_of(path)->joining;
	struct verbs_link *link;

	pthread_mutex_lock(joining);
	link = *link_at(path);
	if (link && link->error)
		link = NULL;
	if (link)
		link->users++;
	pthread_mutex_unlock(joining);
	return link;
}

static void publish_link(const struct verbs_path *path, struct verbs_link *link)
{
	pthread_mutex_t *joining = &peer_of(path)->joining;

	link->users = 1;
	pthread_mutex_lock(joining);
	*link_at(path) = link;
	pthread_mutex_unlock(joining);
}

int verbs_join(struct verbs_host *host, struct verbs_path *path, uint64_t until_ns,
	       struct verbs_link **out, uint64_t *base, uint32_t **keys)
{
	struct verbs_link *link = get_link(path);
	int rc = link ? join_old(path, link, until_ns, base, keys) : -ENOENT;

	if (rc < 0)
		verbs_leave(path, link);
	if (rc == -ENOENT) { /* there is none, or the target has it no more */
		rc = make_link(host, path, until_ns, &link, base, keys);
		if (rc == 0)
			publish_link(path, link);
	}
	if (rc < 0)
		return rc;
	*out = link;
	return 0;
}

void verbs_leave(struct verbs_path *path, struct verbs_link *link)
{
	pthread_mutex_t *joining = &peer_of(path)->joining;
	bool last;

	if (!link)
		return;
	pthread_mutex_lock(joining);
	last = --link->users == 0;
	if (last && *link_at(path) == link)
		*link_at(path) = NULL;
	pthread_mutex_unlock(joining);
	if (!last)
		return;
	verbs_link_drain(link);
	link_destroy(link);
}

void verbs_path_describe(const struct verbs_host *host, struct verbs_path *path,
			 const struct verbs_link *link)
{
	char pair[VERBS_PAIR_TEXT];

	verbs_pair_describe(host->devices, &link->pair, pair);
	pthread_mutex_lock(&path->host->texts);
	snprintf(path->text, sizeof(path->text),
		 "%s, %u queue pairs%s connected by %s, %u reads at once", pair, link->count,
		 link->ends[0]->queue->direct ? " (mlx5 direct)" : "",
		 link->cm ? "librdmacm" : "the control session", link->reads);
	atomic_store(&path->path.connect_ns, link->connect_ns);
	pthread_mutex_unlock(&path->host->texts);
}

/* ---- paths ---- */

static void path_dropped(struct repair_item *item)
{
	struct verbs_path *verbs =
		(struct verbs_path *)((char *)item - offsetof(struct verbs_path, repair));

	verbs_leave(verbs, verbs->link);
	verbs_leave(verbs, verbs->fresh);
	free(verbs->fresh_keys);
	free(verbs->keys);
	buffers_put(verbs->env.buffers);
	free(verbs);
}

static struct verbs_path *path_create(struct slu_remote *remote, const struct path_env *env)
{
	const struct verbs_view *view = remote->view;
	struct verbs_path *verbs = calloc(1, sizeof(*verbs));

	if (!verbs)
		return NULL;
	verbs->path = (struct path){.fast = &verbs_fast,
				    .slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
				    .transport = SLU_TRANSPORT_VERBS,
				    .remote = remote};
	verbs->path.calls = &verbs->path;
	verbs->host = env->transport->hosts[SLU_TRANSPORT_VERBS];
	verbs->repair = (struct repair_item){.attempt = verbs_repair_attempt,
					     .dropped = path_dropped,
					     .lane = &remote->peer->lanes[SLU_TRANSPORT_VERBS],
					     .target = remote->target};
	verbs->path.making = &verbs->repair;
	verbs->state = VERBS_PATH_DOWN;
	verbs->env = *env;
	buffers_get(env->buffers);
	verbs->poller = env->poller;
	verbs->handle = view->handle;
	verbs->generation = view->generation;
	verbs->slices = (uint32_t)((remote->length + VERBS_SLICE_BYTES - 1) >> VERBS_SLICE_SHIFT);
	path_init(&verbs->path);
	return verbs;
}

static int verbs_connect(struct slu_remote *remote, const struct path_env *env, struct path **path)
{
	struct verbs_path *verbs = path_create(remote, env);

	if (!verbs)
		return fail(-ENOMEM, "out of memory");
	*path = &verbs->path;
	return 0;
}

static void verbs_disconnect(struct path *path)
{
	struct verbs_path *verbs = (struct verbs_path *)path;

	if (verbs)
		repair_drop(verbs->env.transport->repair, &verbs->repair);
}

static void verbs_describe_path(struct path *path, char *text, size_t size)
{
	struct verbs_path *verbs = (struct verbs_path *)path;

	pthread_mutex_lock(&verbs->host->texts);
	snprintf(text, size, "%s", verbs->text);
	pthread_mutex_unlock(&verbs->host->texts);
}

static int verbs_import(struct transport_peer *peer, const json_t *grant, uint64_t length,
			uint32_t rights, const int *fds, uint32_t fd_count, void **out)
{
	struct verbs_view *view;
	json_int_t handle, generation;

	(void)peer;
	(void)length;
	(void)rights;
	(void)fds;
	if (json_unpack((json_t *)(uintptr_t)grant, "{s:I, s:I}", "handle", &handle, "generation",
			&generation) < 0 ||
	    fd_count > 0 || handle < 0 || handle > UINT32_MAX || generation <= 0 ||
	    generation > UINT32_MAX)
		return fail(-EPROTO, "the target's grant is not one of verbs");
	view = malloc(sizeof(*view));
	if (!view)
		return fail(-ENOMEM, "out of memory");
	*view = (struct verbs_view){.handle = (uint32_t)handle, .generation = (uint32_t)generation};
	*out = view;
	return 0;
}

static bool verbs_consider(const struct transport_env *env, const struct transport_prospect *with,
			   char *reason)
{
	const struct verbs_host *host = env->hosts[SLU_TRANSPORT_VERBS];
	const struct verbs_devices *devices = host->devices;
	char text[VERBS_PAIR_TEXT];
	struct verbs_pair pair;

	if (devices->count > 0 && with->data_encrypted && !devices->options.plain) {
		snprintf(reason, SLU_REASON_MAX,
			 "RDMA does not encrypt, and the session is encrypted: --rdma-plain at "
			 "both ends allows it");
		return false;
	}
	if (verbs_pair_choose(devices, with->offer, -1, 0, &pair) < 0) {
		snprintf(reason, SLU_REASON_MAX, "%s%s", slu_last_error(),
			 with->encrypted && !with->offer
				 ? "; or the target keeps RDMA from encrypted sessions: give "
				   "it --rdma-plain too"
				 : "");
		return false;
	}
	snprintf(reason, SLU_REASON_MAX, "%s%s", verbs_pair_describe(devices, &pair, text),
		 with->encrypted ? "; the session is encrypted, the data is not" : "");
	return true;
}

static int verbs_meet(void **private)
{
	struct verbs_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&peer->joining, NULL);
	*private = peer;
	return 0;
}

static void verbs_part(void *private)
{
	pthread_mutex_destroy(&((struct verbs_peer *)private)->joining);
	free(private);
}

static const struct transport_client verbs_client = {
	.capabilities = {.slice_bytes = TRANSPORT_SLICE_MAX_BYTES,
			 .call_bytes = SLU_MESSAGE_MAX,
			 .latency_ns = 3000,
			 .bytes_per_second = UINT64_C(12000000000),
			 .memories = 1u << SLU_MEMORY_HOST},
	.trying = true,
	.consider = verbs_consider,
	.meet = verbs_meet,
	.leave = verbs_part,
	.import = verbs_import,
	.release = free,
	.connect = verbs_connect,
	.disconnect = verbs_disconnect,
	.describe = verbs_describe_path,
};

static const struct transport_target verbs_target = {
	.in_the_clear = true,
	.create = verbs_server_create,
	.stop = verbs_server_stop,
	.destroy = verbs_server_destroy,
	.service = verbs_server_service,
	.describe = verbs_server_describe,
	.export = verbs_server_export,
	.unexport = verbs_server_unexport,
	.grant = verbs_server_grant,
	.join = verbs_server_join,
	.revoke = verbs_server_revoke,
	.fence = verbs_server_fence,
	.gone = verbs_server_gone,
	.after = verbs_server_after,
	.settle = verbs_server_settle,
};

const struct transport verbs_transport = {
	.id = SLU_TRANSPORT_VERBS,
	.host = &verbs_hosts,
	.client = &verbs_client,
	.target = &verbs_target,
	.fast = &verbs_fast,
};
