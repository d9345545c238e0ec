/* SPDX-License-Identifier: Apache-2.0 */
/* Set-up of tcp: what a grant says, links of data connections, paths over them. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "base/random.h"
#include "net/proof.h"
#include "transport/tcp/tcp.h"
#include "transport/tcp/tcp_serve.h"

/* ---- links ---- */

static void link_destroy(struct tcp_link *link)
{
	for (uint32_t i = 0; i < link->count; i++) {
		channel_close(&link->ends[i]->channel);
		channel_close(&link->ends[i]->fresh);
		free(link->ends[i]);
	}
	link->peer->forgo(link->ticket);
	free(link);
}

static void link_dropped(struct repair_item *item)
{
	link_destroy((struct tcp_link *)((char *)item - offsetof(struct tcp_link, mending)));
}

static int open_fresh(struct tcp_link *link, const struct stream *streams)
{
	int rc = 0;

	for (uint32_t i = 0; i < link->count; i++) {
		struct stream stream = streams[i];

		if (rc == 0)
			rc = channel_open(&link->ends[i]->fresh, &stream);
		if (rc < 0)
			stream_close(&stream);
	}
	for (uint32_t i = 0; rc < 0 && i < link->count; i++)
		channel_close(&link->ends[i]->fresh);
	return rc;
}

int tcp_link_dial(struct tcp_link *link, uint64_t until_ns)
{
	struct stream streams[1 + SLU_TCP_CONNECTIONS_MAX];
	struct transport_peer *peer = link->peer;
	uint64_t name = random_word();
	struct fence_ticket *ticket = peer->ticket(peer, name);
	int rc = ticket ? peer->dial(peer, name, link->count, until_ns, streams)
			: fail(-ENOMEM, "out of memory");

	if (rc == 0)
		rc = open_fresh(link, streams);
	if (rc < 0) {
		peer->forgo(ticket);
		return rc;
	}
	peer->forgo(link->ticket); /* of connections that were lost with nothing on them */
	link->ticket = ticket;
	/* Pairs with the acquire in is_up(): what is fresh is complete. */
	atomic_store_explicit(&link->state, TCP_LINK_MENDED, memory_order_release);
	transport_changed();
	return 0;
}

static int add_ends(struct tcp_link *link, uint32_t count)
{
	while (link->count < count) {
		struct tcp_end *end = calloc(1, sizeof(*end));

		if (!end)
			return fail(-ENOMEM, "out of memory");
		end->owner = link;
		end->channel.stream.fd = end->fresh.stream.fd = -1;
		link->ends[link->count++] = end;
	}
	return 0;
}

static int link_create(struct slu_remote *remote, const struct path_env *env, struct tcp_link **out)
{
	const struct tcp_host *host = env->transport->hosts[SLU_TRANSPORT_TCP];
	struct tcp_link *link = calloc(1, sizeof(*link));
	int rc;

	if (!link)
		return fail(-ENOMEM, "out of memory");
	link_init(&link->link, &tcp_link_ops, env->schedule);
	link->link.wakes = true;
	link->epoll_fd = env->epoll_fd;
	link->peer = remote->peer;
	link->repair = env->transport->repair;
	link->mending = (struct repair_item){.attempt = tcp_link_mend,
					     .dropped = link_dropped,
					     .lane = &remote->peer->lanes[SLU_TRANSPORT_TCP],
					     .target = link->target};
	strcpy(link->target, remote->target);
	link->state = TCP_LINK_DOWN;
	rc = add_ends(link, 1 + host->connections);
	if (rc < 0) {
		link_destroy(link);
		return rc;
	}
	*out = link;
	return 0;
}

/* The poller's link to that target: made by its first path, gone with its last. */
static int link_get(struct slu_remote *remote, const struct path_env *env, struct tcp_link **out)
{
	struct tcp_peer *peer = remote->peer->private[SLU_TRANSPORT_TCP];
	struct tcp_link *link = peer->links[env->poller];
	int rc = 0;

	if (!link || link->error)
		rc = link_create(remote, env, &link);
	if (rc < 0)
		return rc;
	peer->links[env->poller] = link;
	link->users++;
	*out = link;
	return 0;
}

static void link_put(struct tcp_link *link, uint32_t poller)
{
	struct tcp_peer *peer = link->peer->private[SLU_TRANSPORT_TCP];

	if (--link->users > 0)
		return;
	if (peer->links[poller] == link)
		peer->links[poller] = NULL;
	repair_drop(link->repair, &link->mending);
}

/* ---- paths ---- */

