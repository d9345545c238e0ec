/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target's side of verbs with many clients, or bad ones: the test is its control thread, one
 * thread its poller. What one client costs is counted (base/work.h), not timed.
 */
#include "tests/tap.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/clock.h"
#include "base/work.h"
#include "env/eal.h"
#include "fabric.h"
#include "message/sender.h"
#include "mlx5_model.h"
#include "tests/fuzz/raw_link.h"
#include "transport/verbs/verbs.h"
#include "transport/verbs/verbs_serve.h"
#include "transport/verbs/verbs_server.h"

#define INCARNATION   7u
#define SEGMENT_BYTES 65536u
#define MANY          800u /* the model has 1,024 queue pairs */
#define HOARDERS      16u
#define IDLE          6u /* each has the greatest share of receives */
#define WAIT_NS       (60 * NS_PER_SECOND)

static struct transport_env env;
static struct verbs_host *host;
static struct verbs_server *server;
static struct buffers *buffers; /* of its poller */
static struct slu_region region;
static struct export segment;
static pthread_t poller;
static atomic_bool over;
static atomic_uint rests; /* turns of the poller after which it would have slept */

/* ---- the control thread's part ---- */

/** A request for a path. */
struct asked {
	struct transport_later later; /* first */
	_Atomic(void *) arg;
	void (*fn)(void *arg);
	bool is_over;
	int error;
	json_t *answer;
};

static void post(struct transport_later *later, void (*fn)(void *arg), void *arg)
{
	struct asked *asked = (struct asked *)later;

	asked->fn = fn;
	atomic_store(&asked->arg, arg);
}

static void end(struct transport_later *later, int error, json_t *answer)
{
	struct asked *asked = (struct asked *)later;

	asked->is_over = true;
	asked->error = error;
	asked->answer = answer;
}

static void run_posted(struct asked *asked)
{
	void *arg = atomic_exchange(&asked->arg, NULL);

	if (!arg)
		return;
	work_begin(WORK_EVENT);
	asked->fn(arg);
}

static void wait_for(struct asked *asked)
{
	uint64_t until = clock_monotonic_ns(NULL) + WAIT_NS;

	while (!asked->is_over) {
		run_posted(asked);
		must(clock_monotonic_ns(NULL) < until);
		usleep(20);
	}
}

static struct grant *grant_to(uint64_t connection)
{
	static struct sender sender = {
		.number = 1, .references = 1, .identity = "psk:model"};
	const struct grant grant = {.export = &segment,
				    .sender = &sender,
				    .connection = connection,
				    .rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE};
	json_t *description = json_object();
	struct grant *made;

	must(verbs_server_grant(server, &grant, description, &made) == 0);
	json_decref(description);
	return made;
}

static json_t *hex(uint64_t word)
{
	char text[17];

	snprintf(text, sizeof(text), "%016llx", (unsigned long long)word);
	return json_string(text);
}

/* @param queues  NULL: it joins the link; consumed */
static void ask(struct asked *asked, struct grant *grant, uint64_t link, json_t *queues)
{
	json_t *offer = json_pack("{s:o, s:o}", "link", hex(link), "incarnation", hex(INCARNATION));
	int rc;

	if (queues)
		json_object_update_new(
			offer, json_pack("{s:i, s:i, s:s, s:i, s:i, s:i, s:o}", "device", 0,
					 "gid_index", 0, "gid", "00000000000000000000ffff7f000001",
					 "lid", 0, "mtu", 1024, "reads", 4, "queues", queues));
	*asked = (struct asked){.later = {.post = post, .end = end}};
	work_begin(WORK_EVENT);
	rc = verbs_server_join(server, grant, offer, NULL, &asked->later);
	json_decref(offer);
	if (rc != TRANSPORT_LATER) {
		asked->is_over = true;
		asked->error = rc;
	}
}

static void expect(struct asked *asked, int error)
{
	wait_for(asked);
	assert_int_equal(asked->error, error);
	json_decref(asked->answer);
}

static json_t *nobody(void)
{
	return json_pack("[[i, i]]", 1, 1);
}

