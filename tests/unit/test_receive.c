/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's side: requests from clients in shared memory (by fake) and from the lanes of pollers,
 * for which the test stands in. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <sys/resource.h>
#include <unistd.h>
#include <x86intrin.h>

#include "base/work.h"
#include "engine/engine_internal.h"
#include "engine/process.h"
#include "tests/tap.h"
#include "tests/calls.h"

#define BYTES    65536u
#define SOON_MS  120000
#define QUIET_MS 50
#define REMOTES  (SLU_MESSAGES_MAX / SLU_CALLS_MAX + 2)

static struct slu_engine *engine;
static struct slu_region *memory, *region;
static struct slu_segment *segment;
static struct slu_queue *queue;
static struct sender wired = {.number = 1001, .identity = "psk:wired"}; /* by a poller's lane */

static int setup(void **state)
{
	struct slu_engine_options options;
	struct slu_queue_options inlined;

	(void)state;
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	if (slu_engine_open(&options, &engine) < 0 ||
	    slu_region_alloc(engine, BYTES, NULL, &memory) < 0 ||
	    slu_region_alloc(engine, BYTES, NULL, &region) < 0 ||
	    slu_queue_open(engine, &inlined, &queue) < 0) {
		tap_comment("%s", slu_last_error());
		return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	slu_engine_close(engine);
	return 0;
}

static int export_one(void **state)
{
	(void)state;
	return slu_segment_export(engine, "receive", memory, SLU_RIGHT_READ | SLU_RIGHT_WRITE, NULL,
				  &segment);
}

static int close_one(void **state)
{
	(void)state;
	slu_segment_close(segment);
	return 0;
}

static struct slu_remote *open_remote(void)
{
	struct slu_remote_options options;
	struct slu_remote *remote = NULL;

	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_FAKE;
	assert_int_equal(slu_remote_open(engine, "receive", &options, &remote), 0);
	return remote;
}

static void submit(struct slu_remote *remote, enum slu_opcode opcode, uint32_t n)
{
	struct slu_op op = {.remote = remote,
			    .region = region,
			    .remote_offset = 4096,
			    .length = 8,
			    .tag = 8,
			    .opcode = (uint8_t)opcode};

	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(submit_any(queue, &op, 1), 1);
	slu_reap(queue, NULL, 0);
}

/* Answer what is left and take the completions. */
static void finish(void)
{
	struct slu_completion done;
	struct slu_message message;
	struct slu_queue_info info = {.size = sizeof(info)};

	do {
		while (slu_segment_receive(segment, &message, 1) == 1)
			assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
		while (slu_reap(queue, &done, 1) == 1)
			;
		slu_queue_get_info(queue, &info);
	} while (info.outstanding > 0);
}

/* Within the time? */
static bool is_woken(int timeout_ms)
{
	struct pollfd wake = {.fd = slu_segment_fd(segment), .events = POLLIN};

	return poll(&wake, 1, timeout_ms) == 1;
}

/* Then it is forgotten; of clients that are polled. */
static bool woken(int timeout_ms)
{
	bool ready = is_woken(timeout_ms);
	uint32_t numbers[WAKE_TAKEN];

	wake_set_clear(segment->wake);
	while (wake_set_take(segment->wake, numbers) > 0)
		;
	return ready;
}

/* Goal: an answer that cannot be is refused, with its reason, and the request stays open. */
static void test_refuses_bad_answers(void **state)
{
	static const int statuses[] = {1, -EAGAIN, -ECANCELED, -4096};
	struct slu_remote *remote = open_remote();
	struct slu_message message, forged;
	static uint8_t data[SLU_CALL_MAX + 1];

	(void)state;
	submit(remote, TEST_CALL, 1);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
	assert_int_equal(slu_segment_answer(segment, &message, 0, data, SLU_CALL_MAX + 1), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "at most 1048576"));
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(slu_segment_answer(segment, &message, statuses[i], NULL, 0),
				 -EINVAL);
		assert_non_null(strstr(slu_last_error(), "negative errno"));
	}
	for (uint32_t bit = 0; bit < 64; bit++) {
		forged = message;
		forged.id ^= UINT64_C(1) << bit;
		assert_int_equal(slu_segment_answer(segment, &forged, 0, NULL, 0), -EINVAL);
		assert_non_null(strstr(slu_last_error(), "open"));
	}
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), -EINVAL);
	finish();
	slu_remote_close(remote);
}

/* Goal: no more than SLU_MESSAGES_MAX requests are open; the others wait where they are, and wake
 * nobody until one can be taken. */
