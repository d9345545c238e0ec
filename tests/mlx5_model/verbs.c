/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions of libibverbs and libmlx5 that Sluice calls, as a device of the model answers them.
 * What verbs.h has inline goes through the tables in struct verbs_context.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "device.h"
#include "mlx5_model.h"

#undef ibv_query_port
#undef ibv_reg_mr
#undef ibv_reg_mr_iova
#undef ibv_get_device_list

#define VENDOR    0x02c9
#define GID_INDEX 0
#define REGISTERED                                                                                 \
	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |               \
	 IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_RELAXED_ORDERING | IBV_ACCESS_MW_BIND)

struct model_context {
	struct verbs_context verbs;
};

struct model_srq {
	struct ibv_srq srq;
	struct fabric_shared *shared;
	uint32_t users; /* queue pairs */
};

struct model_mr {
	struct ibv_mr mr;
	struct fabric_key *key;
};

static const union ibv_gid own_gid = {
	.raw = {[10] = 0xff, [11] = 0xff, [12] = 127, [13] = 0, [14] = 0, [15] = 1}};
static struct ibv_device the_device;
static bool no_thread_domains;
static bool no_shared;

void mlx5_model_without_thread_domains(bool without)
{
	no_thread_domains = without;
}

void mlx5_model_without_shared_receives(bool without)
{
	no_shared = without;
}

static void *no(int error)
{
	errno = error;
	return NULL;
}

/* ---- devices ---- */

__attribute__((constructor)) static void name_device(void)
{
	the_device.node_type = IBV_NODE_CA;
	the_device.transport_type = IBV_TRANSPORT_IB;
	strcpy(the_device.name, MLX5_MODEL_DEVICE);
	strcpy(the_device.dev_name, "mlx5_model");
}

struct ibv_device **ibv_get_device_list(int *count)
{
	struct ibv_device **list = calloc(2, sizeof(*list));

	if (!list)
		return no(ENOMEM);
	list[0] = &the_device;
	if (count)
		*count = 1;
	return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

const char *ibv_get_device_name(struct ibv_device *ibv)
{
	return ibv->name;
}

__be64 ibv_get_device_guid(struct ibv_device *ibv)
{
	(void)ibv;
	return htobe64(UINT64_C(0x6d6c7835));
}

bool mlx5dv_is_supported(struct ibv_device *ibv)
{
	return ibv == &the_device;
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
	(void)context;
	*attr = (struct ibv_device_attr){.fw_ver = "model",
					 .node_guid = htobe64(UINT64_C(0x6d6c7835)),
					 .max_mr_size = UINT64_C(1) << 46,
					 .page_size_cap = UINT64_C(0xfffffffffffff000),
					 .vendor_id = VENDOR,
					 .max_qp = FABRIC_PAIRS,
					 .max_qp_wr = DEVICE_BLOCKS_MAX,
					 .max_sge = DEVICE_SGES_MAX,
					 .max_sge_rd = DEVICE_SGES_MAX,
					 .max_srq = no_shared ? 0 : FABRIC_SHARED,
					 .max_srq_wr = FABRIC_RECEIVES,
					 .max_srq_sge = 1,
					 .max_cq = FABRIC_QUEUES,
					 .max_cqe = FABRIC_ENTRIES,
					 .max_mr = FABRIC_KEYS - 1,
					 .max_pd = INT32_MAX,
					 .max_qp_rd_atom = DEVICE_READS_MAX,
					 .max_qp_init_rd_atom = DEVICE_READS_MAX,
					 .phys_port_cnt = 1};
	if (getenv("MLX5_MODEL_WINDOWS")) {
		attr->device_cap_flags = IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B;
		attr->max_mw = FABRIC_KEYS - 1;
	}
	return 0;
}

static int query_device_ex(struct ibv_context *context,
			   const struct ibv_query_device_ex_input *input,
			   struct ibv_device_attr_ex *attr, size_t size)
{
	(void)input;
	memset(attr, 0, size);
	return ibv_query_device(context, &attr->orig_attr);
}

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr,
		      size_t size)
{
	struct ibv_port_attr answer = {.state = IBV_PORT_ACTIVE,
				       .max_mtu = IBV_MTU_4096,
				       .active_mtu = IBV_MTU_4096,
				       .gid_tbl_len = 1,
				       .max_msg_sz = UINT32_C(1) << 30,
				       .pkey_tbl_len = 1,
				       .active_width = 2,  /* 4 lanes */
				       .active_speed = 64, /* of 25 Gbit/s */
				       .phys_state = 5,    /* link up */
				       .link_layer = IBV_LINK_LAYER_ETHERNET};

	(void)context;
	if (port != 1)
		return EINVAL;
	memcpy(attr, &answer, size < sizeof(answer) ? size : sizeof(answer));
	return 0;
}