static uint32_t open_queue_pair(struct asked *asked)
{
	json_int_t number;

	wait_for(asked);
	must(asked->error == 0);
	number = json_integer_value(
		json_array_get(json_array_get(json_object_get(asked->answer, "queues"), 0), 0));
	json_decref(asked->answer);
	return (uint32_t)number;
}

static void *run_poller(void *arg)
{
	struct transport_service *service = verbs_server_service(server, 0);

	while (!atomic_load(&over)) {
		if (service->run(service) > 0)
			continue;
		if (!service->pending(service))
			atomic_fetch_add(&rests, 1);
		usleep(10);
	}
	return arg;
}

static void open_server(const char *windows)
{
	const struct slu_rdma_options options = {
		.gid_index = -1, .timeout = -1, .retries = -1, .traffic_class = -1};
	const struct serving_env serving = {
		.transport = &env, .incarnation = INCARNATION, .pollers = 1, .buffers = &buffers};

	if (windows)
		setenv("MLX5_MODEL_WINDOWS", windows, 1);
	else
		unsetenv("MLX5_MODEL_WINDOWS");
	must(verbs_host_open(&options, &host) == 0);
	env.hosts[SLU_TRANSPORT_VERBS] = host;
	buffers = buffers_create(&env);
	must(verbs_server_create(&serving, &env.servers[SLU_TRANSPORT_VERBS]) == 0);
	server = env.servers[SLU_TRANSPORT_VERBS];
	region = (struct slu_region){.addr = aligned_alloc(4096, SEGMENT_BYTES),
				     .length = SEGMENT_BYTES};
	segment = (struct export){.region = &region,
				  .addr = region.addr,
				  .length = SEGMENT_BYTES,
				  .rights = SLU_RIGHT_READ | SLU_RIGHT_WRITE};
	must(verbs_server_export(server, &segment) == 0);
	atomic_store(&over, false);
	must(pthread_create(&poller, NULL, run_poller, NULL) == 0);
	work_forget();
}

/* Whatever is left of it would keep this from returning, or the model complain. */
static void close_server(void)
{
	verbs_server_unexport(server, &segment);
	verbs_server_stop(server);
	atomic_store(&over, true);
	pthread_join(poller, NULL);
	verbs_server_destroy(server);
	buffers_put(buffers);
	verbs_host_close(host);
	free(region.addr);
}

static void expect_no_waits(void)
{
	assert_int_equal(work_greatest(WORK_EVENT, WORK_WAITS), 0);
}

static bool is_used(uint32_t queue_pair)
{
	bool used;

	fabric_lock();
	used = fabric_find_pair(queue_pair) != NULL;
	fabric_unlock();
	return used;
}

/* ---- tests ---- */

static void test_stalled_binding(void **state)
{
	/* Goal: while one client's windows are not bound, another's open is answered; then the
	 * first one's link ends, and nothing else of it. */
	struct grant *first[2] = {NULL}, *other;
	struct asked stalled, asked;
	uint32_t queue_pair;

	(void)state;
	open_server("1");
	first[0] = grant_to(1);
	first[1] = grant_to(1);
	other = grant_to(2);
	ask(&asked, first[0], 10, nobody());
	queue_pair = open_queue_pair(&asked);
	mlx5_model_stall(queue_pair, true);
	ask(&stalled, first[1], 10, NULL);
	for (uint64_t link = 20; link < 24; link++) {
		ask(&asked, other, link, nobody());
		expect(&asked, 0);
		ask(&asked, other, link, NULL);
		expect(&asked, 0);
	}
	expect(&stalled, -ENOENT);
	verbs_server_settle(server);
	assert_false(is_used(queue_pair));
	ask(&asked, first[1], 11, nobody());
	expect(&asked, 0);
	expect_no_waits();
	verbs_server_gone(server, 1);
	verbs_server_gone(server, 2);
	verbs_server_revoke(server, first[0], -ESHUTDOWN);
	verbs_server_revoke(server, first[1], -ESHUTDOWN);
	verbs_server_revoke(server, other, -ESHUTDOWN);
	close_server();
}