static void test_open_requests_are_bounded(void **state)
{
	static struct slu_message messages[SLU_MESSAGES_MAX + 1];
	struct slu_remote *remotes[REMOTES];

	(void)state;
	for (uint32_t i = 0; i < REMOTES; i++) {
		remotes[i] = open_remote();
		submit(remotes[i], TEST_CALL, SLU_CALLS_MAX);
	}
	assert_int_equal(slu_segment_arm(segment), 1);
	assert_int_equal(slu_segment_receive(segment, messages, SLU_MESSAGES_MAX + 1),
			 SLU_MESSAGES_MAX);
	assert_int_equal(slu_segment_receive(segment, messages, 1), 0);
	assert_int_equal(slu_segment_arm(segment), 0);
	assert_int_equal(slu_segment_answer(segment, &messages[100], 0, NULL, 0), 0);
	assert_int_equal(slu_segment_arm(segment), 1);
	assert_int_equal(slu_segment_receive(segment, &messages[100], 2), 1);
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	finish();
	for (uint32_t i = 0; i < REMOTES; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: no client has to wait for another that sends more. */
static void test_takes_from_each_client(void **state)
{
	struct slu_remote *busy = open_remote(), *quiet = open_remote();
	struct slu_message messages[4];

	(void)state;
	submit(busy, TEST_CALL, SLU_CALLS_MAX);
	submit(quiet, TEST_CALL, 1);
	assert_int_equal(slu_segment_receive(segment, messages, 3), 3);
	assert_true(messages[0].client != messages[1].client ||
		    messages[1].client != messages[2].client);
	for (uint32_t i = 0; i < 3; i++)
		slu_segment_answer(segment, &messages[i], 0, NULL, 0);
	finish();
	slu_remote_close(busy);
	slu_remote_close(quiet);
}

/* Goal: a request outlives its client, and its answer is no error. */
static void test_answers_a_client_that_left(void **state)
{
	struct slu_remote *first = open_remote(), *second = open_remote();
	struct slu_message messages[2];
	struct slu_completion done;
	struct slu_queue *other;

	(void)state;
	assert_int_equal(slu_queue_open(engine, NULL, &other), 0);
	for (uint32_t i = 0; i < 2; i++) {
		struct slu_op op = {.remote = i ? second : first,
				    .region = region,
				    .length = 100,
				    .opcode = TEST_CALL};

		memset(slu_region_addr(region), (int)i, 100);
		assert_int_equal(submit_any(other, &op, 1), 1);
		while (slu_segment_receive(segment, &messages[i], 1) == 0)
			;
	}
	slu_remote_close(first);
	assert_int_equal(slu_wait(other, 1, 10000000), 1);
	assert_int_equal(slu_reap(other, &done, 1), 1);
	assert_int_equal(done.status, -ECANCELED);
	while (atomic_load(&segment->sessions.used) > 1) /* lingering, for a second */
		sched_yield();
	assert_int_equal(((const uint8_t *)messages[0].data)[99], 0);
	assert_int_equal(slu_segment_answer(segment, &messages[0], 0, NULL, 0), 0);
	assert_int_equal(slu_segment_answer(segment, &messages[1], 0, NULL, 0), 0);
	assert_int_equal(slu_wait(other, 1, 10000000), 1);
	assert_int_equal(slu_reap(other, &done, 1), 1);
	assert_int_equal(done.status, 0);
	slu_queue_close(other);
	slu_remote_close(second);
}

/* Goal: armed before or after a client came, the owner is woken by what it sends, once. */
static void test_wakes(void **state)
{
	struct slu_notification note;
	struct slu_remote *early = open_remote(), *late;

	(void)state;
	assert_int_equal(slu_segment_poll(segment, &note, 1), 0);
	submit(early, SLU_WRITE_NOTIFY, 1);
	assert_false(woken(QUIET_MS));
	assert_int_equal(slu_segment_arm(segment), 1);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_int_equal(slu_segment_arm(segment), 0);
	late = open_remote();
	submit(late, SLU_WRITE_NOTIFY, 2);
	assert_true(woken(SOON_MS));
	assert_int_equal(slu_segment_arm(segment), 1);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_int_equal(slu_segment_arm(segment), 0);
	submit(early, TEST_CALL, 2);
	assert_true(woken(SOON_MS));
	submit(early, TEST_CALL, 1);
	assert_false(woken(QUIET_MS));
	finish();
	slu_remote_close(early);
	slu_remote_close(late);
}

/* Goal: what a poller left in its lane is handed out beside what clients share, and answered. */
static void test_lanes(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct slu_remote *remote = open_remote();
	struct slu_notification notes[3];
	struct slu_message messages[3];
	struct inbox_answer answer;

	(void)state;
	assert_non_null(lane);
	assert_int_equal(slu_segment_arm(segment), 0);
	assert_true(inbox_notify(lane, &wired, 7));
	assert_true(woken(SOON_MS));
	assert_int_equal(slu_segment_arm(segment), 1);
	submit(remote, SLU_WRITE_NOTIFY, 1);
	assert_int_equal(slu_segment_poll(segment, notes, 3), 2);
	assert_int_equal(notes[0].tag + notes[1].tag, 7 + 8);
	assert_int_equal(slu_segment_arm(segment), 0);
	assert_true(inbox_call(lane, &wired, 42, "question", 8));
	assert_true(woken(SOON_MS));
	submit(remote, TEST_CALL, 1);
	assert_int_equal(slu_segment_receive(segment, messages, 3), 2);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, messages[i].data,
						    messages[i].length),
				 0);
	assert_true(inbox_answer(lane, &answer));
	assert_int_equal(answer.cookie, 42);
	assert_memory_equal(answer.data, "question", 8);
	inbox_answer_done(lane);
	assert_true(inbox_call(lane, &wired, 43, NULL, 0));
	assert_int_equal(slu_segment_receive(segment, messages, 3), 1);
	assert_int_equal(slu_segment_answer(segment, &messages[0], -ENOENT, "x", 1), 0);
	assert_true(inbox_answer(lane, &answer));
	assert_int_equal(answer.status, -ENOENT);
	assert_int_equal(answer.length, 0);
	inbox_answer_done(lane);
	finish();
	slu_remote_close(remote);
}

/* Goal: neither what comes by shared memory nor what comes on the wire keeps the other out. */
static void test_takes_from_both(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct slu_remote *remote = open_remote();
	struct slu_notification note;
	struct slu_message message;
	struct inbox_answer answer;
	uint32_t tags = 0, lengths = 0;

	(void)state;
	for (uint32_t i = 0; i < 8; i++) {
		assert_true(inbox_notify(lane, &wired, 7));
		assert_true(inbox_call(lane, &wired, i, "question", 1));
	}
	submit(remote, SLU_WRITE_NOTIFY, 8);
	submit(remote, TEST_CALL, 8);
	for (uint32_t i = 0; i < 4; i++) { /* as an application calls them */
		assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
		tags |= 1u << note.tag;
		assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
		lengths |= 1u << message.length;
		assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	}
	assert_int_equal(tags, 1u << 7 | 1u << 8);
	assert_int_equal(lengths, 1u << 1 | 1u << 8);
	finish();
	while (inbox_answer(lane, &answer))
		inbox_answer_done(lane);
	slu_remote_close(remote);
}

/* Goal: nor where all that may be open is, and each place that becomes free is wanted by both. */
static void test_takes_from_both_when_full(void **state)
{
	static struct slu_message messages[SLU_MESSAGES_MAX];
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct slu_remote *remotes[REMOTES];
	uint32_t waited[2] = {0}, at = 0;
	struct inbox_answer answer;

	(void)state;
	for (uint32_t i = 0; i < REMOTES; i++) {
		remotes[i] = open_remote();
		submit(remotes[i], TEST_CALL, SLU_CALLS_MAX);
	}
	assert_int_equal(slu_segment_receive(segment, messages, SLU_MESSAGES_MAX),
			 SLU_MESSAGES_MAX);
	for (uint32_t i = 0; i < 2; i++) {
		assert_true(inbox_call(lane, &wired, i, "question", 1));
		for (bool came = false; !came; waited[i]++) {
			assert_in_range(waited[i], 0, 2);
			assert_int_equal(slu_segment_answer(segment, &messages[at], 0, NULL, 0), 0);
			assert_int_equal(slu_segment_receive(segment, &messages[at], 1), 1);
			came = messages[at++].client == 1001;
			while (slu_segment_receive(segment, &messages[at], 1) > 0)
				fail_msg("there was no room");
		}
		/* Once more for nothing: whose turn it is must not hang on that. */
		assert_int_equal(slu_segment_receive(segment, &messages[at], 1), 0);
	}
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	finish();
	while (inbox_answer(lane, &answer))
		inbox_answer_done(lane);
	for (uint32_t i = 0; i < REMOTES; i++)
		slu_remote_close(remotes[i]);
}

struct answering {
	struct transport_service service;
	struct inbox_lane *lane;
	_Atomic uint32_t answered;
};

static uint32_t take_answers(struct transport_service *service)
{
	struct answering *answering = (struct answering *)service;
	struct inbox_answer answer;
	uint32_t n = 0;

	while (inbox_answer(answering->lane, &answer)) {
		inbox_answer_done(answering->lane);
		n++;
	}
	atomic_fetch_add(&answering->answered, n);
	return n;
}

static bool answers_pending(struct transport_service *service)
{
	return inbox_answers_pending(((struct answering *)service)->lane);
}

static void serve(struct poller *poller, void *arg)
{
	poller_serve(poller, arg);
}

static void unserve(struct poller *poller, void *arg)
{
	(void)poller;
	poller_unserve(arg);
}

static void call_in(struct poller *poller, void *arg)
{
	(void)poller;
	if (!inbox_call(arg, &wired, 1, NULL, 0))
		abort();
}

