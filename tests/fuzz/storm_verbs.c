/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm of what a client may tell a target about RDMA, made from a seed: offers of links in the
 * control session, and then messages and RDMA over links that were really connected; right ones,
 * nearly right ones and noise. storm_verbs COUNT [SEED]. To be built with sanitizers, and with the
 * software model of an mlx5 device.
 *
 * Meanwhile a client that behaves, of the same engine, reads, writes, notifies and calls on its own
 * segment: each of its operations must succeed, and its link must last. What the storm was not
 * granted must not be seen by an owner, nor touched. At the end nothing is left of it, neither
 * here nor with the device.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rdma/rdma_cma.h>

#include <sluice/sluice.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "control/client.h"
#include "directory/p2p.h"
#include "fabric.h"
#include "tests/fuzz/odd_json.h"
#include "tests/fuzz/raw_link.h"
#include "tests/calls.h"

#define SEGMENT_BYTES  65536u
#define PATIENCE_NS    (120 * NS_PER_SECOND)
#define PATIENCE_US    60000000u
#define OFFERS         300u  /* of a round */
#define WORKS          2000u /* likewise */
#define BURST          16u
#define ALLOWED_TAG    0x11000000u
#define FORBIDDEN_TAG  0xee000000u
#define CALM_TAG       0x60000000u
#define TAG_KIND       0xff000000u
#define ALLOWED_TEXT   UINT32_C(0x600d600d)
#define FORBIDDEN_TEXT UINT32_C(0xbad0bad0)

static struct random dice;
static struct slu_engine *engine;
static struct slu_region *local;
static struct slu_segment *segments[3]; /* ram: the storm's; calm: not; ro */
static struct slu_region *regions[3];
static char address[64];
static uint64_t incarnation, steps;
static struct verbs_devices *devices;
static struct control_thread *control;
static _Atomic bool over;

/* What was taken: without any of one kind the storm has shown nothing. */
static struct {
	const char *name;
	_Atomic uint64_t n;
} counts[] = {
#define LINKS_MADE 0
	{"links made", 0},
#define JOINED 1
	{"joined", 0},
#define OFFERS_BAD 2
	{"offers refused", 0},
#define OFFERS_STALE 3
	{"for another life", 0},
#define OFFERS_NO_LINK 4
	{"of no link", 0},
#define OFFERS_NO_ROOM 5
	{"without room", 0},
#define NOTIFIED 6
	{"notifications", 0},
#define CALLED 7
	{"calls answered", 0},
#define CALLS_REFUSED 8
	{"calls refused", 0},
#define MOVED 9
	{"transfers", 0},
#define ACCESS_REFUSED 10
	{"transfers refused", 0},
#define REQUESTS_INVALID 11
	{"too long", 0},
#define HOSTILE 12
	{"links closed as hostile", 0},
#define GONE 13
	{"links found closed", 0},
#define FORBIDDEN 14
	{"forbidden notifications and calls sent", 0},
#define CREDITS 15
	{"credits told", 0},
#define LIES 16
	{"lies about a length", 0},
#define CALM 17
	{"rounds of the client that behaves", 0},
};

static void tick(uint32_t what)
{
	atomic_fetch_add(&counts[what].n, 1);
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)random_below(&dice, n);
}

static uint64_t any(void)
{
	return (uint64_t)below(UINT32_MAX) << 32 | below(UINT32_MAX);
}

/* The link of the one who behaves must not be the one that ends. */
static void on_log(void *arg, enum slu_log_level level, const char *text)
{
	(void)arg;
	(void)level;
	if (strstr(text, "an RDMA link to target")) {
		fprintf(stderr, "harmed: %s\n", text);
		abort();
	}
	if (strstr(text, "an RDMA link is closed"))
		tick(HOSTILE);
}

/* The real one would look for the model's device in the kernel. */
struct rdma_event_channel *rdma_create_event_channel(void)
{
	errno = ENODEV;
	return NULL;
}