static void test_revoked_while_binding(void **state)
{
	/* Goal: a right that is withdrawn while its windows are being bound is over as soon as
	 * what was begun has settled: the key is good for nothing. */
	struct grant *grants[2];
	struct asked stalled, asked;
	uint32_t queue_pair;

	(void)state;
	open_server("1");
	grants[0] = grant_to(1);
	grants[1] = grant_to(1);
	ask(&asked, grants[0], 10, nobody());
	queue_pair = open_queue_pair(&asked);
	mlx5_model_stall(queue_pair, true);
	ask(&stalled, grants[1], 10, NULL);
	work_begin(WORK_EVENT);
	verbs_server_revoke(server, grants[1], -EKEYREVOKED);
	expect(&stalled, -ECANCELED);
	verbs_server_settle(server);
	assert_false(is_used(queue_pair));
	expect_no_waits();
	verbs_server_revoke(server, grants[0], -ESHUTDOWN);
	close_server();
}

static void test_joined_while_opening(void **state)
{
	/* Goal: a second opening takes a link to its poller when the first did not come so far. */
	struct raw_link *link;
	struct grant *grants[2];
	struct asked first, second;

	(void)state;
	open_server("1");
	grants[0] = grant_to(1);
	grants[1] = grant_to(1);
	link = raw_link_create(&host->devices->devices[0], 1, 1, 0);
	mlx5_model_refuse_windows(1);
	ask(&first, grants[0], link->id, raw_link_queues(link));
	while (!atomic_load(&first.arg))
		usleep(20);
	run_posted(&first); /* it is made now, and the worker has the rest */
	ask(&second, grants[1], link->id, NULL);
	expect(&first, -ENOMEM);
	expect(&second, 0);
	assert_int_equal(server->services[0]->serving.count, 1);
	raw_link_destroy(link);
	verbs_server_gone(server, 1);
	for (uint32_t i = 0; i < 2; i++)
		verbs_server_revoke(server, grants[i], -ECONNRESET);
	verbs_server_settle(server);
	close_server();
}

static void test_closed_while_binding(void **state)
{
	/* Goal: a segment that is closed while a window on it is being bound waits until that is
	 * given back. */
	struct grant *grants[2];
	struct asked asked;

	(void)state;
	open_server("1");
	grants[0] = grant_to(1);
	grants[1] = grant_to(1);
	ask(&asked, grants[0], 10, nobody());
	mlx5_model_stall(open_queue_pair(&asked), true);
	ask(&asked, grants[1], 10, NULL);
	verbs_server_revoke(server, grants[1], -ESHUTDOWN);
	verbs_server_revoke(server, grants[0], -ESHUTDOWN);
	expect(&asked, -ECANCELED);
	close_server();
}

static struct grant *many[MANY];

static void open_many(void)
{
	struct asked *asked = calloc(MANY, sizeof(*asked));

	must(asked);
	for (uint32_t i = 0; i < MANY; i++)
		many[i] = grant_to(i + 1);
	for (uint32_t i = 0; i < MANY; i++)
		ask(&asked[i], many[i], i + 1, nobody());
	for (uint32_t over_count = 0; over_count < MANY;) {
		over_count = 0;
		for (uint32_t i = 0; i < MANY; i++) {
			run_posted(&asked[i]);
			over_count += asked[i].is_over;
		}
	}
	for (uint32_t i = 0; i < MANY; i++)
		expect(&asked[i], 0);
	free(asked);
}

/*
 * A client's end of a link of its own.
 *
 * @param receives  for what the target sends it
 * @param target    out: its first queue pair there; NULL: nobody asks
 */
static struct raw_link *open_raw_link(struct grant *grant, uint32_t receives, uint32_t *target)
{
	struct raw_link *link =
		raw_link_create(&host->devices->devices[0], grant->connection, 1, 0);
	struct asked asked;
	json_t *queues;

	for (uint32_t i = 0; i < receives; i++)
		raw_link_receive(link, i);
	ask(&asked, grant, link->id, raw_link_queues(link));
	wait_for(&asked);
	must(asked.error == 0);
	queues = json_object_get(asked.answer, "queues");
	if (target)
		*target =
			(uint32_t)json_integer_value(json_array_get(json_array_get(queues, 0), 0));
	must(raw_link_connect(link, queues, &host->devices->devices[0].gids[0].gid, 4));
	json_decref(asked.answer);
	return link;
}