int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
	return query_port(context, port, (struct ibv_port_attr *)attr,
			  offsetof(struct ibv_port_attr, link_layer));
}

int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
	(void)context;
	if (port != 1 || index != GID_INDEX)
		return -1;
	*gid = own_gid;
	return 0;
}

int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index,
		      struct ibv_gid_entry *entry, uint32_t flags, size_t size)
{
	struct ibv_gid_entry answer = {.gid = own_gid,
				       .gid_index = GID_INDEX,
				       .port_num = 1,
				       .gid_type = IBV_GID_TYPE_ROCE_V2,
				       .ndev_ifindex = 1};

	(void)context;
	if (port != 1 || index != GID_INDEX || flags)
		return EINVAL;
	memcpy(entry, &answer, size < sizeof(answer) ? size : sizeof(answer));
	return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t max,
			     uint32_t flags, size_t size)
{
	if (max < 1)
		return -EINVAL;
	return _ibv_query_gid_ex(context, 1, GID_INDEX, entries, flags, size) ? -EINVAL : 1;
}

/* The real one would look for the device in sysfs. */
int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index,
		       enum ibv_gid_type *type);
int ibv_query_gid_type(struct ibv_context *context, uint8_t port, unsigned index,
		       enum ibv_gid_type *type)
{
	(void)context;
	if (port != 1 || index != GID_INDEX)
		return -1;
	*type = IBV_GID_TYPE_ROCE_V2;
	return 0;
}

/* Nothing happens to this device. */
int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
	uint64_t count;

	(void)event;
	if (read(context->async_fd, &count, sizeof(count)) >= 0)
		errno = EINTR;
	return -1;
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
	(void)event;
}

/* ---- protection domains, thread domains ---- */

static struct ibv_pd *make_pd(struct ibv_context *context, uint32_t domain, bool has_register)
{
	struct model_pd *pd = calloc(1, sizeof(*pd));

	if (!pd)
		return no(ENOMEM);
	pd->pd.context = context;
	pd->domain = domain;
	pd->has_register = has_register;
	return &pd->pd;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
	return make_pd(context, atomic_fetch_add(&fabric->domains, 1), false);
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
	free(pd);
	return 0;
}

static struct ibv_td *alloc_td(struct ibv_context *context, struct ibv_td_init_attr *attr)
{
	struct ibv_td *td;

	if (no_thread_domains || attr->comp_mask)
		return no(no_thread_domains ? ENOSPC : EINVAL);
	td = calloc(1, sizeof(*td));
	if (!td)
		return no(ENOMEM);
	td->context = context;
	return td;
}

static int dealloc_td(struct ibv_td *td)
{
	free(td);
	return 0;
}

static struct ibv_pd *alloc_parent_domain(struct ibv_context *context,
					  struct ibv_parent_domain_init_attr *attr)
{
	if (!attr->pd || attr->comp_mask)
		return no(EINVAL);
	return make_pd(context, ((struct model_pd *)attr->pd)->domain, attr->td != NULL);
}

/* ---- memory ---- */

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
				unsigned access)
{
	struct model_mr *mr;

	if (length == 0 || access & ~(unsigned)REGISTERED ||
	    (access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC) &&
	     !(access & IBV_ACCESS_LOCAL_WRITE)))
		return no(EINVAL);
	mr = calloc(1, sizeof(*mr));
	if (!mr)
		return no(ENOMEM);
	fabric_lock();
	mr->key = fabric_add_key(((struct model_pd *)pd)->domain);
	if (mr->key) {
		mr->key->access = access & ~(unsigned)IBV_ACCESS_RELAXED_ORDERING;
		mr->key->addr = (uintptr_t)addr;
		mr->key->iova = iova;
		mr->key->length = length;
		mr->mr.lkey = mr->mr.rkey = mr->key->key;
	}
	fabric_unlock();
	if (!mr->key) {
		free(mr);
		return no(ENOSPC);
	}
	mr->mr.context = pd->context;
	mr->mr.pd = pd;
	mr->mr.addr = addr;
	mr->mr.length = length;
	return &mr->mr;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr, (unsigned)access);
}

struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
			       int access)
{
	return ibv_reg_mr_iova2(pd, addr, length, iova, (unsigned)access);
}

