/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device at work: doorbells, work queue entries, completion queue entries.
 *
 * A work request is carried out in the order in which it was posted, wholly, with the fabric's lock
 * held. What remains is to tell of it (struct pending), which may be later.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "device.h"
#include "mlx5_model.h"

#define BLOCK           64u
#define SEGMENT         16u
#define SEGMENTS_MAX    63u
#define WQE_BYTES_MAX   (SEGMENTS_MAX * SEGMENT)
#define PER_ROUND       64u /* work requests of one queue pair */
#define RECORD_SEND     1
#define RECORD_CONSUMER 0
#define RECORD_ARM      1
#define FAULTS          16u
#define RETRY_NS        UINT64_C(20000) /* between two looks whether the peer answers again */
#define NEVER           UINT64_MAX

/* ---- what a test asked for ---- */

static struct fault {
	uint32_t qpn;
	uint32_t after;
	uint8_t syndrome; /* 0: free */
	uint8_t vendor;
} faults[FAULTS];

static _Atomic uint64_t delay_ns;
static atomic_bool paused;
static struct mlx5_model_counts counts;

void mlx5_model_fail(uint32_t qpn, uint32_t after, uint8_t syndrome, uint8_t vendor)
{
	device_lock();
	for (uint32_t i = 0; i < FAULTS; i++) {
		if (faults[i].syndrome)
			continue;
		faults[i] = (struct fault){
			.qpn = qpn, .after = after, .syndrome = syndrome, .vendor = vendor};
		device_unlock();
		return;
	}
	fabric_complain("more than %u faults asked for", FAULTS);
}

void mlx5_model_delay(uint32_t delay_us)
{
	delay_ns = (uint64_t)delay_us * 1000;
}

void mlx5_model_pause(bool wanted)
{
	device_lock();
	paused = wanted;
	device_unlock();
}

void mlx5_model_cut(uint32_t qpn, bool cut)
{
	struct fabric_pair *pair;

	fabric_lock();
	pair = fabric_find_pair(qpn);
	if (pair)
		pair->cut = cut;
	fabric_unlock();
}

void mlx5_model_stall(uint32_t qpn, bool stalled)
{
	struct fabric_pair *pair;

	fabric_lock();
	pair = fabric_find_pair(qpn);
	if (pair)
		pair->stalled = stalled;
	fabric_unlock();
}

void mlx5_model_count(struct mlx5_model_counts *out)
{
	device_lock();
	*out = counts;
	device_unlock();
}

const uint64_t *mlx5_model_register(uint32_t qpn, uint32_t *half_bytes)
{
	const uint64_t *found = NULL;
	struct model_qp *qp;

	device_lock();
	LIST_FOREACH (qp, &device.pairs, link) {
		if (qp->qp.qp_num != qpn)
			continue;
		found = (const uint64_t *)(qp->page + DEVICE_BELL);
		*half_bytes = qp->half;
	}
	device_unlock();
	return found;
}

static const struct fault *take_fault(uint32_t qpn)
{
	static struct fault due;
	bool found = false;

	for (uint32_t i = 0; i < FAULTS; i++) {
		struct fault *fault = &faults[i];

		if (!fault->syndrome || (fault->qpn != MLX5_MODEL_ANY && fault->qpn != qpn))
			continue;
		if (fault->after > 0) {
			fault->after--;
		} else if (!found) {
			due = *fault;
			fault->syndrome = 0;
			found = true;
		}
	}
	return found ? &due : NULL;
}

uint64_t engine_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t read_record(const uint32_t *record)
{
	return be32toh(
		atomic_load_explicit((const _Atomic uint32_t *)record, memory_order_acquire));
}

/* ---- completion queue ---- */

