/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of what targets may tell a client about RDMA, made from a seed: of their devices, of a
 * segment, of queue pairs and keys, and in messages over queue pairs that were really connected;
 * right, nearly right and noise. storm_verbs_client COUNT [SEED]. To be built with sanitizers, and
 * with the software model of an mlx5 device.
 *
 * Whatever comes, a remote is opened or refused with a reason, and each operation on it ends once
 * and writes nothing outside its room. Between, and at the end, the same target behaves, and
 * everything must work; nothing is left with the device.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sluice/sluice.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "control/server.h"
#include "fabric.h"
#include "tests/fuzz/odd_json.h"
#include "tests/fuzz/raw_link.h"
#include "transport/verbs/verbs.h"
#include "tests/calls.h"

#define SEGMENT_BYTES 65536u
#define PATIENCE_US   60000000u
#define OPERATIONS    48u
#define ROOM          512u /* in the region, of each operation */
#define LINKS         64u
#define HONEST_EACH   16u /* visits */
#define BABBLE_SLOTS  8u

static struct random dice;  /* of the target's thread and, before it starts, of main */
static struct random words; /* of the target's control thread */
static struct random client_dice;
static struct slu_engine *engine;
static struct slu_region *region;
static struct verbs_devices *devices;
static struct server *server;
static struct listener *listener;
static char segment[SEGMENT_BYTES];
static struct ibv_mr *memory;
static _Atomic bool honest, over;
static _Atomic uint64_t said; /* messages over links, answers to offers, grants, welcomes */

/* What was taken: without any of one kind the storm has shown nothing. */
static struct {
	const char *name;
	_Atomic uint64_t n;
} counts[] = {
#define OPENED 0
	{"remotes opened", 0},
#define REFUSED_DEVICES 1
	{"refused for their devices", 0},
#define REFUSED_ANSWER 2
	{"refused for their answers", 0},
#define REFUSED_WAY 3
	{"not reached", 0},
#define FINISHED 4
	{"operations well", 0},
#define ANSWERED 5
	{"calls answered", 0},
#define TOO_LONG 6
	{"answers too long", 0},
#define TIMED_OUT 7
	{"timed out", 0},
#define DENIED 8
	{"denied", 0},
#define LOST 9
	{"lost with their links", 0},
#define STRANGE 10
	{"links ended for what was said", 0},
#define MENDED 11
	{"links replaced", 0},
#define OTHERS 12
	{"other ends", 0},
#define LIES 13
	{"answers that must not be taken", 0},
#define HONEST 14
	{"visits to one who behaves", 0},
};

static void tick(uint32_t what)
{
	atomic_fetch_add(&counts[what].n, 1);
}

static uint32_t below(struct random *from, uint32_t n)
{
	return (uint32_t)random_below(from, n);
}

static uint64_t any(struct random *from)
{
	return (uint64_t)below(from, UINT32_MAX) << 32 | below(from, UINT32_MAX);
}

static void on_log(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	must(text[0]);
	if (strstr(text, "an RDMA link ends: the target sent"))
		tick(STRANGE);
	if (strstr(text, "another is asked for"))
		tick(MENDED);
}

/* ---- the target's links ---- */

struct liar {
	struct raw_link *link; /* NULL: free */
	uint64_t connection;
	uint32_t takes; /* not told of */
	bool gone;      /* the client has left, or shall think so */
	bool is_honest;
	uint32_t serials[VERBS_CALLS]; /* of the last call of each slot */
	bool misnamed[VERBS_CALLS];    /* an answer to another call has named the slot */
};