/* As kernels do, without windows on it; the memory is found where the caller has mapped it. */
struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length, uint64_t iova,
				 int fd, int access)
{
	(void)offset;
	(void)fd;
	if (access & IBV_ACCESS_MW_BIND)
		return no(EOPNOTSUPP);
	return ibv_reg_mr_iova2(pd, (void *)(uintptr_t)iova, length, iova, (unsigned)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
	fabric_lock();
	fabric_remove_key(((struct model_mr *)mr)->key);
	fabric_unlock();
	free(mr);
	return 0;
}

/* ---- completion queues ---- */

static struct model_cq *make_cq(struct ibv_context *context, uint32_t entries, void *cq_context,
				struct ibv_comp_channel *channel)
{
	struct model_cq *cq;

	if (entries == 0 || entries > FABRIC_ENTRIES)
		return no(EINVAL);
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return no(ENOMEM);
	cq->cq.context = context;
	cq->cq.channel = channel;
	cq->cq.cq_context = cq_context;
	pthread_mutex_init(&cq->cq.mutex, NULL);
	pthread_cond_init(&cq->cq.cond, NULL);
	return cq;
}

static void enter_cq(struct model_cq *cq)
{
	device_lock();
	cq->number = ++device.next_cq;
	LIST_INSERT_HEAD(&device.queues, cq, link);
	if (cq->cq.channel)
		cq->cq.channel->refcnt++;
	device_unlock();
}

static void free_cq(struct model_cq *cq)
{
	pthread_mutex_destroy(&cq->cq.mutex);
	pthread_cond_destroy(&cq->cq.cond);
	free(cq->ring);
	free(cq->page);
	free(cq);
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int entries, void *cq_context,
			     struct ibv_comp_channel *channel, int vector)
{
	struct model_cq *cq = make_cq(context, (uint32_t)entries, cq_context, channel);

	(void)vector;
	if (!cq)
		return NULL;
	fabric_lock();
	cq->queue = fabric_add_queue((uint32_t)entries);
	fabric_unlock();
	if (cq->queue == UINT32_MAX) {
		free_cq(cq);
		return no(ENOSPC);
	}
	cq->cq.cqe = entries;
	enter_cq(cq);
	return &cq->cq;
}

static struct ibv_cq_ex *create_cq_ex(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr)
{
	return (struct ibv_cq_ex *)ibv_create_cq(context, (int)attr->cqe, attr->cq_context,
						 attr->channel, 0);
}

static uint32_t power_of_two(uint32_t n)
{
	uint32_t power = 1;

	while (power < n)
		power *= 2;
	return power;
}

struct ibv_cq_ex *mlx5dv_create_cq(struct ibv_context *context, struct ibv_cq_init_attr_ex *attr,
				   struct mlx5dv_cq_init_attr *direct)
{
	struct model_cq *cq;

	if (direct->comp_mask != MLX5DV_CQ_INIT_ATTR_MASK_CQE_SIZE ||
	    direct->cqe_size != sizeof(struct mlx5_cqe64))
		return no(EOPNOTSUPP); /* compressed or padded ones are not modelled */
	cq = make_cq(context, attr->cqe, attr->cq_context, attr->channel);
	if (!cq)
		return NULL;
	cq->direct = true;
	cq->count = power_of_two(attr->cqe + 1);
	cq->ring = aligned_alloc(DEVICE_PAGE, (cq->count * sizeof(cq->ring[0]) + DEVICE_PAGE - 1) &
						      ~(size_t)(DEVICE_PAGE - 1));
	cq->page = aligned_alloc(DEVICE_PAGE, DEVICE_PAGE);
	if (!cq->ring || !cq->page) {
		free_cq(cq);
		return no(ENOMEM);
	}
	for (uint32_t i = 0; i < cq->count; i++)
		cq->ring[i].op_own = MLX5_CQE_INVALID
				     << 4; /* its owner bit is that of the first round */
	memset(cq->page, 0, DEVICE_PAGE);
	cq->records[0] = 0;
	cq->records[1] = UINT32_MAX;
	cq->cq.cqe = (int)cq->count - 1;
	enter_cq(cq);
	return &cq->ex;
}

/* Events that nobody got are taken back from the channel; those got must have been acknowledged. */
int ibv_destroy_cq(struct ibv_cq *ibv)
{
	struct model_cq *cq = (struct model_cq *)ibv;
	struct model_qp *qp;
	uint64_t one;

	device_lock();
	LIST_FOREACH (qp, &device.pairs, link)
		if (qp->qp.send_cq == ibv || qp->qp.recv_cq == ibv) {
			device_unlock();
			return EBUSY;
		}
	LIST_REMOVE(cq, link);
	for (; ibv->channel && cq->unread > 0; cq->unread--)
		if (read(ibv->channel->fd, &one, sizeof(one)) < 0)
			break;
	if (ibv->channel)
		ibv->channel->refcnt--;
	device_unlock();
	if (!cq->direct) {
		fabric_lock();
		fabric_remove_queue(cq->queue);
		fabric_unlock();
	}
	free_cq(cq);
	return 0;
}

static int poll_cq(struct ibv_cq *ibv, int max, struct ibv_wc *wc)
{
	const struct model_cq *cq = (struct model_cq *)ibv;
	struct fabric_queue *queue = &fabric->queues[cq->queue];
	uint32_t at, produced;
	int got = 0;

	if (cq->direct)
		fabric_complain("CQ %u is driven directly and was polled by libibverbs",
				cq->number);
	at = atomic_load_explicit(&queue->consumed, memory_order_relaxed);
	/* Pairs with the release in fabric_complete(). */
	produced = atomic_load_explicit(&queue->produced, memory_order_acquire);
	for (; got < max && at != produced; at++) {
		const struct fabric_entry *entry = &queue->entries[at % FABRIC_ENTRIES];

		if (!atomic_load_explicit(&entry->void_, memory_order_relaxed))
			wc[got++] = entry->wc;
	}
	atomic_store_explicit(&queue->consumed, at, memory_order_release);
	return got;
}

static int req_notify_cq(struct ibv_cq *ibv, int solicited_only)
{
	const struct model_cq *cq = (struct model_cq *)ibv;

	if (cq->direct)
		fabric_complain("CQ %u is driven directly and was armed by libibverbs", cq->number);
	if (solicited_only || !ibv->channel)
		return EINVAL;
	atomic_store(&fabric->queues[cq->queue].armed, true);
	return 0;
}

/* ---- queue pairs ---- */

/* As libmlx5 reckons it: it leaves room for the largest of what a reliable connection can post. */
static uint32_t wqe_bytes(const struct ibv_qp_cap *cap)
{
	const uint32_t overhead = 16 + 48 + 64;
	uint32_t gather = overhead + cap->max_send_sge * 16;
	uint32_t inlined =
		cap->max_inline_data ? overhead + ((4 + cap->max_inline_data + 15) & ~15u) : 0;

	return ((gather > inlined ? gather : inlined) + 63) & ~63u;
}

static bool make_rings(struct model_qp *qp, const struct ibv_pd *pd)
{
	size_t ring = (size_t)qp->blocks * MLX5_SEND_WQE_BB;

	qp->half = DEVICE_HALF;
	qp->shares_bell = !((const struct model_pd *)pd)->has_register;
	qp->ring =
		aligned_alloc(DEVICE_PAGE, (ring + DEVICE_PAGE - 1) & ~(size_t)(DEVICE_PAGE - 1));
	qp->page = aligned_alloc(DEVICE_PAGE, DEVICE_PAGE);
	qp->pending = calloc(qp->blocks, sizeof(qp->pending[0]));
	qp->ids = calloc(qp->blocks, sizeof(qp->ids[0]));
	if (!qp->ring || !qp->page || !qp->pending || !qp->ids)
		return false;
	memset(qp->ring, 0xff, ring);
	memset(qp->page, 0, DEVICE_PAGE);
	return true;
}

static void free_qp(struct model_qp *qp)
{
	free(qp->ring);
	free(qp->page);
	free(qp->pending);
	free(qp->ids);
	free(qp);
}

static bool check_pair(const struct ibv_qp_init_attr_ex *attr, bool direct)
{
	const struct model_cq *send = (struct model_cq *)attr->send_cq;
	const struct model_cq *receive = (struct model_cq *)attr->recv_cq;

	return attr->comp_mask & IBV_QP_INIT_ATTR_PD && attr->qp_type == IBV_QPT_RC &&
	       !(attr->srq && (attr->cap.max_recv_wr || receive->direct)) && !attr->sq_sig_all &&
	       send && receive && send->direct == direct && attr->cap.max_send_wr > 0 &&
	       attr->cap.max_send_sge <= DEVICE_SGES_MAX &&
	       attr->cap.max_recv_wr <= FABRIC_RECEIVES && attr->cap.max_recv_sge <= 1 &&
	       (attr->cap.max_recv_wr == 0 || !receive->direct) &&
	       wqe_bytes(&attr->cap) <= DEVICE_WQE_MAX;
}

static void take_from(struct fabric_pair *pair, struct model_srq *srq)
{
	if (srq->shared->domain != pair->domain)
		fabric_complain("a shared receive queue of another protection domain");
	pair->takes_from = 1 + (uint32_t)(srq->shared - fabric->shared);
	srq->users++;
}

static bool enter_pair(struct model_qp *qp, const struct ibv_qp_init_attr_ex *attr)
{
	const struct model_cq *receive = (struct model_cq *)attr->recv_cq;

	fabric_lock();
	qp->shared = fabric_add_pair(((struct model_pd *)attr->pd)->domain);
	if (qp->shared) {
		qp->shared->queue = receive->direct ? 0 : receive->queue;
		qp->shared->receives.max = attr->cap.max_recv_wr;
		if (attr->srq)
			take_from(qp->shared, (struct model_srq *)attr->srq);
		qp->qp.qp_num = qp->shared->number;
	}
	fabric_unlock();
	if (!qp->shared)
		return false;
	device_lock();
	LIST_INSERT_HEAD(&device.pairs, qp, link);
	device_unlock();
	return true;
}

static struct model_qp *create_pair(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr,
				    bool direct)
{
	uint32_t bytes = wqe_bytes(&attr->cap), blocks;
	struct model_qp *qp;

	blocks = power_of_two(attr->cap.max_send_wr * bytes) / MLX5_SEND_WQE_BB;
	if (!check_pair(attr, direct) || blocks > DEVICE_BLOCKS_MAX)
		return no(EINVAL);
	qp = calloc(1, sizeof(*qp));
	if (!qp)
		return no(ENOMEM);
	attr->cap.max_inline_data = bytes - (16 + 48 + 64) - 4;
	qp->qp = (struct ibv_qp){.context = context,
				 .qp_context = attr->qp_context,
				 .pd = attr->pd,
				 .send_cq = attr->send_cq,
				 .recv_cq = attr->recv_cq,
				 .srq = attr->srq,
				 .state = IBV_QPS_RESET,
				 .qp_type = IBV_QPT_RC};
	qp->cq = (struct model_cq *)attr->send_cq;
	qp->cap = attr->cap;
	qp->blocks = blocks;
	if (!make_rings(qp, attr->pd)) {
		free_qp(qp);
		return no(ENOMEM);
	}
	if (!enter_pair(qp, attr)) {
		free_qp(qp);
		return no(ENOSPC);
	}
	return qp;
}

struct ibv_qp *mlx5dv_create_qp(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr,
				struct mlx5dv_qp_init_attr *direct)
{
	if (direct->comp_mask & ~(uint64_t)MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS)
		return no(EINVAL);
	return (struct ibv_qp *)create_pair(context, attr, true);
}

int ibv_destroy_qp(struct ibv_qp *ibv)
{
	struct model_qp *qp = (struct model_qp *)ibv;

	device_lock();
	LIST_REMOVE(qp, link);
	device_unlock();
	engine_reset(qp); /* the device does not know it any more */
	fabric_lock();
	fabric_remove_pair(qp->shared);
	if (ibv->srq)
		((struct model_srq *)ibv->srq)->users--;
	fabric_unlock();
	free_qp(qp);
	return 0;
}

/* What each step needs (ibv_modify_qp(3), reliable connection). -1: no such step. */
static int needed(enum ibv_qp_state from, enum ibv_qp_state to)
{
	if (to == IBV_QPS_RESET || to == IBV_QPS_ERR)
		return 0;
	if (from == IBV_QPS_RESET && to == IBV_QPS_INIT)
		return IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
	if (from == IBV_QPS_INIT && to == IBV_QPS_RTR)
		return IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
		       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	if (from == IBV_QPS_RTR && to == IBV_QPS_RTS)
		return IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
		       IBV_QP_MAX_QP_RD_ATOMIC;
	return -1;
}

static bool in_range(const struct ibv_qp_attr *attr, int mask)
{
	return !(
		(mask & IBV_QP_PORT && attr->port_num != 1) ||
		(mask & IBV_QP_PATH_MTU && attr->path_mtu > IBV_MTU_4096) ||
		(mask & IBV_QP_AV && (!attr->ah_attr.is_global || attr->ah_attr.port_num != 1 ||
				      attr->ah_attr.grh.sgid_index != GID_INDEX)) ||
		(mask & IBV_QP_MAX_QP_RD_ATOMIC && attr->max_rd_atomic > DEVICE_READS_MAX) ||
		(mask & IBV_QP_MAX_DEST_RD_ATOMIC && attr->max_dest_rd_atomic > DEVICE_READS_MAX) ||
		(mask & IBV_QP_TIMEOUT && attr->timeout > 31) ||
		(mask & IBV_QP_RETRY_CNT && attr->retry_cnt > 7) ||
		(mask & IBV_QP_RNR_RETRY && attr->rnr_retry > 7) ||
		(mask & IBV_QP_MIN_RNR_TIMER && attr->min_rnr_timer > 31));
}

/* Under the fabric's lock. */
static void keep(struct model_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	struct fabric_pair *shared = qp->shared;

	if (mask & IBV_QP_ACCESS_FLAGS)
		shared->access = attr->qp_access_flags;
	if (mask & IBV_QP_AV)
		shared->reachable = memcmp(&attr->ah_attr.grh.dgid, &own_gid, sizeof(own_gid)) == 0;
	if (mask & IBV_QP_DEST_QPN)
		shared->peer = attr->dest_qp_num;
	if (mask & IBV_QP_RQ_PSN)
		shared->psn_in = attr->rq_psn & 0xffffff;
	if (mask & IBV_QP_SQ_PSN)
		shared->psn_out = attr->sq_psn & 0xffffff;
	if (mask & IBV_QP_MAX_DEST_RD_ATOMIC)
		shared->reads_in_max = attr->max_dest_rd_atomic;
	if (mask & IBV_QP_MIN_RNR_TIMER)
		shared->rnr_timer = attr->min_rnr_timer;
	if (mask & IBV_QP_TIMEOUT)
		qp->attr.timeout = attr->timeout;
	if (mask & IBV_QP_RETRY_CNT) {
		if (attr->retry_cnt == 7)
			fabric_complain("a retry count that some devices take for no end");
		qp->attr.retry_cnt = attr->retry_cnt;
	}
	if (mask & IBV_QP_RNR_RETRY)
		qp->attr.rnr_retry = attr->rnr_retry;
	if (mask & IBV_QP_MAX_QP_RD_ATOMIC)
		qp->attr.max_rd_atomic = attr->max_rd_atomic;
}

#define HOLD_NS UINT64_C(600000000000)

static _Atomic bool holds;
static _Atomic uint32_t held;

void mlx5_model_hold(bool hold)
{
	atomic_store(&holds, hold);
}

uint32_t mlx5_model_held(void)
{
	return atomic_load(&held);
}

/* @return 0; ETIMEDOUT */
static int find_address(void)
{
	uint64_t give_up = engine_now_ns() + HOLD_NS;

	atomic_fetch_add(&held, 1);
	while (atomic_load(&holds) && engine_now_ns() < give_up)
		usleep(1000);
	atomic_fetch_sub(&held, 1);
	return engine_now_ns() < give_up ? 0 : ETIMEDOUT;
}

int ibv_modify_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask)
{
	struct model_qp *qp = (struct model_qp *)ibv;
	enum ibv_qp_state from = atomic_load(&qp->shared->state);
	int must;

	if (!(mask & IBV_QP_STATE))
		return EINVAL;
	must = needed(from, attr->qp_state);
	if (must < 0 || (mask & must) != must || !in_range(attr, mask))
		return EINVAL;
	if (attr->qp_state == IBV_QPS_RTR && find_address())
		return ETIMEDOUT;
	device_lock();
	if (attr->qp_state == IBV_QPS_RESET)
		engine_reset(qp);
	fabric_lock();
	keep(qp, attr, mask);
	atomic_store(&qp->shared->state, attr->qp_state);
	fabric_unlock();
	ibv->state = attr->qp_state;
	device_unlock();
	return 0;
}