/* Unlike a card we see a register, not each store to it: of two armings the first may be missed. */
static bool listen_arming(struct model_cq *cq)
{
	_Atomic uint64_t *bell = (_Atomic uint64_t *)(cq->page + MLX5_CQ_DOORBELL);
	uint64_t value = be64toh(atomic_exchange(bell, 0));
	uint32_t command = (uint32_t)(value >> 32), number = command >> 28, expected;

	if (value == 0)
		return false;
	if ((uint32_t)value != cq->number)
		fabric_complain("the arming of CQ %u names CQ %u", cq->number, (uint32_t)value);
	if (command & MLX5_CQ_DB_REQ_NOT_SOL || command >> 30)
		fabric_complain("an unknown arming 0x%08x", command);
	if (read_record(&cq->records[RECORD_ARM]) == UINT32_MAX)
		fabric_complain("CQ %u was armed without its doorbell record", cq->number);
	expected = cq->events & 3;
	if (number == ((expected + 1) & 3)) {
		cq->events++;
		device_send_event(cq);
	} else if (number != expected) {
		return true; /* one that has had its event */
	}
	cq->armed = true;
	cq->armed_at = command & 0xffffff;
	return true;
}

static void fire(struct model_cq *cq)
{
	if (!cq->armed || ((cq->produced ^ cq->armed_at) & 0xffffff) == 0)
		return;
	cq->armed = false;
	cq->events++;
	counts.events++;
	device_send_event(cq);
}

static void write_entry(struct model_cq *cq, struct mlx5_cqe64 *entry, uint8_t opcode)
{
	struct mlx5_cqe64 *to = &cq->ring[cq->produced & (cq->count - 1)];
	uint32_t consumed = read_record(&cq->records[RECORD_CONSUMER]);
	uint8_t owner = (cq->produced & cq->count) != 0;

	if (((cq->produced - consumed) & 0xffffff) >= cq->count)
		fabric_complain("CQ %u overran: %u entries, the consumer is at %u of %u",
				cq->number, cq->count, consumed, cq->produced);
	memcpy(to, entry, sizeof(*to) - 1);
	atomic_store_explicit((_Atomic uint8_t *)&to->op_own, (uint8_t)(opcode << 4 | owner),
			      memory_order_release);
	cq->produced++;
	counts.entries++;
	listen_arming(cq);
	fire(cq);
}

/* A queue pair that libibverbs drives: its completions are read by ibv_poll_cq(). */
static void complete_plain(struct model_qp *qp, const struct pending *done)
{
	struct ibv_wc wc = {.wr_id = qp->ids[done->counter & (qp->blocks - 1)],
			    .qp_num = qp->qp.qp_num,
			    .vendor_err = done->vendor};

	if (done->syndrome == MLX5_CQE_SYNDROME_WR_FLUSH_ERR)
		wc.status = IBV_WC_WR_FLUSH_ERR;
	else
		wc.status = done->syndrome ? IBV_WC_GENERAL_ERR : IBV_WC_SUCCESS;
	fabric_lock();
	fabric_complete(qp->cq->queue, &wc);
	fabric_unlock();
}

static void write_success(struct model_qp *qp, const struct pending *done)
{
	struct mlx5_cqe64 entry;

	memset(&entry, 0xa5, sizeof(entry)); /* what is not said to be there is not relied on */
	entry.sop_drop_qpn = htobe32((uint32_t)done->opcode << 24 | qp->qp.qp_num);
	entry.wqe_counter = htobe16(done->counter);
	entry.byte_cnt = htobe32(done->bytes);
	write_entry(qp->cq, &entry, MLX5_CQE_REQ);
}

static void write_failure(struct model_qp *qp, const struct pending *done)
{
	struct mlx5_err_cqe error;
	struct mlx5_cqe64 entry;

	memset(&error, 0xa5, sizeof(error));
	error.vendor_err_synd = done->vendor;
	error.syndrome = done->syndrome;
	error.s_wqe_opcode_qpn = htobe32((uint32_t)done->opcode << 24 | qp->qp.qp_num);
	error.wqe_counter = htobe16(done->counter);
	memcpy(&entry, &error, sizeof(entry));
	write_entry(qp->cq, &entry, MLX5_CQE_REQ_ERR);
}

/* ---- doorbell ---- */

static const struct mlx5_wqe_ctrl_seg *control_at(const struct model_qp *qp, uint32_t block)
{
	return (const struct mlx5_wqe_ctrl_seg *)(qp->ring + (block & (qp->blocks - 1)) * BLOCK);
}

