/* SPDX-License-Identifier: Apache-2.0 */
/* A segment's service in the turns of a poller; clients are of the fake transport. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/engine_internal.h"
#include "tests/calls.h"
#include "tests/tap.h"

#define BYTES   65536u
#define WAIT_US 60000000u

static struct slu_engine *engine;
static struct slu_region *memory, *region;
static struct slu_segment *segment;
static struct slu_queue *queue; /* inline: the poller thread has none of ours */
static struct slu_remote *remote;

struct served_so_far {
	_Atomic uint32_t requests, notifications, departures, elsewhere, most;
	_Atomic int unserve;     /* what ending it from within gives */
	struct slu_message kept; /* for another thread to answer */
	_Atomic bool keeps, has_kept;
};

static struct served_so_far so_far;

static void check_thread(void)
{
	if (!pthread_equal(pthread_self(), engine->pollers[0]->thread))
		atomic_fetch_add(&so_far.elsewhere, 1);
}

static void on_requests(void *arg, struct slu_segment *of, const struct slu_message *messages,
			uint32_t n)
{
	struct served_so_far *served = arg;

	check_thread();
	if (n > atomic_load(&served->most))
		atomic_store(&served->most, n);
	for (uint32_t i = 0; i < n; i++) {
		if (atomic_exchange(&served->keeps, false)) {
			served->kept = messages[i];
			atomic_store(&served->has_kept, true);
			continue;
		}
		slu_segment_answer(of, &messages[i], 0, messages[i].data, messages[i].length);
	}
	atomic_store(&served->unserve, slu_segment_unserve(of));
	atomic_fetch_add(&served->requests, n);
}

static void on_notifications(void *arg, struct slu_segment *of,
			     const struct slu_notification *notifications, uint32_t n)
{
	struct served_so_far *served = arg;

	(void)of;
	check_thread();
	if (notifications[0].tag == 9)
		atomic_fetch_add(&served->notifications, n);
}

static void on_departures(void *arg, struct slu_segment *of, const struct slu_departure *departures,
			  uint32_t n)
{
	struct served_so_far *served = arg;

	(void)of;
	(void)departures;
	check_thread();
	atomic_fetch_add(&served->departures, n);
}

static const struct slu_service all = {.size = sizeof(all),
				       .arg = &so_far,
				       .requests = on_requests,
				       .notifications = on_notifications,
				       .departures = on_departures};

static int setup(void **state)
{
	struct slu_engine_options options;
	struct slu_queue_options inlined;
	struct slu_remote_options fake;

	(void)state;
	memset(&so_far, 0, sizeof(so_far));
	slu_engine_options_init(&options, sizeof(options));
	options.pollers = 1;
	slu_queue_options_init(&inlined, sizeof(inlined));
	inlined.poller = SLU_POLLER_INLINE;
	slu_remote_options_init(&fake, sizeof(fake));
	fake.transport = SLU_TRANSPORT_FAKE;
	if (slu_engine_open(&options, &engine) < 0 ||
	    slu_region_alloc(engine, BYTES, NULL, &memory) < 0 ||
	    slu_region_alloc(engine, BYTES, NULL, &region) < 0 ||
	    slu_queue_open(engine, &inlined, &queue) < 0 ||
	    slu_segment_export(engine, "served", memory, SLU_RIGHT_READ | SLU_RIGHT_WRITE,
			       NULL, &segment) < 0 ||
	    slu_remote_open(engine, "served", &fake, &remote) < 0) {
		tap_comment("%s", slu_last_error());
		return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	slu_remote_close(remote);
	slu_engine_close(engine);
	return 0;
}

static void submit(enum slu_opcode opcode, uint32_t n)
{
	const struct slu_op op = {.remote = remote,
				  .region = region,
				  .remote_offset = 4096,
				  .length = 8,
				  .tag = opcode == TEST_CALL ? 8 : 9,
				  .opcode = (uint8_t)opcode};

	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(submit_any(queue, &op, 1), 1);
}

/* All of them, well. */
static void reap(uint32_t n)
{
	struct slu_completion done;

	for (; n > 0; n--) {
		assert_in_range(slu_wait(queue, 1, WAIT_US), 1, n);
		assert_int_equal(slu_reap(queue, &done, 1), 1);
		assert_int_equal(done.status, 0);
	}
}

static void wait_until(_Atomic uint32_t *count, uint32_t wanted)
{
	for (uint32_t tries = 0; atomic_load(count) < wanted; tries++) {
		assert_in_range(tries, 0, 60000);
		usleep(1000);
	}
}

/* Goal: what cannot be is refused with its reason, and leaves nothing behind. */
static void test_refusals(void **state)
{
	struct slu_service service = all;

	(void)state;
	assert_int_equal(slu_segment_serve(segment, 1, &all), -EINVAL);
	assert_non_null(strstr(slu_last_error(), "poller 1 of 1"));
	service.size--;
	assert_int_equal(slu_segment_serve(segment, 0, &service), -EINVAL);
	assert_int_equal(
		slu_segment_serve(segment, 0, &(struct slu_service){.size = sizeof(service)}),
		-EINVAL);
	assert_int_equal(slu_segment_unserve(segment), 0);
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	assert_int_equal(slu_segment_serve(segment, 0, &all), -EBUSY);
	assert_int_equal(slu_segment_unserve(segment), 0);
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0); /* closing ends it */
}