int ibv_query_qp(struct ibv_qp *ibv, struct ibv_qp_attr *attr, int mask,
		 struct ibv_qp_init_attr *init)
{
	const struct model_qp *qp = (struct model_qp *)ibv;
	const struct fabric_pair *shared = qp->shared;

	(void)mask;
	*attr = qp->attr;
	attr->qp_state = attr->cur_qp_state = atomic_load(&shared->state);
	attr->dest_qp_num = shared->peer;
	attr->rq_psn = shared->psn_in;
	attr->sq_psn = shared->psn_out;
	attr->qp_access_flags = shared->access;
	attr->max_dest_rd_atomic = (uint8_t)shared->reads_in_max;
	attr->min_rnr_timer = shared->rnr_timer;
	attr->cap = qp->cap;
	attr->port_num = 1;
	*init = (struct ibv_qp_init_attr){.qp_context = ibv->qp_context,
					  .send_cq = ibv->send_cq,
					  .recv_cq = ibv->recv_cq,
					  .cap = qp->cap,
					  .qp_type = ibv->qp_type};
	return 0;
}

/* ---- receives ---- */

static int post_to(struct fabric_receives *to, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	for (; wr; wr = wr->next) {
		uint32_t at = atomic_load_explicit(&to->posted, memory_order_relaxed);
		struct fabric_receive *receive = &to->ring[at % FABRIC_RECEIVES];

		*bad = wr;
		if (wr->num_sge > 1)
			return EINVAL;
		if (at - atomic_load_explicit(&to->taken, memory_order_acquire) >= to->max)
			return ENOMEM;
		*receive = (struct fabric_receive){.id = wr->wr_id};
		if (wr->num_sge == 1) {
			receive->addr = wr->sg_list->addr;
			receive->length = wr->sg_list->length;
			receive->lkey = wr->sg_list->lkey;
		}
		/* Pairs with the acquire in has_receive(). */
		atomic_store_explicit(&to->posted, at + 1, memory_order_release);
	}
	return 0;
}

