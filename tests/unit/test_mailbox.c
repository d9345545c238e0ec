/* SPDX-License-Identifier: Apache-2.0 */
#include "message/mailbox.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/budget.h"
#include "tests/tap.h"

#define BOX_BYTES sizeof(struct mailbox)
#define SESSION   0x7ffffffdu

static struct mailbox *new_box(void)
{
	void *box =
		mmap(NULL, BOX_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(box, MAP_FAILED);
	return box;
}

static void free_box(struct mailbox *box)
{
	munmap(box, BOX_BYTES);
}

static uint32_t send(struct mailbox_sender *sender, const void *data, uint32_t length)
{
	int slot = mailbox_send(sender, SESSION, 0, data, length, 0);

	assert_in_range(slot, 0, MAILBOX_SLOTS - 1);
	return (uint32_t)slot;
}

/* Then its slot is free; what was answered is still there. */
static bool is_answered(struct mailbox_sender *sender, uint32_t slot, struct mailbox_answer *answer)
{
	if (!mailbox_answered(sender, slot, answer))
		return false;
	mailbox_done(sender, slot);
	return true;
}

/* Goal: over many laps each request comes out whole and each answer goes to its slot. */
static void test_requests_and_answers(void **state)
{
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;
	struct mailbox_answer answer;
	struct mailbox_sender sender;

	(void)state;
	mailbox_attach(&sender, box, 3);
	for (uint32_t i = 0; i < 5 * MAILBOX_SLOTS; i++) {
		uint64_t answered = ~(uint64_t)i;
		uint32_t slot = send(&sender, &i, sizeof(i));

		assert_true(mailbox_pending(&receiver));
		assert_true(mailbox_receive(&receiver, &request));
		assert_false(mailbox_pending(&receiver));
		assert_int_equal(request.session, SESSION);
		assert_int_equal(request.lane, 3);
		assert_int_equal(request.slot, slot);
		assert_int_equal(request.length, sizeof(i));
		assert_memory_equal(request.data, &i, sizeof(i));
		assert_false(is_answered(&sender, slot, &answer));
		mailbox_reply(&receiver, 3, slot, 0, 0, &answered, sizeof(answered));
		assert_true(is_answered(&sender, slot, &answer));
		assert_int_equal(answer.status, 0);
		assert_int_equal(answer.length, sizeof(answered));
		assert_memory_equal(answer.data, &answered, sizeof(answered));
	}
	assert_false(mailbox_receive(&receiver, &request));
	free_box(box);
}

/* Goal: answers in the reverse order; a slot is taken again only after its own answer. */
static void test_answers_in_any_order(void **state)
{
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request requests[MAILBOX_SLOTS];
	struct mailbox_answer answer;
	struct mailbox_sender sender;

	(void)state;
	mailbox_attach(&sender, box, 0);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		send(&sender, &i, sizeof(i));
	assert_int_equal(mailbox_send(&sender, SESSION, 0, NULL, 0, 0), -1);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		assert_true(mailbox_receive(&receiver, &requests[i]));
	for (uint32_t i = MAILBOX_SLOTS; i-- > 0;) {
		mailbox_reply(&receiver, 0, requests[i].slot, 0, -ENOENT, NULL, 0);
		assert_true(is_answered(&sender, requests[i].slot, &answer));
		assert_int_equal(answer.status, -ENOENT);
		assert_int_equal(send(&sender, NULL, 0), requests[i].slot);
		assert_int_equal(mailbox_send(&sender, SESSION, 0, NULL, 0, 0), -1);
	}
	free_box(box);
}

/* Goal: what is busy for other reasons is not used; nor is memory of lanes that see no call. */
static void test_leaves_alone(void **state)
{
	struct mailbox *box = new_box();
	struct mailbox_sender sender;

	(void)state;
	mailbox_attach(&sender, box, 7);
	mailbox_detach(&sender);
	assert_int_equal(atomic_load(&box->lanes), 0);
	assert_int_equal(mailbox_send(&sender, SESSION, 0x7, NULL, 0, 0), 3);
	assert_int_equal(mailbox_send(&sender, SESSION, 0x7, NULL, 0, 0), 4);
	assert_int_equal(mailbox_send(&sender, SESSION, 0xffff, NULL, 0, 0), -1);
	assert_int_equal(atomic_load(&box->lanes), 8);
	free_box(box);
}

/* Goal: the next poller of an index goes on, and keeps off the slots that wait for an answer. */
static void test_lane_changes_hands(void **state)
{
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;
	struct mailbox_answer answer;
	struct mailbox_sender sender;

	(void)state;
	for (uint32_t owner = 0; owner < 2 * MAILBOX_SLOTS; owner++) {
		mailbox_attach(&sender, box, 1);
		if (owner == 0)
			assert_int_equal(send(&sender, "left", 4), 0);
		assert_int_not_equal(send(&sender, &owner, 4), 0);
		assert_true(mailbox_receive(&receiver, &request));
		if (owner == 0)
			assert_true(mailbox_receive(&receiver, &request));
		assert_memory_equal(request.data, &owner, 4);
		mailbox_reply(&receiver, 1, request.slot, 0, 0, NULL, 0);
		assert_true(is_answered(&sender, request.slot, &answer));
		mailbox_detach(&sender);
	}
	free_box(box);
}

/* Goal: positions wrap at 32 bits without a request lost, repeated or early. */
static void test_positions_wrap(void **state)
{
	uint32_t start = UINT32_MAX - MAILBOX_SLOTS / 2;
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box, .positions = {start}};
	struct mailbox_request request;
	struct mailbox_answer answer;
	struct mailbox_sender sender;