/* Goal: everything is given to it on the poller's thread, which sleeps meanwhile and is woken; it
 * can't end itself. */
static void test_serves(void **state)
{
	struct poller *poller = engine->pollers[0];
	struct slu_remote_options fake;

	(void)state;
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	for (uint32_t i = 1; i <= 20; i++) {
		while (i % 2 && !atomic_load(&poller->sleeping))
			sched_yield();
		submit(TEST_CALL, 3);
		reap(3);
		while (i % 4 > 1 && !atomic_load(&poller->sleeping))
			sched_yield();
		submit(SLU_WRITE_NOTIFY, 2);
		reap(2);
		wait_until(&so_far.notifications, 2 * i);
	}
	assert_int_equal(atomic_load(&so_far.requests), 60);
	assert_int_equal(atomic_load(&so_far.unserve), -EDEADLK);
	slu_remote_close(remote);
	wait_until(&so_far.departures, 1);
	assert_int_equal(atomic_load(&so_far.elsewhere), 0);
	slu_remote_options_init(&fake, sizeof(fake));
	fake.transport = SLU_TRANSPORT_FAKE;
	assert_int_equal(slu_remote_open(engine, "served", &fake, &remote), 0);
}

/* Goal: with nothing to do its poller makes no turns. */
static void test_sleeps(void **state)
{
	struct poller *poller = engine->pollers[0];
	uint64_t loops;

	(void)state;
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	submit(TEST_CALL, 1);
	reap(1);
	while (!atomic_load(&poller->sleeping))
		sched_yield();
	usleep(10000);
	loops = counter_read(&poller->loops);
	usleep(100000);
	assert_int_equal(counter_read(&poller->loops), loops);
}

/* Goal: it may answer later, from any thread, also when no more can be open until that. */
static void test_answers_later(void **state)
{
	(void)state;
	atomic_store(&so_far.keeps, true);
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	submit(TEST_CALL, 2);
	reap(1);
	while (!atomic_load(&so_far.has_kept))
		sched_yield();
	assert_int_equal(slu_segment_answer(segment, &so_far.kept, 0, "1234567", 8), 0);
	reap(1);
}

static struct slu_message stocked[SLU_MESSAGES_MAX];
static _Atomic uint32_t stocked_count;

static void stock(void *arg, struct slu_segment *of, const struct slu_message *messages, uint32_t n)
{
	uint32_t count = atomic_load(&stocked_count);

	(void)arg;
	(void)of;
	memcpy(&stocked[count], messages, n * sizeof(messages[0]));
	atomic_store(&stocked_count, count + n);
}

/* Goal: a poller that has taken all that may be open, and sleeps, takes more once one is answered.
 */
