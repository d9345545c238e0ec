/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RDMA links that die and are mended, or just come and go, on the model of an mlx5 device: nothing
 * is lost, done twice, or left behind at the target.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/mlx5dv.h>
#include <sluice/sluice.h>

#include "base/clock.h"
#include "base/random.h"
#include "fabric.h"
#include "mlx5_model.h"
#include "tests/fault/peer.h"
#include "tests/tap.h"
#include "transport/verbs/verbs_serve.h"
#include "tests/calls.h"

#define SEGMENTS    3
#define BYTES       (UINT64_C(4) << 20)
#define TAGS        65536u
#define COUNTS      (BYTES - TAGS) /* where the owner counts, by tag, how often it was notified */
#define BATCH       128
#define SECONDS     3
#define BOTH_RIGHTS (SLU_RIGHT_READ | SLU_RIGHT_WRITE)
#define PATIENCE_NS (300 * NS_PER_SECOND)
#define TIMEOUT_US  UINT64_C(6000000) /* where it is to pass */

static struct random chance;

/* ---- the target ---- */

/* Commands. The answer is the same letter; to SLEEP and HELD 'n' if it is not so. */
enum command {
	LOOK_AWAY = 'a', /* the owner looks at the first segment no more */
	LOOK = 'l',      /* does again */
	CLOSE = 'c',     /* closes it */
	BREAK = 'b',     /* the target's next message fails */
	SLEEP = 's',     /* does its poller fall asleep? */
	HOLD = 'h',      /* its queue pairs are not connected from now on */
	WAIT = 'w',      /* until one waits to be */
	CROWD = 'd',     /* until as many as may be wait so */
	HELD = 'q',      /* does one wait so? 'n' if none does */
	LET_GO = 'g',
};

struct target {
	struct slu_engine *engine;
	struct slu_region *regions[SEGMENTS];
	struct slu_segment *segments[SEGMENTS];
	int first; /* that the owner looks at */
};

static void make_name(char *name, const char *prefix, int index)
{
	snprintf(name, SLU_NAME_MAX + 1, "%s-%d", prefix, index);
}

static int open_target(struct target *target, const char *prefix)
{
	struct slu_engine_options engine;
	struct slu_region_options region;
	char name[SLU_NAME_MAX + 1];
	int rc;

	slu_engine_options_init(&engine, sizeof(engine));
	slu_region_options_init(&region, sizeof(region));
	engine.listen = "127.0.0.1:0";
	engine.no_shm_writers = true; /* of the others one is chosen */
	region.page = SLU_PAGE_ORDINARY;
	rc = slu_engine_open(&engine, &target->engine);
	for (int i = 0; rc == 0 && i < SEGMENTS; i++) {
		make_name(name, prefix, i);
		rc = slu_region_alloc(target->engine, BYTES, &region, &target->regions[i]);
		if (rc == 0)
			rc = slu_segment_export(target->engine, name, target->regions[i],
						BOTH_RIGHTS, NULL, &target->segments[i]);
	}
	return rc;
}

/* Also for its memory, which the device knows by then. */
static bool refuses_a_name_twice(struct target *target, const char *prefix)
{
	struct slu_segment *segment;
	char name[SLU_NAME_MAX + 1];

	make_name(name, prefix, 0);
	return slu_segment_export(target->engine, name, target->regions[1], BOTH_RIGHTS, NULL,
				  &segment) == -EADDRINUSE;
}

static void look(struct target *target, int index)
{
	uint8_t *counts = (uint8_t *)slu_region_addr(target->regions[index]) + COUNTS;
	struct slu_segment *segment = target->segments[index];
	struct slu_notification notes[64];
	struct slu_message calls[64];
	int n;

	while ((n = slu_segment_poll(segment, notes, 64)) > 0)
		for (int i = 0; i < n; i++)
			counts[notes[i].tag % TAGS]++;
	while ((n = slu_segment_receive(segment, calls, 64)) > 0)
		for (int i = 0; i < n; i++)
			slu_segment_answer(segment, &calls[i], 0, calls[i].data, calls[i].length);
}

static uint64_t loops(struct slu_engine *engine)
{
	struct slu_poller_info info = {.size = sizeof(info)};

	slu_engine_get_poller(engine, 0, &info);
	return info.loops;
}

static bool falls_asleep(struct slu_engine *engine)
{
	uint64_t give_up = clock_monotonic_ns(NULL) + PATIENCE_NS / 4, before;

	do {
		before = loops(engine);
		usleep(50000);
	} while (loops(engine) != before && clock_monotonic_ns(NULL) < give_up);
	return loops(engine) == before;
}