static struct liar liars[LINKS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct liar *find_liar(uint64_t connection, uint64_t id)
{
	for (uint32_t i = 0; i < LINKS; i++)
		if (liars[i].link && !liars[i].gone && liars[i].connection == connection &&
		    liars[i].link->id == id)
			return &liars[i];
	return NULL;
}

static struct liar *free_liar(void)
{
	for (uint32_t i = 0; i < LINKS; i++)
		if (!liars[i].link)
			return &liars[i];
	return NULL;
}

/* ---- in the control session ---- */

static json_t *on_describe(void *arg, const struct peer_info *peer)
{
	json_t *all = json_pack("{s:o}", "verbs", verbs_describe_devices(devices));

	(void)arg;
	(void)peer;
	must(all);
	atomic_fetch_add(&said, 1);
	if (!honest && below(&words, 3) == 0)
		spoil_json(&words, all);
	return all;
}

static json_int_t some_length(void)
{
	static const json_int_t odd[] = {1, 4096, INT64_C(1) << 31, INT64_C(1) << 40, INT64_MAX};

	return honest || below(&words, 8) ? SEGMENT_BYTES : odd[below(&words, 5)];
}

static int on_open(void *arg, const struct peer_info *peer, const char *name, uint32_t rights,
		   const json_t *transports, json_t *opened, int fds[MESSAGE_FDS_MAX],
		   uint32_t *close_mask, void **client)
{
	uint64_t *connection = malloc(sizeof(*connection));
	json_t *fields = json_pack("{s:s, s:I, s:i, s:i, s:i, s:{s:i, s:i}}", "transport", "verbs",
				   "length", some_length(), "rights", (int)rights, "page_bytes",
				   4096, "node", 0, "grant", "handle", 7, "generation", 9);

	(void)arg;
	(void)name;
	(void)transports;
	(void)fds;
	*close_mask = 0;
	must(connection && fields);
	*connection = peer->connection;
	*client = connection;
	atomic_fetch_add(&said, 1);
	if (!honest && below(&words, 12) == 0)
		spoil_json(&words, fields);
	json_object_update_new(opened, fields);
	return 0;
}

static json_t *some_keys(uint32_t count)
{
	bool none = !honest && below(&words, 12) == 0;
	json_t *keys = json_array();
	char text[12];

	for (uint32_t i = 0; i < count; i++) {
		bool wrong = !honest && below(&words, 12) == 0;

		snprintf(text, sizeof(text), "%08x",
			 wrong ? below(&words, UINT32_MAX) : memory->rkey);
		json_array_append_new(keys, none ? json_array() : json_pack("[s]", text));
	}
	return keys;
}

static void answer_keys(uint32_t count, json_t *answer)
{
	char base[17];

	snprintf(base, sizeof(base), "%016" PRIxPTR, (uintptr_t)segment);
	json_object_set_new(answer, "base", json_string(base));
	json_object_set_new(answer, "keys", some_keys(count));
}

static bool read_offer(const json_t *offer, uint64_t *id, json_t **queues, union ibv_gid *gid)
{
	const char *text, *gid_text;

	*queues = json_object_get(offer, "queues");
	if (json_unpack((json_t *)(uintptr_t)offer, "{s:s}", "link", &text) < 0 ||
	    sscanf(text, "%16" SCNx64, id) != 1)
		return false;
	return !*queues ||
	       (json_unpack((json_t *)(uintptr_t)offer, "{s:s}", "gid", &gid_text) == 0 &&
		verbs_gid_from_hex(gid_text, gid));
}

/* Under lock. */
static void make_link(struct liar *liar, uint64_t connection, uint64_t id, const json_t *queues,
		      const union ibv_gid *gid, json_t *answer)
{
	bool deaf = !honest && below(&words, 10) == 0;
	char text[VERBS_GID_HEX];

	*liar = (struct liar){.connection = connection, .is_honest = honest};
	liar->link = raw_link_create(&devices->devices[0], id, (uint32_t)json_array_size(queues),
				     IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE);
	for (uint32_t i = 0; !deaf && i < RAW_RECEIVES; i++)
		raw_link_receive(liar->link, i);
	must(raw_link_connect(liar->link, queues, gid, 1));
	json_object_update_new(answer,
			       json_pack("{s:s, s:i, s:i, s:i, s:i, s:o}", "gid",
					 verbs_gid_to_hex(&devices->devices[0].gids[0].gid, text),
					 "lid", 0, "mtu", 1024, "reads", 16, "receives",
					 (int)RAW_RECEIVES, "queues", raw_link_queues(liar->link)));
}

/* Another's queue pair, or none: nothing gets through. */
static void shift_number(json_t *answer)
{
	json_t *queue = json_array_get(json_object_get(answer, "queues"), 0);
	json_int_t qpn = json_integer_value(json_array_get(queue, 0));

	json_array_set_new(queue, 0, json_integer((qpn + 1) & 0xffffff));
}

static int on_path(void *client, const struct path_ask *ask, const json_t *offer, json_t *answer)
{
	const uint64_t *connection = client;
	struct liar *liar;
	union ibv_gid gid;
	json_t *queues;
	uint64_t id;

	(void)ask;
	atomic_fetch_add(&said, 1);
	must(read_offer(offer, &id, &queues, &gid)); /* ours is always right */
	if (!honest && below(&words, 12) == 0)
		return fail(-(int)(1 + below(&words, 133)), "no");
	pthread_mutex_lock(&lock);
	liar = queues ? free_liar() : find_liar(*connection, id);
	if (liar && queues)
		make_link(liar, *connection, id, queues, &gid, answer);
	if (liar)
		answer_keys(liar->link->count, answer);
	pthread_mutex_unlock(&lock);
	if (!liar)
		return fail(queues ? -ENOSPC : -ENOENT, "there is no such link");
	if (!honest && queues && below(&words, 25) == 0)
		shift_number(answer);
	else if (!honest && below(&words, 5) == 0)
		spoil_json(&words, answer);
	return 0;
}

static void on_moved(void *client, uint64_t operations, uint64_t bytes_read, uint64_t bytes_written)
{
	(void)client;
	(void)operations;
	(void)bytes_read;
	(void)bytes_written;
}

static void on_close(void *client, bool lost)
{
	(void)lost;
	free(client);
}

static void on_gone(void *arg, uint64_t connection)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	for (uint32_t i = 0; i < LINKS; i++)
		if (liars[i].link && liars[i].connection == connection)
			liars[i].gone = true;
	pthread_mutex_unlock(&lock);
}

