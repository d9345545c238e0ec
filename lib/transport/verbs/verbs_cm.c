/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs/verbs_cm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "transport/verbs/verbs.h"

#define BACKLOG     128
#define RNR_RETRIES 7 /* what it agrees on is not used: verbs_queue_connect() */

/** What a rejected request hears. Little-endian. */
struct refusal {
	uint32_t magic;
	int32_t error;
};

struct verbs_cm {
	/* The target's, under the server's lock. */
	struct invitation invitation; /* first: it is found by it */
	struct verbs_cm_server *server;
	const struct verbs_device *device;
	struct verbs_connection connection;
	struct verbs_queue *const *queues;

	/* The client's. */
	struct rdma_event_channel *channel;

	/* Of both. */
	uint32_t count;
	struct rdma_cm_id *ids[VERBS_QUEUES_MAX]; /* by queue; NULL: not connected */
};

struct verbs_cm_server {
	struct rdma_event_channel *channel;
	struct rdma_cm_id *listener;
	int stop_fd;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	struct invitations invitations;
};

static int no_librdmacm(int error)
{
	return fail(
		-EOPNOTSUPP,
		"librdmacm cannot be used: %s; load its module (modprobe rdma_ucm) and let this "
		"user open /dev/infiniband/rdma_cm, or leave --connect cm out",
		strerror(error));
}

static int open_channel(struct rdma_event_channel **out)
{
	struct rdma_event_channel *channel = rdma_create_event_channel();

	if (!channel)
		return no_librdmacm(errno);
	if (fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK) < 0) {
		int error = errno;

		rdma_destroy_event_channel(channel);
		return fail(-error, "fcntl: %s", strerror(error));
	}
	*out = channel;
	return 0;
}

/* ---- both ends ---- */

static int no_attributes(const char *state)
{
	return fail(-errno, "librdmacm does not say how the queue pair becomes %s: %s", state,
		    strerror(errno));
}

/* What the two ends have told each other. Which of our GIDs is used has been agreed upon in the
 * session: librdmacm might take another of the same address, RoCE v2 for v1. */
static int read_numbers(struct rdma_cm_id *id, struct verbs_connection *connection)
{
	struct ibv_qp_attr receive = {.qp_state = IBV_QPS_RTR}, send = {.qp_state = IBV_QPS_RTS};
	int mask;

	if (rdma_init_qp_attr(id, &receive, &mask))
		return no_attributes("ready to receive");
	if (rdma_init_qp_attr(id, &send, &mask))
		return no_attributes("ready to send");
	connection->peer_qpn = receive.dest_qp_num;
	connection->peer_psn = receive.rq_psn;
	connection->psn = send.sq_psn;
	connection->peer_lid = receive.ah_attr.dlid;
	connection->peer_gid = receive.ah_attr.grh.dgid;
	connection->service_level = receive.ah_attr.sl;
	return 0;
}

static int connect_queue(struct rdma_cm_id *id, const struct verbs_device *device,
			 const struct verbs_connection *common, struct verbs_queue *queue)
{
	struct verbs_connection connection = *common;
	int rc = read_numbers(id, &connection);

	if (rc == 0 && memcmp(&connection.peer_gid, &common->peer_gid, sizeof(union ibv_gid)) != 0)
		return fail(-EPROTO, "the peer's GID is another one by librdmacm than by the "
				     "session: leave --connect cm out");
	return rc < 0 ? rc : verbs_queue_connect(queue, device, &connection);
}

/* librdmacm opens devices for itself. */
static bool is_on(const struct rdma_cm_id *id, const struct verbs_device *device)
{
	return id->verbs && id->port_num == device->port &&
	       strcmp(ibv_get_device_name(id->verbs->device),
		      ibv_get_device_name(device->context->device)) == 0;
}