	(void)state;
	box->lane[0].saved_position = start;
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++) /* of the round before */
		box->lane[0].requests[(start + i) % MAILBOX_SLOTS] =
			lane_word(start + i - MAILBOX_SLOTS, MAILBOX_SLOTS, 0, 0);
	mailbox_attach(&sender, box, 0);
	for (uint32_t i = 0; i < 4 * MAILBOX_SLOTS; i++) {
		assert_false(mailbox_receive(&receiver, &request));
		send(&sender, &i, sizeof(i));
		assert_true(mailbox_receive(&receiver, &request));
		assert_memory_equal(request.data, &i, sizeof(i));
		mailbox_reply(&receiver, 0, request.slot, 0, 0, NULL, 0);
		assert_true(is_answered(&sender, request.slot, &answer));
	}
	free_box(box);
}

static void write_request(struct mailbox *box, uint32_t position, uint32_t slot, uint32_t length)
{
	atomic_store(&box->lane[0].requests[position % MAILBOX_SLOTS],
		     lane_word(position, MAILBOX_SLOTS, SESSION, slot << 16 | length));
}

/* Goal: whatever a hostile client writes, the target stays within the mailbox and comes to an end.
 */
static void test_hostile_client(void **state)
{
	static const struct {
		uint32_t slot, length;
		bool taken;
	} words[] = {{MAILBOX_SLOTS, 0, false},
		     {0xffff, 0, false},
		     {0, SLU_MESSAGE_MAX + 1, false},
		     {MAILBOX_SLOTS - 1, 0xffff, false},
		     {MAILBOX_SLOTS - 1, SLU_MESSAGE_MAX, true},
		     {0, 0, true}};
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;

	(void)state;
	memset(box, 0xff, BOX_BYTES);
	for (uint32_t i = 0; i < 100; i++)
		assert_false(mailbox_receive(&receiver, &request));
	assert_false(mailbox_pending(&receiver)); /* a round of what is none */
	memset(box, 0, BOX_BYTES);
	receiver = (struct mailbox_receiver){.box = box};
	atomic_store(&box->lanes, 1);
	for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		write_request(box, i, words[i].slot, words[i].length);
		assert_int_equal(mailbox_receive(&receiver, &request), words[i].taken);
		assert_int_equal(receiver.positions[0], i + 1);
	}
	free_box(box);
}