static const struct server_callbacks callbacks = {.describe = on_describe,
						  .open = on_open,
						  .path = on_path,
						  .moved = on_moved,
						  .close = on_close,
						  .gone = on_gone};

/* ---- over the link ---- */

/* By serial: their answers were such that they cannot have ended well. */
static _Atomic bool lied[1u << 20];

/* What an owner would notice twice must not come twice, whatever was answered to it. */
static void expect_once(uint32_t serial)
{
	static uint64_t seen[1u << 20];
	uint64_t bit = UINT64_C(1) << serial % 64;

	must(serial / 64 < sizeof(seen) / sizeof(seen[0]) && !(seen[serial / 64] & bit));
	seen[serial / 64] |= bit;
}

static void say(struct liar *liar, const struct verbs_message *message, uint32_t length)
{
	char *at = raw_link_buffer(liar->link, 0);
	struct verbs_work work = {.opcode = VERBS_SEND,
				  .pieces = length > 0,
				  .piece = {{.addr = (uintptr_t)at, .length = length}}};

	memcpy(at, message, sizeof(*message));
	if (raw_link_post(liar->link, 0, &work))
		atomic_fetch_add(&said, 1);
}

static uint32_t some_taken(struct liar *liar)
{
	uint32_t taken = liar->takes;

	if (!liar->is_honest && below(&dice, 400) == 0)
		return below(&dice, 2) ? taken + 1 + below(&dice, 100) : (uint32_t)any(&dice);
	liar->takes = 0;
	return taken;
}

static void tick_lie(uint32_t serial)
{
	lied[serial % (1u << 20)] = true;
	tick(LIES);
}

static void tell_credits(struct liar *liar)
{
	say(liar, &(struct verbs_message){.type = VERBS_CREDITS, .taken = some_taken(liar)},
	    sizeof(struct verbs_message));
}

