/* SPDX-License-Identifier: Apache-2.0 */
#include "message/notify_ring.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#define PRODUCERS    3
#define PER_PRODUCER 20000u

#define SESSION 0x7ffffffdu

static struct notify_ring *new_ring(void)
{
	struct notify_ring *ring = aligned_alloc(64, sizeof(*ring));

	assert_non_null(ring);
	memset(ring, 0, sizeof(*ring));
	return ring;
}

static void send(struct notify_sender *sender, uint32_t tag)
{
	assert_true(notify_room(sender));
	notify_send(sender, SESSION, tag);
}

/* Goal: tags come out once, in order, over many laps of a lane. */
static void test_order_over_laps(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	struct notify_sender sender;
	struct slu_notification tags[8];
	uint32_t expected = 0;

	(void)state;
	notify_attach(&sender, ring, 0);
	for (uint32_t round = 0; round < 5 * NOTIFY_SLOTS; round++) {
		for (uint32_t i = 0; i < 5; i++)
			send(&sender, round * 5 + i);
		assert_int_equal(notify_receive(&inbox, tags, 3), 3);
		assert_int_equal(notify_receive(&inbox, tags + 3, 5), 2);
		for (uint32_t i = 0; i < 5; i++)
			assert_int_equal(tags[i].tag, expected++);
		assert_int_equal(tags[0].client, SESSION);
	}
	assert_int_equal(notify_receive(&inbox, tags, 8), 0);
	free(ring);
}

/* Goal: a full lane has no room until the reader has taken one; other lanes are not concerned. */
static void test_full_lane_has_no_room(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	struct notify_sender sender, other;
	struct slu_notification tag;

	(void)state;
	notify_attach(&sender, ring, 0);
	notify_attach(&other, ring, 5);
	for (uint32_t i = 0; i < NOTIFY_SLOTS; i++)
		send(&sender, i);
	assert_false(notify_room(&sender));
	assert_true(notify_room(&other));
	assert_int_equal(notify_receive(&inbox, &tag, 1), 1);
	send(&sender, 7);
	assert_false(notify_room(&sender));
	free(ring);
}

/* Goal: the next poller of an index goes on where the last one left its lane. */
static void test_lane_changes_hands(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	struct notify_sender sender;
	struct slu_notification tags[4];

	(void)state;
	for (uint32_t owner = 0; owner < 3 * NOTIFY_SLOTS; owner++) {
		notify_attach(&sender, ring, 2);
		send(&sender, owner);
		send(&sender, owner + 1);
		notify_detach(&sender);
		assert_int_equal(notify_receive(&inbox, tags, 4), 2);
		assert_int_equal(tags[0].tag, owner);
		assert_int_equal(tags[1].tag, owner + 1);
	}
	free(ring);
}

/* Goal: positions wrap at 32 bits without a tag lost, repeated or delivered early. */
static void test_positions_wrap(void **state)
{
	struct notify_ring *ring = new_ring();
	uint32_t start = UINT32_MAX - NOTIFY_SLOTS / 2;
	struct notify_inbox inbox = {.ring = ring, .positions = {start}};
	struct notify_sender sender;
	struct slu_notification tag;

	(void)state;
	ring->lane[0].saved_head = start;
	for (uint32_t i = 0; i < NOTIFY_SLOTS; i++) /* of the round before */
		ring->lane[0].slots[(start + i) % NOTIFY_SLOTS] =
			lane_word(start + i - NOTIFY_SLOTS, NOTIFY_SLOTS, 0, 0);
	atomic_store(&ring->lane[0].tail, start);
	notify_attach(&sender, ring, 0);
	for (uint32_t i = 0; i < 4 * NOTIFY_SLOTS; i++) {
		assert_int_equal(notify_receive(&inbox, &tag, 1), 0);
		send(&sender, i);
		assert_int_equal(notify_receive(&inbox, &tag, 1), 1);
		assert_int_equal(tag.tag, i);
	}
	free(ring);
}

/* Goal: whatever a hostile client writes, a read ends and gives no more than was asked for. */
static void test_hostile_memory_is_bounded(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	struct slu_notification tags[2 * SLU_NOTIFICATIONS_MAX];

	(void)state;
	memset(ring, 0xff, sizeof(*ring));
	assert_int_equal(notify_receive(&inbox, tags, 4), 4);
	assert_int_equal(tags[3].client, INT32_MAX); /* nobody's */
	memset(ring, 0, sizeof(*ring));
	memset(&inbox.positions, 0, sizeof(inbox.positions));
	atomic_store(&ring->lanes, NOTIFY_LANES);
	for (uint32_t i = 0; i < NOTIFY_SLOTS; i++)
		atomic_store(&ring->lane[1].slots[i], lane_word(i, NOTIFY_SLOTS, SESSION, i));
	assert_int_equal(notify_receive(&inbox, tags, 2 * NOTIFY_SLOTS), NOTIFY_SLOTS);
	atomic_store(&ring->lane[1].tail, 12345);
	ring->lane[1].saved_head = 54321;
	assert_int_equal(notify_receive(&inbox, tags, 4), 0);
	assert_int_equal(inbox.positions[1], NOTIFY_SLOTS);
	free(ring);
}

struct producer {
	struct notify_ring *ring;
	uint32_t index;
	pthread_t thread;
};

static void *produce(void *arg)
{
	struct producer *producer = arg;
	struct notify_sender sender;

	notify_attach(&sender, producer->ring, producer->index);
	for (uint32_t i = 0; i < PER_PRODUCER; i++) {
		while (!notify_room(&sender))
			sched_yield();
		notify_send(&sender, i, producer->index << 16 | i);
	}
	return NULL;
}

/* Goal: of several pollers of one client all tags arrive once, each poller's in order. */
static void test_many_producers(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	struct producer producers[PRODUCERS];
	struct slu_notification tags[64];
	uint32_t next[PRODUCERS] = {0}, received = 0;

	(void)state;
	for (uint32_t i = 0; i < PRODUCERS; i++) {
		producers[i] = (struct producer){.ring = ring, .index = i};
		assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
				 0);
	}
	while (received < PRODUCERS * PER_PRODUCER) {
		uint32_t n = notify_receive(&inbox, tags, 64);

		for (uint32_t i = 0; i < n; i++) {
			assert_true(tags[i].tag >> 16 < PRODUCERS);
			assert_int_equal(tags[i].tag & 0xffff, next[tags[i].tag >> 16]++);
		}
		received += n;
		if (n == 0)
			sched_yield();
	}
	for (uint32_t i = 0; i < PRODUCERS; i++)
		pthread_join(producers[i].thread, NULL);
	assert_int_equal(notify_receive(&inbox, tags, 64), 0);
	free(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_over_laps),
		cmocka_unit_test(test_full_lane_has_no_room),
		cmocka_unit_test(test_lane_changes_hands),
		cmocka_unit_test(test_positions_wrap),
		cmocka_unit_test(test_hostile_memory_is_bounded),
		cmocka_unit_test(test_many_producers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