/* By one thread, as everything that posts. */
static int post_recv(struct ibv_qp *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	struct fabric_pair *shared = ((struct model_qp *)ibv)->shared;

	*bad = wr;
	return atomic_load(&shared->state) == IBV_QPS_RESET || ibv->srq
		       ? EINVAL
		       : post_to(&shared->receives, wr, bad);
}

struct ibv_srq *ibv_create_srq(struct ibv_pd *pd, struct ibv_srq_init_attr *attr)
{
	struct model_srq *srq;

	if (no_shared || attr->attr.max_wr > FABRIC_RECEIVES || attr->attr.max_sge > 1)
		return no(no_shared ? EOPNOTSUPP : EINVAL);
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return no(ENOMEM);
	fabric_lock();
	srq->shared = fabric_add_shared(((struct model_pd *)pd)->domain, attr->attr.max_wr);
	fabric_unlock();
	if (!srq->shared) {
		free(srq);
		return no(ENOSPC);
	}
	srq->srq.context = pd->context;
	srq->srq.pd = pd;
	return &srq->srq;
}

int ibv_destroy_srq(struct ibv_srq *ibv)
{
	struct model_srq *srq = (struct model_srq *)ibv;

	if (srq->users > 0)
		return EBUSY;
	fabric_lock();
	srq->shared->used = false;
	fabric_unlock();
	free(srq);
	return 0;
}