static int16_t some_status(void)
{
	static const int16_t odd[] = {-EAGAIN, -ECANCELED, -ECONNRESET, -ESHUTDOWN, INT16_MIN, 1};

	if (below(&dice, 4))
		return 0;
	return below(&dice, 20) ? (int16_t) - (1 + (int)below(&dice, 10)) : odd[below(&dice, 6)];
}

static void fill_answer(struct liar *liar, const struct verbs_message *call,
			struct verbs_message *answer)
{
	answer->length = liar->is_honest || below(&dice, 4) ? call->length
							    : below(&dice, SLU_MESSAGE_MAX + 1);
	if (!liar->is_honest)
		answer->status = some_status();
	if (answer->status != 0)
		answer->length = 0;
	if (!liar->is_honest && below(&dice, 20) == 0)
		answer->slot = below(&dice, 2) ? call->slot ^ 1u << below(&dice, 32)
					       : (uint32_t)any(&dice);
	answer->taken = some_taken(liar);
}

/* Can the call not end well by this answer, nor by one that was meant for another or for nobody? */
static bool is_lie(const struct liar *liar, const struct verbs_message *call,
		   const struct verbs_message *answer, uint32_t bytes)
{
	uint32_t slot = call->slot % VERBS_CALLS;

	if (call->slot < BABBLE_SLOTS || liar->misnamed[slot])
		return false;
	return answer->taken > RAW_RECEIVES || bytes != sizeof(*answer) + answer->length ||
	       (answer->slot != call->slot && answer->slot % VERBS_CALLS == slot);
}

/* The call that is open there may end well by it, whatever it is answered itself. */
static void note_misnamed(struct liar *liar, const struct verbs_message *call, uint32_t named)
{
	uint32_t slot = named % VERBS_CALLS;

	if (named == call->slot)
		return;
	liar->misnamed[slot] = true;
	if (slot != call->slot % VERBS_CALLS)
		lied[liar->serials[slot] % (1u << 20)] = false;
}

/* The request's bytes come back from one who behaves. */
static void answer_call(struct liar *liar, uint64_t index)
{
	const struct verbs_message *call = (const void *)raw_link_received(liar->link, index);
	struct verbs_message answer = {.type = VERBS_ANSWER, .slot = call->slot};
	char *at = raw_link_buffer(liar->link, 0);
	uint32_t serial, bytes;

	memcpy(&serial, call + 1, sizeof(serial));
	expect_once(serial);
	if (!liar->is_honest && below(&dice, 12) == 0)
		return; /* never */
	fill_answer(liar, call, &answer);
	bytes = (uint32_t)sizeof(answer) + answer.length;
	memset(at + sizeof(answer), 'a', SLU_MESSAGE_MAX);
	if (answer.length <= call->length)
		memcpy(at + sizeof(answer), call + 1, answer.length);
	if (!liar->is_honest && call->slot >= BABBLE_SLOTS && below(&dice, 25) == 0)
		answer.length += below(&dice, 2) ? 1 : UINT32_MAX;
	liar->serials[call->slot % VERBS_CALLS] = serial;
	if (is_lie(liar, call, &answer, bytes))
		tick_lie(serial);
	note_misnamed(liar, call, answer.slot);
	say(liar, &answer, bytes);
	if (!liar->is_honest && below(&dice, 8) == 0)
		say(liar, &answer, bytes); /* twice */
}