static void expect_answer(struct mailbox *box, struct mailbox_sender *sender, uint64_t word,
			  int32_t status, uint32_t length)
{
	uint32_t slot = send(sender, NULL, 0);
	struct mailbox_answer answer;

	atomic_store(&box->lane[0].slots[slot].answer, word);
	assert_true(is_answered(sender, slot, &answer));
	assert_int_equal(answer.status, status);
	assert_int_equal(answer.length, length);
}

/* Goal: whatever a hostile target answers is a status and a length that can be. */
static void test_hostile_target(void **state)
{
	const uint64_t done = UINT64_C(1) << 63;
	struct mailbox *box = new_box();
	struct mailbox_sender sender;

	(void)state;
	box->lane[0].saved_open = 0xffff0000; /* of slots that are not */
	mailbox_attach(&sender, box, 0);
	expect_answer(box, &sender, done | SLU_MESSAGE_MAX, 0, SLU_MESSAGE_MAX);
	expect_answer(box, &sender, done | (SLU_MESSAGE_MAX + 1), -EPROTO, 0);
	expect_answer(box, &sender, done | UINT32_MAX, -EPROTO, 0);
	expect_answer(box, &sender, done | (uint64_t)EAGAIN << 32, -EAGAIN, 0);
	expect_answer(box, &sender, done | (uint64_t)ECANCELED << 32, -EPROTO, 0);
	expect_answer(box, &sender, done | (uint64_t)4096 << 32, -EPROTO, 0);
	expect_answer(box, &sender, done | (uint64_t)INT32_MAX << 32, -EPROTO, 0);
	expect_answer(box, &sender, done | (uint64_t)4095 << 32, -4095, 0);
	expect_answer(box, &sender, UINT64_MAX, -EPROTO, 0);
	free_box(box);
}

/* Goal: an owner may answer with 0 and with errnos, but not with those that mean: post it again. */
static void test_statuses(void **state)
{
	(void)state;
	assert_true(mailbox_status_allowed(0));
	assert_true(mailbox_status_allowed(-ENOENT));
	assert_true(mailbox_status_allowed(-4095));
	assert_false(mailbox_status_allowed(1));
	assert_false(mailbox_status_allowed(-4096));
	assert_false(mailbox_status_allowed(INT32_MIN));
	assert_false(mailbox_status_allowed(-EAGAIN));
	assert_false(mailbox_status_allowed(-ECANCELED));
}

static uint8_t *pattern(uint32_t seed)
{
	static uint8_t bytes[SLU_CALL_MAX];

	for (uint32_t i = 0; i < SLU_CALL_MAX; i++)
		bytes[i] = (uint8_t)(i * 31 + seed);
	return bytes;
}

/* Goal: what is longer than a slot goes through a body, either way, and the body is given back with
 * the slot, by whichever poller has the lane then. */
static void test_bodies(void **state)
{
	static const uint32_t lengths[] = {SLU_MESSAGE_MAX + 1, 65536, SLU_CALL_MAX, 5};
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;
	struct mailbox_answer answer;
	struct mailbox_sender sender, other;
	int slot;

	(void)state;
	mailbox_attach(&sender, box, 0);
	mailbox_attach(&other, box, 1);
	for (uint32_t i = 0; i < 4; i++) {
		uint32_t length = lengths[i], back = lengths[3 - i];

		slot = mailbox_send(&sender, SESSION, 0, pattern(i), length, SLU_CALL_MAX);
		assert_true(mailbox_receive(&receiver, &request));
		assert_int_equal(request.length, length);
		assert_memory_equal(request.data, pattern(i), length);
		mailbox_reply(&receiver, 0, request.slot, request.body, 0, pattern(9), back);
		mailbox_detach(&sender); /* the next of its index ends it */
		mailbox_attach(&sender, box, 0);
		mailbox_send(&sender, SESSION, 1u << slot, NULL, 0, 0);
		assert_true(mailbox_receive(&receiver, &request));
		mailbox_reply(&receiver, 0, request.slot, request.body, 0, NULL, 0);
		assert_true(is_answered(&sender, request.slot, &answer));
		assert_true(mailbox_answered(&sender, (uint32_t)slot, &answer));
		assert_int_equal(answer.length, back);
		assert_memory_equal(answer.data, pattern(9), back);
		assert_int_equal(atomic_load(&box->bodies_taken), 1);
		mailbox_done(&sender, (uint32_t)slot);
		assert_int_equal(atomic_load(&box->bodies_taken), 0);
	}
	for (uint32_t i = 0; i < MAILBOX_BODIES; i++)
		assert_in_range(mailbox_send(i % 2 ? &sender : &other, SESSION, 0, NULL, 0,
					     SLU_MESSAGE_MAX + 1),
				0, MAILBOX_SLOTS);
	assert_false(mailbox_has_body(&other));
	assert_int_equal(mailbox_send(&sender, SESSION, 0, NULL, 0, SLU_CALL_MAX), -1);
	assert_in_range(mailbox_send(&sender, SESSION, 0, NULL, 0, SLU_MESSAGE_MAX), 0,
			MAILBOX_SLOTS);
	free_box(box);
}