/* Goal: an answer wakes the poller that carries it, if that sleeps. */
static void test_answers_wake_the_poller(void **state)
{
	struct poller *poller = engine->pollers[0];
	struct answering answering = {.service = {.run = take_answers, .pending = answers_pending},
				      .lane = inbox_lane(segment->export.inbox, 0)};
	struct slu_message message;

	(void)state;
	poller_call(poller, serve, &answering);
	for (uint32_t i = 1; i <= 200; i++) {
		poller_call(poller, call_in, answering.lane);
		assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
		while (i % 2 && !atomic_load(&poller->sleeping))
			sched_yield();
		assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
		for (uint32_t tries = 0; atomic_load(&answering.answered) < i; tries++) {
			assert_true(tries < 10000);
			usleep(1000);
		}
	}
	poller_call(poller, unserve, &answering);
}

static uint32_t do_nothing(struct transport_service *service)
{
	(void)service;
	return 0;
}

static bool never(struct transport_service *service)
{
	(void)service;
	return false;
}

static bool always(struct transport_service *service)
{
	(void)service;
	return true;
}

/* Goal: a poller sleeps though somebody holds up what it serves, and looks again by itself. */
static void test_looks_at_what_is_held_up(void **state)
{
	struct transport_service service = {.run = do_nothing, .pending = never, .held_up = always};
	struct poller *poller = engine->pollers[0];
	uint64_t before;

	(void)state;
	poller_call(poller, serve, &service);
	before = counter_read(&poller->sleeps);
	for (uint32_t tries = 0; counter_read(&poller->sleeps) < before + 10; tries++) {
		assert_true(tries < 10000);
		usleep(1000);
	}
	poller_call(poller, unserve, &service);
}

/* ---- who joins while the owner arms ---- */

#define TRAP_FLAG UINT64_C(0x100) /* of RFLAGS: a SIGTRAP after each instruction */
#define STEPS_MAX 100000

static _Atomic int joins_now, has_joined;
static struct slu_remote *newcomer;
static volatile uint32_t steps, joins_after;

static void on_step(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	if (steps++ < joins_after)
		return;
	atomic_store(&joins_now, 1);
	while (!atomic_load(&has_joined))
		sched_yield();
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] &= ~(greg_t)TRAP_FLAG;
}

static void *join(void *arg)
{
	(void)arg;
	while (!atomic_load(&joins_now))
		sched_yield();
	newcomer = open_remote();
	atomic_store(&has_joined, 1);
	return NULL;
}

/* Arm, and after so many of its instructions somebody joins. @return what arming did */
static int arm_in_steps(uint32_t count)
{
	pthread_t thread;
	int rc;

	steps = 0;
	joins_after = count;
	atomic_store(&joins_now, 0);
	atomic_store(&has_joined, 0);
	assert_int_equal(pthread_create(&thread, NULL, join, NULL), 0);
	__writeeflags(__readeflags() | TRAP_FLAG);
	rc = slu_segment_arm(segment);
	__writeeflags(__readeflags() & ~TRAP_FLAG);
	atomic_store(&joins_now, 1);
	pthread_join(thread, NULL);
	return rc;
}

/* Goal: whoever joins while the owner goes to sleep can wake it, at whichever instruction. */
static void test_arms_newcomers(void **state)
{
	const struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
	uint32_t count = 0;

	(void)state;
	if (WITH_THREAD_SANITIZER)
		skip_because("ThreadSanitizer's own instructions would be stepped through as well");
	assert_int_equal(sigaction(SIGTRAP, &action, NULL), 0);
	do {
		int rc;

		rc = arm_in_steps(count);
		if (rc == 0 && !atomic_load(&newcomer->local->area->inbox.area->armed))
			fail_msg("not armed: joined after %u instructions", count);
		atomic_store(&segment->polls, 0); /* as if nobody polled: it does not linger */
		slu_remote_close(newcomer);
	} while (steps > count && ++count < STEPS_MAX);
	tap_comment("%u instructions", count);
	assert_true(count > 10 && count < STEPS_MAX);
	signal(SIGTRAP, SIG_DFL);
}

/* ---- several threads ---- */

#define SERVERS     4u
#define CLIENTS     4u
#define PASSED_MAX  64u
#define CALLS_BYTES 64u /* of a region, for each that is under way */

/* What one thread has received and another is to answer. */
struct passing {
	pthread_mutex_t lock;
	uint32_t count;
	struct slu_message messages[PASSED_MAX];
};

static struct passing passing = {.lock = PTHREAD_MUTEX_INITIALIZER};
static _Atomic bool serving_ends;
static _Atomic uint64_t served, misanswered;

static void answer_one(const struct slu_message *message)
{
	uint64_t value = 0;

	memcpy(&value, message->data, sizeof(value));
	value = value * 3 + 1;
	if (slu_segment_answer(segment, message, 0, &value, sizeof(value)) < 0 ||
	    slu_segment_answer(segment, message, 0, NULL, 0) != -EINVAL)
		atomic_fetch_add(&misanswered, 1);
	atomic_fetch_add(&served, 1);
}

/* Leave one for whoever comes. @return false: no room */
static bool pass(const struct slu_message *message)
{
	bool room;

	pthread_mutex_lock(&passing.lock);
	room = passing.count < PASSED_MAX;
	if (room)
		passing.messages[passing.count++] = *message;
	pthread_mutex_unlock(&passing.lock);
	return room;
}

static bool answer_passed(void)
{
	struct slu_message message = {.id = 0};

	pthread_mutex_lock(&passing.lock);
	if (passing.count > 0)
		message = passing.messages[--passing.count];
	pthread_mutex_unlock(&passing.lock);
	if (message.id)
		answer_one(&message);
	return message.id;
}

/* Half of what it receives is for others to answer. It sleeps when there is nothing. */
static void *serve_some(void *arg)
{
	uint32_t turn = 0;

	(void)arg;
	while (!atomic_load(&serving_ends)) {
		struct slu_message messages[3];
		int n = slu_segment_receive(segment, messages, 3);
		bool passed = answer_passed();

		for (int i = 0; i < n; i++)
			if (++turn % 2 || !pass(&messages[i]))
				answer_one(&messages[i]);
		if (n == 0 && !passed && slu_segment_arm(segment) == 0)
			is_woken(100);
	}
	return NULL;
}

struct asker {
	pthread_t thread;
	struct slu_remote *remote;
	struct slu_queue *queue;
	uint64_t first;
	uint64_t count;
	uint64_t bad;
};

static void ask(const struct asker *asker, uint64_t number, uint32_t place)
{
	char *at = (char *)slu_region_addr(region) + place;
	const struct slu_op op = {.user_data = number << 16 | place,
				  .remote = asker->remote,
				  .region = region,
				  .local_offset = place,
				  .remote_offset = place + 8,
				  .length = 8,
				  .tag = 8,
				  .opcode = TEST_CALL};

	memcpy(at, &number, sizeof(number));
	assert_int_equal(submit_any(asker->queue, &op, 1), 1);
}