/* @return its answer */
static char carry_out(struct target *target, char command)
{
	switch (command) {
	case LOOK_AWAY:
		target->first = 1;
		break;
	case LOOK:
		target->first = 0;
		break;
	case CLOSE:
		slu_segment_close(target->segments[0]);
		break;
	case BREAK:
		mlx5_model_fail(MLX5_MODEL_ANY, 0, MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR, 1);
		break;
	case SLEEP:
		return falls_asleep(target->engine) ? SLEEP : 'n';
	case HOLD:
		mlx5_model_hold(true);
		break;
	case WAIT:
		while (mlx5_model_held() == 0)
			usleep(1000);
		break;
	case HELD:
		return mlx5_model_held() > 0 ? HELD : 'n';
	case CROWD:
		while (mlx5_model_held() < VERBS_CONNECTING_MAX)
			usleep(1000);
		break;
	case LET_GO:
		mlx5_model_hold(false);
		break;
	}
	return command;
}

/* @return false: the input has ended */
static bool obey(struct target *target)
{
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	char command;

	if (poll(&input, 1, 0) != 1)
		return true;
	if (read(STDIN_FILENO, &command, 1) != 1)
		return false;
	peer_say(carry_out(target, command));
	return true;
}

/* All segments by one port: then they share a control connection, and with it the links. */
static void say_port(struct slu_engine *engine)
{
	struct slu_engine_info info = {.size = sizeof(info)};
	const char *colon =
		slu_engine_get_info(engine, &info) == 0 ? strrchr(info.listen, ':') : NULL;
	int port = colon ? atoi(colon + 1) : 0;

	peer_say((char)(port >> 8));
	peer_say((char)(port & 0xff));
}

/* Some time after its engine began to close. */
static void *let_go(void *arg)
{
	usleep(300000);
	mlx5_model_hold(false);
	return arg;
}

static int serve(const char *prefix)
{
	struct target target = {0};
	pthread_t late;

	if (open_target(&target, prefix) < 0 || !refuses_a_name_twice(&target, prefix)) {
		fprintf(stderr, "target: %s\n", slu_last_error());
		return 1;
	}
	peer_say(PEER_READY);
	say_port(target.engine);
	while (obey(&target)) {
		for (int i = target.first; i < SEGMENTS; i++)
			look(&target, i);
		usleep(50);
	}
	if (pthread_create(&late, NULL, let_go, NULL))
		return 1;
	slu_engine_close(target.engine);
	pthread_join(late, NULL);
	return 0;
}

static int ask(struct peer *peer, char command)
{
	assert_int_equal(write(peer->to, &command, 1), 1);
	return peer_answer(peer, PEER_HANG_MS);
}

static void tell(struct peer *peer, char command)
{
	assert_int_equal(ask(peer, command), command);
}

/* ---- the client ---- */

struct rig {
	struct peer peer;
	char prefix[32];
	int port;
	struct slu_engine *engine;
	struct slu_region *region;
	struct slu_remote *remotes[SEGMENTS];
	struct slu_queue *queue;
	bool breaks;
	pthread_t breaker;
	uint32_t tag;               /* next */
	uint8_t told[TAGS];         /* by tag: said to have arrived */
	uint8_t tags_used_of[TAGS]; /* by tag: of which segment, and 1 */
};

static struct rig rig;

/* Another target, which is well. */
static struct {
	struct peer peer;
	char prefix[32];
	int port;
} other;

static int open_at(const char *prefix, int port, enum slu_transport transport, uint64_t timeout_us,
		   int index, struct slu_remote **remote)
{
	struct slu_remote_options options;
	char name[SLU_REMOTE_NAME_MAX + 1];

	slu_remote_options_init(&options, sizeof(options));
	options.transport = transport;
	options.timeout_us = timeout_us;
	snprintf(name, sizeof(name), "%s-%d@127.0.0.1:%d", prefix, index, port);
	return slu_remote_open(rig.engine, name, &options, remote);
}

static int open_remote_by(enum slu_transport transport, uint64_t timeout_us, int index,
			  struct slu_remote **remote)
{
	return open_at(rig.prefix, rig.port, transport, timeout_us, index, remote);
}

static int open_other(enum slu_transport transport, struct slu_remote **remote)
{
	return open_at(other.prefix, other.port, transport, PATIENCE_NS / NS_PER_US, 0, remote);
}