/* ---- the target, and its owner ---- */

static void take_notifications(uint32_t segment, _Atomic uint32_t *calm)
{
	struct slu_notification notes[64];
	int n = slu_segment_poll(segments[segment], notes, 64);

	must(n >= 0);
	for (int i = 0; i < n; i++) {
		uint32_t kind = notes[i].tag & TAG_KIND;

		must(kind == (segment == 1 ? CALM_TAG : ALLOWED_TAG));
		if (segment == 1)
			atomic_store(calm, notes[i].tag);
		else
			tick(NOTIFIED);
	}
}

static void answer_calls(uint32_t segment)
{
	struct slu_message messages[16];
	int n = slu_segment_receive(segments[segment], messages, 16);

	must(n >= 0);
	for (int i = 0; i < n; i++) {
		uint32_t text = ALLOWED_TEXT;

		memcpy(&text, messages[i].data, messages[i].length < 4 ? messages[i].length : 4);
		must(messages[i].length < 4 || text == ALLOWED_TEXT);
		must(slu_segment_answer(segments[segment], &messages[i], 0, messages[i].data,
					messages[i].length) == 0);
	}
}

static _Atomic uint32_t calm_tag;

/* Now and then it does not look for a while: then what comes has to wait. */
static void *own(void *arg)
{
	uint32_t turn = 0;

	while (!over) {
		for (uint32_t i = 0; i < 3; i++) {
			take_notifications(i, &calm_tag);
			answer_calls(i);
		}
		usleep(++turn % 64 ? 20 : 5000);
	}
	return arg;
}

static void export_one(uint32_t index, const char *name, uint32_t rights)
{
	struct slu_region_options options;

	slu_region_options_init(&options, sizeof(options));
	options.page = SLU_PAGE_ORDINARY;
	must(slu_region_alloc(engine, SEGMENT_BYTES, &options, &regions[index]) == 0);
	must(slu_segment_export(engine, name, regions[index], rights, NULL, &segments[index]) == 0);
}