static void test_wakes_when_there_is_room(void **state)
{
	const struct slu_service stocking = {.size = sizeof(stocking), .requests = stock};
	struct inbox_lane *lane = inbox_lane(segment->export.inbox, 1);
	static struct sender sender = {.identity = "psk:many"};
	struct poller *poller = engine->pollers[0];
	uint32_t sent = 0;

	(void)state;
	atomic_store(&stocked_count, 0);
	for (uint32_t i = 0; i < SLU_MESSAGES_MAX; i++) { /* all that may be open are */
		requests_take(segment->requests);
		requests_any_free(segment->requests);
	}
	requests_open(segment->requests, 3);
	assert_int_equal(slu_segment_serve(segment, 0, &stocking), 0);
	assert_true(inbox_call(lane, &sender, 1, NULL, 0));
	sent++;
	usleep(1000);
	while (!atomic_load(&poller->sleeping))
		sched_yield();
	usleep(10000);
	assert_int_equal(atomic_load(&stocked_count), 0);
	segment->requests->open[3].area = UINT32_MAX; /* of nobody who is here */
	assert_int_equal(slu_segment_answer(segment,
					    &(struct slu_message){.id = UINT64_C(1) << 32 | 3}, 0,
					    NULL, 0),
			 0);
	wait_until(&stocked_count, sent);
}

/* Goal: a service that never runs out of requests leaves the poller's queues their turns. */
static void *keep_calling(void *arg)
{
	struct slu_completion done[SLU_CALLS_MAX];
	_Atomic bool *ends = arg;
	uint32_t out = 0;

	while (!atomic_load(ends)) {
		for (; out < SLU_CALLS_MAX; out++)
			submit(TEST_CALL, 1);
		out -= (uint32_t)slu_reap(queue, done, SLU_CALLS_MAX);
	}
	reap(out);
	return NULL;
}

static void test_leaves_turns(void **state)
{
	struct slu_op op = {.region = region, .length = 64, .opcode = SLU_READ};
	struct slu_remote_options fake;
	struct slu_completion done;
	struct slu_queue *threaded;
	_Atomic bool ends = false;
	pthread_t caller;

	(void)state;
	slu_remote_options_init(&fake, sizeof(fake));
	fake.transport = SLU_TRANSPORT_FAKE;
	assert_int_equal(slu_queue_open(engine, NULL, &threaded), 0);
	assert_int_equal(slu_remote_open(engine, "served", &fake, &op.remote), 0);
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	assert_int_equal(pthread_create(&caller, NULL, keep_calling, &ends), 0);
	wait_until(&so_far.requests, 1000);
	for (uint32_t i = 0; i < 100; i++) {
		assert_int_equal(slu_submit(threaded, &op, 1), 1);
		assert_int_equal(slu_wait(threaded, 1, WAIT_US), 1);
		assert_int_equal(slu_reap(threaded, &done, 1), 1);
		assert_int_equal(done.status, 0);
	}
	atomic_store(&ends, true);
	pthread_join(caller, NULL);
	assert_in_range(atomic_load(&so_far.most), 1, SLU_SERVICE_BURST);
	slu_queue_close(threaded);
	slu_remote_close(op.remote);
}

/* Goal: it starts and stops while clients call, and no call is lost. */
static void test_starts_and_stops(void **state)
{
	_Atomic bool ends = false;
	pthread_t caller;

	(void)state;
	assert_int_equal(pthread_create(&caller, NULL, keep_calling, &ends), 0);
	for (uint32_t i = 0; i < 300; i++) {
		uint32_t before;

		assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
		if (i % 3 == 0)
			wait_until(&so_far.requests, atomic_load(&so_far.requests) + 1);
		assert_int_equal(slu_segment_unserve(segment), 0);
		before = atomic_load(&so_far.requests);
		if (i % 50 == 0)
			usleep(2000);
		assert_int_equal(atomic_load(&so_far.requests), before);
	}
	atomic_store(&ends, true);
	assert_int_equal(slu_segment_serve(segment, 0, &all), 0);
	pthread_join(caller, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
		cmocka_unit_test_setup_teardown(test_serves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sleeps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answers_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wakes_when_there_is_room, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leaves_turns, setup, teardown),
		cmocka_unit_test_setup_teardown(test_starts_and_stops, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