static int open_remote(int index, struct slu_remote **remote)
{
	return open_remote_by(SLU_TRANSPORT_VERBS, PATIENCE_NS / NS_PER_US, index, remote);
}

static void open_queue(void)
{
	struct slu_queue_options options;

	slu_queue_options_init(&options, sizeof(options));
	options.depth = BATCH;
	assert_int_equal(slu_queue_open(rig.engine, &options, &rig.queue), 0);
}

/* @return its port */
static int start_target(struct peer *peer, char prefix[32])
{
	static int round;
	int high;

	snprintf(prefix, 32, "mend-%d-%d", (int)getpid(), round++);
	assert_int_equal(peer_start("serve", prefix, peer), 0);
	assert_int_equal(peer_answer(peer, PEER_HANG_MS), PEER_READY);
	high = peer_answer(peer, PEER_HANG_MS);
	return high << 8 | peer_answer(peer, PEER_HANG_MS);
}

static void open_rig(uint32_t pollers, bool with_remotes)
{
	memset(&rig, 0, sizeof(rig));
	rig.port = start_target(&rig.peer, rig.prefix);
	assert_int_equal(peer_open_engine(pollers, SLU_POLL_ADAPTIVE, &rig.engine), 0);
	assert_int_equal(slu_region_alloc(rig.engine, BYTES, NULL, &rig.region), 0);
	for (int i = 0; with_remotes && i < SEGMENTS; i++)
		assert_int_equal(open_remote(i, &rig.remotes[i]), 0);
	if (with_remotes)
		open_queue();
}

/* ---- who breaks links ---- */

static _Atomic bool enough;
static _Atomic uint64_t broken_by; /* so many requests */

static uint64_t requests(void)
{
	struct mlx5_model_counts counts;

	mlx5_model_count(&counts);
	return counts.requests;
}

/* One after the other, and each link gets so far that it is not given up. */
static void *break_links(void *arg)
{
	struct random when = {.state = 5};

	(void)arg;
	while (!enough) {
		uint32_t after = (uint32_t)random_below(&when, 200);

		broken_by = requests() + after + 100;
		mlx5_model_fail(MLX5_MODEL_ANY, after, MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR,
				1);
		while (!enough && requests() < broken_by)
			usleep(200);
	}
	return NULL;
}

static void start_breaking(void)
{
	enough = false;
	assert_int_equal(pthread_create(&rig.breaker, NULL, break_links, NULL), 0);
	rig.breaks = true;
}

static void stop_breaking(void)
{
	enough = true;
	pthread_join(rig.breaker, NULL);
	rig.breaks = false;
}

/* ---- the client, again ---- */

/* Also after a test that failed on the way. */
static int close_rig(void **state)
{
	(void)state;
	if (rig.breaks)
		stop_breaking();
	slu_queue_close(rig.queue);
	for (int i = 0; i < SEGMENTS; i++)
		slu_remote_close(rig.remotes[i]);
	slu_engine_close(rig.engine);
	return peer_stop(&rig.peer);
}

static int close_both(void **state)
{
	int rc;

	kill(rig.peer.pid, SIGCONT);
	rc = close_rig(state);
	return rc ? rc : peer_stop(&other.peer);
}

/* Submit all, and see each complete once. */
static void run(const struct slu_op *ops, uint32_t n, struct slu_completion *done)
{
	uint64_t give_up = clock_monotonic_ns(NULL) + PATIENCE_NS;
	uint32_t submitted = 0, reaped = 0;
	uint8_t times[BATCH] = {0};

	while (reaped < n && clock_monotonic_ns(NULL) < give_up) {
		struct slu_completion some[BATCH];
		int rc = submit_any(rig.queue, ops + submitted, n - submitted);

		assert_true(rc >= 0);
		submitted += (uint32_t)rc;
		slu_wait(rig.queue, 1, 10000);
		rc = slu_reap(rig.queue, some, BATCH);
		assert_true(rc >= 0);
		for (int i = 0; i < rc; i++) {
			assert_true(some[i].user_data < n);
			assert_int_equal(times[some[i].user_data]++, 0);
			done[some[i].user_data] = some[i];
		}
		reaped += (uint32_t)rc;
	}
	assert_int_equal(reaped, n);
}

static int run_one(struct slu_op op)
{
	struct slu_completion done;

	op.user_data = 0;
	run(&op, 1, &done);
	return done.status;
}

static struct slu_op notification(int index)
{
	uint32_t tag = rig.tag++ % TAGS;

	rig.tags_used_of[tag] = (uint8_t)(index + 1);
	return (struct slu_op){.remote = rig.remotes[index],
			       .region = rig.region,
			       .opcode = SLU_WRITE_NOTIFY,
			       .length = 8,
			       .tag = tag};
}

