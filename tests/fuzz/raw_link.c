/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/raw_link.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "fabric.h"
#include "memory/pool.h"
#include "transport/buffers.h"

#define TIMEOUT 1 /* 8 us, once: who has gone does not answer */
#define READS   16u

bool raw_is_of_buffers(const struct fabric_key *key)
{
	return key->length % pool_bytes(sizeof(struct buffer), 1) == 0;
}

struct verbs_devices *raw_devices_open(void)
{
	const struct slu_rdma_options options = {
		.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1};
	struct verbs_devices *devices;

	must(verbs_devices_open(&options, &devices) == 0 && devices->count > 0);
	return devices;
}

static void make_memory(struct raw_link *link, struct verbs_device *device)
{
	size_t bytes = (size_t)(RAW_DEPTH + RAW_RECEIVES) * RAW_BUFFER;

	link->memory = aligned_alloc(4096, bytes);
	must(link->memory);
	memset(link->memory, 0, bytes);
	link->mr = ibv_reg_mr(device->pd, link->memory, bytes, IBV_ACCESS_LOCAL_WRITE);
	must(link->mr);
}

struct raw_link *raw_link_create(struct verbs_device *device, uint64_t id, uint32_t count,
				 uint32_t access)
{
	struct raw_link *link = calloc(1, sizeof(*link));

	must(link && count <= VERBS_QUEUES_MAX);
	link->device = device;
	link->id = id;
	make_memory(link, device);
	link->receive_cq = ibv_create_cq(device->context, 2 * RAW_RECEIVES, NULL, NULL, 0);
	must(link->receive_cq);
	for (; link->count < count; link->count++) {
		const struct verbs_queue_options options = {
			.depth = RAW_DEPTH,
			.receives = link->count == 0 ? RAW_RECEIVES : 0,
			.inline_bytes = 128,
			.receive_cq = link->receive_cq};
		struct verbs_queue **queue = &link->queues[link->count];

		must(verbs_queue_create(device, &options, queue) == 0);
		must(verbs_queue_initialise(*queue, device, access) == 0);
		link->psns[link->count] = (uint32_t)(id >> link->count) & 0xffffff;
	}
	return link;
}

void raw_link_destroy(struct raw_link *link)
{
	if (!link)
		return;
	for (uint32_t i = 0; i < link->count; i++)
		verbs_queue_destroy(link->queues[i]);
	ibv_destroy_cq(link->receive_cq);
	ibv_dereg_mr(link->mr);
	free(link->memory);
	free(link);
}

json_t *raw_link_queues(const struct raw_link *link)
{
	json_t *queues = json_array();

	for (uint32_t i = 0; i < link->count; i++)
		json_array_append_new(queues,
				      json_pack("[I, I]", (json_int_t)link->queues[i]->qp->qp_num,
						(json_int_t)link->psns[i]));
	return queues;
}

bool raw_link_connect(struct raw_link *link, const json_t *peers, const union ibv_gid *gid,
		      uint32_t reads)
{
	struct verbs_connection connection = {.gid_index = link->device->gids[0].index,
					      .peer_gid = *gid,
					      .global = true,
					      .mtu = IBV_MTU_1024,
					      .reads_out = (uint8_t)(reads < READS ? reads : READS),
					      .reads_in = READS,
					      .timeout = TIMEOUT};

	for (uint32_t i = 0; i < link->count; i++) {
		json_int_t qpn, psn;

		if (json_unpack(json_array_get(peers, i), "[I, I]", &qpn, &psn) < 0)
			return false;
		connection.peer_qpn = (uint32_t)qpn;
		connection.peer_psn = (uint32_t)psn;
		connection.psn = link->psns[i];
		if (verbs_queue_connect(link->queues[i], link->device, &connection) < 0)
			return false;
	}
	return true;
}

char *raw_link_received(const struct raw_link *link, uint64_t index)
{
	return link->memory + (RAW_DEPTH + index) * RAW_BUFFER;
}

void raw_link_receive(struct raw_link *link, uint32_t index)
{
	struct ibv_sge piece = {.addr = (uintptr_t)raw_link_received(link, index),
				.length = RAW_BUFFER,
				.lkey = link->mr->lkey};
	struct ibv_recv_wr request = {.wr_id = index, .sg_list = &piece, .num_sge = 1}, *bad;

	must(ibv_post_recv(link->queues[0]->qp, &request, &bad) == 0);
}

char *raw_link_buffer(const struct raw_link *link, uint32_t queue)
{
	return link->memory + (size_t)(link->posted[queue] % RAW_DEPTH) * RAW_BUFFER;
}

bool raw_link_post(struct raw_link *link, uint32_t queue, struct verbs_work *work)
{
	if (link->posted[queue] - link->back[queue] >= RAW_DEPTH / 2)
		return false;
	work->id = link->posted[queue];
	work->flags |= VERBS_SIGNALLED;
	if (work->pieces > 0 && !work->piece[0].lkey)
		work->piece[0].lkey = link->mr->lkey;
	if (verbs_queue_post(link->queues[queue], work, 1) != 1)
		return false;
	link->posted[queue]++;
	return true;
}

uint32_t raw_link_poll(struct raw_link *link)
{
	uint32_t out = 0;

	for (uint32_t i = 0; i < link->count; i++) {
		struct verbs_done done[RAW_DEPTH];
		uint32_t n = link->queues[i]->ops->poll(link->queues[i], done, RAW_DEPTH);

		for (uint32_t k = 0; k < n; k++) {
			link->back[i] = done[k].id + 1;
			if (done[k].status != IBV_WC_SUCCESS && !link->error)
				link->error = done[k].status;
		}
		out += link->posted[i] - link->back[i];
	}
	return out;
}