static struct rdma_conn_param parameters(const struct verbs_connection *connection,
					 const struct verbs_queue *queue)
{
	return (struct rdma_conn_param){.responder_resources = connection->reads_in,
					.initiator_depth = connection->reads_out,
					.retry_count = connection->retries,
					.rnr_retry_count = RNR_RETRIES,
					.qp_num = queue->qp->qp_num};
}

void verbs_cm_destroy(struct verbs_cm *cm)
{
	if (!cm)
		return;
	if (cm->server) { /* its thread connects nothing of it any more */
		pthread_mutex_lock(&cm->server->lock);
		invitation_withdraw(&cm->invitation);
		pthread_mutex_unlock(&cm->server->lock);
	}
	for (uint32_t i = 0; i < cm->count; i++)
		if (cm->ids[i])
			rdma_destroy_id(cm->ids[i]);
	if (cm->channel)
		rdma_destroy_event_channel(cm->channel);
	free(cm);
}

/* ---- the client ---- */

union cm_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* The interface behind a GID: a link-local address means nothing without it. */
static uint32_t interface_of(const struct verbs_device *device, uint32_t gid_index)
{
	char path[256], name[IF_NAMESIZE] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/%u",
		 ibv_get_device_name(device->context->device), device->port, gid_index);
	file = fopen(path, "re");
	if (!file)
		return 0;
	if (fscanf(file, "%15s", name) != 1)
		name[0] = '\0';
	fclose(file);
	return if_nametoindex(name);
}

static void make_address(const union ibv_gid *gid, uint32_t scope, uint16_t port,
			 union cm_address *address)
{
	*address = (union cm_address){0};
	if (verbs_gid_is_ipv4(gid)) {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons(port);
		memcpy(&address->v4.sin_addr, gid->raw + 12, 4);
	} else {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons(port);
		memcpy(&address->v6.sin6_addr, gid->raw, 16);
		if (IN6_IS_ADDR_LINKLOCAL(&address->v6.sin6_addr))
			address->v6.sin6_scope_id = scope;
	}
}

static int refused(const struct rdma_cm_event *event)
{
	const struct refusal *refusal = event->param.conn.private_data;

	if (refusal && event->param.conn.private_data_len >= sizeof(*refusal) &&
	    refusal->magic == VERBS_CM_MAGIC && refusal->error < 0 && refusal->error > -4096)
		return fail(refusal->error, "the target does not connect the queue pair: %s",
			    slu_strerror(refusal->error));
	return fail(-ECONNREFUSED,
		    "the target's librdmacm does not take the request (reason %d); leave --connect "
		    "cm out",
		    event->status);
}

static int no_way(int error)
{
	return fail(-EHOSTUNREACH,
		    "librdmacm finds no way to the target's GID: %s; give this host a route to it, "
		    "or leave --connect cm out",
		    strerror(error));
}

static int judge(const struct rdma_cm_event *event, enum rdma_cm_event_type due)
{
	if (event->event == due && event->status == 0)
		return 0;
	switch (event->event) {
	case RDMA_CM_EVENT_ADDR_ERROR:
	case RDMA_CM_EVENT_ROUTE_ERROR:
		return no_way(-event->status);
	case RDMA_CM_EVENT_REJECTED:
		return refused(event);
	case RDMA_CM_EVENT_UNREACHABLE:
	case RDMA_CM_EVENT_CONNECT_ERROR:
		return fail(-ETIMEDOUT,
			    "the target's librdmacm does not answer (%d): let firewalls pass UDP "
			    "port 4791, or leave --connect cm out",
			    event->status);
	default:
		return fail(-EPROTO, "librdmacm says %s where %s was due (%d)",
			    rdma_event_str(event->event), rdma_event_str(due), event->status);
	}
}