/* What is rung with is the beginning of a WQE that the doorbell record reaches over. */
static void check_bell(const struct model_qp *qp, uint64_t value, uint16_t record)
{
	struct mlx5_wqe_ctrl_seg rung;
	uint16_t index, blocks;

	memset(&rung, 0, sizeof(rung));
	memcpy(&rung, &value, sizeof(value));
	index = (uint16_t)(be32toh(rung.opmod_idx_opcode) >> 8);
	blocks = (uint16_t)(((be32toh(rung.qpn_ds) & 0x3f) + 3) / 4);
	if (be32toh(rung.qpn_ds) >> 8 != qp->qp.qp_num)
		fabric_complain("queue pair %u was rung for %u", qp->qp.qp_num,
				be32toh(rung.qpn_ds) >> 8);
	if ((int16_t)(record - (uint16_t)(index + blocks)) < 0)
		fabric_complain("queue pair %u was rung for block %u of %u before the doorbell "
				"record (%u) had it",
				qp->qp.qp_num, index, blocks, record);
	/* Carried out already, with one before it, it may have been written over. */
	if ((uint16_t)(index - qp->head) < (uint16_t)(record - qp->head) &&
	    memcmp(control_at(qp, index), &value, sizeof(value)) != 0)
		fabric_complain("queue pair %u was rung with other bytes than lie at block %u",
				qp->qp.qp_num, index);
}

/* Another queue pair's bytes could have come between. */
static void check_sharing(const struct model_qp *qp, uint8_t *half)
{
	if (qp->shares_bell && atomic_load((_Atomic uint64_t *)(half + sizeof(uint64_t))) != 0)
		fabric_complain("queue pair %u was rung with a whole WQE in a register that is "
				"shared",
				qp->qp.qp_num);
}

static void take_record(struct model_qp *qp, uint16_t record)
{
	uint16_t more = (uint16_t)(record - qp->producer);

	if (qp->producer + more - qp->released > qp->blocks)
		fabric_complain("queue pair %u has %u blocks: %u were posted, of which %u were "
				"told of",
				qp->qp.qp_num, qp->blocks, qp->producer + more, qp->released);
	qp->producer += more;
}

static bool listen_bell(struct model_qp *qp)
{
	uint8_t *at = qp->page + DEVICE_BELL;
	uint32_t state = atomic_load(&qp->shared->state);
	uint64_t values[2];
	uint16_t record;

	values[0] = atomic_exchange((_Atomic uint64_t *)at, 0);
	values[1] = atomic_exchange((_Atomic uint64_t *)(at + qp->half), 0);
	if (values[0] == 0 && values[1] == 0)
		return false;
	if (state != IBV_QPS_RTS && state != IBV_QPS_ERR)
		fabric_complain("queue pair %u was rung in state %u", qp->qp.qp_num, state);
	record = (uint16_t)read_record(&qp->records[RECORD_SEND]);
	for (int i = 0; i < 2; i++) {
		if (values[i] == 0)
			continue;
		check_bell(qp, values[i], record);
		check_sharing(qp, at + (size_t)i * qp->half);
		counts.bells++;
	}
	take_record(qp, record);
	return true;
}

/* ---- a work queue entry ---- */

struct request {
	uint8_t opcode;
	bool signalled;
	uint32_t blocks;
	uint32_t immediate; /* as it lies there */
	uint64_t remote;
	uint32_t rkey;
	uint32_t segments;
	struct mlx5_wqe_data_seg data[SEGMENTS_MAX];
	const uint8_t *inlined;
	uint32_t length;
	_Alignas(uint64_t) uint8_t bytes[WQE_BYTES_MAX];
};

static bool is_rdma(const struct request *request)
{
	return request->opcode == MLX5_OPCODE_RDMA_WRITE ||
	       request->opcode == MLX5_OPCODE_RDMA_WRITE_IMM ||
	       request->opcode == MLX5_OPCODE_RDMA_READ;
}

static bool takes_receive(const struct request *request)
{
	return request->opcode == MLX5_OPCODE_RDMA_WRITE_IMM ||
	       request->opcode == MLX5_OPCODE_SEND || request->opcode == MLX5_OPCODE_SEND_IMM;
}

static bool has_immediate(const struct request *request)
{
	return request->opcode == MLX5_OPCODE_RDMA_WRITE_IMM ||
	       request->opcode == MLX5_OPCODE_SEND_IMM;
}