/* The owner's counts, when there are as many as should be. */
static void read_counts(int index, uint8_t *counts)
{
	struct slu_op op = {.remote = rig.remotes[index],
			    .region = rig.region,
			    .opcode = SLU_READ,
			    .remote_offset = COUNTS,
			    .length = TAGS};

	for (int tries = 0; run_one(op) != 0; tries++)
		assert_true(tries < 100);
	memcpy(counts, slu_region_addr(rig.region), TAGS);
}

static uint32_t missing(int index, const uint8_t *counts)
{
	uint32_t missing = 0;

	for (uint32_t tag = 0; tag < TAGS; tag++)
		missing += rig.tags_used_of[tag] == index + 1 && rig.told[tag] && !counts[tag];
	return missing;
}

static void check_counts(int index)
{
	uint64_t give_up = clock_monotonic_ns(NULL) + PATIENCE_NS;
	static uint8_t counts[TAGS];

	do {
		read_counts(index, counts);
		usleep(1000);
	} while (missing(index, counts) > 0 && clock_monotonic_ns(NULL) < give_up);
	assert_int_equal(missing(index, counts), 0);
	for (uint32_t tag = 0; tag < TAGS; tag++)
		if (counts[tag] > (rig.tags_used_of[tag] == index + 1))
			fail_msg("the owner of %d was told %u times of %u", index, counts[tag],
				 tag);
}

/* ---- links die ---- */

static struct slu_op some_op(uint32_t index)
{
	int segment = (int)random_below(&chance, SEGMENTS);
	uint64_t length = random_below(&chance, random_below(&chance, 20) ? 20000 : 1500000);
	struct slu_op op = {.remote = rig.remotes[segment],
			    .region = rig.region,
			    .remote_offset = random_below(&chance, 1 << 20),
			    .local_offset = random_below(&chance, 1 << 20),
			    .length = length,
			    .opcode = random_below(&chance, 2) ? SLU_READ : SLU_WRITE};

	if (random_below(&chance, 20) == 0 && rig.tag < TAGS)
		op = notification(segment);
	if (random_below(&chance, 20) == 0)
		op = (struct slu_op){.remote = rig.remotes[segment],
				     .region = rig.region,
				     .opcode = TEST_CALL,
				     .length = random_below(&chance, 500),
				     .remote_offset = 3 << 20,
				     .tag = 500};
	if (random_below(&chance, 500) == 0)
		op.timeout_us = 300;
	op.user_data = index;
	return op;
}

/* Only what the owner could see twice may fail, and what had little time. */
static void judge(const struct slu_op *op, const struct slu_completion *done)
{
	bool once = op->opcode == TEST_CALL || op->opcode == SLU_WRITE_NOTIFY;

	if (op->opcode == SLU_WRITE_NOTIFY)
		rig.told[op->tag] = done->status == 0;
	if (done->status == 0 || (done->status == -ECONNRESET && once) ||
	    (done->status == -ETIMEDOUT && op->timeout_us))
		return;
	fail_msg("opcode %u failed: %s", op->opcode, slu_strerror(done->status));
}

static void links_die(uint32_t pollers)
{
	uint64_t until;
	uint32_t batches = 0;

	open_rig(pollers, true);
	start_breaking();
	until = clock_monotonic_ns(NULL) + SECONDS * NS_PER_SECOND;
	for (; rig.breaks || requests() < broken_by; batches++) {
		struct slu_completion done[BATCH];
		struct slu_op ops[BATCH];

		for (uint32_t i = 0; i < BATCH; i++)
			ops[i] = some_op(i);
		run(ops, BATCH, done);
		for (uint32_t i = 0; i < BATCH; i++)
			judge(&ops[i], &done[i]);
		if (rig.breaks && clock_monotonic_ns(NULL) > until)
			stop_breaking();
	}
	for (int i = 0; i < SEGMENTS; i++)
		check_counts(i);
	tap_comment("%u batches, %u notifications", batches, rig.tag);
}

/* Goal: when links die at any moment each operation completes once, and what can be posted again
 * is: only notifications and calls may fail, and none is seen twice or lost. */
static void test_links_die(void **state)
{
	(void)state;
	links_die(1);
}

static void test_links_die_inline(void **state)
{
	(void)state;
	links_die(0);
}

/* ---- links come and go ---- */

