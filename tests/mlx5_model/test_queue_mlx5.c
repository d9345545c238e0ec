/* SPDX-License-Identifier: Apache-2.0 */
/* The send queue of an mlx5 device driven directly, on the model of one. */
#include "tests/tap.h"

#include <string.h>

#include "mlx5_model.h"
#include "pair.h"

static struct pair pair;

static void fill(uint8_t *bytes, uint32_t length, uint32_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static void test_write(void **state)
{
	struct verbs_work work = pair_work(&pair, VERBS_WRITE, 100, 5000, 3000);
	struct verbs_done done;

	(void)state;
	fill(pair.initiator.memory + 100, 3000, 1);
	done = pair_do(&pair, &work);
	assert_int_equal(done.status, IBV_WC_SUCCESS);
	assert_int_equal(done.id, work.id);
	assert_memory_equal(pair.target.memory + 5000, pair.initiator.memory + 100, 3000);
}

static void test_read(void **state)
{
	struct verbs_work work = pair_work(&pair, VERBS_READ, 100, 5000, 3000);
	struct verbs_done done;

	(void)state;
	fill(pair.target.memory + 5000, 3000, 2);
	done = pair_do(&pair, &work);
	assert_int_equal(done.status, IBV_WC_SUCCESS);
	assert_memory_equal(pair.target.memory + 5000, pair.initiator.memory + 100, 3000);
}

static int open_pair(void **state)
{
	struct pair_options options;

	(void)state;
	pair_options_init(&options);
	pair_open(&pair, &options);
	return 0;
}

static int close_pair(void **state)
{
	(void)state;
	pair_close(&pair);
	return 0;
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, open_pair, close_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(test_write),
		with_pair(test_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