static void carry_out(struct raw_link *link, struct verbs_work *work)
{
	uint64_t until = clock_monotonic_ns(NULL) + WAIT_NS;

	must(raw_link_post(link, 0, work));
	while (raw_link_poll(link) > 0)
		must(clock_monotonic_ns(NULL) < until);
	must(!link->error);
}

static void be_busy(struct raw_link *link, const struct grant *grant, uint32_t rounds)
{
	for (uint32_t i = 0; i < rounds; i++) {
		struct verbs_message message = {
			.type = VERBS_SUBJECT, .handle = grant->handle, .generation = 1};
		struct verbs_work work = {
			.opcode = VERBS_SEND, .pieces = 1, .piece = {{.length = sizeof(message)}}};

		work.piece[0].addr = (uintptr_t)raw_link_buffer(link, 0);
		memcpy(raw_link_buffer(link, 0), &message, sizeof(message));
		carry_out(link, &work);
	}
}

/* @param most  of a turn's items, beside those of links that owe */
static void check_idle_links(uint32_t most)
{
	struct raw_link *link;
	struct grant *busy;

	open_server(NULL);
	open_many();
	busy = grant_to(MANY + 1);
	link = open_raw_link(busy, RAW_RECEIVES, NULL);
	work_forget();
	be_busy(link, busy, 300);
	assert_in_range(work_greatest(WORK_TURN, WORK_ITEMS), 1, most + 1);
	raw_link_destroy(link);
	for (uint32_t i = 0; i <= MANY; i++) {
		struct grant *grant = i < MANY ? many[i] : busy;

		work_begin(WORK_EVENT);
		verbs_server_gone(server, grant->connection);
		verbs_server_revoke(server, grant, -ECONNRESET);
	}
	assert_in_range(work_greatest(WORK_EVENT, WORK_ITEMS), 1, 4);
	expect_no_waits();
	close_server();
}

static void test_idle_links(void **state)
{
	/* Goal: what a turn does for a busy link does not grow with those that are idle. */
	(void)state;
	check_idle_links(1);
}

static void test_idle_links_with_own_receives(void **state)
{
	/* Goal: on a device that shares no receives it is a completion queue for 32 links each. */
	(void)state;
	mlx5_model_without_shared_receives(true);
	check_idle_links(MANY / 32 + 1);
	mlx5_model_without_shared_receives(false);
}

static bool rests_soon(void)
{
	uint64_t until = clock_monotonic_ns(NULL) + NS_PER_SECOND;
	uint32_t before = atomic_load(&rests);

	while (atomic_load(&rests) < before + 2 && clock_monotonic_ns(NULL) < until)
		usleep(1000);
	return atomic_load(&rests) >= before + 2;
}

static void test_deaf_client(void **state)
{
	/* Goal: a client that takes in nothing of what it is sent keeps the poller from no sleep,
	 * and what it was not told yet is looked at all the same. */
	struct transport_service *service;
	struct raw_link *link;
	struct grant *grant;

	(void)state;
	open_server(NULL);
	service = verbs_server_service(server, 0);
	grant = grant_to(1);
	link = open_raw_link(grant, 0, NULL);
	be_busy(link, grant, 200);
	assert_true(rests_soon());
	assert_true(service->held_up(service));
	raw_link_destroy(link);
	verbs_server_gone(server, 1);
	verbs_server_revoke(server, grant, -ECONNRESET);
	verbs_server_settle(server);
	assert_true(rests_soon());
	assert_false(service->held_up(service));
	close_server();
}