/* In shared memory: each call has one answer, which is its own. */
static void *ask_all(void *arg)
{
	struct asker *asker = arg;
	uint32_t base = (uint32_t)(asker->first * 2 * SLU_CALLS_MAX * CALLS_BYTES);
	uint64_t asked = 0, answered = 0;

	while (answered < asker->count) {
		struct slu_completion done[SLU_CALLS_MAX];
		int n;

		for (; asked < asker->count && asked < SLU_CALLS_MAX; asked++)
			ask(asker, asked, base + (uint32_t)asked * CALLS_BYTES);
		n = slu_reap(asker->queue, done, SLU_CALLS_MAX);
		if (n == 0)
			sched_yield();
		for (int i = 0; i < n; i++, answered++) {
			uint32_t place = done[i].user_data & 0xffff;
			uint64_t value;

			memcpy(&value, (char *)slu_region_addr(region) + place + 8, sizeof(value));
			asker->bad += done[i].status != 0 || done[i].bytes != 8 ||
				      value != (done[i].user_data >> 16) * 3 + 1;
			if (asked < asker->count)
				ask(asker, asked++, place);
		}
	}
	return NULL;
}

/* In a lane, as a poller: likewise. */
static void *ask_by_lane(void *arg)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct asker *asker = arg;
	uint64_t asked = 0, answered = 0;

	while (answered < asker->count) {
		struct inbox_answer answer;

		while (asked < asker->count &&
		       inbox_call(lane, &wired, asked, &asked, sizeof(asked)))
			asked++;
		if (!inbox_answers_pending(lane))
			sched_yield();
		while (inbox_answer(lane, &answer)) {
			uint64_t value;

			memcpy(&value, answer.data, sizeof(value));
			asker->bad += answer.length != 8 || value != answer.cookie * 3 + 1;
			answered++;
			inbox_answer_done(lane);
		}
	}
	return NULL;
}

static void asker_start(struct asker *asker, uint32_t index, uint64_t count)
{
	struct slu_queue_options inlined;

	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	*asker = (struct asker){.first = index, .count = count};
	if (index < CLIENTS) {
		asker->remote = open_remote();
		assert_int_equal(slu_queue_open(engine, &inlined, &asker->queue), 0);
	}
	assert_int_equal(pthread_create(&asker->thread, NULL,
					index < CLIENTS ? ask_all : ask_by_lane, asker),
			 0);
}

/* Goal: four threads serve one segment, and answer what they or others have received: no answer is
 * lost, doubled or another's, though they sleep and wake. SLUICE_CALLS=N makes it N calls. */
static void test_several_threads(void **state)
{
	const char *wanted = getenv("SLUICE_CALLS");
	uint64_t each = (wanted ? strtoull(wanted, NULL, 10) : 100000) / (CLIENTS + 1);
	struct asker askers[CLIENTS + 1];
	pthread_t servers[SERVERS];

	(void)state;
	atomic_store(&serving_ends, false);
	atomic_store(&served, 0);
	for (uint32_t i = 0; i < SERVERS; i++)
		assert_int_equal(pthread_create(&servers[i], NULL, serve_some, NULL), 0);
	for (uint32_t i = 0; i <= CLIENTS; i++)
		asker_start(&askers[i], i, each);
	for (uint32_t i = 0; i <= CLIENTS; i++) {
		pthread_join(askers[i].thread, NULL);
		assert_int_equal(askers[i].bad, 0);
		slu_queue_close(askers[i].queue);
		slu_remote_close(askers[i].remote);
	}
	atomic_store(&serving_ends, true);
	for (uint32_t i = 0; i < SERVERS; i++)
		pthread_join(servers[i], NULL);
	assert_int_equal(atomic_load(&misanswered), 0);
	assert_int_equal(atomic_load(&served), (CLIENTS + 1) * each);
	tap_comment("%" PRIu64 " calls", atomic_load(&served));
}

static void *arm_once(void *arg)
{
	(void)arg;
	assert_int_equal(slu_segment_arm(segment), 1);
	return NULL;
}

#define RACES 300u

static _Atomic uint32_t racers;
static uint8_t raced[INBOX_CALLS]; /* by request: how often it was handed out */

static void *race(void *arg)
{
	struct slu_message message;

	(void)arg;
	atomic_fetch_sub(&racers, 1);
	while (atomic_load(&racers) > 0)
		;
	for (uint32_t empty = 0; empty < 200; empty++) {
		if (slu_segment_receive(segment, &message, 1) == 0)
			continue;
		empty = 0;
		__atomic_fetch_add(&raced[*(const uint8_t *)message.data], 1, __ATOMIC_RELAXED);
		slu_segment_answer(segment, &message, 0, NULL, 0);
	}
	return NULL;
}

/* Goal: when others come to the first thread that polls, none is handed what another is as well. */
static void test_others_come(void **state)
{
	for (uint32_t round = 0; round < RACES; round++) {
		struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
		struct slu_message message;
		struct inbox_answer answer;
		pthread_t threads[3];

		memset(raced, 0, sizeof(raced));
		atomic_store(&racers, 3);
		for (uint8_t i = 0; i < INBOX_CALLS; i++)
			assert_true(inbox_call(lane, &wired, i, &i, 1));
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, race, NULL), 0);
		for (uint32_t i = 0; i < 3; i++)
			pthread_join(threads[i], NULL);
		while (slu_segment_receive(segment, &message, 1) == 1) {
			raced[*(const uint8_t *)message.data]++;
			slu_segment_answer(segment, &message, 0, NULL, 0);
		}
		for (uint32_t i = 0; i < INBOX_CALLS; i++)
			assert_int_equal(raced[i], 1);
		while (inbox_answer(lane, &answer))
			inbox_answer_done(lane);
		if (round % 3 == 0) { /* anew, with nobody who has polled */
			close_one(state);
			assert_int_equal(export_one(state), 0);
		}
	}
}

static void *receive_one(void *arg)
{
	return (void *)(intptr_t)slu_segment_receive(segment, arg, 1);
}

static int receive_elsewhere(struct slu_message *message)
{
	pthread_t other;
	void *got;

	assert_int_equal(pthread_create(&other, NULL, receive_one, message), 0);
	pthread_join(other, &got);
	return (int)(intptr_t)got;
}

/* Goal: while the first is at it, others find nothing, and what is there afterwards. */
static void test_one_at_a_time(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct slu_message message;
	struct inbox_answer answer;

	(void)state;
	assert_int_equal(slu_segment_receive(segment, &message, 1), 0);
	assert_true(inbox_call(lane, &wired, 1, NULL, 0));
	atomic_store(&segment->first_polls, true);
	assert_int_equal(receive_elsewhere(&message), 0);
	atomic_store(&segment->first_polls, false);
	atomic_store(&segment->taken, true);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 0);
	atomic_store(&segment->taken, false);
	assert_int_equal(receive_elsewhere(&message), 1);
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	assert_true(inbox_answer(lane, &answer));
	inbox_answer_done(lane);
}

#define CONTESTS 20000u

static struct slu_message contested;
static _Atomic uint32_t contest, contested_by, winners;

static void spin_until(_Atomic uint32_t *word, uint32_t value)
{
	for (uint32_t spins = 1; atomic_load(word) < value; spins++)
		if (spins % 1024 == 0)
			sched_yield();
}