static int tcp_connect(struct slu_remote *remote, const struct path_env *env, struct path **path)
{
	const struct tcp_view *view = remote->view;
	struct tcp_path *tcp = calloc(1, sizeof(*tcp));
	int rc;

	if (!tcp)
		return fail(-ENOMEM, "out of memory");
	rc = link_get(remote, env, &tcp->link);
	if (rc < 0) {
		free(tcp);
		return rc;
	}
	tcp->path = (struct path){.fast = &tcp_fast,
				  .slice_bytes = TCP_SLICE_BYTES,
				  .transport = SLU_TRANSPORT_TCP,
				  .connections = tcp->link->count,
				  .remote = remote,
				  .link = &tcp->link->link,
				  .making = &tcp->link->mending};
	path_init(&tcp->path);
	tcp->path.calls = &tcp->path;
	tcp->handle = view->handle;
	tcp->generation = view->generation;
	tcp->poller = env->poller;
	*path = &tcp->path;
	return 0;
}

static void tcp_disconnect(struct path *path)
{
	struct tcp_path *tcp = (struct tcp_path *)path;

	if (!tcp)
		return;
	link_put(tcp->link, tcp->poller);
	free(tcp);
}

static int tcp_import(struct transport_peer *peer, const json_t *grant, uint64_t length,
		      uint32_t rights, const int *fds, uint32_t fd_count, void **out)
{
	struct tcp_view *view;
	json_int_t handle, generation;

	(void)peer;
	(void)length;
	(void)rights;
	(void)fds;
	if (json_unpack((json_t *)grant, "{s:I, s:I}", "handle", &handle, "generation",
			&generation) < 0 ||
	    fd_count > 0 || handle < 0 || handle > UINT32_MAX || generation < 0 ||
	    generation > UINT32_MAX)
		return fail(-EPROTO, "the target's description of the segment is inconsistent");
	view = malloc(sizeof(*view));
	if (!view)
		return fail(-ENOMEM, "out of memory");
	*view = (struct tcp_view){.handle = (uint32_t)handle, .generation = (uint32_t)generation};
	*out = view;
	return 0;
}

static bool tcp_consider(const struct transport_env *env, const struct transport_prospect *with,
			 char *reason)
{
	(void)env;
	if (with->port == 0)
		snprintf(reason, SLU_REASON_MAX,
			 "the target does not listen on TCP: start it with --listen ADDRESS:PORT");
	else
		snprintf(reason, SLU_REASON_MAX, "the target serves TCP at %s port %u, %s",
			 with->host, with->port,
			 with->data_encrypted ? "encrypted"
			 : with->tls          ? "authenticated by TLS, data in the clear"
					      : "in the clear");
	return with->port != 0;
}

static int tcp_meet(void **private)
{
	*private = calloc(1, sizeof(struct tcp_peer));
	return *private ? 0 : fail(-ENOMEM, "out of memory");
}

static int open_host(const struct slu_engine_options *options, void **out)
{
	struct tcp_host *host;

	if (options->tcp_connections > SLU_TCP_CONNECTIONS_MAX)
		return fail(-EINVAL, "%u TCP connections per link, at most %d are possible",
			    options->tcp_connections, SLU_TCP_CONNECTIONS_MAX);
	host = malloc(sizeof(*host));
	if (!host)
		return fail(-ENOMEM, "out of memory");
	host->connections = options->tcp_connections ? options->tcp_connections : 1;
	*out = host;
	return 0;
}

static const struct transport_host tcp_hosts = {.open = open_host, .close = free};

static const struct transport_client tcp_client = {
	.capabilities = {.slice_bytes = TCP_SLICE_BYTES,
			 .atomics = true,
			 .call_bytes = SLU_CALL_MAX,
			 .latency_ns = 20000,
			 .bytes_per_second = UINT64_C(3000000000),
			 .memories = 1u << SLU_MEMORY_HOST},
	.dials = true,
	.consider = tcp_consider,
	.meet = tcp_meet,
	.leave = free,
	.import = tcp_import,
	.release = free,
	.connect = tcp_connect,
	.disconnect = tcp_disconnect,
};

static const struct transport_target tcp_target = {
	.create = tcp_server_create,
	.destroy = tcp_server_destroy,
	.service = tcp_server_service,
	.close = tcp_server_close,
	.grant = tcp_server_grant,
	.revoke = tcp_server_revoke,
	.attach = tcp_server_attach,
	.fence = tcp_server_fence,
	.gone = tcp_server_gone,
};

const struct transport tcp_transport = {
	.id = SLU_TRANSPORT_TCP,
	.host = &tcp_hosts,
	.client = &tcp_client,
	.target = &tcp_target,
	.fast = &tcp_fast,
};