static void open_engine(void)
{
	struct slu_engine_options options;
	struct slu_engine_info info = {.size = sizeof(info)};

	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	options.listen = "127.0.0.1:0";
	options.rdma.timeout = 8;
	options.rdma.retries = 1;
	must(slu_engine_open(&options, &engine) == 0);
	must(slu_engine_get_info(engine, &info) == 0 && info.rdma_devices > 0);
	snprintf(address, sizeof(address), "%s", info.listen);
	incarnation = info.incarnation;
	export_one(0, "ram", SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	export_one(1, "calm", SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	export_one(2, "ro", SLU_RIGHT_READ);
	must(slu_region_alloc(engine, SEGMENT_BYTES, NULL, &local) == 0);
}

/* ---- the client that behaves ---- */

static struct slu_remote *remote;
static struct slu_queue *queue;

static void open_calm(void)
{
	struct slu_remote_options options;
	char name[80];

	snprintf(name, sizeof(name), "calm@%s", address);
	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_VERBS;
	options.timeout_us = PATIENCE_US;
	must(slu_remote_open(engine, name, &options, &remote) == 0);
	must(slu_queue_open(engine, NULL, &queue) == 0);
}

static struct slu_completion run(struct slu_op op)
{
	struct slu_completion done;

	op.remote = remote;
	op.region = local;
	op.timeout_us = PATIENCE_US;
	must(submit_any(queue, &op, 1) == 1);
	must(slu_wait(queue, 1, PATIENCE_US) >= 0 && slu_reap(queue, &done, 1) == 1);
	must(done.status == 0);
	return done;
}

static void behave(void)
{
	char *bytes = slu_region_addr(local);
	uint64_t offset = below(SEGMENT_BYTES - 4096), until = clock_monotonic_ns(NULL);
	static uint32_t round;
	uint32_t text = ALLOWED_TEXT;

	for (uint32_t i = 0; i < 4096; i++)
		bytes[i] = (char)(round + i * 7);
	run((struct slu_op){.opcode = SLU_WRITE, .length = 4096, .remote_offset = offset});
	run((struct slu_op){
		.opcode = SLU_READ, .length = 4096, .remote_offset = offset, .local_offset = 8192});
	must(memcmp(bytes, bytes + 8192, 4096) == 0);
	must(memcmp(bytes, (char *)slu_region_addr(regions[1]) + offset, 4096) == 0);
	run((struct slu_op){.opcode = SLU_WRITE_NOTIFY, .length = 8, .tag = CALM_TAG | ++round});
	while (atomic_load(&calm_tag) != (CALM_TAG | round)) {
		must(clock_monotonic_ns(NULL) < until + PATIENCE_NS);
		sched_yield();
	}
	memcpy(bytes, &text, 4);
	must(run((struct slu_op){
			 .opcode = TEST_CALL, .length = 100, .remote_offset = 16384, .tag = 100})
		     .bytes == 100);
	must(memcmp(bytes, bytes + 16384, 100) == 0);
	tick(CALM);
}

/* ---- the sessions of a hostile client ---- */

#define SESSIONS 4u

struct granted {
	struct session *session;
	uint32_t handle;
	uint32_t generation;
	uint32_t rights;
	bool gone; /* its handle is kept to be tried */
};

struct hostile {
	struct client_pool *pool;
	struct client *client;
	struct granted granted[SESSIONS]; /* ram to read and write, ram to read, ro, one closed */
};

static void on_lost(void *arg, int error)
{
	(void)arg;
	(void)error;
}

static void on_totals(void *arg, struct client_totals *totals)
{
	(void)arg;
	*totals = (struct client_totals){.operations = 0};
}

static void open_session(struct hostile *hostile, struct granted *granted, const char *segment,
			 uint32_t rights)
{
	static const struct session_callbacks callbacks = {.lost = on_lost, .totals = on_totals};
	static const enum slu_transport transports[] = {SLU_TRANSPORT_VERBS};
	const struct session_request request = {.segment = segment,
						.rights = rights,
						.transports = transports,
						.transport_count = 1,
						.until_ns = clock_deadline_ns(PATIENCE_US),
						.callbacks = &callbacks};
	struct client_grant grant;
	json_int_t handle, generation;

	must(session_open(hostile->client, &request, &granted->session, &grant) == 0);
	must(json_unpack(json_object_get(grant.opened, "grant"), "{s:I, s:I}", "handle", &handle,
			 "generation", &generation) == 0);
	client_grant_free(&grant);
	granted->handle = (uint32_t)handle;
	granted->generation = (uint32_t)generation;
	granted->rights = rights;
}

static void hostile_open(struct hostile *hostile)
{
	static const struct trust trust;
	const struct client_pool_options options = {
		.control = control, .name = "storm", .trust = &trust};
	struct endpoint at = {.is_unix = false};

	*hostile = (struct hostile){.pool = NULL};
	must(client_pool_create(&options, &hostile->pool) == 0);
	must(address_parse(address, &at.tcp) == 0);
	must(client_connect(hostile->pool, &at, "ram", clock_deadline_ns(PATIENCE_US),
			    &hostile->client) == 0);
	open_session(hostile, &hostile->granted[0], "ram", SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	open_session(hostile, &hostile->granted[1], "ram", SLU_RIGHT_READ);
	open_session(hostile, &hostile->granted[2], "ro", SLU_RIGHT_READ);
	open_session(hostile, &hostile->granted[3], "ram", SLU_RIGHT_READ | SLU_RIGHT_WRITE);
	session_close(hostile->granted[3].session);
	hostile->granted[3].session = NULL;
	hostile->granted[3].gone = true;
}

static void hostile_close(struct hostile *hostile)
{
	for (uint32_t i = 0; i < SESSIONS; i++)
		session_close(hostile->granted[i].session);
	client_release(hostile->client);
	client_pool_destroy(hostile->pool);
}

/* ---- offers ---- */

static json_t *hex(uint64_t word)
{
	char text[17];

	snprintf(text, sizeof(text), "%016" PRIx64, word);
	return json_string(text);
}

static json_t *some_queues(void)
{
	uint32_t n = below(40) ? 1 + below(3) : below(VERBS_QUEUES_MAX + 2);
	json_t *queues = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(queues, below(300)
						      ? json_pack("[i, i]", (int)below(0x1000000),
								  (int)below(0x1000000))
						      : odd_json(&dice));
	return queues;
}

static json_t *make_offer(uint64_t id, uint32_t reads, json_t *queues)
{
	json_t *offer = json_pack("{s:i, s:i, s:s, s:i, s:i, s:i, s:o}", "device", 0, "gid_index",
				  0, "gid", "00000000000000000000ffff7f000001", "lid", 0, "mtu",
				  1024, "reads", (int)reads, "queues", queues);

	must(offer);
	json_object_set_new(offer, "link", hex(id));
	json_object_set_new(offer, "incarnation", hex(incarnation));
	return offer;
}

static void mutate(json_t *offer, uint64_t theirs)
{
	static const char *const keys[] = {"link",   "incarnation", "device", "gid_index",
					   "gid",    "lid",         "mtu",    "reads",
					   "queues", "instead",     "cm"};
	const char *key = keys[below(sizeof(keys) / sizeof(keys[0]))];

	switch (below(5)) {
	case 0:
		json_object_del(offer, key);
		break;
	case 1:
		json_object_set_new(offer, "incarnation", hex(below(2) ? any() : incarnation + 1));
		break;
	case 2:
		json_object_set_new(offer, below(2) ? "instead" : "link", hex(theirs));
		break;
	default:
		json_object_set_new(offer, key, odd_json(&dice));
	}
}

static void count_refusal(int rc)
{
	must(slu_last_error()[0]);
	switch (rc) {
	case -EPROTO:
		tick(OFFERS_BAD);
		break;
	case -ESTALE:
		tick(OFFERS_STALE);
		break;
	case -ENOENT:
		tick(OFFERS_NO_LINK);
		break;
	case -ENOSPC:
		tick(OFFERS_NO_ROOM);
		break;
	default:
		/* The device's word on what was offered. */
		must(rc == -EINVAL || rc == -ENOMEM || rc == -ENODEV || rc == -EOPNOTSUPP ||
		     rc == -EIO || rc == -EACCES || rc == -ENXIO);
	}
}

/* @return 0, with the answer */
static int ask(struct granted *granted, json_t *offer, json_t **answer)
{
	int rc = session_ask(granted->session, offer, clock_deadline_ns(PATIENCE_US), answer);

	steps++;
	json_decref(offer);
	if (rc < 0)
		count_refusal(rc);
	return rc;
}

/* Join a link that is there, or was, or is another's. */
static void join(struct granted *granted, uint64_t id)
{
	json_t *answer;

	if (ask(granted, json_pack("{s:o, s:o}", "link", hex(id), "incarnation", hex(incarnation)),
		&answer) < 0)
		return;
	must(json_is_array(json_object_get(answer, "keys")));
	tick(JOINED);
	json_decref(answer);
}

static void offer_links(struct hostile *hostile, uint64_t theirs)
{
	uint64_t latest = any();

	for (uint32_t i = 0; i < OFFERS; i++) {
		struct granted *granted = &hostile->granted[below(3)];
		json_t *offer, *answer;

		if (below(4) == 0) {
			join(granted, below(4) ? latest : theirs);
			continue;
		}
		offer = make_offer(latest = any(), below(20), some_queues());
		for (uint32_t n = below(2) ? below(4) : 0; n > 0; n--)
			mutate(offer, theirs);
		if (ask(granted, offer, &answer) < 0)
			continue;
		tick(LINKS_MADE);
		json_decref(answer);
	}
}

/* ---- a link that is really connected ---- */

struct evil {
	struct hostile *hostile;
	struct raw_link *link;
	uint32_t with; /* the session that it was made on */
	uint64_t base[3];
	uint32_t keys[3]; /* of the sessions; on every queue pair, without windows */
	bool joined[3];
	bool listens;    /* has receives for what the target says */
	bool may_notify; /* by the latest subject */
};

static void take_keys(struct evil *evil, uint32_t session, const json_t *answer)
{
	const json_t *keys = json_array_get(json_object_get(answer, "keys"), 0);
	const char *base = json_string_value(json_object_get(answer, "base"));
	const char *key = json_string_value(json_array_get(keys, 0));

	must(base && key);
	must(sscanf(base, "%16" SCNx64, &evil->base[session]) == 1);
	must(sscanf(key, "%8" SCNx32, &evil->keys[session]) == 1);
	evil->joined[session] = true;
}

static void evil_join(struct evil *evil, uint32_t session)
{
	json_t *answer;

	if (ask(&evil->hostile->granted[session],
		json_pack("{s:o, s:o}", "link", hex(evil->link->id), "incarnation",
			  hex(incarnation)),
		&answer) < 0)
		return;
	take_keys(evil, session, answer);
	tick(JOINED);
	json_decref(answer);
}

static void evil_open(struct evil *evil, struct hostile *hostile, uint64_t instead)
{
	uint32_t reads = below(4) ? 16 : below(3);
	json_t *offer, *answer;

	*evil = (struct evil){.hostile = hostile, .with = below(3), .listens = below(8)};
	evil->link = raw_link_create(&devices->devices[0], any(), 1 + below(2), 0);
	for (uint32_t i = 0; evil->listens && i < RAW_RECEIVES; i++)
		raw_link_receive(evil->link, i);
	offer = make_offer(evil->link->id, reads, raw_link_queues(evil->link));
	if (instead)
		json_object_set_new(offer, "instead", hex(instead));
	must(ask(&hostile->granted[evil->with], offer, &answer) == 0);
	tick(LINKS_MADE);
	take_keys(evil, evil->with, answer);
	/* Now and then more READs at once than the target was told of. */
	must(raw_link_connect(evil->link, json_object_get(answer, "queues"),
			      &devices->devices[0].gids[0].gid,
			      below(2) || reads == 0 ? 16 : reads));
	json_decref(answer);
	for (uint32_t i = 0; i < 3; i++)
		if (i != evil->with && below(2))
			evil_join(evil, i);
}

/* ---- what the target says ---- */

static void hear(struct evil *evil, const struct ibv_wc *completion)
{
	struct verbs_message message;

	if (completion->status != IBV_WC_SUCCESS)
		return;
	must(completion->opcode == IBV_WC_RECV && completion->byte_len >= sizeof(message));
	memcpy(&message, raw_link_received(evil->link, completion->wr_id), sizeof(message));
	must(message.length == completion->byte_len - sizeof(message));
	must(message.taken <= VERBS_RECEIVES);
	must(message.type == VERBS_CREDITS || message.type == VERBS_ANSWER);
	if (message.type == VERBS_CREDITS)
		tick(CREDITS);
	else
		tick(message.status == 0 ? CALLED : CALLS_REFUSED);
	must(message.status == 0 || message.status == -EKEYREVOKED);
	if (!evil->link->error)
		raw_link_receive(evil->link, (uint32_t)completion->wr_id);
}

static void hear_all(struct evil *evil)
{
	struct ibv_wc completions[BURST];
	int n = ibv_poll_cq(evil->link->receive_cq, BURST, completions);

	must(n >= 0);
	for (int i = 0; i < n; i++)
		hear(evil, &completions[i]);
}

/* ---- messages ---- */

/* @return may that grant be used for this? */
static bool pick_grant(const struct evil *evil, struct verbs_message *message, bool writes)
{
	const struct granted *granted = &evil->hostile->granted[below(2) ? 0 : below(SESSIONS)];

	message->handle = granted->handle;
	message->generation = granted->generation;
	if (below(5))
		return !granted->gone && (!writes || granted->rights & SLU_RIGHT_WRITE);
	if (below(2)) {
		message->handle = below(16);
		message->generation = below(64);
	} else {
		message->handle = below(4) ? UINT32_MAX - below(3) : 1u << 20;
		message->generation = (uint32_t)any();
	}
	for (uint32_t i = 0; i < SESSIONS; i++) {
		granted = &evil->hostile->granted[i];
		if (message->handle == granted->handle &&
		    message->generation == granted->generation && !granted->gone)
			return !writes || granted->rights & SLU_RIGHT_WRITE;
	}
	return false;
}

static bool send_bytes(struct evil *evil, const struct verbs_message *message, uint32_t length)
{
	char *at = raw_link_buffer(evil->link, 0);
	struct verbs_work work = {.opcode = VERBS_SEND,
				  .pieces = length > 0,
				  .piece = {{.addr = (uintptr_t)at, .length = length}}};

	memcpy(at, message, sizeof(*message));
	return raw_link_post(evil->link, 0, &work);
}

static bool send_subject(struct evil *evil)
{
	struct verbs_message message = {.type = VERBS_SUBJECT};
	bool may = pick_grant(evil, &message, true);

	if (!send_bytes(evil, &message, sizeof(message)))
		return false;
	evil->may_notify = may;
	return true;
}

static bool send_call(struct evil *evil)
{
	char *at = raw_link_buffer(evil->link, 0);
	struct verbs_message message = {.type = VERBS_CALL, .slot = (uint32_t)any()};
	bool may = pick_grant(evil, &message, false);
	uint32_t text = may ? ALLOWED_TEXT : FORBIDDEN_TEXT;

	message.length = below(4) ? 4 + below(60) : below(8) ? below(4) : SLU_MESSAGE_MAX;
	memcpy(at + sizeof(message), &text, sizeof(text));
	if (!may)
		tick(FORBIDDEN);
	return send_bytes(evil, &message, (uint32_t)sizeof(message) + message.length);
}

/* One that ends the link, or should. */
static bool send_nonsense(struct evil *evil)
{
	struct verbs_message message = {.type = (uint8_t)below(8),
					.reserved = below(2) ? 0 : (uint8_t)below(256),
					.status = (int16_t)any(),
					.length = below(2) ? below(100) : (uint32_t)any(),
					.handle = (uint32_t)any(),
					.taken = (uint32_t)any()};
	uint32_t length = below(3) ? below(100) : below(RAW_BUFFER);

	if (below(3) == 0) /* longer than a receive */
		length = VERBS_MESSAGE_BYTES + 1 + below(RAW_BUFFER - VERBS_MESSAGE_BYTES - 1);
	if (message.type == VERBS_SUBJECT)
		evil->may_notify = false;
	return send_bytes(evil, &message, length);
}

/* A call that would be right but for its length: whatever else is said, the link must end. */
static bool send_lie(struct evil *evil)
{
	const struct granted *granted = &evil->hostile->granted[0];
	struct verbs_message message = {
		.type = VERBS_CALL, .handle = granted->handle, .generation = granted->generation};
	uint64_t until = clock_monotonic_ns(NULL) + PATIENCE_NS;
	uint32_t text = FORBIDDEN_TEXT;

	message.length = below(3) ? 4 + 1 + below(8) : below(2) ? 3 : (uint32_t)any() | 8;
	memcpy(raw_link_buffer(evil->link, 0) + sizeof(message), &text, sizeof(text));
	if (!send_bytes(evil, &message, sizeof(message) + sizeof(text)))
		return false;
	message.type = VERBS_SUBJECT;
	message.length = 0;
	while (!evil->link->error) {
		must(clock_monotonic_ns(NULL) < until);
		hear_all(evil);
		send_bytes(evil, &message, sizeof(message));
		raw_link_poll(evil->link);
		sched_yield();
	}
	tick(LIES);
	return true;
}

static bool notify(struct evil *evil)
{
	struct verbs_work work = {.opcode = VERBS_WRITE_IMMEDIATE,
				  .immediate = (evil->may_notify ? ALLOWED_TAG : FORBIDDEN_TAG) |
					       below(0x1000000)};

	if (!evil->may_notify)
		tick(FORBIDDEN);
	return raw_link_post(evil->link, 0, &work);
}

/* ---- transfers ---- */

static uint64_t some_address(uint64_t base, uint32_t length)
{
	switch (below(6)) {
	case 0:
		return base - 1 - below(4096);
	case 1:
		return base + SEGMENT_BYTES - length + 1 + below(64);
	case 2:
		return UINT64_MAX - below(64);
	case 3:
		return below(64);
	case 4:
		return any();
	default:
		return base + below(SEGMENT_BYTES - length);
	}
}

static uint32_t some_key(uint32_t key)
{
	switch (below(6)) {
	case 0:
		return key ^ 1u << below(32);
	case 1:
		return key + 0x100;
	case 2:
		return 0;
	case 3:
		return UINT32_MAX;
	case 4:
		return (uint32_t)any();
	default:
		return key;
	}
}

/* @param wrong  with something that is not granted, mostly */
static bool transfer(struct evil *evil, bool wrong)
{
	uint32_t queue = below(evil->link->count), session = below(3);
	uint32_t length = 1 + below(below(4) ? 64 : 4096);
	bool writes = below(2), refused;
	struct verbs_work work = {.opcode = writes ? VERBS_WRITE : VERBS_READ,
				  .pieces = 1,
				  .piece = {{.addr = (uintptr_t)raw_link_buffer(evil->link, queue),
					     .length = length}}};

	if (!evil->joined[session])
		session = evil->with;
	work.rkey = evil->keys[session];
	work.remote = evil->base[session] + below(SEGMENT_BYTES - length);
	if (!wrong && session > 0)
		work.opcode = VERBS_READ;
	if (wrong && below(2))
		work.remote = some_address(evil->base[session], length);
	if (wrong && below(2))
		work.rkey = some_key(work.rkey);
	refused = work.rkey == evil->keys[session] &&
		  (work.remote < evil->base[session] ||
		   work.remote - evil->base[session] > SEGMENT_BYTES - length ||
		   (work.opcode == VERBS_WRITE && session > 0));
	while (raw_link_poll(evil->link) > 0 && refused && !evil->link->error)
		;
	if (evil->link->error || !raw_link_post(evil->link, queue, &work))
		return false;
	while (refused && raw_link_poll(evil->link) > 0)
		sched_yield();
	must(!refused || evil->link->error);
	if (!wrong)
		tick(MOVED);
	return true;
}

/* Until all is back; bounded, since a target that is out of receives keeps us waiting. */
static void settle(struct evil *evil)
{
	uint64_t until = clock_monotonic_ns(NULL) + PATIENCE_NS;

	while (raw_link_poll(evil->link) > 0) {
		must(clock_monotonic_ns(NULL) < until);
		hear_all(evil);
		sched_yield();
	}
	hear_all(evil);
}

static bool act(struct evil *evil)
{
	uint32_t what = below(1000);

	if (what < 200)
		return send_call(evil);
	if (what < 320)
		return send_subject(evil);
	if (what < 700)
		return notify(evil);
	if (what < 980)
		return transfer(evil, false);
	if (what < 990)
		return transfer(evil, true);
	return what < 996 ? send_nonsense(evil) : send_lie(evil);
}

static void count_end(uint32_t error)
{
	switch (error) {
	case IBV_WC_REM_ACCESS_ERR:
		tick(ACCESS_REFUSED);
		break;
	case IBV_WC_REM_INV_REQ_ERR:
		tick(REQUESTS_INVALID);
		break;
	case IBV_WC_RETRY_EXC_ERR:
	case IBV_WC_WR_FLUSH_ERR:
		tick(GONE);
		break;
	default:
		must(error == IBV_WC_SUCCESS);
	}
}

static void rage(struct hostile *hostile)
{
	struct evil evil;
	uint64_t end = steps + WORKS, dead = 0;

	while (steps < end) {
		evil_open(&evil, hostile, below(2) ? dead : 0);
		while (!evil.link->error && steps < end) {
			for (uint32_t i = below(2 * BURST); i > 0; i--)
				steps += act(&evil);
			if (below(64) == 0)
				break; /* gone without a word */
			settle(&evil);
		}
		count_end(evil.link->error);
		dead = evil.link->id;
		raw_link_destroy(evil.link);
	}
}

/* ---- the storm ---- */

/* A link of another connection, which nobody may end for it. */
static uint64_t offer_bystander(struct hostile *bystander)
{
	uint64_t id = any();
	json_t *answer;

	must(ask(&bystander->granted[0], make_offer(id, 1, json_pack("[[i, i]]", 1, 1)), &answer) ==
	     0);
	json_decref(answer);
	return id;
}

static void expect_bystander(struct hostile *bystander, uint64_t id)
{
	json_t *answer;

	must(ask(&bystander->granted[1],
		 json_pack("{s:o, s:o}", "link", hex(id), "incarnation", hex(incarnation)),
		 &answer) == 0);
	json_decref(answer);
}

static void round_once(void)
{
	struct hostile hostile, bystander;
	uint64_t id;

	hostile_open(&hostile);
	hostile_open(&bystander);
	id = offer_bystander(&bystander);
	if (below(2))
		offer_links(&hostile, id);
	else
		rage(&hostile);
	behave();
	expect_bystander(&bystander, id);
	hostile_close(&hostile);
	hostile_close(&bystander);
	behave();
}

/* The link of the one who behaves: both of its ends, each with one for what is small and for bulk.
 */
#define CALM_PAIRS 4u

static uint32_t pairs_of_device(void)
{
	uint32_t pairs = 0;

	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		pairs += fabric->pairs[i].number != 0;
	return pairs;
}

/* All links of the storm must have gone, its sessions too. What is registered then stays. */
static uint32_t keys_left(void)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	uint32_t keys = 0;

	for (int i = 0; i < 10000; i++) {
		must(slu_engine_get_info(engine, &info) == 0);
		if (info.sessions == 1 && info.connections == 1 && pairs_of_device() == CALM_PAIRS)
			break;
		usleep(1000);
	}
	must(info.sessions == 1 && info.connections == 1 && pairs_of_device() == CALM_PAIRS);
	behave(); /* the poller and the control thread are through with the last of it */
	usleep(100000);
	for (uint32_t i = 0; i < FABRIC_KEYS; i++)
		keys += fabric->keys[i].key != 0 && !raw_is_of_buffers(&fabric->keys[i]);
	return keys;
}

static void report(const char *seed)
{
	bool lacks = false;

	printf("%llu steps, seed %s:", (unsigned long long)steps, seed);
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
	uint64_t count = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
	const char *seed = argc > 2 ? argv[2] : "1";
	pthread_t owner;
	uint32_t keys;

	if (count == 0) {
		fprintf(stderr, "usage: %s COUNT [SEED]\n", argv[0]);
		return 2;
	}
	dice.state = strtoull(seed, NULL, 10);
	slu_log_set(SLU_LOG_WARNING, on_log, NULL);
	open_engine();
	devices = raw_devices_open();
	must(control_thread_start(&control) == 0);
	must(pthread_create(&owner, NULL, own, NULL) == 0);
	open_calm();
	behave();
	round_once(); /* what is registered when it is first asked for stays with the segment */
	keys = keys_left();
	while (steps < count)
		round_once();
	must(keys_left() == keys);
	over = true;
	pthread_join(owner, NULL);
	slu_engine_close(engine);
	control_thread_stop(control);
	verbs_devices_close(devices);
	report(seed);
	return 0;
}