/* And wait for the other. */
static void contend(uint32_t round)
{
	if (slu_segment_answer(segment, &contested, 0, NULL, 0) == 0)
		atomic_fetch_add(&winners, 1);
	if (atomic_fetch_add(&contested_by, 1) + 1 < 2 * round)
		spin_until(&contested_by, 2 * round);
}

static void *contend_always(void *arg)
{
	(void)arg;
	for (uint32_t round = 1; round <= CONTESTS; round++) {
		spin_until(&contest, round);
		contend(round);
	}
	return NULL;
}

/* Goal: of two threads that answer the same request at once one does it. */
static void test_one_answers(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct inbox_answer answer;
	pthread_t other;

	(void)state;
	atomic_store(&contest, 0);
	atomic_store(&contested_by, 0);
	assert_int_equal(pthread_create(&other, NULL, contend_always, NULL), 0);
	for (uint32_t round = 1; round <= CONTESTS; round++) {
		assert_true(inbox_call(lane, &wired, 1, NULL, 0));
		assert_int_equal(slu_segment_receive(segment, &contested, 1), 1);
		atomic_store(&winners, 0);
		atomic_store(&contest, round);
		for (volatile uint32_t head_start = round % 64; head_start > 0; head_start--)
			;
		contend(round);
		assert_int_equal(atomic_load(&winners), 1);
		assert_true(inbox_answer(lane, &answer));
		inbox_answer_done(lane);
	}
	pthread_join(other, NULL);
}

/* Goal: of two that sleep neither is left asleep by the other's arming, with something to take. */
static void test_arming_wakes_others(void **state)
{
	struct slu_remote *remote = open_remote();
	struct slu_message message;
	pthread_t other;

	(void)state;
	assert_int_equal(slu_segment_arm(segment), 0);
	submit(remote, TEST_CALL, 1);
	assert_true(is_woken(SOON_MS));
	assert_int_equal(pthread_create(&other, NULL, arm_once, NULL), 0);
	pthread_join(other, NULL); /* and it is busy with something else from now on */
	assert_true(is_woken(SOON_MS));
	assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	finish();
	slu_remote_close(remote);
}

/* Goal: an area that a thread is answering into is not freed, and later ones find it gone. */
static void test_answering_keeps_the_area(void **state)
{
	struct slu_remote *remote = open_remote();
	struct slu_completion done;
	struct slu_message message;
	struct open_request *claimed;
	struct slu_queue *other;
	const struct slu_op op = {
		.remote = remote, .region = region, .length = 8, .opcode = TEST_CALL};

	(void)state;
	assert_int_equal(slu_queue_open(engine, NULL, &other), 0);
	assert_int_equal(submit_any(other, &op, 1), 1);
	while (slu_segment_receive(segment, &message, 1) == 0)
		;
	claimed = requests_claim(segment->requests, message.id);
	assert_non_null(claimed);
	slu_remote_close(remote);
	assert_int_equal(slu_wait(other, 1, 10000000), 1);
	assert_int_equal(slu_reap(other, &done, 1), 1);
	while (atomic_load(&segment->areas.used) > 0) /* it lingers for a second */
		usleep(1000);
	usleep(10000);
	assert_int_equal(atomic_load(&process_areas), 1);
	requests_close(segment->requests, claimed);
	for (uint32_t tries = 0; atomic_load(&process_areas) > 0; tries++) {
		assert_in_range(tries, 0, 10000);
		usleep(1000);
	}
	slu_queue_close(other);
}

/* ---- who sends, and that he has gone ---- */

static uint32_t wait_for_departures(struct slu_departure *out, uint32_t n)
{
	uint32_t taken = 0;

	for (uint32_t tries = 0; taken < n && tries < 30000; tries++) {
		taken += (uint32_t)slu_segment_departures(segment, out + taken, n - taken);
		usleep(1000);
	}
	return taken;
}

/* Goal: whatever a client sends says who it is, by one text for all that are the same. */
static void test_tells_who_sends(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct slu_remote *first = open_remote(), *second = open_remote();
	struct slu_message messages[3];
	struct slu_notification note;

	(void)state;
	submit(first, TEST_CALL, 1);
	submit(second, TEST_CALL, 1);
	assert_int_equal(slu_segment_receive(segment, messages, 3), 2);
	assert_string_equal(messages[0].identity, first->local->peer.identity);
	assert_ptr_equal(messages[0].identity, messages[1].identity);
	assert_int_not_equal(messages[0].client, messages[1].client);
	submit(first, SLU_WRITE_NOTIFY, 1);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_ptr_equal(note.identity, messages[0].identity);
	assert_true(inbox_call(lane, &wired, 1, NULL, 0));
	assert_int_equal(slu_segment_receive(segment, &messages[2], 1), 1);
	assert_string_equal(messages[2].identity, "psk:wired");
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	finish();
	slu_remote_close(first);
	slu_remote_close(second);
}

/* Goal: of a client that has gone the owner is told once, after its last message, and woken for it;
 * of one that was silent he is told nothing. */
static void test_tells_of_departures(void **state)
{
	struct slu_remote *silent = open_remote(), *remote = open_remote();
	struct slu_departure gone[4];
	struct slu_message message;
	struct slu_notification note;

	(void)state;
	assert_int_equal(slu_segment_poll(segment, &note, 1), 0);
	assert_int_equal(slu_segment_departures(segment, gone, 4), 0);
	submit(remote, SLU_WRITE_NOTIFY, 1);
	submit(remote, TEST_CALL, 1);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	finish();
	assert_int_equal(slu_segment_departures(segment, gone, 4), 0);
	slu_remote_close(silent);
	slu_remote_close(remote);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_int_equal(note.client, message.client);
	while (slu_segment_arm(segment) == 0)
		assert_true(is_woken(SOON_MS));
	assert_int_equal(slu_segment_departures(segment, gone, 4), 1);
	assert_int_equal(gone[0].client, message.client);
	assert_ptr_equal(gone[0].identity, message.identity);
	assert_false(gone[0].lost);
	assert_int_equal(slu_segment_departures(segment, gone, 4), 0);
	assert_int_equal(slu_segment_arm(segment), 0);
}

/* Goal: over the wire as well: not before what was left in a lane was taken, of either kind. */
static void test_departs_after_its_last_message(void **state)
{
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 0);
	struct sender *sender = sender_create(&segment->departures, 77, "psk:77", NULL);
	struct slu_departure gone;
	struct slu_message message;
	struct slu_notification note;
	struct inbox_answer answer;

	(void)state;
	assert_int_equal(slu_segment_departures(segment, &gone, 1), 0);
	assert_true(inbox_call(lane, sender, 1, NULL, 0));
	assert_true(inbox_notify(lane, sender, 7));
	sender_put(sender_get(sender));
	assert_int_equal(slu_segment_departures(segment, &gone, 1), 0);
	sender_put(sender);
	assert_int_equal(slu_segment_departures(segment, &gone, 1), 0);
	assert_int_equal(slu_segment_poll(segment, &note, 1), 1);
	assert_int_equal(slu_segment_departures(segment, &gone, 1), 0);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 1);
	assert_int_equal(wait_for_departures(&gone, 1), 1);
	assert_int_equal(gone.client, 77);
	assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
	assert_true(inbox_answer(lane, &answer));
	inbox_answer_done(lane);
}