static int post_srq_recv(struct ibv_srq *ibv, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
	int error;

	fabric_lock();
	error = post_to(&((struct model_srq *)ibv)->shared->receives, wr, bad);
	fabric_unlock();
	return error;
}

int mlx5dv_init_obj(struct mlx5dv_obj *object, uint64_t types)
{
	if (types & ~(uint64_t)(MLX5DV_OBJ_QP | MLX5DV_OBJ_CQ))
		return EOPNOTSUPP;
	if (types & MLX5DV_OBJ_QP) {
		struct model_qp *qp = (struct model_qp *)object->qp.in;

		*object->qp.out = (struct mlx5dv_qp){
			.dbrec = qp->records,
			.sq = {.buf = qp->ring, .wqe_cnt = qp->blocks, .stride = MLX5_SEND_WQE_BB},
			.bf = {.reg = qp->page + DEVICE_BELL, .size = qp->half}};
	}
	if (types & MLX5DV_OBJ_CQ) {
		struct model_cq *cq = (struct model_cq *)object->cq.in;

		if (!cq->direct)
			return EOPNOTSUPP;
		*object->cq.out = (struct mlx5dv_cq){.buf = cq->ring,
						     .dbrec = cq->records,
						     .cqe_cnt = cq->count,
						     .cqe_size = sizeof(cq->ring[0]),
						     .cq_uar = cq->page,
						     .cqn = cq->number};
	}
	return 0;
}