static int wait_for(struct verbs_cm *cm, enum rdma_cm_event_type due, uint64_t until_ns)
{
	struct rdma_cm_event *event;
	int rc;

	while (rdma_get_cm_event(cm->channel, &event)) {
		struct pollfd readable = {.fd = cm->channel->fd, .events = POLLIN};
		uint64_t now = clock_monotonic_ns(NULL);

		if (errno != EAGAIN && errno != EINTR)
			return fail(-errno, "rdma_get_cm_event: %s", strerror(errno));
		if (now >= until_ns)
			return fail(-ETIMEDOUT,
				    "librdmacm waited in vain for %s: let firewalls pass UDP port "
				    "4791, or leave --connect cm out",
				    rdma_event_str(due));
		poll(&readable, 1, (int)((until_ns - now) / 1000000) + 1);
	}
	rc = judge(event, due);
	rdma_ack_cm_event(event);
	return rc;
}

static int left_ms(uint64_t until_ns)
{
	uint64_t now = clock_monotonic_ns(NULL);

	return now < until_ns ? (int)((until_ns - now) / 1000000) + 1 : 1;
}

static int failed(const char *what)
{
	return fail(-errno, "%s: %s", what, strerror(errno));
}

/* The class decides, by the host's table, on the priority that read_numbers() finds. */
static int set_options(struct rdma_cm_id *id, const struct verbs_connection *connection)
{
	uint8_t tos = connection->traffic_class, timeout = connection->timeout;

	if (tos && rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof(tos)))
		return fail(-errno, "librdmacm does not take traffic class %u: %s", tos,
			    strerror(errno));
	/* Kernels before 5.1 do not know it; that of the queue pair is set all the same. */
	rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof(timeout));
	return 0;
}

static int find_way(struct verbs_cm *cm, struct rdma_cm_id *id, union cm_address *ours,
		    union cm_address *peer, uint64_t until_ns)
{
	int rc;

	if (rdma_resolve_addr(id, &ours->any, &peer->any, left_ms(until_ns)))
		return no_way(errno);
	rc = wait_for(cm, RDMA_CM_EVENT_ADDR_RESOLVED, until_ns);
	if (rc < 0)
		return rc;
	if (rdma_resolve_route(id, left_ms(until_ns)))
		return failed("rdma_resolve_route");
	return wait_for(cm, RDMA_CM_EVENT_ROUTE_RESOLVED, until_ns);
}

static int request(struct verbs_cm *cm, uint32_t index, const struct verbs_cm_link *link,
		   const uint8_t *secret, uint64_t until_ns)
{
	struct verbs_cm_hello hello;
	struct verbs_queue *queue = link->queues[index];
	struct rdma_conn_param param = parameters(link->connection, queue);
	struct rdma_cm_id *id = cm->ids[index];
	int rc;

	if (!is_on(id, link->device))
		return fail(-ENODEV,
			    "the way to the target's GID leaves by another device than %s: give it "
			    "a route there, or leave --connect cm out",
			    link->device->name);
	if (!invitation_prove(secret, link->id, index, param.qp_num, &hello))
		return fail(-ENOMEM, "out of memory");
	param.private_data = &hello;
	param.private_data_len = sizeof(hello);
	if (rdma_connect(id, &param))
		return failed("rdma_connect");
	rc = wait_for(cm, RDMA_CM_EVENT_CONNECT_RESPONSE, until_ns);
	if (rc == 0)
		rc = connect_queue(id, link->device, link->connection, queue);
	if (rc == 0 && rdma_establish(id))
		rc = failed("rdma_establish");
	return rc;
}

/* One queue pair after the other: each takes one round trip. */
static int connect_all(struct verbs_cm *cm, const struct verbs_cm_link *link, const uint8_t *secret,
		       union cm_address *ours, union cm_address *peer, uint64_t until_ns)
{
	int rc = open_channel(&cm->channel);

	for (uint32_t i = 0; rc == 0 && i < link->count; i++) {
		if (rdma_create_id(cm->channel, &cm->ids[i], NULL, RDMA_PS_TCP))
			return no_librdmacm(errno);
		cm->count++;
		rc = set_options(cm->ids[i], link->connection);
		if (rc == 0)
			rc = find_way(cm, cm->ids[i], ours, peer, until_ns);
		if (rc == 0)
			rc = request(cm, i, link, secret, until_ns);
	}
	return rc;
}

