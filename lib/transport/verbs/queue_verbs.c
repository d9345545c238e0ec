/* SPDX-License-Identifier: Apache-2.0 */
/* A queue pair driven by libibverbs: work requests by ibv_wr_*, one doorbell per burst. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transport/verbs/verbs_device.h"
#include "transport/verbs/verbs_queue.h"

#define POLL_BURST 16u
#define GATHER     64u /* work requests for one doorbell, at most */

struct plain_queue {
	struct verbs_queue queue;
	struct ibv_qp_ex *ex;
	uint32_t count; /* of works, which were added since it was rung */
	bool broken;    /* it did not take some */
	struct verbs_work works[GATHER];
};

/* ---- posting ---- */

static void set_memory(struct ibv_qp_ex *ex, const struct verbs_work *work)
{
	if (work->flags & VERBS_INLINE) {
		/* Not the call for lists: that of rxe in rdma-core 44 loses the data. */
		ibv_wr_set_inline_data(ex, (void *)(uintptr_t)work->piece[0].addr,
				       work->piece[0].length);
	} else {
		struct ibv_sge pieces[VERBS_PIECES_MAX];

		for (uint32_t i = 0; i < work->pieces; i++)
			pieces[i] = (struct ibv_sge){.addr = work->piece[i].addr,
						     .length = work->piece[i].length,
						     .lkey = work->piece[i].lkey};
		ibv_wr_set_sge_list(ex, work->pieces, pieces);
	}
}

static void build(struct ibv_qp_ex *ex, const struct verbs_work *work)
{
	ex->wr_id = work->id;
	/* That the data is inline the call below says; rxe wants to hear it here as well. */
	ex->wr_flags = (work->flags & VERBS_SIGNALLED ? IBV_SEND_SIGNALED : 0u) |
		       (work->flags & VERBS_INLINE ? IBV_SEND_INLINE : 0u);
	switch ((enum verbs_opcode)work->opcode) {
	case VERBS_WRITE:
		ibv_wr_rdma_write(ex, work->rkey, work->remote);
		break;
	case VERBS_WRITE_IMMEDIATE:
		ibv_wr_rdma_write_imm(ex, work->rkey, work->remote, htonl(work->immediate));
		break;
	case VERBS_READ:
		ibv_wr_rdma_read(ex, work->rkey, work->remote);
		break;
	case VERBS_SEND:
		ibv_wr_send(ex);
		break;
	case VERBS_SEND_IMMEDIATE:
		ibv_wr_send_imm(ex, htonl(work->immediate));
		break;
	case VERBS_BIND_WINDOW:
		ibv_wr_bind_mw(ex, work->window, work->rkey, work->bind_info);
		return;
	}
	set_memory(ex, work);
}

/* The device takes all or, if it is broken, none. */
static int ring(struct verbs_queue *queue, bool signal)
{
	struct plain_queue *plain = (struct plain_queue *)queue;
	uint32_t count = plain->count;

	if (count > 0) {
		plain->works[count - 1].flags |= signal ? VERBS_SIGNALLED : 0;
		plain->count = 0;
		ibv_wr_start(plain->ex);
		for (uint32_t i = 0; i < count; i++)
			build(plain->ex, &plain->works[i]);
		plain->broken |= ibv_wr_complete(plain->ex) != 0;
		queue->doorbells++;
	}
	return plain->broken ? -EIO : 0;
}

/* The last one is known only when it rings, so they wait until then. */
static void add(struct verbs_queue *queue, const struct verbs_work *work)
{
	struct plain_queue *plain = (struct plain_queue *)queue;

	if (plain->count == GATHER)
		ring(queue, false);
	plain->works[plain->count] = *work;
	plain->works[plain->count++].id = queue->posted++;
}

/* ---- completions ---- */