/* Goal: what was said to have arrived is seen by the owner, also when the client leaves at once. */
static void test_notifies_and_leaves(void **state)
{
	(void)state;
	open_rig(0, true);
	for (int i = 0; i < 300; i++) {
		struct slu_op op;

		slu_remote_close(rig.remotes[1]);
		assert_int_equal(open_remote(1, &rig.remotes[1]), 0);
		op = notification(1);
		assert_int_equal(run_one(op), 0);
		rig.told[op.tag] = 1;
	}
	check_counts(1);
}

/* Goal: queues, and with them links, come and go; the target keeps none that has gone. */
static void test_many_queues(void **state)
{
	(void)state;
	open_rig(0, true);
	for (int i = 0; i < SLU_POLLERS_MAX + 20; i++) {
		slu_queue_close(rig.queue);
		rig.queue = NULL;
		open_queue();
		assert_int_equal(run_one((struct slu_op){.remote = rig.remotes[0],
							 .region = rig.region,
							 .opcode = SLU_READ,
							 .length = 100}),
				 0);
	}
}

/* Goal: the same without any queue, when a remote is opened only to be tried. */
static void test_many_remotes(void **state)
{
	struct slu_remote *remotes[SLU_POLLERS_MAX + 20];

	(void)state;
	open_rig(0, false);
	for (int i = 0; i < SLU_POLLERS_MAX + 20; i++)
		assert_int_equal(open_remote(0, &remotes[i]), 0);
	for (int i = 0; i < SLU_POLLERS_MAX + 20; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: a segment whose owner took nothing is closed, and what it held back is free for others. */
static void test_closes_a_full_segment(void **state)
{
	struct slu_op op;

	(void)state;
	open_rig(0, true);
	tell(&rig.peer, LOOK_AWAY);
	do {
		op = notification(0);
		op.timeout_us = 200000;
	} while (run_one(op) == 0);
	tell(&rig.peer, CLOSE);
	for (int i = 0; i < 200; i++) {
		op = notification(1);
		op.timeout_us = PATIENCE_NS / NS_PER_US;
		assert_int_equal(run_one(op), 0);
		rig.told[op.tag] = 1;
	}
	check_counts(1);
}

static struct slu_op call(int index)
{
	return (struct slu_op){.remote = rig.remotes[index],
			       .region = rig.region,
			       .opcode = TEST_CALL,
			       .length = 8,
			       .remote_offset = 4096,
			       .tag = 8};
}

/* Goal: an answer to a client that has gone does not keep the target's poller awake. */
static void test_answers_nobody(void **state)
{
	struct slu_op op;

	(void)state;
	open_rig(0, true);
	tell(&rig.peer, LOOK_AWAY);
	op = call(0);
	op.timeout_us = 50000;
	assert_int_equal(run_one(op), -ETIMEDOUT);
	slu_queue_close(rig.queue);
	rig.queue = NULL;
	for (int i = 0; i < SEGMENTS; i++) {
		slu_remote_close(rig.remotes[i]);
		rig.remotes[i] = NULL;
	}
	tell(&rig.peer, LOOK);
	tell(&rig.peer, SLEEP);
}

/* Goal: the target's end of a link fails while the client only waits for an answer: it notices. */
static void test_waits_for_an_answer(void **state)
{
	(void)state;
	open_rig(0, true);
	tell(&rig.peer, LOOK_AWAY);
	tell(&rig.peer, BREAK);
	assert_int_equal(run_one(call(0)), -ECONNRESET);
	assert_int_equal(run_one(call(1)), 0);
}

/* Goal: whatever a device says of a call that it did not get confirmed, the completion says that it
 * may still arrive. */
static void test_unconfirmed_call(void **state)
{
	static const struct {
		uint8_t syndrome;
		int status;
	} ways[] = {
		{MLX5_CQE_SYNDROME_BAD_RESP_ERR, -EIO},
		{MLX5_CQE_SYNDROME_TRANSPORT_RETRY_EXC_ERR, -ECONNRESET},
	};
	struct slu_completion done;
	struct slu_op op;

	(void)state;
	open_rig(0, true);
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		assert_int_equal(run_one(call(0)), 0);
		mlx5_model_fail(MLX5_MODEL_ANY, 0, ways[i].syndrome, 1);
		op = call(0);
		run(&op, 1, &done);
		assert_int_equal(done.status, ways[i].status);
		assert_true(done.scope & SLU_MAY_LAND);
	}
}

/* Goal: the target's end of a link fails and the client does not know: another session over it
 * gets another link. */
static void test_joins_a_link_that_failed(void **state)
{
	struct slu_op op;

	(void)state;
	open_rig(0, true);
	tell(&rig.peer, BREAK);
	op = notification(0);
	assert_int_equal(run_one(op), 0); /* and credits are on their way back */
	rig.told[op.tag] = 1;
	tell(&rig.peer, SLEEP);
	slu_remote_close(rig.remotes[1]);
	rig.remotes[1] = NULL;
	assert_int_equal(open_remote(1, &rig.remotes[1]), 0);
	assert_int_equal(run_one(call(1)), 0);
	check_counts(0);
}

/* Not while it keeps the fabric from others, who would stand still as well. */
static void stop_target(void)
{
	fabric_lock();
	kill(rig.peer.pid, SIGSTOP);
	waitpid(rig.peer.pid, NULL, WUNTRACED);
	fabric_unlock();
}

/* ---- links that take long to be connected ---- */

static _Atomic int opened; /* what became of the one below */

static void *open_second(void *arg)
{
	opened = open_remote(1, &rig.remotes[1]);
	return arg;
}

static pthread_t open_and_wait(void)
{
	pthread_t thread;

	open_rig(0, false);
	tell(&rig.peer, HOLD);
	assert_int_equal(pthread_create(&thread, NULL, open_second, NULL), 0);
	tell(&rig.peer, WAIT);
	return thread;
}

/* Goal: while the target's kernel looks for the address of one client, the target does all else. */
static void test_connects_beside_the_rest(void **state)
{
	pthread_t thread = open_and_wait();

	(void)state;
	tell(&rig.peer, LOOK_AWAY);
	tell(&rig.peer, CLOSE); /* by its control thread */
	tell(&rig.peer, LET_GO);
	pthread_join(thread, NULL);
	assert_int_equal(opened, 0);
	open_queue();
	assert_int_equal(run_one(call(1)), 0);
}

/* Goal: a target that connects nothing over RDMA is reached over TCP, in the time there was. */
static void test_falls_back_in_time(void **state)
{
	struct slu_remote_info info = {.size = sizeof(info)};
	uint64_t until_ns;

	(void)state;
	open_rig(0, false);
	tell(&rig.peer, HOLD);
	until_ns = clock_deadline_ns(TIMEOUT_US);
	assert_int_equal(open_remote_by(SLU_TRANSPORT_AUTO, TIMEOUT_US, 0, &rig.remotes[0]), 0);
	assert_true(clock_monotonic_ns(NULL) < until_ns);
	tell(&rig.peer, LET_GO);
	assert_int_equal(slu_remote_get_info(rig.remotes[0], &info), 0);
	assert_int_equal(info.transport, SLU_TRANSPORT_TCP);
}

static void *open_any(void *arg)
{
	opened = open_remote_by(SLU_TRANSPORT_AUTO, TIMEOUT_US, 1, &rig.remotes[1]);
	return arg;
}

/* Goal: the time that the opening of a remote may take is spent once, whatever was tried. */
static void test_times_out_once(void **state)
{
	uint64_t twice_ns;
	pthread_t thread;

	(void)state;
	open_rig(0, false);
	tell(&rig.peer, HOLD);
	twice_ns = clock_deadline_ns(2 * TIMEOUT_US);
	assert_int_equal(pthread_create(&thread, NULL, open_any, NULL), 0);
	tell(&rig.peer, WAIT);
	stop_target();
	pthread_join(thread, NULL);
	kill(rig.peer.pid, SIGCONT);
	assert_int_equal(opened, -ETIMEDOUT);
	assert_true(clock_monotonic_ns(NULL) < twice_ns);
	tell(&rig.peer, LET_GO);
}

static void copies_to_other(struct slu_remote *remote)
{
	const struct slu_op op = {
		.remote = remote, .region = rig.region, .opcode = SLU_WRITE, .length = 8};

	assert_int_equal(run_one(op), 0);
}

/* Goal: while one remote is being opened, others are opened, used and closed, and so are queues. */
static void test_opens_beside_an_opening(void **state)
{
	struct slu_remote *remote;
	pthread_t thread;

	(void)state;
	open_rig(0, false);
	other.port = start_target(&other.peer, other.prefix);
	tell(&rig.peer, HOLD);
	opened = 1; /* not yet */
	assert_int_equal(pthread_create(&thread, NULL, open_second, NULL), 0);
	tell(&rig.peer, WAIT);
	assert_int_equal(open_other(SLU_TRANSPORT_TCP, &remote), 0);
	open_queue();
	copies_to_other(remote);
	assert_int_equal(open_other(SLU_TRANSPORT_VERBS, &rig.remotes[2]), 0);
	copies_to_other(rig.remotes[2]);
	slu_remote_close(remote);
	assert_int_equal(
		open_remote_by(SLU_TRANSPORT_TCP, PATIENCE_NS / NS_PER_US, 0, &rig.remotes[0]),
		0); /* at the same target */
	assert_int_equal(run_one(call(0)), 0);
	slu_queue_close(rig.queue);
	open_queue();
	copies_to_other(rig.remotes[2]);
	assert_int_equal(opened, 1);
	tell(&rig.peer, LET_GO);
	pthread_join(thread, NULL);
	assert_int_equal(opened, 0);
	assert_int_equal(run_one(call(1)), 0);
}

/* Goal: a queue is opened although a target is silent. What is submitted to that waits, until its
 * deadline or until the target is back; the others notice nothing. */
static void test_opens_beside_a_silent_target(void **state)
{
	static const enum slu_transport transports[] = {SLU_TRANSPORT_TCP, SLU_TRANSPORT_VERBS};
	struct slu_op op;

	(void)state;
	open_rig(0, false);
	other.port = start_target(&other.peer, other.prefix);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			open_remote_by(transports[i], PATIENCE_NS / NS_PER_US, i, &rig.remotes[i]),
			0);
	stop_target();
	assert_int_equal(open_other(SLU_TRANSPORT_TCP, &rig.remotes[2]), 0);
	open_queue();
	for (int i = 0; i < 2; i++) {
		op = call(i);
		op.timeout_us = 20000;
		assert_int_equal(run_one(op), -ETIMEDOUT);
		copies_to_other(rig.remotes[2]);
	}
	slu_queue_close(rig.queue); /* which is waiting for both */
	open_queue();
	copies_to_other(rig.remotes[2]);
	kill(rig.peer.pid, SIGCONT);
	for (int i = 0; i < 2; i++)
		assert_int_equal(run_one(call(i)), 0);
}

