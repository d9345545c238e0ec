/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a queue pair, whichever way it is driven. */
#include "transport/verbs/verbs_queue.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "transport/verbs/verbs_device.h"

#define RNR_TIMER   1 /* 0.01 ms: a receiver that is out of receives posts them soon */
#define RNR_RETRIES 7 /* for ever: the operation's deadline ends it */
#define HOP_LIMIT   64

int verbs_queue_create(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct verbs_queue **queue)
{
	int rc = verbs_mlx5_create(device, options, queue);

	if (rc == 0)
		rc = verbs_plain_create(device, options, queue);
	return rc < 0 ? rc : 0;
}

uint32_t verbs_queue_post(struct verbs_queue *queue, const struct verbs_work *works, uint32_t n)
{
	uint32_t room = verbs_queue_room(queue);

	if (n > room)
		n = room;
	for (uint32_t i = 0; i < n; i++)
		queue->ops->add(queue, &works[i]);
	return n > 0 && queue->ops->ring(queue, false) == 0 ? n : 0;
}

static int modify(struct verbs_queue *queue, struct ibv_qp_attr *attr, int mask, const char *state)
{
	int error = ibv_modify_qp(queue->qp, attr, mask);

	if (error == 0)
		return 0;
	return fail(-error, "queue pair %u cannot become %s: %s", queue->qp->qp_num, state,
		    strerror(error));
}

/* The kernel did not find the way to the peer: it asks the network for the address that a GID is.
 */
static int unreachable(int error, const struct verbs_device *device,
		       const struct verbs_connection *connection)
{
	char address[VERBS_GID_TEXT];

	verbs_gid_format(&connection->peer_gid, address);
	return fail(error,
		    "%s port %d cannot reach %s: %s (is there a way by its network, and does "
		    "that address answer? ip route get %s; ping %s)",
		    device->name, device->port, address, strerror(-error), address, address);
}

static int make_receive(struct verbs_queue *queue, const struct verbs_device *device,
			const struct verbs_connection *connection)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = connection->mtu,
		.dest_qp_num = connection->peer_qpn,
		.rq_psn = connection->peer_psn,
		.max_dest_rd_atomic = connection->reads_in,
		.min_rnr_timer = RNR_TIMER,
		.ah_attr = {.dlid = connection->peer_lid,
			    .sl = connection->service_level,
			    .is_global = connection->global,
			    .port_num = device->port,
			    .grh = {.dgid = connection->peer_gid,
				    .sgid_index = connection->gid_index,
				    .hop_limit = HOP_LIMIT,
				    .traffic_class = connection->traffic_class}}};
	int rc = modify(queue, &attr,
			IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
			"ready to receive");

	if (rc == -ETIMEDOUT || rc == -EHOSTUNREACH || rc == -ENETUNREACH)
		return unreachable(rc, device, connection);
	return rc;
}

static int make_send(struct verbs_queue *queue, const struct verbs_connection *connection)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS,
				   .timeout = connection->timeout,
				   .retry_cnt = connection->retries,
				   .rnr_retry = RNR_RETRIES,
				   .sq_psn = connection->psn,
				   .max_rd_atomic = connection->reads_out};

	return modify(queue, &attr,
		      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC,
		      "ready to send");
}

int verbs_queue_initialise(struct verbs_queue *queue, const struct verbs_device *device,
			   uint32_t access)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT, .port_num = device->port, .qp_access_flags = access};

	return modify(queue, &attr,
		      IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
		      "initialised");
}

int verbs_queue_connect(struct verbs_queue *queue, const struct verbs_device *device,
			const struct verbs_connection *connection)
{
	int rc = make_receive(queue, device, connection);

	return rc < 0 ? rc : make_send(queue, connection);
}

void verbs_queue_fail(struct verbs_queue *queue)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	ibv_modify_qp(queue->qp, &attr, IBV_QP_STATE);
}

void verbs_queue_destroy(struct verbs_queue *queue)
{
	if (!queue)
		return;
	if (queue->qp)
		ibv_destroy_qp(queue->qp);
	if (queue->cq)
		ibv_destroy_cq(queue->cq);
	queue->ops->destroy(queue);
}
