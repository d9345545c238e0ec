/* SPDX-License-Identifier: Apache-2.0 */
/* By itself: what counts system calls does not go together with sanitizers. */
#include "tests/tap.h"

#include "pair.h"
#include "tests/fault/counting.h"

#define ROUNDS 2000
#define BURST  32u

static bool counts_system_calls;

static void make_works(struct pair *pair, struct verbs_work *works)
{
	for (uint32_t i = 0; i < BURST; i++) {
		works[i] = pair_work(pair, i % 4 ? VERBS_WRITE : VERBS_READ, i * 64, i * 64, 64);
		if (i % 4 == 1)
			works[i].flags |= VERBS_INLINE;
	}
}

static void test_hot_path(void **state)
{
	/* Goal: posting, polling and arming neither allocate, lock nor enter the kernel. */
	struct verbs_work works[BURST];
	struct pair_options options;
	struct verbs_queue *queue;
	struct counts counts;
	struct pair pair;
	uint64_t total = 0;

	(void)state;
	pair_options_init(&options);
	options.armable = true;
	pair_open(&pair, &options);
	queue = pair.initiator.queue;
	make_works(&pair, works);
	counting_open();
	for (int i = 0; i < ROUNDS; i++) {
		struct verbs_done done[BURST];
		uint32_t posted = verbs_queue_post(queue, works, BURST), got = 0;

		while (got < posted)
			got += queue->ops->poll(queue, done, BURST);
		queue->ops->arm(queue);
		total += posted;
	}
	counting_close(&counts);
	pair_close(&pair);
	assert_int_equal(total, ROUNDS * BURST);
	assert_int_equal(counts.allocations, 0);
	assert_int_equal(counts.locks, 0);
	if (!counts_system_calls)
		skip_because("no syscall user dispatch: system calls were not counted");
	assert_int_equal(counts.system_calls, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_hot_path)};

	if (WITH_ADDRESS_SANITIZER || WITH_THREAD_SANITIZER) {
		puts("1..0 # SKIP a sanitizer allocates by itself");
		return 0;
	}
	counts_system_calls = counting_init("no other thread") == 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