/* A client that does not wait, but as long as it takes to get so far on a busy machine. */
static void expect_no_link(void)
{
	uint64_t timeout_us = 150000;
	int rc;

	do {
		timeout_us *= 2;
		rc = open_remote_by(SLU_TRANSPORT_VERBS, timeout_us, 1, &rig.remotes[1]);
		assert_true(rc == -ETIMEDOUT || rc == -EBUSY); /* the one before has got there */
	} while (ask(&rig.peer, HELD) != HELD);
}

static uint32_t queue_pairs(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		n += fabric->pairs[i].number != 0;
	return n;
}

/* Goal: a client that does not wait for it leaves nothing behind, and may come again. */
static void test_leaves_while_it_connects(void **state)
{
	uint64_t give_up = clock_monotonic_ns(NULL) + PATIENCE_NS;

	(void)state;
	open_rig(0, false);
	tell(&rig.peer, HOLD);
	expect_no_link();
	assert_true(queue_pairs() > 0);
	tell(&rig.peer, LET_GO);
	while (queue_pairs() > 0 && clock_monotonic_ns(NULL) < give_up)
		usleep(1000);
	assert_int_equal(queue_pairs(), 0);
	open_second(NULL);
	assert_int_equal(opened, 0);
}

static void cut_all(void)
{
	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		if (fabric->pairs[i].number)
			mlx5_model_cut(fabric->pairs[i].number, true);
}