static void copy_out(const struct model_qp *qp, uint32_t segments, uint8_t *bytes)
{
	for (uint32_t i = 0; i < segments; i++)
		memcpy(bytes + i * SEGMENT,
		       qp->ring + ((qp->head & (qp->blocks - 1)) * BLOCK + i * SEGMENT) %
					  (qp->blocks * BLOCK),
		       SEGMENT);
}

/* @return segments of the WQE */
static uint32_t parse_control(const struct model_qp *qp, struct request *request)
{
	const struct mlx5_wqe_ctrl_seg *control = control_at(qp, qp->head);
	uint32_t word = be32toh(control->opmod_idx_opcode), segments;

	request->opcode = (uint8_t)word;
	if (word >> 24)
		fabric_complain("a WQE of opcode 0x%02x has the modifier %u", word & 0xff,
				word >> 24);
	if ((uint16_t)(word >> 8) != (uint16_t)qp->head)
		fabric_complain("the WQE at block %u says that it is %u", (uint16_t)qp->head,
				(uint16_t)(word >> 8));
	word = be32toh(control->qpn_ds);
	segments = word & 0x3f;
	if (word >> 8 != qp->qp.qp_num || word & 0xc0 || segments == 0)
		fabric_complain("a WQE of queue pair %u has the number %u and 0x%02x segments",
				qp->qp.qp_num, word >> 8, word & 0xff);
	if (control->signature || control->dci_stream_channel_id)
		fabric_complain("reserved bytes of a control segment are not 0");
	if (control->fm_ce_se & ~(MLX5_WQE_CTRL_CQ_UPDATE | MLX5_WQE_CTRL_SOLICITED))
		fabric_complain("unknown flags 0x%02x", control->fm_ce_se);
	request->signalled = control->fm_ce_se & MLX5_WQE_CTRL_CQ_UPDATE;
	request->blocks = (segments + 3) / 4;
	if (request->blocks > qp->producer - qp->head)
		fabric_complain("a WQE of %u blocks, of which the doorbell record has %u",
				request->blocks, qp->producer - qp->head);
	if (segments * SEGMENT > DEVICE_WQE_MAX)
		fabric_complain("a WQE of %u bytes, the device takes %u", segments * SEGMENT,
				DEVICE_WQE_MAX);
	request->immediate = control->imm;
	return segments;
}

static void parse_inline(struct request *request, const uint8_t *at, uint32_t left)
{
	uint32_t length = be32toh(*(const __be32 *)at) & ~MLX5_INLINE_SEG;

	if (length == 0 || (4 + length + SEGMENT - 1) / SEGMENT != left)
		fabric_complain("%u bytes inline in %u segments", length, left);
	if (request->opcode == MLX5_OPCODE_RDMA_READ)
		fabric_complain("a READ into its own WQE");
	request->inlined = at + 4;
	request->length = length;
}

static void parse_data(struct request *request, const uint8_t *at, uint32_t left)
{
	for (uint32_t i = 0; i < left; i++) {
		struct mlx5_wqe_data_seg *segment = &request->data[i];

		memcpy(segment, at + i * SEGMENT, SEGMENT);
		if (segment->byte_count == 0)
			fabric_complain("a data segment of 0 bytes, which means 2 GiB");
		if (be32toh(segment->byte_count) & MLX5_INLINE_SEG)
			fabric_complain("inline bytes behind a data segment");
		request->length += be32toh(segment->byte_count);
	}
	request->segments = left;
}

static void parse(const struct model_qp *qp, struct request *request)
{
	uint32_t segments = parse_control(qp, request), used = 1;
	const uint8_t *at = request->bytes + SEGMENT;

	copy_out(qp, segments, request->bytes);
	request->length = request->segments = 0;
	request->inlined = NULL;
	if (request->opcode == MLX5_OPCODE_UMR && !qp->cq->direct)
		return;
	if (!is_rdma(request) && !takes_receive(request))
		fabric_complain("unknown opcode 0x%02x", request->opcode);
	if (!has_immediate(request) && request->immediate)
		fabric_complain("an immediate that opcode 0x%02x does not have", request->opcode);
	if (is_rdma(request)) {
		const struct mlx5_wqe_raddr_seg *remote = (const struct mlx5_wqe_raddr_seg *)at;

		if (segments < 2 || remote->reserved)
			fabric_complain("an RDMA WQE of %u segments, reserved field 0x%x", segments,
					remote->reserved);
		request->remote = be64toh(remote->raddr);
		request->rkey = be32toh(remote->rkey);
		at += SEGMENT;
		used++;
	}
	if (segments > used && be32toh(*(const __be32 *)at) & MLX5_INLINE_SEG)
		parse_inline(request, at, segments - used);
	else
		parse_data(request, at, segments - used);
}