static void on_receive(struct liar *liar, const struct ibv_wc *completion)
{
	const struct verbs_message *message =
		(const void *)raw_link_received(liar->link, completion->wr_id);

	if (completion->status != IBV_WC_SUCCESS)
		return;
	liar->takes++;
	if (completion->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
		expect_once(ntohl(completion->imm_data));
	if (completion->opcode == IBV_WC_RECV) {
		must(completion->byte_len == sizeof(*message) + message->length);
		must(message->type == VERBS_SUBJECT || message->type == VERBS_CALL);
		must(!liar->is_honest || (message->handle == 7 && message->generation == 9));
		if (message->type == VERBS_CALL)
			answer_call(liar, completion->wr_id);
	}
	if (liar->is_honest || below(&dice, 200))
		raw_link_receive(liar->link, (uint32_t)completion->wr_id);
}

/* What nobody asked for. */
static void babble(struct liar *liar)
{
	struct verbs_message message = {.type = below(&dice, 3) ? VERBS_ANSWER : VERBS_CREDITS,
					.slot = below(&dice, BABBLE_SLOTS)};

	if (below(&dice, 40) == 0) {
		message.type = (uint8_t)below(&dice, 8);
		message.status = (int16_t)any(&dice);
		message.length = below(&dice, 2) ? 0 : (uint32_t)any(&dice);
		message.taken = below(&dice, 2) ? 0 : (uint32_t)any(&dice);
		say(liar, &message, below(&dice, 2) ? below(&dice, 64) : below(&dice, RAW_BUFFER));
	} else if (below(&dice, 100) == 0) {
		struct verbs_work work = {.opcode = below(&dice, 2) ? VERBS_SEND_IMMEDIATE
								    : VERBS_WRITE_IMMEDIATE,
					  .immediate = (uint32_t)any(&dice)};

		raw_link_post(liar->link, 0, &work);
	} else {
		message.length = message.type == VERBS_ANSWER ? below(&dice, 1024) : 0;
		say(liar, &message, (uint32_t)sizeof(message) + message.length);
	}
}

static bool serve(struct liar *liar)
{
	struct ibv_wc completions[16];
	int n = ibv_poll_cq(liar->link->receive_cq, 16, completions);

	must(n >= 0);
	for (int i = 0; i < n; i++)
		on_receive(liar, &completions[i]);
	if (!liar->is_honest && n > 0)
		for (uint32_t i = below(&dice, 8); i > 0; i--)
			babble(liar);
	if (liar->takes > (n > 0 ? 8 : 0))
		tell_credits(liar);
	raw_link_poll(liar->link);
	if (!liar->is_honest && below(&dice, 3000) == 0)
		liar->gone = true;
	return n > 0;
}

static void *lie(void *arg)
{
	while (!over) {
		bool busy = false;

		pthread_mutex_lock(&lock);
		for (uint32_t i = 0; i < LINKS; i++) {
			struct liar *liar = &liars[i];

			if (liar->link && !liar->gone)
				busy |= serve(liar);
			if (liar->link && liar->gone) {
				raw_link_destroy(liar->link);
				liar->link = NULL;
			}
		}
		pthread_mutex_unlock(&lock);
		if (busy)
			sched_yield();
		else
			usleep(50);
	}
	return arg;
}

static void start_target(struct control_thread **control)
{
	static const struct trust trust;
	struct server_options options = {.trust = &trust,
					 .name = "liar",
					 .incarnation = 77,
					 .callbacks = &callbacks,
					 .limits = {.local_accepts_per_second = 1000000,
						    .local_accepts_burst = 1000000,
						    .messages_per_second = 1000000}};

	must(control_thread_start(control) == 0);
	options.control = *control;
	must(server_create(&options, &server) == 0);
	must(server_listen_tcp(server, "127.0.0.1:0", false, &listener) == 0);
	memory = ibv_reg_mr(devices->devices[0].pd, segment, sizeof(segment),
			    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
				    IBV_ACCESS_REMOTE_WRITE);
	must(memory);
}

/* ---- the client ---- */

static void open_engine(void)
{
	struct slu_engine_options options;
	struct slu_engine_info info = {.size = sizeof(info)};

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	options.rdma.timeout = 1;
	options.rdma.retries = 1;
	must(slu_engine_open(&options, &engine) == 0);
	must(slu_engine_get_info(engine, &info) == 0 && info.rdma_devices > 0);
	must(slu_region_alloc(engine, (uint64_t)OPERATIONS * ROOM, NULL, &region) == 0);
}

static void count_refusal(int rc)
{
	must(slu_last_error()[0]);
	if (rc == -EPROTO)
		tick(REFUSED_ANSWER);
	else if (rc == -EOPNOTSUPP && strstr(slu_last_error(), "verbs was required"))
		tick(REFUSED_DEVICES);
	else if (rc == -ECONNRESET || rc == -ETIMEDOUT)
		tick(REFUSED_WAY);
	else
		must(rc < 0);
}

static struct slu_remote *open_remote(void)
{
	struct slu_remote_options options;
	struct slu_remote *remote;
	char name[80];
	int rc;

	snprintf(name, sizeof(name), "ram@%s", listener_address(listener));
	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_VERBS;
	options.timeout_us = PATIENCE_US;
	rc = slu_remote_open(engine, name, &options, &remote);
	if (rc < 0) {
		count_refusal(rc);
		return NULL;
	}
	tick(OPENED);
	return remote;
}

/* The answer was written before it was heard of, and what the target noted before that. */
static bool was_lied_to(const struct slu_op *op)
{
	uint32_t serial;

	memcpy(&serial, (const char *)slu_region_addr(region) + op->local_offset, sizeof(serial));
	return lied[serial % (1u << 20)];
}

static void count_end(const struct slu_op *op, const struct slu_completion *done)
{
	must(done->status <= 0 && done->status != -EAGAIN);
	switch (done->status) {
	case 0:
		must(op->opcode != TEST_CALL || (done->bytes <= op->tag && !was_lied_to(op)));
		tick(op->opcode == TEST_CALL ? ANSWERED : FINISHED);
		break;
	case -EMSGSIZE:
		tick(TOO_LONG);
		break;
	case -ETIMEDOUT:
		tick(TIMED_OUT);
		break;
	case -EACCES:
		tick(DENIED);
		break;
	case -ECONNRESET:
		tick(LOST);
		break;
	default:
		tick(OTHERS);
	}
}

/* The room for the answer of a call, and what lies behind it. */
#define ANSWER_AT  256u
#define ANSWER_MAX 128u

static uint32_t next_serial;

static struct slu_op make_op(struct slu_remote *remote, uint32_t i, bool honestly)
{
	static const uint8_t opcodes[] = {SLU_READ, SLU_WRITE, SLU_WRITE_NOTIFY, TEST_CALL};
	struct slu_op op = {.user_data = i,
			    .remote = remote,
			    .region = region,
			    .local_offset = (uint64_t)i * ROOM,
			    .opcode = opcodes[below(&client_dice, 4)],
			    .timeout_us =
				    honestly ? PATIENCE_US : 1000 + below(&client_dice, 30000)};
	uint64_t length = slu_remote_length(remote);

	if (op.opcode == TEST_CALL) {
		op.length = 4 + below(&client_dice, ANSWER_MAX - 3);
		memcpy((char *)slu_region_addr(region) + op.local_offset, &next_serial, 4);
		next_serial++;
		op.remote_offset = op.local_offset + ANSWER_AT;
		op.tag = honestly ? ANSWER_MAX : below(&client_dice, ANSWER_MAX + 1);
		return op;
	}
	op.length = below(&client_dice, length < ANSWER_AT ? (uint32_t)length : ANSWER_AT);
	op.remote_offset = random_below(&client_dice, length - op.length);
	op.tag = op.opcode == SLU_WRITE_NOTIFY ? next_serial++ : 0;
	return op;
}

/* Beyond what an operation may write there is what was there. */
static void expect_bounds(const struct slu_op *op)
{
	const uint8_t *at = (const uint8_t *)slu_region_addr(region) + op->local_offset;
	uint32_t from = op->opcode == TEST_CALL ? ANSWER_AT + op->tag : (uint32_t)op->length;

	for (uint32_t i = from; i < ROOM; i++)
		must(at[i] == 0x5a);
	for (uint32_t i = 4; op->opcode == TEST_CALL && i < ANSWER_AT; i++)
		must(at[i] == 0x5a);
}

static void use(struct slu_queue *queue, struct slu_remote *remote, bool honestly)
{
	struct slu_completion done[OPERATIONS];
	struct slu_op ops[OPERATIONS];
	uint64_t ended = 0;
	uint32_t n = 1 + below(&client_dice, OPERATIONS), reaped = 0;

	memset(slu_region_addr(region), 0x5a, (size_t)OPERATIONS * ROOM);
	for (uint32_t i = 0; i < n; i++)
		ops[i] = make_op(remote, i, honestly);
	must(submit_any(queue, ops, n) == (int)n);
	while (reaped < n) {
		int rc;

		must(slu_wait(queue, 1, PATIENCE_US) > 0);
		rc = slu_reap(queue, done, n - reaped);
		must(rc > 0);
		for (int i = 0; i < rc; i++) {
			const struct slu_op *op = &ops[done[i].user_data];

			must(done[i].user_data < n && !(ended >> done[i].user_data & 1));
			ended |= UINT64_C(1) << done[i].user_data;
			must(!honestly || (done[i].status == 0 && (op->opcode != TEST_CALL ||
								   done[i].bytes == op->length)));
			count_end(op, &done[i]);
		}
		reaped += (uint32_t)rc;
	}
	for (uint32_t i = 0; i < n; i++)
		expect_bounds(&ops[i]);
}

static void visit(struct slu_queue *queue, bool honestly)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	struct slu_remote *remote;

	honest = honestly;
	remote = open_remote();
	must(remote || !honestly);
	if (!remote)
		return;
	for (uint32_t i = 1 + below(&client_dice, 8); i > 0; i--) {
		must(slu_remote_get_info(remote, &info) == 0 && info.path[0]);
		if (info.state != 0)
			break;
		use(queue, remote, honestly);
	}
	must(!honestly || info.state == 0);
	slu_remote_close(remote);
	if (honestly)
		tick(HONEST);
}

