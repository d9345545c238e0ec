/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/notify_ring.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tap.h"

#define PRODUCERS    3
#define PER_PRODUCER 20000u

/* What this producer last saw of the ring's tail. */
static _Thread_local uint32_t seen_tail;

static struct notify_ring *new_ring(void)
{
	struct notify_ring *ring = aligned_alloc(64, sizeof(*ring));

	assert_non_null(ring);
	memset(ring, 0, sizeof(*ring));
	return ring;
}

static void send(struct notify_ring *ring, uint32_t tag)
{
	uint32_t position = 0;

	assert_true(notify_claim(ring, &seen_tail, &position));
	notify_publish(ring, position, tag);
}

/* Goal: tags come out once, in the order of claiming, over many laps of the ring. */
static void test_order_over_laps(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	uint32_t tags[8], expected = 0;

	(void)state;
	for (uint32_t round = 0; round < 5 * NOTIFY_SLOTS; round++) {
		for (uint32_t i = 0; i < 5; i++)
			send(ring, round * 5 + i);
		assert_int_equal(notify_receive(&inbox, tags, 3), 3);
		assert_int_equal(notify_receive(&inbox, tags + 3, 5), 2);
		for (uint32_t i = 0; i < 5; i++)
			assert_int_equal(tags[i], expected++);
	}
	assert_int_equal(notify_receive(&inbox, tags, 8), 0);
	free(ring);
}

/* Goal: a full ring refuses the next claim until the reader has taken one. */
static void test_full_ring_refuses(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	uint32_t position, tag;

	(void)state;
	for (uint32_t i = 0; i < NOTIFY_SLOTS; i++)
		send(ring, i);
	assert_false(notify_claim(ring, &seen_tail, &position));
	assert_int_equal(notify_receive(&inbox, &tag, 1), 1);
	assert_true(notify_claim(ring, &seen_tail, &position));
	assert_false(notify_claim(ring, &seen_tail, &position));
	free(ring);
}

/* Goal: a position that is claimed and not yet published holds back those behind it. */
static void test_unpublished_holds_back(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	uint32_t first = 0, tags[2];

	(void)state;
	assert_true(notify_claim(ring, &seen_tail, &first));
	send(ring, 2);
	assert_int_equal(notify_receive(&inbox, tags, 2), 0);
	notify_publish(ring, first, 1);
	assert_int_equal(notify_receive(&inbox, tags, 2), 2);
	assert_int_equal(tags[0], 1);
	assert_int_equal(tags[1], 2);
	free(ring);
}

/* Goal: positions wrap at 32 bits without a tag lost, repeated or delivered early. */
static void test_positions_wrap(void **state)
{
	struct notify_ring *ring = new_ring();
	uint32_t start = UINT32_MAX - NOTIFY_SLOTS / 2;
	struct notify_inbox inbox = {.ring = ring, .position = start};
	uint32_t tag;

	(void)state;
	atomic_store(&ring->head, start);
	atomic_store(&ring->tail, start);
	for (uint32_t i = 0; i < 4 * NOTIFY_SLOTS; i++) {
		assert_int_equal(notify_receive(&inbox, &tag, 1), 0);
		send(ring, i);
		assert_int_equal(notify_receive(&inbox, &tag, 1), 1);
		assert_int_equal(tag, i);
	}
	free(ring);
}

/* Goal: whatever a hostile client writes, a read ends and gives no more than was asked for. */
static void test_hostile_ring_is_bounded(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	uint32_t tags[2 * SLU_NOTIFICATIONS_MAX];

	(void)state;
	memset(ring, 0xff, sizeof(*ring));
	assert_int_equal(notify_receive(&inbox, tags, 4), 0);
	for (uint32_t i = 0; i < NOTIFY_SLOTS; i++)
		atomic_store(&ring->slots[i], notify_word(i, i));
	assert_int_equal(notify_receive(&inbox, tags, 2 * NOTIFY_SLOTS), NOTIFY_SLOTS);
	atomic_store(&ring->tail, 12345);
	atomic_store(&ring->head, 54321);
	assert_int_equal(notify_receive(&inbox, tags, 4), 0);
	assert_int_equal(inbox.position, NOTIFY_SLOTS);
	free(ring);
}

static void *produce(void *arg)
{
	struct notify_ring *ring = arg;
	static _Atomic uint32_t next_producer;
	uint32_t producer = atomic_fetch_add(&next_producer, 1), position;

	for (uint32_t i = 0; i < PER_PRODUCER; i++) {
		while (!notify_claim(ring, &seen_tail, &position))
			sched_yield();
		notify_publish(ring, position, producer << 16 | i);
	}
	return NULL;
}

/* Goal: several pollers of one client share the ring: all tags arrive once, each poller's in order.
 */
static void test_many_producers(void **state)
{
	struct notify_ring *ring = new_ring();
	struct notify_inbox inbox = {.ring = ring};
	uint32_t next[PRODUCERS] = {0}, received = 0, tags[64];
	pthread_t threads[PRODUCERS];

	(void)state;
	for (int i = 0; i < PRODUCERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, produce, ring), 0);
	while (received < PRODUCERS * PER_PRODUCER) {
		uint32_t n = notify_receive(&inbox, tags, 64);

		for (uint32_t i = 0; i < n; i++) {
			assert_in_range(tags[i] >> 16, 0, PRODUCERS - 1);
			assert_int_equal(tags[i] & 0xffff, next[tags[i] >> 16]++);
		}
		received += n;
		if (n == 0)
			sched_yield();
	}
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(threads[i], NULL);
	free(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_over_laps),
		cmocka_unit_test(test_full_ring_refuses),
		cmocka_unit_test(test_unpublished_holds_back),
		cmocka_unit_test(test_positions_wrap),
		cmocka_unit_test(test_hostile_ring_is_bounded),
		cmocka_unit_test(test_many_producers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