/* ---- windows, and queue pairs that libibverbs drives, to bind them ---- */

struct model_mw {
	struct ibv_mw mw;
	struct fabric_key *key;
};

static atomic_uint refused_windows;

void mlx5_model_refuse_windows(uint32_t count)
{
	atomic_store(&refused_windows, count);
}

static struct ibv_mw *alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
	struct model_mw *window;

	if (atomic_load(&refused_windows) > 0) {
		atomic_fetch_sub(&refused_windows, 1);
		return no(ENOMEM);
	}
	if (type != IBV_MW_TYPE_2 || !getenv("MLX5_MODEL_WINDOWS"))
		return no(EOPNOTSUPP);
	window = calloc(1, sizeof(*window));
	if (!window)
		return no(ENOMEM);
	fabric_lock();
	window->key = fabric_add_key(((struct model_pd *)pd)->domain);
	if (window->key) {
		window->key->pair = UINT32_MAX;
		window->key->length = 0;
		window->mw = (struct ibv_mw){
			.context = pd->context, .pd = pd, .rkey = window->key->key, .type = type};
	}
	fabric_unlock();
	if (window->key)
		return &window->mw;
	free(window);
	return no(ENOSPC);
}

static int dealloc_mw(struct ibv_mw *mw)
{
	fabric_lock();
	fabric_remove_key(((struct model_mw *)mw)->key);
	fabric_unlock();
	free(mw);
	return 0;
}

static void wr_start(struct ibv_qp_ex *ex)
{
	((struct model_qp *)ex)->latest = NULL;
}

/* The segments behind it are counted when they are there. */
static uint8_t *begin_wqe(struct ibv_qp_ex *ex, uint8_t opcode)
{
	struct model_qp *qp = (struct model_qp *)ex;
	uint32_t block = qp->built & (qp->blocks - 1);
	uint8_t *at = qp->ring + (size_t)block * MLX5_SEND_WQE_BB;

	memset(at, 0, MLX5_SEND_WQE_BB);
	mlx5dv_set_ctrl_seg(
		(struct mlx5_wqe_ctrl_seg *)at, (uint16_t)qp->built, opcode, 0, qp->qp.qp_num,
		ex->wr_flags & IBV_SEND_SIGNALED ? MLX5_WQE_CTRL_CQ_UPDATE : 0, 1, 0, 0);
	qp->ids[block] = ex->wr_id;
	qp->latest = at;
	return at + sizeof(struct mlx5_wqe_ctrl_seg);
}