int verbs_cm_connect(const struct verbs_cm_link *link, const struct verbs_gid *ours,
		     const union ibv_gid *peer, uint16_t port, const char *token, uint64_t until_ns,
		     struct verbs_cm **out)
{
	uint32_t scope = interface_of(link->device, ours->index);
	uint8_t secret[SECRET_BYTES];
	union cm_address from, to;
	struct verbs_cm *cm;
	int rc;

	if (!link->device->ethernet)
		return fail(
			-EOPNOTSUPP,
			"librdmacm needs GIDs that are IP addresses, which those of %s are not: "
			"leave --connect cm out",
			link->device->name);
	cm = calloc(1, sizeof(*cm));
	if (!cm)
		return fail(-ENOMEM, "out of memory");
	make_address(&ours->gid, scope, 0, &from);
	make_address(peer, scope, port, &to);
	rc = secret_parse(token, secret, SECRET_BYTES)
		     ? connect_all(cm, link, secret, &from, &to, until_ns)
		     : fail(-EPROTO, "the target's token for librdmacm cannot be");
	OPENSSL_cleanse(secret, sizeof(secret));
	if (rc < 0) {
		verbs_cm_destroy(cm);
		return rc;
	}
	*out = cm;
	return 0;
}

/* ---- the target ---- */

/* Under lock. @return 0: connected, the id is taken */
static int admit(struct verbs_cm_server *server, struct rdma_cm_id *id,
		 const struct verbs_cm_hello *hello, uint32_t qpn)
{
	struct invitation *invitation;
	struct rdma_conn_param param;
	struct verbs_cm *cm;
	int rc = invitation_find(&server->invitations, hello, qpn, clock_monotonic_ns(NULL),
				 &invitation);

	if (rc == -EACCES)
		log_peer(
			SLU_LOG_WARNING,
			"security: somebody who was not invited asks by librdmacm for queue pairs");
	if (rc < 0)
		return rc;
	cm = (struct verbs_cm *)invitation;
	if (!is_on(id, cm->device))
		return -ENODEV;
	rc = connect_queue(id, cm->device, &cm->connection, cm->queues[hello->queue]);
	if (rc < 0) {
		log_peer(SLU_LOG_WARNING, "a client's queue pair is not connected: %s",
			 slu_last_error());
		return rc;
	}
	param = parameters(&cm->connection, cm->queues[hello->queue]);
	if (rdma_accept(id, &param))
		return -errno;
	cm->ids[hello->queue] = id;
	invitation_use(invitation, hello->queue);
	return 0;
}

static void answer_request(struct verbs_cm_server *server, struct rdma_cm_id *id,
			   const struct verbs_cm_hello *hello, uint32_t qpn)
{
	struct refusal refusal = {.magic = VERBS_CM_MAGIC};

	pthread_mutex_lock(&server->lock);
	refusal.error = admit(server, id, hello, qpn);
	pthread_mutex_unlock(&server->lock);
	if (refusal.error == 0)
		return;
	rdma_reject(id, &refusal, sizeof(refusal));
	rdma_destroy_id(id);
}

/* Whatever ends is destroyed by who has it: here nothing is known of ids but that they are there
 * until their event was acknowledged. */
static void take_event(struct verbs_cm_server *server, struct rdma_cm_event *event)
{
	const struct rdma_conn_param *param = &event->param.conn;
	struct verbs_cm_hello hello = {0};
	struct rdma_cm_id *id = event->id;
	uint32_t qpn = param->qp_num;
	bool is_request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;

	if (is_request && param->private_data && param->private_data_len >= sizeof(hello))
		memcpy(&hello, param->private_data, sizeof(hello));
	if (event->event == RDMA_CM_EVENT_DISCONNECTED)
		rdma_disconnect(id);
	rdma_ack_cm_event(event);
	if (is_request)
		answer_request(server, id, &hello, qpn);
}

