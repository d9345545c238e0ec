/* SPDX-License-Identifier: Apache-2.0 */
#include "message/inbox.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/barrier.h"
#include "message/sender.h"
#include "tests/tap.h"

static int wake;
static struct inbox *inbox;
static struct sender five = {.number = 5, .identity = "psk:five"};

static int setup(void **state)
{
	(void)state;
	barrier_init();
	wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return inbox_create(3, wake, &inbox);
}

static int teardown(void **state)
{
	(void)state;
	inbox_destroy(inbox);
	close(wake);
	return 0;
}

static eventfd_t wakes(void)
{
	eventfd_t count = 0;

	eventfd_read(wake, &count);
	return count;
}

/* Goal: lanes are those of poller threads; only those in use are looked at. */
static void test_lanes(void **state)
{
	(void)state;
	assert_int_equal(inbox_lanes(NULL), 0);
	assert_null(inbox_lane(NULL, 0));
	assert_null(inbox_lane(inbox, 3));
	assert_int_equal(inbox_lanes(inbox), 0);
	assert_non_null(inbox_lane(inbox, 1));
	assert_int_equal(inbox_lanes(inbox), 2);
	assert_ptr_equal(inbox_lane(inbox, 1), inbox_lane(inbox, 1));
	assert_non_null(inbox_lane(inbox, 0));
	assert_int_equal(inbox_lanes(inbox), 2);
}

/* Goal: notifications come out in order over many laps; a full lane says so and loses none. */
static void test_notifications(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 0);
	struct slu_notification out[INBOX_NOTIFICATIONS + 1];
	uint32_t sent = 0, seen = 0;

	(void)state;
	for (uint32_t round = 0; round < 10; round++) {
		uint32_t n;

		while (inbox_notify_room(lane))
			assert_true(inbox_notify(lane, &five, sent++));
		assert_false(inbox_notify(lane, &five, 0));
		assert_true(inbox_pending(inbox, false));
		n = inbox_poll(inbox, 0, out, 7 + round);
		assert_int_equal(n, 7 + round);
		n += inbox_poll(inbox, 0, out + n, INBOX_NOTIFICATIONS + 1 - n);
		assert_int_equal(n, INBOX_NOTIFICATIONS);
		for (uint32_t i = 0; i < n; i++) {
			assert_int_equal(out[i].tag, seen++);
			assert_int_equal(out[i].client, 5);
			assert_ptr_equal(out[i].identity, five.identity);
		}
		assert_false(inbox_pending(inbox, true));
	}
	assert_int_equal(wakes(), 0);
}

/* Goal: requests come whole, answers in any order find their cookie, and a full lane says so. */
static void test_calls(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 2);
	struct inbox_request requests[INBOX_CALLS];
	struct sender senders[INBOX_CALLS];
	uint8_t data[SLU_MESSAGE_MAX];
	struct inbox_answer answer;

	(void)state;
	for (uint32_t round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < INBOX_CALLS; i++) {
			memset(data, (int)i, sizeof(data));
			senders[i] = (struct sender){.number = i, .identity = "psk:i"};
			assert_true(inbox_call(lane, &senders[i], 1000 + i, data, i * 65));
		}
		assert_false(inbox_call(lane, &five, 0, NULL, 0));
		assert_true(inbox_pending(inbox, true));
		assert_false(inbox_pending(inbox, false));
		for (uint32_t i = 0; i < INBOX_CALLS; i++) {
			memset(data, (int)i, sizeof(data));
			assert_true(inbox_receive(inbox, 2, &requests[i]));
			assert_int_equal(requests[i].client, i);
			assert_ptr_equal(requests[i].identity, senders[i].identity);
			assert_true(senders[i].heard);
			assert_int_equal(requests[i].length, i * 65);
			assert_memory_equal(requests[i].data, data, i * 65);
		}
		assert_false(inbox_receive(inbox, 2, &requests[0]));
		assert_false(inbox_answers_pending(lane));
		for (uint32_t i = INBOX_CALLS; i-- > 0;) {
			inbox_reply(inbox, 2, requests[i].slot, i % 2 ? -ENOENT : 0, &i,
				    i % 2 ? 0 : sizeof(i));
			assert_true(inbox_answers_pending(lane));
			assert_true(inbox_answer(lane, &answer));
			assert_int_equal(answer.cookie, 1000 + i);
			assert_int_equal(answer.status, i % 2 ? -ENOENT : 0);
			assert_int_equal(answer.length, i % 2 ? 0 : sizeof(i));
			assert_memory_equal(answer.data, &i, answer.length);
			assert_true(inbox_answer(lane, &answer)); /* the same, until it is done */
			assert_int_equal(answer.cookie, 1000 + i);
			inbox_answer_done(lane);
		}
		assert_false(inbox_answer(lane, &answer));
	}
}