/* ---- carrying it out ---- */

/* 0 or a syndrome; above these: */
#define OUTCOME_STALL 0x100u

/* @return pieces; -1: a key does not allow it */
static int find_local(const struct model_qp *qp, const struct request *request,
		      struct iovec *pieces)
{
	uint32_t access = request->opcode == MLX5_OPCODE_RDMA_READ ? IBV_ACCESS_LOCAL_WRITE : 0;

	if (request->inlined) {
		pieces[0] = (struct iovec){(void *)request->inlined, request->length};
		return 1;
	}
	for (uint32_t i = 0; i < request->segments; i++) {
		const struct mlx5_wqe_data_seg *segment = &request->data[i];
		uint32_t length = be32toh(segment->byte_count);
		uint64_t at;

		if (!fabric_resolve(qp->shared, be32toh(segment->lkey), be64toh(segment->addr),
				    length, access, &at))
			return -1;
		pieces[i] = (struct iovec){(void *)(uintptr_t)at, length};
	}
	return (int)request->segments;
}

/* NULL: our packets reach nobody who would answer them. */
static struct fabric_pair *find_peer(const struct model_qp *qp)
{
	const struct fabric_pair *own = qp->shared;
	struct fabric_pair *peer = fabric_find_pair(own->peer);

	if (!peer || own->cut || peer->cut || !own->reachable || peer->peer != qp->qp.qp_num ||
	    (peer->state != IBV_QPS_RTR && peer->state != IBV_QPS_RTS) ||
	    peer->psn_in != own->psn_out || !fabric_alive(peer->process))
		return NULL;
	return peer;
}

static uint32_t stall(struct model_qp *qp, uint64_t for_ns)
{
	qp->stalled_until = engine_now_ns() + for_ns;
	return OUTCOME_STALL;
}

/* 4.096 us * 2^timeout for each of the tries. */
static uint32_t no_answer(struct model_qp *qp)
{
	uint64_t now = engine_now_ns();

	if (qp->gives_up_at == 0)
		qp->gives_up_at = qp->attr.timeout == 0
					  ? NEVER
					  : now + (UINT64_C(4096) << qp->attr.timeout) *
							    (qp->attr.retry_cnt + 1u);
	if (now >= qp->gives_up_at)
		return MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR;
	return stall(qp, RETRY_NS);
}

/* In hundredths of a millisecond, by the code of the receiver's timer. */
static uint64_t rnr_ns(uint8_t timer)
{
	static const uint32_t delays[32] = {65536, 1,    2,    3,     4,     6,     8,     12,
					    16,    24,   32,   48,    64,    96,    128,   192,
					    256,   384,  512,  768,   1024,  1536,  2048,  3072,
					    4096,  6144, 8192, 12288, 16384, 24576, 32768, 49152};

	return (uint64_t)delays[timer & 31] * 10000;
}

static uint32_t not_ready(struct model_qp *qp, const struct fabric_pair *peer)
{
	if (!qp->rnr) {
		qp->rnr = true;
		qp->rnr_left = qp->attr.rnr_retry;
	}
	if (qp->rnr_left == 0)
		return MLX5_CQE_SYNDROME_RNR_RETRY_EXC_ERR;
	if (qp->attr.rnr_retry != 7)
		qp->rnr_left--;
	return stall(qp, rnr_ns(peer->rnr_timer));
}

static uint32_t refuse(struct fabric_pair *peer, uint32_t syndrome)
{
	atomic_store(&peer->state, IBV_QPS_ERR);
	return syndrome;
}