/* ---- very many ---- */

#define AREAS    300u
#define SESSIONS 10000u

/* What polls have done at most, since it was forgotten. */
static uint64_t most_items(void)
{
	return work_greatest(WORK_OWNER, WORK_ITEMS);
}

static void poll_empty(uint32_t polls)
{
	struct slu_notification note;

	for (uint32_t i = 0; i < polls; i++)
		assert_int_equal(slu_segment_poll(segment, &note, 1), 0);
}

/* Until only few are hot. */
static void poll_until_cold(void)
{
	for (uint32_t tries = 0; segment->hot.count > HOT_FEW; tries++) {
		assert_true(tries < 10000);
		poll_empty(1);
		usleep(100);
	}
}

/* What comes is of that client, within the time that it may take. */
static void expect_one(const struct slu_remote *remote, bool calls)
{
	struct slu_notification note = {.client = 0};
	struct slu_message message;
	uint32_t taken = 0;

	for (uint32_t tries = 0; taken == 0; tries++) {
		assert_true(tries < 1000000);
		note.tag = 0;
		taken = (uint32_t)(calls ? slu_segment_receive(segment, &message, 1)
					 : slu_segment_poll(segment, &note, 1));
	}
	assert_int_equal(calls ? message.client : note.client, remote->local->number);
	if (calls)
		assert_int_equal(slu_segment_answer(segment, &message, 0, NULL, 0), 0);
}

/* Goal: what a poll does does not grow with the clients that are idle; each of them is heard, and
 * wakes the owner. */