/* Goal: an owner may answer out of the request itself. */
static void test_answer_out_of_request(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 0);
	struct inbox_request request;
	struct inbox_answer answer;

	(void)state;
	assert_true(inbox_call(lane, &five, 1, "0123456789", 10));
	assert_true(inbox_receive(inbox, 0, &request));
	inbox_reply(inbox, 0, request.slot, 0, (const char *)request.data + 3, 7);
	assert_true(inbox_answer(lane, &answer));
	assert_int_equal(answer.length, 7);
	assert_memory_equal(answer.data, "3456789", 7);
}

/* Goal: armed, the first that comes wakes, once; disarmed, nothing does. */
static void test_wakes_once_when_armed(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 0);

	(void)state;
	inbox_notify(lane, &five, 1);
	assert_int_equal(wakes(), 0);
	inbox_arm(inbox);
	inbox_notify(lane, &five, 2);
	inbox_notify(lane, &five, 3);
	assert_int_equal(wakes(), 1);
	inbox_arm(inbox);
	inbox_call(lane, &five, 1, NULL, 0);
	inbox_call(lane, &five, 2, NULL, 0);
	assert_int_equal(wakes(), 1);
	inbox_arm(inbox);
	inbox_disarm(inbox);
	inbox_notify(lane, &five, 4);
	assert_int_equal(wakes(), 0);
}

/* Goal: what came before the mark is told from what came after, of either kind. */
static void test_mark(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 1);
	struct inbox_request request;
	struct slu_notification note;

	(void)state;
	inbox_mark(NULL);
	assert_true(inbox_is_past_mark(NULL));
	inbox_mark(inbox);
	assert_true(inbox_is_past_mark(inbox));
	inbox_notify(lane, &five, 1);
	inbox_call(lane, &five, 1, NULL, 0);
	assert_true(inbox_is_past_mark(inbox));
	inbox_mark(inbox);
	inbox_notify(lane, &five, 2);
	assert_false(inbox_is_past_mark(inbox));
	assert_int_equal(inbox_poll(inbox, 1, &note, 1), 1);
	assert_false(inbox_is_past_mark(inbox));
	assert_true(inbox_receive(inbox, 1, &request));
	assert_true(inbox_is_past_mark(inbox));
}

#define CALLS 20000u

/* A poller that keeps the lane full and checks each answer. */
static void *poll_lane(void *arg)
{
	struct inbox_lane *lane = arg;
	uint64_t sent = 0, answered = 0, bad = 0;

	while (answered < CALLS) {
		struct inbox_answer answer;
		uint64_t value = sent * 3;

		if (sent < CALLS && inbox_call(lane, &five, sent, &value, sizeof(value)))
			sent++;
		else if (!inbox_answers_pending(lane))
			sched_yield();
		while (inbox_answer(lane, &answer)) {
			memcpy(&value, answer.data, sizeof(value));
			bad += answer.length != sizeof(value) || value != answer.cookie * 3 + 1;
			answered++;
			inbox_answer_done(lane);
		}
	}
	return (void *)(uintptr_t)bad;
}

/* Goal: between a poller and an owner that sleeps when it can nothing is lost. */
static void test_between_threads(void **state)
{
	struct inbox_lane *lane = inbox_lane(inbox, 0);
	struct pollfd woken = {.fd = wake, .events = POLLIN};
	uint32_t served = 0;
	pthread_t thread;
	void *bad;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, poll_lane, lane), 0);
	while (served < CALLS) {
		struct inbox_request request;
		uint64_t value;

		if (!inbox_receive(inbox, 0, &request)) {
			inbox_arm(inbox);
			barrier_heavy();
			if (!inbox_pending(inbox, true))
				assert_int_equal(poll(&woken, 1, 10000), 1);
			wakes();
			continue;
		}
		memcpy(&value, request.data, sizeof(value));
		value++;
		inbox_reply(inbox, 0, request.slot, 0, &value, sizeof(value));
		served++;
	}
	pthread_join(thread, &bad);
	assert_null(bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_lanes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_notifications, setup, teardown),
		cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answer_out_of_request, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wakes_once_when_armed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mark, setup, teardown),
		cmocka_unit_test_setup_teardown(test_between_threads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