static uint32_t moved(struct model_qp *qp, struct fabric_pair *peer, int rc)
{
	if (rc == -ESRCH)
		return no_answer(qp);
	return rc < 0 ? refuse(peer, MLX5_CQE_SYNDROME_REMOTE_OP_ERR) : 0;
}

/* Nothing to move needs no right. */
static bool may(const struct fabric_pair *peer, const struct request *request, uint32_t access,
		uint64_t *to)
{
	if (request->length == 0)
		return true;
	return (peer->access & access) == access &&
	       fabric_resolve(peer, request->rkey, request->remote, request->length, access, to);
}

static uint32_t do_read(struct model_qp *qp, struct fabric_pair *peer,
			const struct request *request, const struct iovec *pieces, uint32_t count)
{
	uint64_t from = 0;
	uint32_t outcome;

	if (qp->attr.max_rd_atomic == 0)
		return MLX5_CQE_SYNDROME_LOCAL_QP_OP_ERR;
	if (qp->reads == qp->attr.max_rd_atomic)
		return stall(qp, 0);
	if (peer->reads_in == peer->reads_in_max)
		return refuse(peer, MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR);
	if (!may(peer, request, IBV_ACCESS_REMOTE_READ, &from))
		return refuse(peer, MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR);
	outcome = moved(qp, peer, fabric_move(peer->process, pieces, count, from, false));
	if (outcome)
		return outcome;
	peer->reads_in++;
	if (++qp->reads > counts.reads_max)
		counts.reads_max = qp->reads;
	return 0;
}

static uint32_t do_write(struct model_qp *qp, struct fabric_pair *peer,
			 const struct request *request, const struct iovec *pieces, uint32_t count)
{
	uint64_t to = 0;

	if (!may(peer, request, IBV_ACCESS_REMOTE_WRITE, &to))
		return refuse(peer, MLX5_CQE_SYNDROME_REMOTE_ACCESS_ERR);
	return moved(qp, peer, fabric_move(peer->process, pieces, count, to, true));
}

static void tell_receiver(const struct model_qp *qp, struct fabric_pair *peer,
			  const struct request *request, enum ibv_wc_status status)
{
	struct fabric_receives *receives = fabric_receives_of(peer);
	uint32_t at = atomic_load_explicit(&receives->taken, memory_order_relaxed);
	const struct fabric_receive *receive = &receives->ring[at % FABRIC_RECEIVES];
	struct ibv_wc wc = {.wr_id = receive->id,
			    .status = status,
			    .opcode = request->opcode == MLX5_OPCODE_RDMA_WRITE_IMM
					      ? IBV_WC_RECV_RDMA_WITH_IMM
					      : IBV_WC_RECV,
			    .byte_len = request->length,
			    .qp_num = peer->number,
			    .src_qp = qp->qp.qp_num};

	if (has_immediate(request)) {
		wc.imm_data = request->immediate;
		wc.wc_flags = IBV_WC_WITH_IMM;
	}
	atomic_store_explicit(&receives->taken, at + 1, memory_order_release);
	fabric_complete(peer->queue, &wc);
}

static uint32_t do_send(struct model_qp *qp, struct fabric_pair *peer,
			const struct request *request, const struct iovec *pieces, uint32_t count)
{
	const struct fabric_receives *receives = fabric_receives_of(peer);
	uint32_t at = atomic_load_explicit(&receives->taken, memory_order_relaxed), outcome;
	const struct fabric_receive *receive = &receives->ring[at % FABRIC_RECEIVES];
	uint64_t to = 0;

	if (request->length > receive->length) {
		tell_receiver(qp, peer, request, IBV_WC_LOC_LEN_ERR);
		return refuse(peer, MLX5_CQE_SYNDROME_REMOTE_INVAL_REQ_ERR);
	}
	if (request->length > 0 && !fabric_resolve(peer, receive->lkey, receive->addr,
						   request->length, IBV_ACCESS_LOCAL_WRITE, &to)) {
		tell_receiver(qp, peer, request, IBV_WC_LOC_PROT_ERR);
		return refuse(peer, MLX5_CQE_SYNDROME_REMOTE_OP_ERR);
	}
	outcome = moved(qp, peer, fabric_move(peer->process, pieces, count, to, true));
	if (outcome == 0)
		tell_receiver(qp, peer, request, IBV_WC_SUCCESS);
	return outcome;
}