static uint32_t poll_completions(struct verbs_queue *queue, struct verbs_done *done, uint32_t n)
{
	struct ibv_wc completions[POLL_BURST];
	int got = ibv_poll_cq(queue->cq, (int)(n < POLL_BURST ? n : POLL_BURST), completions);

	if (got <= 0)
		return 0;
	for (int i = 0; i < got; i++) {
		done[i] = (struct verbs_done){.id = (uint32_t)completions[i].wr_id,
					      .status = completions[i].status,
					      .vendor_error = completions[i].vendor_err};
		queue->returned = done[i].id + 1; /* it stands for those before it */
	}
	queue->signalled += (uint32_t)got;
	return (uint32_t)got;
}

static int arm(struct verbs_queue *queue)
{
	return -ibv_req_notify_cq(queue->cq, 0);
}

static void destroy(struct verbs_queue *queue)
{
	free(queue);
}

static const struct verbs_queue_ops ops = {
	.add = add,
	.ring = ring,
	.poll = poll_completions,
	.arm = arm,
	.destroy = destroy,
};

/* ---- creation ---- */

static int create_cq(struct verbs_device *device, const struct verbs_queue_options *options,
		     struct verbs_queue *queue)
{
	queue->cq = ibv_create_cq(device->context, (int)options->depth, NULL, options->channel, 0);
	if (queue->cq)
		return 0;
	return fail(-errno,
		    "%s has no completion queue of %u entries for us: %s (its limits: %d queues of "
		    "%d entries)",
		    device->name, options->depth, strerror(errno), device->attr.max_cq,
		    device->attr.max_cqe);
}

static struct ibv_qp *create_qp(struct verbs_device *device,
				const struct verbs_queue_options *options,
				struct verbs_queue *queue, uint32_t inline_bytes)
{
	struct ibv_qp_init_attr_ex attr = {
		.qp_context = options->context,
		.send_cq = queue->cq,
		.recv_cq = options->receive_cq ? options->receive_cq : queue->cq,
		.srq = options->srq,
		.cap = {.max_send_wr = options->depth,
			.max_recv_wr = options->receives,
			.max_send_sge = VERBS_PIECES_MAX,
			.max_recv_sge = options->receives ? 1 : 0,
			.max_inline_data = inline_bytes},
		.qp_type = IBV_QPT_RC,
		.comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.pd = device->pd,
		.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
				  IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_SEND |
				  IBV_QP_EX_WITH_SEND_WITH_IMM |
				  (options->binds ? IBV_QP_EX_WITH_BIND_MW : 0)};
	struct ibv_qp *qp = ibv_create_qp_ex(device->context, &attr);

	if (qp)
		queue->inline_bytes = attr.cap.max_inline_data;
	return qp;
}

/* A device says what it can take inline only by refusing more. */
static int create_pair(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct plain_queue *plain)
{
	struct verbs_queue *queue = &plain->queue;
	uint32_t inline_bytes = options->inline_bytes;

	queue->qp = create_qp(device, options, queue, inline_bytes);
	while (!queue->qp && inline_bytes > 0 && (errno == EINVAL || errno == ENOMEM)) {
		inline_bytes /= 2;
		queue->qp = create_qp(device, options, queue, inline_bytes);
	}
	if (!queue->qp)
		return fail(-errno,
			    "%s has no queue pair of %u work requests for us: %s (its limits: %d "
			    "queue pairs of %d; are others using them up?)",
			    device->name, options->depth, strerror(errno), device->attr.max_qp,
			    device->attr.max_qp_wr);
	plain->ex = ibv_qp_to_qp_ex(queue->qp);
	return plain->ex ? 0 : fail(-EOPNOTSUPP, "%s has no ibv_wr_* calls", device->name);
}

int verbs_plain_create(struct verbs_device *device, const struct verbs_queue_options *options,
		       struct verbs_queue **out)
{
	struct plain_queue *plain = calloc(1, sizeof(*plain));
	int rc;

	if (!plain)
		return fail(-ENOMEM, "out of memory");
	plain->queue.ops = &ops;
	plain->queue.depth = options->depth;
	rc = create_cq(device, options, &plain->queue);
	if (rc == 0)
		rc = create_pair(device, options, plain);
	if (rc < 0) {
		verbs_queue_destroy(&plain->queue);
		return rc;
	}
	*out = &plain->queue;
	return 0;
}