/* Goal: an answer that is longer than there is place for is not written, and says so. */
static void test_no_place_for_an_answer(void **state)
{
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;
	struct mailbox_answer answer;
	struct mailbox_sender sender;
	uint32_t slot;

	(void)state;
	mailbox_attach(&sender, box, 0);
	slot = send(&sender, NULL, 0);
	assert_true(mailbox_receive(&receiver, &request));
	mailbox_reply(&receiver, 0, slot, request.body, 0, pattern(1), SLU_MESSAGE_MAX + 1);
	assert_true(is_answered(&sender, slot, &answer));
	assert_int_equal(answer.status, -EMSGSIZE);
	assert_int_equal(answer.length, 0);
	free_box(box);
}

/* Goal: nor does a body that a hostile client names lead anywhere else. */
static void test_hostile_bodies(void **state)
{
	static const struct {
		uint32_t body, length;
		bool taken;
	} slots[] = {{MAILBOX_BODIES + 1, 0, false},  {UINT32_MAX, 0, false},
		     {1, SLU_CALL_MAX + 1, false},    {1, UINT32_MAX, false},
		     {0, SLU_MESSAGE_MAX + 1, false}, {MAILBOX_BODIES, SLU_CALL_MAX, true},
		     {0, SLU_MESSAGE_MAX, false}};
	struct mailbox *box = new_box();
	struct mailbox_receiver receiver = {.box = box};
	struct mailbox_request request;
	struct mailbox_sender sender;

	(void)state;
	atomic_store(&box->lanes, 1);
	for (uint32_t i = 0; i < sizeof(slots) / sizeof(slots[0]); i++) {
		atomic_store(&box->lane[0].slots[2].body, slots[i].body);
		atomic_store(&box->lane[0].slots[2].length, slots[i].length);
		write_request(box, i, 2, 0xffff);
		assert_int_equal(mailbox_receive(&receiver, &request), slots[i].taken);
		if (slots[i].taken)
			assert_true(request.data + request.length <= (uint8_t *)box + BOX_BYTES);
	}
	memset(box->lane[1].saved_bodies, 0xff, sizeof(box->lane[1].saved_bodies));
	mailbox_attach(&sender, box, 1);
	send(&sender, NULL, 0);
	for (uint32_t i = 0; i < MAILBOX_SLOTS; i++)
		assert_in_range(sender.bodies[i], 0, MAILBOX_BODIES);
	free_box(box);
}

#define CALLS 20000u

struct owner {
	struct mailbox_receiver receiver;
	_Atomic bool stop;
};

/* Answers with the sum of the request's bytes, two at a time, the later first. */
static void *own(void *arg)
{
	struct owner *owner = arg;
	struct mailbox_request held[2];
	uint32_t count = 0;

	while (!atomic_load(&owner->stop)) {
		if (count < 2 && mailbox_receive(&owner->receiver, &held[count]))
			count++;
		else if (count > 0) {
			const struct mailbox_request *request = &held[--count];
			uint64_t sum = 0;

			for (uint32_t i = 0; i < request->length; i++)
				sum += request->data[i];
			mailbox_reply(&owner->receiver, request->lane, request->slot, 0, 0, &sum,
				      sizeof(sum));
		} else {
			sched_yield();
		}
	}
	return NULL;
}