static uint32_t own_queue_pairs(void)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < FABRIC_PAIRS; i++)
		n += fabric->pairs[i].number && fabric->pairs[i].process == fabric_self();
	return n;
}

/* Goal: when nothing gets through a new link, its queue pairs are gone before anything else is
 * tried: a device that goes on sending for ever would take its processor with it. */
static void test_does_not_get_through(void **state)
{
	pthread_t thread = open_and_wait();

	(void)state;
	cut_all();
	tell(&rig.peer, LET_GO);
	pthread_join(thread, NULL);
	assert_int_equal(opened, -ECONNRESET);
	assert_int_equal(own_queue_pairs(), 0);
}

/* Goal: a client has one link connected at a time, and is told so. */
static void test_connects_one_at_a_time(void **state)
{
	(void)state;
	open_rig(0, false);
	assert_int_equal(
		open_remote_by(SLU_TRANSPORT_TCP, PATIENCE_NS / NS_PER_US, 0, &rig.remotes[0]),
		0); /* it keeps the connection */
	tell(&rig.peer, HOLD);
	expect_no_link();
	assert_int_equal(open_remote(1, &rig.remotes[1]), -EBUSY);
	assert_non_null(strstr(slu_last_error(), "another link of this client is being connected"));
	tell(&rig.peer, LET_GO);
}

