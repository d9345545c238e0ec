/* SPDX-License-Identifier: Apache-2.0 */
/* Which queue pair of a link carries what. */
#include "tests/tap.h"

#include "mlx5_model.h"
#include "poller/poller.h"
#include "tests/conformance/rig.h"
#include "transport/verbs/verbs.h"

#define OPERATIONS 8u
#define BULK       UINT64_C(65536)
#define WAIT_US    UINT64_C(600000000)

static struct rig rig;

static const struct verbs_link *link_of(const struct slu_queue *queue)
{
	return ((const struct verbs_path *)rig.remote->paths[queue->poller->index])->link;
}

static void carry_out(enum slu_opcode opcode, uint64_t length)
{
	struct slu_completion done[OPERATIONS];
	struct slu_op op = {.opcode = (uint8_t)opcode,
			    .remote = rig.remote,
			    .region = rig.region,
			    .length = length};
	uint32_t reaped = 0;

	for (uint32_t i = 0; i < OPERATIONS; i++) {
		op.local_offset = op.remote_offset = i * length;
		assert_int_equal(slu_submit(rig.queue, &op, 1), 1);
	}
	while (reaped < OPERATIONS) {
		assert_true(slu_wait(rig.queue, 1, WAIT_US) > 0);
		reaped += (uint32_t)slu_reap(rig.queue, done + reaped, OPERATIONS - reaped);
	}
	for (uint32_t i = 0; i < OPERATIONS; i++)
		assert_int_equal(done[i].status, 0);
}

static uint32_t posted(uint32_t index)
{
	return link_of(rig.queue)->ends[index]->queue->posted;
}

static void test_bulk_apart(void **state)
{
	/* Goal: bulk never goes where the small operations go, nor they where bulk does. */
	uint32_t small, bulk;

	(void)state;
	carry_out(SLU_READ, 64);
	assert_int_equal(link_of(rig.queue)->count, 2);
	small = posted(0);
	bulk = posted(1);
	for (int round = 0; round < 3; round++) {
		carry_out(SLU_WRITE, BULK);
		carry_out(SLU_READ, BULK);
		assert_int_equal(posted(0), small);
		assert_int_equal(posted(1), bulk += 2 * OPERATIONS);
		carry_out(SLU_WRITE, 64);
		assert_int_equal(posted(0), small += OPERATIONS);
		assert_int_equal(posted(1), bulk);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bulk_apart)};
	const struct rig_options options = {.title = "lanes", .transport = SLU_TRANSPORT_VERBS};
	const char *why = mlx5_model_unusable();
	int failed;

	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	rig_open(&rig, &options);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rig_close(&rig);
	return failed;
}