static void test_deaf_owner(void **state)
{
	/* Goal: notifications that the segment's owner does not take keep the poller from no sleep,
	 * while their client is there and when it has gone. */
	struct verbs_work work = {.opcode = VERBS_WRITE_IMMEDIATE};
	struct raw_link *link;
	struct grant *grant;

	(void)state;
	open_server(NULL);
	must(inbox_create(1, -1, &segment.inbox) == 0);
	grant = grant_to(1);
	link = open_raw_link(grant, RAW_RECEIVES, NULL);
	be_busy(link, grant, 1); /* which says whom the notifications are for */
	for (uint32_t i = 0; i < INBOX_NOTIFICATIONS - VERBS_RECEIVES / 2; i++) {
		struct ibv_wc completion;

		while (ibv_poll_cq(link->receive_cq, 1, &completion) > 0)
			raw_link_receive(link, (uint32_t)completion.wr_id);
		carry_out(link, &work);
	}
	assert_true(rests_soon());
	raw_link_destroy(link);
	verbs_server_gone(server, 1);
	verbs_server_revoke(server, grant, -ECONNRESET);
	verbs_server_settle(server);
	assert_true(rests_soon());
	close_server();
	inbox_destroy(segment.inbox);
	segment.inbox = NULL;
}

static void call_over(struct raw_link *link, const struct grant *grant, uint32_t slot)
{
	struct verbs_message message = {.type = VERBS_CALL,
					.handle = grant->handle,
					.generation = 1, /* the first in its place */
					.slot = slot};
	struct verbs_work work = {
		.opcode = VERBS_SEND, .pieces = 1, .piece = {{.length = sizeof(message)}}};

	work.piece[0].addr = (uintptr_t)raw_link_buffer(link, 0);
	memcpy(raw_link_buffer(link, 0), &message, sizeof(message));
	must(raw_link_post(link, 0, &work));
}

/* The owner answers all that there is, as long as may be. */
static void answer_calls(void)
{
	static const char answer[SLU_MESSAGE_MAX];
	struct inbox_request request;

	while (inbox_receive(segment.inbox, 0, &request))
		inbox_reply(segment.inbox, 0, request.slot, 0, answer, sizeof(answer));
}

/* @return answers that came over it, up to now */
static uint32_t answers_of(struct raw_link *link)
{
	struct ibv_wc completions[RAW_RECEIVES];
	int n = ibv_poll_cq(link->receive_cq, RAW_RECEIVES, completions);
	uint32_t answers = 0;

	raw_link_poll(link);
	must(!link->error);
	for (int i = 0; i < n; i++) {
		const struct verbs_message *message =
			(const void *)raw_link_received(link, completions[i].wr_id);

		must(completions[i].status == IBV_WC_SUCCESS);
		answers += message->type == VERBS_ANSWER;
		raw_link_receive(link, (uint32_t)completions[i].wr_id);
	}
	return answers;
}

static void test_hoarders(void **state)
{
	/* Goal: clients that take no answers in wait, each with its own and its share of what is
	 * there for all, and lose nothing; another is answered meanwhile. */
	struct raw_link *hoarders[HOARDERS], *other;
	struct grant *grants[HOARDERS + 1];
	uint32_t targets[HOARDERS], answers = 0;
	uint64_t until = clock_monotonic_ns(NULL) + WAIT_NS;

	(void)state;
	open_server("0");
	must(inbox_create(1, -1, &segment.inbox) == 0);
	for (uint32_t i = 0; i <= HOARDERS; i++)
		grants[i] = grant_to(i + 1);
	for (uint32_t i = 0; i < HOARDERS; i++) {
		hoarders[i] = open_raw_link(grants[i], RAW_RECEIVES, &targets[i]);
		mlx5_model_stall(targets[i], true);
	}
	other = open_raw_link(grants[HOARDERS], RAW_RECEIVES, NULL);
	for (uint32_t i = 0; i < HOARDERS; i++)
		for (uint32_t slot = 0; slot < VERBS_CALLS; slot++)
			call_over(hoarders[i], grants[i], slot);
	while (counter_read(&buffers->refused) == 0) {
		answer_calls();
		must(clock_monotonic_ns(NULL) < until);
	}
	for (uint32_t round = 0; round < 20; round++) {
		call_over(other, grants[HOARDERS], round % VERBS_CALLS);
		for (uint32_t got = 0; got == 0; got = answers_of(other)) {
			answer_calls();
			must(clock_monotonic_ns(NULL) < until);
		}
	}
	for (uint32_t i = 0; i < HOARDERS; i++) {
		assert_int_equal(answers_of(hoarders[i]), 0);
		mlx5_model_stall(targets[i], false);
	}
	while (answers < HOARDERS * VERBS_CALLS) {
		answer_calls();
		for (uint32_t i = 0; i < HOARDERS; i++)
			answers += answers_of(hoarders[i]);
		must(clock_monotonic_ns(NULL) < until);
	}
	while (counter_read(&buffers->promised) > 0)
		must(clock_monotonic_ns(NULL) < until);
	for (uint32_t i = 0; i <= HOARDERS; i++) {
		raw_link_destroy(i < HOARDERS ? hoarders[i] : other);
		verbs_server_gone(server, i + 1);
		verbs_server_revoke(server, grants[i], -ECONNRESET);
	}
	verbs_server_settle(server);
	close_server();
	inbox_destroy(segment.inbox);
	segment.inbox = NULL;
}