/* Goal: between two threads no request and no answer is torn, lost or mixed up. */
static void test_between_threads(void **state)
{
	struct mailbox *box = new_box();
	static struct owner owner;
	uint64_t expected[MAILBOX_SLOTS];
	struct mailbox_sender sender;
	uint32_t sent = 0, answered = 0;
	pthread_t thread;

	(void)state;
	owner.receiver = (struct mailbox_receiver){.box = box};
	mailbox_attach(&sender, box, 0);
	assert_int_equal(pthread_create(&thread, NULL, own, &owner), 0);
	while (answered < CALLS) {
		uint8_t data[100];
		uint32_t length = sent % 100;
		int slot;

		memset(data, (int)(sent & 0xff), sizeof(data));
		slot = sent < CALLS ? mailbox_send(&sender, SESSION, 0, data, length, 0) : -1;
		if (slot >= 0)
			expected[slot] = (uint64_t)(sent++ & 0xff) * length;
		for (uint32_t open = sender.open; open != 0; open &= open - 1) {
			uint32_t at = (uint32_t)__builtin_ctz(open);
			struct mailbox_answer answer;

			if (!is_answered(&sender, at, &answer))
				continue;
			assert_int_equal(answer.length, sizeof(expected[0]));
			assert_memory_equal(answer.data, &expected[at], sizeof(expected[0]));
			answered++;
		}
		if (slot < 0)
			sched_yield();
	}
	atomic_store(&owner.stop, true);
	pthread_join(thread, NULL);
	free_box(box);
}

/* Goal: a client that says it uses all lanes has as many looked at as its identity may have
 * sessions, over all it has; what it gives back others can have. */
static void test_lanes_of_a_budget(void **state)
{
	const uint64_t limits[SLU_LIMIT_COUNT] = {[SLU_LIMIT_SESSIONS] = 10};
	struct mailbox *box = new_box();
	struct mailbox_receiver receivers[3];
	struct mailbox_sender first, last;
	struct mailbox_request request;
	struct budgets *budgets;
	struct budget *budget;

	(void)state;
	assert_int_equal(budgets_create(limits, &budgets), 0);
	budget = budget_find(budgets, "someone");
	mailbox_attach(&first, box, 0);
	mailbox_attach(&last, box, MAILBOX_LANES - 1);
	send(&last, "last", 4);
	for (int i = 0; i < 3; i++) {
		receivers[i] = (struct mailbox_receiver){.box = box, .lanes.budget = budget};
		assert_false(mailbox_pending(&receivers[i]));
		assert_false(mailbox_receive(&receivers[i], &request));
	}
	assert_int_equal(receivers[0].lanes.count, 11);
	assert_int_equal(receivers[1].lanes.count, 1);
	assert_int_equal(budget_used(budget, SLU_LIMIT_SESSIONS), 10);
	send(&first, "first", 5);
	assert_true(mailbox_receive(&receivers[2], &request));
	assert_int_equal(request.lane, 0);
	lanes_end(&receivers[0].lanes);
	assert_int_equal(budget_used(budget, SLU_LIMIT_SESSIONS), 0);
	mailbox_pending(&receivers[1]);
	assert_int_equal(receivers[1].lanes.count, 11);
	lanes_end(&receivers[1].lanes);
	budget_put(budget);
	budgets_destroy(budgets);
	free_box(box);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_and_answers),
		cmocka_unit_test(test_answers_in_any_order),
		cmocka_unit_test(test_leaves_alone),
		cmocka_unit_test(test_lane_changes_hands),
		cmocka_unit_test(test_positions_wrap),
		cmocka_unit_test(test_hostile_client),
		cmocka_unit_test(test_hostile_target),
		cmocka_unit_test(test_statuses),
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_no_place_for_an_answer),
		cmocka_unit_test(test_hostile_bodies),
		cmocka_unit_test(test_lanes_of_a_budget),
		cmocka_unit_test(test_between_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