static void test_idle_areas(void **state)
{
	static struct slu_remote *remotes[AREAS];

	(void)state;
	for (uint32_t i = 0; i < AREAS; i++)
		remotes[i] = open_remote();
	poll_until_cold();
	work_forget();
	poll_empty(10000);
	assert_in_range(most_items(), 1, 2 * HOT_FEW); /* when those are sorted: twice */
	for (uint32_t i = 0; i < AREAS; i++) {
		submit(remotes[i], i % 2 ? TEST_CALL : SLU_WRITE_NOTIFY, 1);
		expect_one(remotes[i], i % 2);
	}
	poll_until_cold();
	for (uint32_t i = 0; i < AREAS; i += 7) {
		assert_int_equal(slu_segment_arm(segment), 0);
		assert_in_range(segment->hot.count, 1, HOT_FEW);
		submit(remotes[i], SLU_WRITE_NOTIFY, 1);
		assert_true(is_woken(SOON_MS));
		expect_one(remotes[i], false);
	}
	finish();
	for (uint32_t i = 0; i < AREAS; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: a few who say that they have very many lanes, and use none, cost a poll no more than others
 * for long; they are heard. */
static void test_silent_lanes(void **state)
{
	struct slu_remote *remotes[4];

	(void)state;
	for (uint32_t i = 0; i < 4; i++)
		remotes[i] = open_remote();
	poll_empty(1);
	assert_int_equal(segment->hot.count, 4);
	for (uint32_t i = 0; i < 4; i++)
		atomic_store(&segment->hot.areas[i].area->inbox.area->calls.lanes, MAILBOX_LANES);
	for (uint32_t tries = 0; segment->hot.count > 1; tries++) {
		struct slu_message message;

		assert_true(tries < 10000);
		assert_int_equal(slu_segment_receive(segment, &message, 1), 0);
		usleep(100);
	}
	for (uint32_t i = 0; i < 4; i++) {
		submit(remotes[i], TEST_CALL, 1);
		expect_one(remotes[i], true);
	}
	finish();
	for (uint32_t i = 0; i < 4; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: all at once are heard, once each, and those that are active stay hot. */
static void test_busy_areas(void **state)
{
	static struct slu_remote *remotes[AREAS];
	static struct slu_notification notes[2 * AREAS];
	uint32_t taken = 0;

	(void)state;
	for (uint32_t i = 0; i < AREAS; i++)
		remotes[i] = open_remote();
	poll_until_cold();
	for (uint32_t i = 0; i < AREAS; i++)
		submit(remotes[i], SLU_WRITE_NOTIFY, 1);
	for (uint32_t tries = 0; taken < AREAS; tries++) {
		assert_true(tries < 1000000);
		taken += (uint32_t)slu_segment_poll(segment, notes + taken, 2 * AREAS - taken);
	}
	poll_empty(1000);
	for (uint32_t i = 0; i < AREAS; i++)
		for (uint32_t j = 0; j < i; j++)
			assert_int_not_equal(notes[i].client, notes[j].client);
	for (uint32_t i = 0; i < AREAS; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: a wake-up that was asked for comes, though a poll took what had rung. */
static void test_poll_keeps_the_wakeup(void **state)
{
	struct slu_remote *remotes[HOT_FEW + 8], *last = NULL;
	struct slu_notification note;

	(void)state;
	for (uint32_t i = 0; i < HOT_FEW + 8; i++)
		remotes[i] = open_remote();
	poll_until_cold();
	assert_int_equal(slu_segment_arm(segment), 0);
	for (uint32_t i = 0; i < HOT_FEW + 8; i++)
		if (!remotes[i]->local->area->hot)
			last = remotes[i];
	assert_non_null(last);
	submit(last, SLU_WRITE_NOTIFY, 1);
	while (slu_segment_poll(segment, &note, 1) == 0)
		;
	assert_true(is_woken(SOON_MS));
	for (uint32_t i = 0; i < HOT_FEW + 8; i++)
		slu_remote_close(remotes[i]);
}

/* Goal: who joins while a wake-up is asked for can give it, also after the owner has polled. */
static void test_poll_keeps_newcomers_armed(void **state)
{
	struct slu_remote *remote;

	(void)state;
	assert_int_equal(slu_segment_arm(segment), 0);
	remote = open_remote();
	poll_empty(1);
	submit(remote, SLU_WRITE_NOTIFY, 1);
	assert_true(is_woken(SOON_MS));
	slu_remote_close(remote);
}

/* Goal: nor is a client disarmed that has stored something and is about to see whether to ring. */
static void test_poll_keeps_the_busy_armed(void **state)
{
	struct slu_remote *remotes[HOT_FEW + 8];
	struct segment_area *busy;
	struct slu_message call;

	(void)state;
	for (uint32_t i = 0; i < HOT_FEW; i++)
		remotes[i] = open_remote();
	assert_int_equal(slu_segment_arm(segment), 0);
	for (uint32_t i = HOT_FEW; i < HOT_FEW + 8; i++)
		remotes[i] = open_remote();
	poll_empty(1);
	assert_true(segment->hot.count > HOT_FEW);
	busy = remotes[3]->local->area; /* those who came last take the places of the first */
	atomic_store(&busy->inbox.area->armed, false); /* so that it does not ring, yet */
	submit(remotes[3], SLU_WRITE_NOTIFY, 1);
	atomic_store(&busy->inbox.area->armed, true);
	for (uint32_t i = 0; i < 2000; i++) {
		assert_int_equal(slu_segment_receive(segment, &call, 1), 0);
		usleep(50);
	}
	assert_true(atomic_load(&busy->inbox.area->armed));
	for (uint32_t i = 0; i < HOT_FEW + 8; i++)
		slu_remote_close(remotes[i]);
}

/* ---- sessions of one connection, in shared memory: of the engine to itself ---- */

static struct slu_remote *share(void)
{
	struct slu_remote_options options;
	struct slu_remote *remote = NULL;

	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_SHM;
	if (slu_remote_open(engine, "receive", &options, &remote) < 0)
		fail_msg("%s", slu_last_error());
	return remote;
}

static void send_by(struct slu_remote *remote, enum slu_opcode opcode, uint32_t tag)
{
	const struct slu_op op = {.remote = remote,
				  .region = region,
				  .length = 8,
				  .tag = tag,
				  .opcode = (uint8_t)opcode};

	assert_int_equal(submit_any(queue, &op, 1), 1);
	slu_reap(queue, NULL, 0);
}

static uint32_t mappings(const char *of)
{
	FILE *file = fopen("/proc/self/maps", "re");
	uint32_t count = 0;
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		count += strstr(line, of) != NULL;
	fclose(file);
	return count;
}

/* Goal: whoever comes and goes all the time takes a bounded part of the descriptors, though what he
 * left is kept for a while; then he may again. */
static void test_lingering_is_bounded(void **state)
{
	const struct rlimit few = {.rlim_cur = 320, .rlim_max = 320};
	struct slu_remote_options options;
	struct slu_remote *remote;
	uint32_t opened = 0;
	struct rlimit before;
	int rc;

	(void)state;
	poll_empty(1);
	slu_remote_options_init(&options, sizeof(options));
	options.transport = SLU_TRANSPORT_SHM;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){few.rlim_cur, before.rlim_max}),
			 0);
	while ((rc = slu_remote_open(engine, "receive", &options, &remote)) == 0) {
		slu_remote_close(remote);
		assert_in_range(++opened, 1, 100000);
	}
	assert_int_equal(rc, -EMFILE);
	assert_non_null(strstr(slu_last_error(), "keep sessions open"));
	assert_in_range(opened, few.rlim_cur / 8, 100000);
	for (uint32_t tries = 0; rc < 0; tries++) {
		assert_in_range(tries, 0, 10000);
		usleep(10000);
		rc = slu_remote_open(engine, "receive", &options, &remote);
	}
	slu_remote_close(remote);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* Goal: very many sessions of one connection take one mapping at each end, and of the owner's polls
 * as much as one; each says what it sends as itself. */
static void test_idle_sessions(void **state)
{
	static struct slu_remote *remotes[SESSIONS];
	struct slu_notification first, last;
	uint32_t before;

	(void)state;
	remotes[0] = share();
	before = mappings("");
	for (uint32_t i = 1; i < SESSIONS; i++)
		remotes[i] = share();
	tap_comment("%u mappings, of areas %u", mappings(""), mappings("sluice-client"));
	assert_int_equal(mappings("sluice-client"), 2); /* both ends are this process */
	assert_in_range(mappings(""), before, before + 100);
	work_forget();
	send_by(remotes[0], SLU_WRITE_NOTIFY, 1);
	assert_int_equal(slu_segment_poll(segment, &first, 1), 1);
	send_by(remotes[SESSIONS - 1], SLU_WRITE_NOTIFY, 2);
	assert_int_equal(slu_segment_poll(segment, &last, 1), 1);
	assert_int_equal(first.tag, 1);
	assert_int_equal(last.tag, 2);
	assert_int_equal(last.client - first.client, SESSIONS - 1);
	assert_in_range(most_items(), 1, 3);
	for (uint32_t i = 0; i < SESSIONS; i++)
		slu_remote_close(remotes[i]);
}

static void wait_for_sessions(uint32_t count)
{
	for (uint32_t tries = 0; atomic_load(&segment->sessions.used) != count; tries++) {
		assert_true(tries < 100000);
		usleep(1000);
	}
}

/* Goal: what a session has sent before it closed is heard for a while, and then not taken for
 * another's; the order of the others stays. */
static void test_closed_with_messages(void **state)
{
	struct slu_remote *stays = share(), *leaves = share();
	struct slu_notification notes[4];

	(void)state;
	assert_int_equal(slu_segment_poll(segment, notes, 4), 0);
	send_by(leaves, SLU_WRITE_NOTIFY, 1);
	send_by(stays, SLU_WRITE_NOTIFY, 2);
	slu_remote_close(leaves);
	assert_int_equal(slu_segment_poll(segment, notes, 4), 2);
	assert_int_equal(notes[0].tag, 1);
	assert_int_equal(notes[1].tag, 2);
	wait_for_sessions(1);
	leaves = share();
	send_by(leaves, SLU_WRITE_NOTIFY, 3);
	send_by(stays, SLU_WRITE_NOTIFY, 4);
	slu_remote_close(leaves);
	wait_for_sessions(1);
	leaves = share(); /* has the other's place */
	assert_int_equal(slu_segment_poll(segment, notes, 4), 1);
	assert_int_equal(notes[0].tag, 4);
	slu_remote_close(leaves);
	slu_remote_close(stays);
}

/* Goal: whoever keeps leaving, and is never asked about, has what his identity may have, no more.
 */
static void test_departures_are_bounded(void **state)
{
	struct slu_remote *remote;
	struct slu_departure gone[8];
	struct budget *budget;
	uint64_t before;

	(void)state;
	assert_int_equal(slu_segment_departures(segment, gone, 8), 0);
	remote = share();
	budget = budget_get(TAILQ_FIRST(&segment->clients)->peer.budget);
	assert_non_null(budget);
	before = budget_used(budget, SLU_LIMIT_SESSIONS);
	for (uint32_t i = 0; i < 4; i++) {
		send_by(remote, SLU_WRITE_NOTIFY, 1);
		assert_int_equal(slu_segment_poll(segment, &(struct slu_notification){0}, 1), 1);
		finish();
		slu_remote_close(remote);
		remote = share();
	}
	wait_for_sessions(1);
	usleep(10000);
	assert_int_equal(budget_used(budget, SLU_LIMIT_SESSIONS), before + 4);
	assert_int_equal(wait_for_departures(gone, 4), 4);
	assert_int_equal(budget_used(budget, SLU_LIMIT_SESSIONS), before);
	budget_put(budget);
	slu_remote_close(remote);
}

static void expect_calls(struct slu_message *messages, uint32_t n)
{
	uint32_t taken = 0;

	for (uint32_t tries = 0; taken < n; tries++) {
		assert_true(tries < 1000000);
		taken += (uint32_t)slu_segment_receive(segment, messages + taken, n - taken);
	}
}

static void call_long(struct slu_remote *remote, struct slu_queue *by, uint32_t length)
{
	const struct slu_call one = {
		.remote = remote, .region = region, .request_length = length, .answer_room = 1};

	assert_int_equal(slu_submit_calls(by, &one, 1), 1);
}

static uint32_t limits_bytes(uint64_t bytes)
{
	uint64_t limits[SLU_LIMITS_MAX] = {[SLU_LIMIT_CALL_BYTES] = bytes};

	assert_int_equal(slu_engine_set_limits(engine, limits, NULL, 0), 0);
	return (uint32_t)bytes;
}

/* Goal: the copies of long requests are their identity's, which may have so many bytes: one waits
 * until there is room, another never could have any; they are free when they are answered, though
 * their client has gone. */
static void test_long_calls_are_bounded(void **state)
{
	uint32_t bytes = limits_bytes(50000);
	struct slu_remote *remote = share();
	int came = 0;
	struct budget *budget = budget_get(TAILQ_FIRST(&segment->clients)->peer.budget);
	struct slu_message messages[2];
	struct slu_completion done;
	struct slu_queue *other;

	(void)state;
	assert_int_equal(slu_queue_open(engine, NULL, &other), 0);
	memset(slu_region_addr(region), 0x5a, bytes);
	for (uint32_t i = 0; i < 2; i++)
		call_long(remote, other, bytes - i);
	call_long(remote, other, bytes + 1);
	for (uint32_t tries = 0; slu_reap(other, &done, 1) == 0; tries++) {
		assert_in_range(tries, 0, 100000);
		if (came == 0) /* what comes besides is refused, and waits */
			came = slu_segment_receive(segment, &messages[0], 1);
		else
			assert_int_equal(slu_segment_receive(segment, &messages[1], 1), 0);
		usleep(100);
	}
	assert_int_equal(done.status, -EDQUOT);
	assert_int_equal(messages[0].length, bytes);
	assert_int_equal(((const uint8_t *)messages[0].data)[bytes - 1], 0x5a);
	assert_int_equal(slu_segment_receive(segment, &messages[1], 1), 0);
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), bytes);
	assert_int_equal(slu_segment_answer(segment, &messages[0], 0, NULL, 0), 0);
	expect_calls(&messages[1], 1);
	assert_int_equal(messages[1].length, bytes - 1);
	slu_queue_close(other);
	slu_remote_close(remote);
	wait_for_sessions(0);
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), bytes - 1);
	assert_int_equal(((const uint8_t *)messages[1].data)[bytes - 2], 0x5a);
	assert_int_equal(slu_segment_answer(segment, &messages[1], 0, NULL, 0), 0);
	assert_int_equal(budget_used(budget, SLU_LIMIT_CALL_BYTES), 0);
	budget_put(budget);
	limits_bytes(0);
}