static void *server_main(void *arg)
{
	struct verbs_cm_server *server = arg;
	struct pollfd ready[2] = {{.fd = server->channel->fd, .events = POLLIN},
				  {.fd = server->stop_fd, .events = POLLIN}};
	struct rdma_cm_event *event;

	for (;;) {
		if (poll(ready, 2, -1) < 0)
			continue;
		if (ready[1].revents)
			return NULL;
		if (rdma_get_cm_event(server->channel, &event) == 0)
			take_event(server, event);
	}
}

static int listen_anywhere(struct verbs_cm_server *server)
{
	union cm_address any = {.v6 = {.sin6_family = AF_INET6}};
	union cm_address any_v4 = {.v4 = {.sin_family = AF_INET}};

	if (rdma_create_id(server->channel, &server->listener, NULL, RDMA_PS_TCP))
		return no_librdmacm(errno);
	if (rdma_bind_addr(server->listener, &any.any) &&
	    rdma_bind_addr(server->listener, &any_v4.any)) /* a host without IPv6 */
		return failed("rdma_bind_addr");
	return rdma_listen(server->listener, BACKLOG) ? failed("rdma_listen") : 0;
}

static int start(struct verbs_cm_server *server)
{
	int rc = thread_start(&server->thread, "slu-cm", server_main, server);

	server->running = rc == 0;
	return rc;
}

int verbs_cm_server_create(struct verbs_cm_server **out)
{
	struct verbs_cm_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return fail(-ENOMEM, "out of memory");
	pthread_mutex_init(&server->lock, NULL);
	LIST_INIT(&server->invitations);
	server->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = server->stop_fd < 0 ? failed("eventfd") : open_channel(&server->channel);
	if (rc == 0)
		rc = listen_anywhere(server);
	if (rc == 0)
		rc = start(server);
	if (rc < 0) {
		verbs_cm_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

void verbs_cm_server_destroy(struct verbs_cm_server *server)
{
	if (!server)
		return;
	if (server->running) {
		eventfd_write(server->stop_fd, 1);
		pthread_join(server->thread, NULL);
	}
	if (server->listener)
		rdma_destroy_id(server->listener);
	if (server->channel)
		rdma_destroy_event_channel(server->channel);
	if (server->stop_fd >= 0)
		close(server->stop_fd);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

uint16_t verbs_cm_server_port(const struct verbs_cm_server *server)
{
	return ntohs(rdma_get_src_port(server->listener));
}

int verbs_cm_expect(struct verbs_cm_server *server, const struct verbs_cm_link *link, char *token,
		    struct verbs_cm **out)
{
	struct verbs_cm *cm = calloc(1, sizeof(*cm));
	int rc;

	if (!cm)
		return fail(-ENOMEM, "target is out of memory");
	cm->server = server;
	cm->device = link->device;
	cm->connection = *link->connection;
	cm->queues = link->queues;
	cm->count = link->count;
	pthread_mutex_lock(&server->lock);
	rc = invitation_issue(&server->invitations, &cm->invitation, link->id, link->count,
			      clock_monotonic_ns(NULL), token);
	pthread_mutex_unlock(&server->lock);
	if (rc < 0) {
		free(cm);
		return rc;
	}
	*out = cm;
	return 0;
}

bool verbs_cm_is_connected(struct verbs_cm *cm)
{
	bool connected;

	pthread_mutex_lock(&cm->server->lock);
	connected = invitation_is_used(&cm->invitation);
	pthread_mutex_unlock(&cm->server->lock);
	return connected;
}

bool verbs_cm_has_expired(struct verbs_cm *cm)
{
	bool expired;

	pthread_mutex_lock(&cm->server->lock);
	expired = clock_monotonic_ns(NULL) >= cm->invitation.until_ns;
	pthread_mutex_unlock(&cm->server->lock);
	return expired;
}