/* @return registrations of the device that are no windows */
static uint32_t registrations(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < FABRIC_KEYS; i++)
		n += fabric->keys[i].key && !fabric->keys[i].pair;
	return n;
}

static void test_memory_of_idle_links(void **state)
{
	/* Goal: an idle link has its receives and one buffer beside, of registrations that are
	 * shared; and gives them back. */
	uint32_t used, made;

	(void)state;
	open_server("0");
	for (uint32_t i = 0; i < IDLE; i++) {
		struct asked asked;

		many[i] = grant_to(i + 1);
		ask(&asked, many[i], i + 1, nobody());
		expect(&asked, 0);
	}
	used = buffers_used(buffers);
	made = buffers->made - buffers->shared;
	assert_int_equal(used, IDLE * (VERBS_RECEIVES + 1));
	assert_in_range(made, used, used + used / 2);
	assert_in_range(registrations(), 1, IDLE + 4);
	for (uint32_t i = 0; i < IDLE; i++) {
		verbs_server_gone(server, i + 1);
		verbs_server_revoke(server, many[i], -ECONNRESET);
	}
	verbs_server_settle(server);
	assert_int_equal(buffers_used(buffers), IDLE * VERBS_RECEIVES); /* they stay posted */
	close_server();
}

static void test_revokes_many(void **state)
{
	/* Goal: what many clients had is over when what was begun has settled, each of them by
	 * itself; and with windows no link has ended that is used for something else. */
	uint32_t used = 0;

	(void)state;
	open_server("1");
	/* Each has a completion queue for its sends: the model has 512. */
	for (uint32_t i = 0; i < 100; i++) {
		struct asked asked;

		many[2 * i] = grant_to(i + 1);
		many[2 * i + 1] = grant_to(i + 1);
		ask(&asked, many[2 * i], i + 1, nobody());
		expect(&asked, 0);
		ask(&asked, many[2 * i + 1], i + 1, NULL);
		expect(&asked, 0);
	}
	for (uint32_t i = 0; i < 100; i++) {
		work_begin(WORK_EVENT);
		verbs_server_revoke(server, many[2 * i], -EKEYREVOKED);
	}
	verbs_server_settle(server);
	for (uint32_t i = 0; i < FABRIC_KEYS; i++)
		used += fabric->keys[i].key && fabric->keys[i].pair;
	assert_int_equal(used, 100);
	assert_in_range(work_greatest(WORK_EVENT, WORK_ITEMS), 1, 4);
	expect_no_waits();
	for (uint32_t i = 0; i < 100; i++) {
		verbs_server_revoke(server, many[2 * i + 1], -ESHUTDOWN);
		verbs_server_gone(server, i + 1);
	}
	close_server();
}

static int start_eal(void **state)
{
	(void)state;
	return eal_start();
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stalled_binding),
		cmocka_unit_test(test_revoked_while_binding),
		cmocka_unit_test(test_closed_while_binding),
		cmocka_unit_test(test_joined_while_opening),
		cmocka_unit_test(test_idle_links),
		cmocka_unit_test(test_idle_links_with_own_receives),
		cmocka_unit_test(test_deaf_client),
		cmocka_unit_test(test_deaf_owner),
		cmocka_unit_test(test_hoarders),
		cmocka_unit_test(test_memory_of_idle_links),
		cmocka_unit_test(test_revokes_many),
	};

	return cmocka_run_group_tests(tests, start_eal, NULL);
}