/* Goal: a long call that waits since another poller's have all the bodies goes when one is free. */
static void test_bodies_of_another_poller(void **state)
{
	struct slu_message messages[MAILBOX_BODIES], waits;
	struct slu_remote *remote = share();
	struct slu_completion done;
	struct slu_queue *others[2];
	struct slu_queue_options inlined;

	(void)state;
	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(slu_queue_open(engine, &inlined, &others[i]), 0);
	for (uint32_t i = 0; i < MAILBOX_BODIES; i++)
		call_long(remote, others[0], SLU_MESSAGE_MAX + 1);
	call_long(remote, others[1], SLU_MESSAGE_MAX + 2);
	slu_reap(others[0], &done, 0);
	slu_reap(others[1], &done, 0);
	expect_calls(messages, MAILBOX_BODIES);
	assert_int_equal(slu_segment_receive(segment, &waits, 1), 0);
	assert_int_equal(slu_segment_answer(segment, &messages[3], 0, NULL, 0), 0);
	assert_int_equal(slu_wait(others[0], 1, 10000000), 1);
	assert_int_equal(slu_reap(others[0], &done, 1), 1);
	for (uint32_t i = 0; i < 3; i++)
		slu_reap(others[1], &done, 0);
	assert_int_equal(slu_segment_receive(segment, &waits, 1), 1);
	assert_int_equal(waits.length, SLU_MESSAGE_MAX + 2);
	messages[3] = waits;
	for (uint32_t i = 0; i < MAILBOX_BODIES; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	for (uint32_t i = 0; i < 2; i++)
		slu_queue_close(others[i]);
	slu_remote_close(remote);
}

/* Goal: slots of a session that left with calls open are free for others once they are answered,
 * also those that its owner never took. */
static void test_left_with_slots(void **state)
{
	struct slu_message messages[SLU_CALLS_MAX], message;
	struct slu_completion done[SLU_CALLS_MAX + 1];
	struct slu_remote *stays = share(), *leaves = share();
	struct slu_queue *other;

	(void)state;
	assert_int_equal(slu_queue_open(engine, NULL, &other), 0);
	for (uint32_t i = 0; i < SLU_CALLS_MAX; i++) {
		const struct slu_op op = {
			.remote = leaves, .region = region, .length = 8, .opcode = TEST_CALL};

		assert_int_equal(submit_any(other, &op, 1), 1);
	}
	expect_calls(messages, SLU_CALLS_MAX / 2);
	slu_remote_close(leaves);
	assert_int_equal(slu_wait(other, SLU_CALLS_MAX, 10000000), SLU_CALLS_MAX);
	assert_int_equal(slu_reap(other, done, SLU_CALLS_MAX), SLU_CALLS_MAX);
	wait_for_sessions(1);
	for (uint32_t i = 0; i < SLU_CALLS_MAX / 2; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	assert_int_equal(slu_segment_receive(segment, &message, 1), 0);
	for (uint32_t i = 0; i < SLU_CALLS_MAX; i++) {
		const struct slu_op op = {
			.remote = stays, .region = region, .length = 8, .opcode = TEST_CALL};

		assert_int_equal(submit_any(other, &op, 1), 1);
	}
	expect_calls(messages, SLU_CALLS_MAX); /* each has a slot */
	for (uint32_t i = 0; i < SLU_CALLS_MAX; i++)
		assert_int_equal(slu_segment_answer(segment, &messages[i], 0, NULL, 0), 0);
	assert_int_equal(slu_wait(other, SLU_CALLS_MAX, 10000000), SLU_CALLS_MAX);
	assert_int_equal(slu_reap(other, done, SLU_CALLS_MAX), SLU_CALLS_MAX);
	for (uint32_t i = 0; i < SLU_CALLS_MAX; i++)
		assert_int_equal(done[i].status, 0);
	slu_queue_close(other);
	slu_remote_close(stays);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refuses_bad_answers, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_open_requests_are_bounded, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_takes_from_each_client, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_answers_a_client_that_left, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_wakes, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_arms_newcomers, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_lanes, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_takes_from_both, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_takes_from_both_when_full, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_answers_wake_the_poller, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_looks_at_what_is_held_up, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_several_threads, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_others_come, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_one_at_a_time, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_one_answers, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_arming_wakes_others, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_answering_keeps_the_area, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_tells_who_sends, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_tells_of_departures, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_departs_after_its_last_message, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_departures_are_bounded, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_idle_areas, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_silent_lanes, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_busy_areas, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_poll_keeps_the_wakeup, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_poll_keeps_newcomers_armed, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_poll_keeps_the_busy_armed, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_idle_sessions, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_lingering_is_bounded, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_closed_with_messages, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_long_calls_are_bounded, export_one, close_one),
		cmocka_unit_test_setup_teardown(test_bodies_of_another_poller, export_one,
						close_one),
		cmocka_unit_test_setup_teardown(test_left_with_slots, export_one, close_one),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