/* A client like any other: says whether it gets its link. */
static int visit(const char *name)
{
	struct slu_remote_options options;
	struct slu_engine *visitor;
	struct slu_remote *remote = NULL;

	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_VERBS;
	options.timeout_us = PATIENCE_NS / NS_PER_US;
	if (peer_open_engine(0, SLU_POLL_ADAPTIVE, &visitor) < 0)
		return 1;
	peer_say(PEER_READY);
	if (slu_remote_open(visitor, name, &options, &remote) < 0)
		fprintf(stderr, "visitor: %s\n", slu_last_error());
	peer_say(remote ? 'y' : 'n');
	peer_is_told_to_stop(-1);
	slu_remote_close(remote);
	slu_engine_close(visitor);
	return 0;
}

#define VISITORS ((int)VERBS_CONNECTING_MAX + 4)

/* Goal: when many come at once, some wait for their turn, and one that has gone takes none. */
static void test_connects_some_at_a_time(void **state)
{
	struct peer visitors[VISITORS];
	char name[SLU_REMOTE_NAME_MAX + 1];

	(void)state;
	open_rig(0, false);
	tell(&rig.peer, HOLD);
	snprintf(name, sizeof(name), "%s-1@127.0.0.1:%d", rig.prefix, rig.port);
	for (int i = 0; i < VISITORS; i++) {
		assert_int_equal(peer_start("visit", name, &visitors[i]), 0);
		assert_int_equal(peer_answer(&visitors[i], PEER_HANG_MS), PEER_READY);
	}
	tell(&rig.peer, CROWD);
	usleep(300000); /* also those that wait for the crowd have asked by now */
	peer_kill(&visitors[VISITORS - 1]);
	tell(&rig.peer, LET_GO);
	for (int i = 0; i < VISITORS - 1; i++) {
		assert_int_equal(peer_answer(&visitors[i], PEER_HANG_MS), 'y');
		assert_int_equal(peer_stop(&visitors[i]), 0);
	}
}

/* Goal: a target that ends meanwhile ends in order, and so does who waits. */
static void test_ends_while_it_connects(void **state)
{
	pthread_t thread = open_and_wait();

	(void)state;
	peer_ask_to_stop(&rig.peer);
	pthread_join(thread, NULL);
	assert_in_set(-opened, ((unsigned long[]){ESHUTDOWN, ECONNRESET}), 2);
}

static const struct peer_role roles[] = {{"serve", serve}, {"visit", visit}, {0}};

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_notifies_and_leaves, close_rig),
		cmocka_unit_test_teardown(test_many_queues, close_rig),
		cmocka_unit_test_teardown(test_many_remotes, close_rig),
		cmocka_unit_test_teardown(test_closes_a_full_segment, close_rig),
		cmocka_unit_test_teardown(test_answers_nobody, close_rig),
		cmocka_unit_test_teardown(test_waits_for_an_answer, close_rig),
		cmocka_unit_test_teardown(test_unconfirmed_call, close_rig),
		cmocka_unit_test_teardown(test_joins_a_link_that_failed, close_rig),
		cmocka_unit_test_teardown(test_connects_beside_the_rest, close_rig),
		cmocka_unit_test_teardown(test_opens_beside_an_opening, close_both),
		cmocka_unit_test_teardown(test_opens_beside_a_silent_target, close_both),
		cmocka_unit_test_teardown(test_falls_back_in_time, close_rig),
		cmocka_unit_test_teardown(test_times_out_once, close_rig),
		cmocka_unit_test_teardown(test_leaves_while_it_connects, close_rig),
		cmocka_unit_test_teardown(test_does_not_get_through, close_rig),
		cmocka_unit_test_teardown(test_connects_one_at_a_time, close_rig),
		cmocka_unit_test_teardown(test_connects_some_at_a_time, close_rig),
		cmocka_unit_test_teardown(test_ends_while_it_connects, close_rig),
		cmocka_unit_test_teardown(test_links_die, close_rig),
		cmocka_unit_test_teardown(test_links_die_inline, close_rig),
	};
	int ret = peer_main(argc, argv, roles);

	if (ret >= 0)
		return ret;
	if (mlx5_model_unusable()) {
		printf("1..0 # SKIP %s\n", mlx5_model_unusable());
		return 0;
	}
	chance.state = clock_monotonic_ns(NULL);
	tap_comment("seed %llu", (unsigned long long)chance.state);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