static void end_wqe(struct model_qp *qp, uint32_t bytes)
{
	struct mlx5_wqe_ctrl_seg *control = (struct mlx5_wqe_ctrl_seg *)qp->latest;
	uint32_t segments = 1 + (bytes + 15) / 16;

	control->qpn_ds = htobe32(qp->qp.qp_num << 8 | segments);
	qp->built += (segments + 3) / 4;
}

static void wr_send(struct ibv_qp_ex *ex)
{
	begin_wqe(ex, MLX5_OPCODE_SEND);
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *from, size_t length)
{
	struct model_qp *qp = (struct model_qp *)ex;
	uint32_t head = htobe32((uint32_t)length | MLX5_INLINE_SEG);
	uint8_t *end = qp->ring + (size_t)qp->blocks * MLX5_SEND_WQE_BB;
	uint8_t *to = qp->latest + sizeof(struct mlx5_wqe_ctrl_seg);
	size_t first;

	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	first = (size_t)(end - to) < length ? (size_t)(end - to) : length;
	memcpy(to, from, first);
	memcpy(qp->ring, (char *)from + first, length - first);
	end_wqe(qp, (uint32_t)(sizeof(head) + length));
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *pieces)
{
	struct model_qp *qp = (struct model_qp *)ex;
	struct mlx5_wqe_data_seg *to =
		(struct mlx5_wqe_data_seg *)(qp->latest + sizeof(struct mlx5_wqe_ctrl_seg));

	if (count > 3)
		fabric_complain("a list of %zu pieces is not modelled", count);
	for (size_t i = 0; i < count; i++)
		mlx5dv_set_data_seg(&to[i], pieces[i].length, pieces[i].lkey, pieces[i].addr);
	end_wqe(qp, (uint32_t)(count * sizeof(*to)));
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey,
		       const struct ibv_mw_bind_info *info)
{
	struct device_bind *bind = (struct device_bind *)begin_wqe(ex, MLX5_OPCODE_UMR);

	(void)mw;
	*bind = (struct device_bind){.key = rkey,
				     .lkey = info->mr->lkey,
				     .access = info->mw_access_flags,
				     .addr = info->addr,
				     .length = info->length};
	end_wqe((struct model_qp *)ex, sizeof(*bind));
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct model_qp *qp = (struct model_qp *)ex;
	uint64_t bell;

	if (!qp->latest)
		return EINVAL;
	memcpy(&bell, qp->latest, sizeof(bell));
	atomic_store_explicit((_Atomic uint32_t *)&qp->records[MLX5_SND_DBR],
			      htobe32(qp->built & 0xffff), memory_order_release);
	atomic_store((_Atomic uint64_t *)(qp->page + DEVICE_BELL), bell);
	return 0;
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
	struct model_qp *qp;

	if (!getenv("MLX5_MODEL_WINDOWS"))
		return no(EOPNOTSUPP);
	qp = create_pair(context, attr, false);
	if (!qp)
		return NULL;
	qp->ex.wr_start = wr_start;
	qp->ex.wr_send = wr_send;
	qp->ex.wr_set_inline_data = wr_set_inline_data;
	qp->ex.wr_set_sge_list = wr_set_sge_list;
	qp->ex.wr_bind_mw = wr_bind_mw;
	qp->ex.wr_complete = wr_complete;
	return &qp->qp;
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *qp)
{
	return &((struct model_qp *)qp)->ex;
}

/* ---- contexts ---- */

struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	struct model_context *model = calloc(1, sizeof(*model));
	struct ibv_context *context;

	if (!model)
		return no(ENOMEM);
	model->verbs = (struct verbs_context){.query_port = query_port,
					      .query_device_ex = query_device_ex,
					      .create_cq_ex = create_cq_ex,
					      .create_qp_ex = create_qp_ex,
					      .alloc_td = alloc_td,
					      .dealloc_td = dealloc_td,
					      .alloc_parent_domain = alloc_parent_domain,
					      .sz = sizeof(struct verbs_context)};
	context = &model->verbs.context;
	context->device = ibv;
	context->ops = (struct ibv_context_ops){.alloc_mw = alloc_mw,
						.dealloc_mw = dealloc_mw,
						.poll_cq = poll_cq,
						.req_notify_cq = req_notify_cq,
						.post_recv = post_recv,
						.post_srq_recv = post_srq_recv};
	context->abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->num_comp_vectors = 1;
	context->cmd_fd = -1;
	context->async_fd = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&context->mutex, NULL);
	if (context->async_fd < 0 || device_start() != 0) {
		if (context->async_fd >= 0)
			close(context->async_fd);
		free(model);
		return no(EAGAIN);
	}
	return context;
}

int ibv_close_device(struct ibv_context *context)
{
	device_stop();
	close(context->async_fd);
	pthread_mutex_destroy(&context->mutex);
	free(verbs_get_ctx(context));
	return 0;
}