/* ---- the storm ---- */

/* Both ends' keys, and their queue pairs, which must have gone. */
static uint32_t keys_left(void)
{
	uint32_t pairs = 1, keys = 0;

	for (int i = 0; i < 10000 && (pairs > 0 || server_session_count(server) > 0); i++) {
		usleep(1000);
		pairs = 0;
		for (uint32_t k = 0; k < FABRIC_PAIRS; k++)
			pairs += fabric->pairs[k].number != 0;
	}
	must(pairs == 0 && server_session_count(server) == 0);
	for (uint32_t i = 0; i < FABRIC_KEYS; i++)
		keys += fabric->keys[i].key != 0 && !raw_is_of_buffers(&fabric->keys[i]);
	return keys;
}

static void report(const char *seed)
{
	bool lacks = false;

	printf("%llu messages, seed %s:", (unsigned long long)said, seed);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		printf("%s %llu %s", i ? "," : "", (unsigned long long)counts[i].n, counts[i].name);
		lacks |= counts[i].n == 0;
	}
	printf("\n");
	fflush(stdout);
	must(!lacks);
}

int main(int argc, char **argv)
{
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0, visits = 0;
	const char *seed = argc > 2 ? argv[2] : "1";
	struct control_thread *control;
	struct slu_queue *queue;
	pthread_t target;
	uint32_t keys;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	dice.state = words.state = client_dice.state = strtoull(seed, NULL, 10);
	slu_log_set(SLU_LOG_WARNING, on_log, NULL);
	open_engine();
	devices = raw_devices_open();
	start_target(&control);
	must(slu_queue_open(engine, NULL, &queue) == 0);
	must(pthread_create(&target, NULL, lie, NULL) == 0);
	visit(queue, true); /* with it our memory is registered, for as long as it is there */
	keys = keys_left();
	while (said < count)
		visit(queue, ++visits % HONEST_EACH == 0);
	visit(queue, true);
	must(keys_left() == keys);
	over = true;
	pthread_join(target, NULL);
	slu_engine_close(engine);
	server_destroy(server);
	control_thread_stop(control);
	ibv_dereg_mr(memory);
	verbs_devices_close(devices);
	report(seed);
	return 0;
}