static bool has_receive(struct fabric_pair *peer)
{
	const struct fabric_receives *receives = fabric_receives_of(peer);

	/* Pairs with the release in the posting of a receive. */
	return atomic_load_explicit(&receives->posted, memory_order_acquire) !=
	       atomic_load_explicit(&receives->taken, memory_order_relaxed);
}

/* What a window was bound to before it is not any more. */
static uint32_t bind_window(const struct model_qp *qp, const struct request *request)
{
	const struct device_bind *bind = (const struct device_bind *)(request->bytes + SEGMENT);
	struct fabric_key *key = fabric_find_key(bind->key);
	uint64_t at;

	if (key->pair == 0 || (key->key ^ bind->key) >> 8 || key->process != qp->shared->process ||
	    !fabric_resolve(qp->shared, bind->lkey, bind->addr, bind->length, IBV_ACCESS_MW_BIND,
			    &at))
		return MLX5_CQE_SYNDROME_MW_BIND_ERR;
	key->pair = qp->shared->number;
	key->iova = bind->addr;
	key->addr = at;
	key->length = bind->length;
	key->access = bind->access;
	key->key = bind->key;
	return 0;
}

static uint32_t carry_out(struct model_qp *qp, const struct request *request)
{
	struct iovec pieces[SEGMENTS_MAX];
	struct fabric_pair *peer;
	uint32_t outcome;
	int count;

	if (request->opcode == MLX5_OPCODE_UMR)
		return bind_window(qp, request);
	count = find_local(qp, request, pieces);
	if (count < 0)
		return MLX5_CQE_SYNDROME_LOCAL_PROT_ERR;
	peer = find_peer(qp);
	if (!peer)
		return no_answer(qp);
	qp->gives_up_at = 0;
	if (request->opcode == MLX5_OPCODE_RDMA_READ)
		return do_read(qp, peer, request, pieces, (uint32_t)count);
	if (takes_receive(request) && !has_receive(peer))
		return not_ready(qp, peer);
	qp->rnr = false;
	if (!is_rdma(request))
		return do_send(qp, peer, request, pieces, (uint32_t)count);
	outcome = do_write(qp, peer, request, pieces, (uint32_t)count);
	if (outcome == 0 && request->opcode == MLX5_OPCODE_RDMA_WRITE_IMM)
		tell_receiver(qp, peer, request, IBV_WC_SUCCESS);
	return outcome;
}

/* ---- telling of it ---- */

static void enqueue(struct model_qp *qp, const struct request *request, uint8_t syndrome,
		    uint8_t vendor)
{
	bool read = syndrome == 0 && request->opcode == MLX5_OPCODE_RDMA_READ;

	qp->head += request->blocks;
	qp->pending[qp->pending_head++ & (qp->blocks - 1)] =
		(struct pending){.due_ns = delay_ns ? engine_now_ns() + delay_ns : 0,
				 .end = qp->head,
				 .bytes = request->length,
				 .counter = (uint16_t)(qp->head - request->blocks),
				 .opcode = request->opcode,
				 .syndrome = syndrome,
				 .vendor = vendor,
				 .signalled = request->signalled,
				 .read = read};
	counts.requests++;
}

static void end_read(struct model_qp *qp)
{
	struct fabric_pair *peer;

	qp->reads--;
	fabric_lock();
	peer = fabric_find_pair(qp->shared->peer);
	if (peer && peer->peer == qp->qp.qp_num && peer->reads_in > 0)
		peer->reads_in--;
	fabric_unlock();
}

/* In order; what failed is told of in any case, and what was flushed. */
static bool tell(struct model_qp *qp)
{
	bool failed = atomic_load(&qp->shared->state) == IBV_QPS_ERR, told = false;

	while (qp->pending_tail != qp->pending_head) {
		const struct pending *done = &qp->pending[qp->pending_tail & (qp->blocks - 1)];

		if (!failed && done->due_ns > 0 && engine_now_ns() < done->due_ns)
			break;
		if (done->read)
			end_read(qp);
		if (done->syndrome || done->signalled)
			qp->released = done->end; /* before it can be seen there */
		qp->pending_tail++;
		if (!qp->cq->direct && (done->syndrome || done->signalled))
			complete_plain(qp, done);
		else if (done->syndrome)
			write_failure(qp, done);
		else if (done->signalled)
			write_success(qp, done);
		told = true;
	}
	return told;
}

