/* SPDX-License-Identifier: Apache-2.0 */
#include "pair.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mlx5_model.h"

#define WAIT_SECONDS 300
#define PSN          0x123456u
#define PEER_PSN     0xfffff0u

void pair_give_up(const char *file, int line, const char *condition)
{
	printf("Bail out! %s:%d: %s (%s)\n", file, line, condition, slu_last_error());
	fflush(stdout);
	exit(1);
}

void pair_options_init(struct pair_options *options)
{
	*options =
		(struct pair_options){.depth = 64,
				      .receives = 64,
				      .inline_bytes = 220,
				      .reads_out = 16,
				      .reads_in = 16,
				      .timeout = 12,
				      .retries = 3,
				      .access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
				      .rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
						IBV_ACCESS_REMOTE_READ};
}

void pair_open_device(struct verbs_device *device)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	*device = (struct verbs_device){.port = 1, .ethernet = true, .mtu = IBV_MTU_4096};
	pair_must(list && list[0] && strcmp(list[0]->name, MLX5_MODEL_DEVICE) == 0);
	strcpy(device->name, list[0]->name);
	device->context = ibv_open_device(list[0]);
	ibv_free_device_list(list);
	pair_must(device->context);
	device->pd = ibv_alloc_pd(device->context);
	pair_must(device->pd && ibv_query_device(device->context, &device->attr) == 0);
}

void pair_close_device(struct verbs_device *device)
{
	pair_must(ibv_dealloc_pd(device->pd) == 0);
	pair_must(ibv_close_device(device->context) == 0);
}

void pair_open_end(struct verbs_device *device, const struct pair_options *options,
		   struct ibv_comp_channel *channel, uint32_t access, uint32_t rights,
		   struct pair_end *end)
{
	struct verbs_queue_options wanted = {.depth = options->depth,
					     .receives = options->receives,
					     .inline_bytes = options->inline_bytes,
					     .channel = channel};

	if (options->receives > 0)
		end->receive_cq =
			ibv_create_cq(device->context, (int)options->receives, NULL, NULL, 0);
	wanted.receive_cq = end->receive_cq;
	pair_must(verbs_mlx5_create(device, &wanted, &end->queue) == 1);
	end->memory = aligned_alloc(4096, PAIR_MEMORY);
	pair_must(end->memory);
	memset(end->memory, 0, PAIR_MEMORY);
	end->mr = ibv_reg_mr(device->pd, end->memory, PAIR_MEMORY, (int)rights);
	pair_must(end->mr);
	pair_must(verbs_queue_initialise(end->queue, device, access) == 0);
}

void pair_connect_end(struct verbs_device *device, const struct pair_options *options,
		      const struct pair_end *end, uint32_t peer_qpn, uint32_t psn,
		      uint32_t peer_psn)
{
	struct verbs_connection connection = {.peer_qpn = peer_qpn,
					      .peer_psn = peer_psn,
					      .psn = psn,
					      .global = true,
					      .mtu = IBV_MTU_4096,
					      .reads_out = options->reads_out,
					      .reads_in = options->reads_in,
					      .timeout = options->timeout,
					      .retries = options->retries};

	pair_must(ibv_query_gid(device->context, 1, 0, &connection.peer_gid) == 0);
	pair_must(verbs_queue_connect(end->queue, device, &connection) == 0);
}

void pair_close_end(struct pair_end *end)
{
	verbs_queue_destroy(end->queue);
	if (end->receive_cq)
		pair_must(ibv_destroy_cq(end->receive_cq) == 0);
	pair_must(ibv_dereg_mr(end->mr) == 0);
	free(end->memory);
}

void pair_open(struct pair *pair, const struct pair_options *options)
{
	*pair = (struct pair){0};
	pair_open_device(&pair->device);
	if (options->armable) {
		pair->channel = ibv_create_comp_channel(pair->device.context);
		pair_must(pair->channel);
	}
	pair_open_end(&pair->device, options, pair->channel, 0, IBV_ACCESS_LOCAL_WRITE,
		      &pair->initiator);
	pair_open_end(&pair->device, options, NULL, options->access, options->rights,
		      &pair->target);
	pair_connect_end(&pair->device, options, &pair->target, pair->initiator.queue->qp->qp_num,
			 PEER_PSN, PSN);
	pair_connect_end(&pair->device, options, &pair->initiator, pair->target.queue->qp->qp_num,
			 PSN + options->psn_shift, PEER_PSN);
}

void pair_close(struct pair *pair)
{
	pair_close_end(&pair->initiator);
	pair_close_end(&pair->target);
	if (pair->channel)
		pair_must(ibv_destroy_comp_channel(pair->channel) == 0);
	pair_close_device(&pair->device);
}

struct verbs_work pair_work(struct pair *pair, uint8_t opcode, uint32_t from, uint32_t to,
			    uint32_t length)
{
	return (struct verbs_work){.opcode = opcode,
				   .flags = VERBS_SIGNALLED,
				   .pieces = 1,
				   .id = pair->next_id++,
				   .rkey = pair->target.mr->rkey,
				   .remote = (uintptr_t)pair->target.memory + to,
				   .piece = {{.addr = (uintptr_t)pair->initiator.memory + from,
					      .length = length,
					      .lkey = pair->initiator.mr->lkey}}};
}

void pair_receive(struct pair *pair, uint64_t id, uint32_t to, uint32_t length)
{
	struct ibv_sge piece = {.addr = (uintptr_t)pair->target.memory + to,
				.length = length,
				.lkey = pair->target.mr->lkey};
	struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &piece, .num_sge = 1}, *bad;

	pair_must(ibv_post_recv(pair->target.queue->qp, &wr, &bad) == 0);
}

struct verbs_done pair_wait(struct verbs_queue *queue)
{
	time_t until = time(NULL) + WAIT_SECONDS;
	struct verbs_done done;

	while (queue->ops->poll(queue, &done, 1) == 0) {
		pair_must(time(NULL) <= until);
		sched_yield();
	}
	return done;
}

struct ibv_wc pair_wait_receive(struct ibv_cq *cq)
{
	time_t until = time(NULL) + WAIT_SECONDS;
	struct ibv_wc wc;

	while (ibv_poll_cq(cq, 1, &wc) == 0) {
		pair_must(time(NULL) <= until);
		sched_yield();
	}
	return wc;
}

struct verbs_done pair_do(struct pair *pair, const struct verbs_work *work)
{
	struct verbs_queue *queue = pair->initiator.queue;

	pair_must(verbs_queue_post(queue, work, 1) == 1);
	return pair_wait(queue);
}

void pair_post_all(struct pair *pair, struct verbs_work *works, uint32_t n, uint32_t each)
{
	struct verbs_queue *queue = pair->initiator.queue;
	uint32_t posted = 0, last = works[n - 1].id;
	struct verbs_done done = {.id = last + 1};

	for (uint32_t i = 0; i < n; i++)
		works[i].flags =
			(uint8_t)((works[i].flags & ~VERBS_SIGNALLED) |
				  (i % each == each - 1 || i == n - 1 ? VERBS_SIGNALLED : 0));
	while (done.id != last) {
		posted += verbs_queue_post(queue, works + posted, n - posted);
		if (queue->ops->poll(queue, &done, 1) == 0)
			sched_yield();
		else
			pair_must(done.status == IBV_WC_SUCCESS);
	}
}