/* ---- a round ---- */

static void fail_pair(struct model_qp *qp, const struct request *request, uint32_t syndrome,
		      uint8_t vendor)
{
	enqueue(qp, request, (uint8_t)syndrome, vendor);
	atomic_store(&qp->shared->state, IBV_QPS_ERR);
}

/* @return false: it has to wait */
static bool run_one(struct model_qp *qp)
{
	static struct request request; /* of the one thread that runs the device */
	const struct fault *fault;
	uint32_t outcome;

	parse(qp, &request);
	if (atomic_load(&qp->shared->state) == IBV_QPS_ERR) {
		enqueue(qp, &request, MLX5_CQE_SYNDROME_WR_FLUSH_ERR, 0);
		return true;
	}
	if (qp->stalled_until) { /* it was looked at before, and counted */
		if (engine_now_ns() < qp->stalled_until)
			return false;
	} else if ((fault = take_fault(qp->qp.qp_num))) {
		fail_pair(qp, &request, fault->syndrome, fault->vendor);
		return true;
	}
	fabric_lock();
	outcome = carry_out(qp, &request);
	fabric_unlock();
	if (outcome == OUTCOME_STALL)
		return false;
	qp->stalled_until = 0;
	if (outcome)
		fail_pair(qp, &request, outcome, 0);
	else
		enqueue(qp, &request, 0, 0);
	return true;
}

static bool flush_receives(struct model_qp *qp)
{
	struct fabric_pair *own = qp->shared;
	bool any = false;

	/* Those that are shared are others' as well. */
	if (atomic_load(&own->state) != IBV_QPS_ERR || own->takes_from || !has_receive(own))
		return false;
	fabric_lock();
	while (has_receive(own)) {
		uint32_t at = own->receives.taken++;
		struct ibv_wc wc = {.wr_id = own->receives.ring[at % FABRIC_RECEIVES].id,
				    .status = IBV_WC_WR_FLUSH_ERR,
				    .qp_num = own->number};

		fabric_complete(own->queue, &wc);
		any = true;
	}
	fabric_unlock();
	return any;
}

static bool run_pair(struct model_qp *qp)
{
	bool busy = listen_bell(qp);

	for (uint32_t i = 0; i < PER_ROUND && qp->head != qp->producer; i++) {
		if (qp->shared->stalled && atomic_load(&qp->shared->state) != IBV_QPS_ERR)
			break;
		if (!run_one(qp))
			break;
		busy = true;
	}
	busy |= tell(qp);
	busy |= flush_receives(qp);
	qp->qp.state = atomic_load(&qp->shared->state);
	return busy;
}

static bool run_queue(struct model_cq *cq)
{
	struct fabric_queue *queue;

	if (cq->direct) {
		bool busy = listen_arming(cq);

		fire(cq);
		return busy;
	}
	queue = &fabric->queues[cq->queue];
	if (!atomic_load(&queue->armed) ||
	    atomic_load(&queue->produced) == atomic_load(&queue->consumed))
		return false;
	atomic_store(&queue->armed, false);
	device_send_event(cq);
	return true;
}

bool engine_run(void)
{
	struct model_qp *qp;
	struct model_cq *cq;
	bool busy = false;

	if (paused)
		return false;
	LIST_FOREACH (qp, &device.pairs, link)
		busy |= run_pair(qp);
	LIST_FOREACH (cq, &device.queues, link)
		busy |= run_queue(cq);
	return busy;
}

void engine_reset(struct model_qp *qp)
{
	while (qp->reads > 0)
		end_read(qp);
	qp->producer = qp->head = qp->released = 0;
	qp->pending_head = qp->pending_tail = 0;
	qp->stalled_until = qp->gives_up_at = 0;
	qp->rnr = false;
	qp->records[0] = qp->records[1] = 0;
	qp->shared->receives.taken = atomic_load(&qp->shared->receives.posted);
}
