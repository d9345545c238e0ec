/* SPDX-License-Identifier: Apache-2.0 */
#include "common/rdma.h"

#include <errno.h>
#include <string.h>

#include "tests/tap.h"

/* The struct of a program, as far as it matters. */
struct values {
	struct rdma rdma;
};

static const struct option_spec specs[] = {RDMA_FLAGS(struct values, rdma)};

static struct rdma parse(int count, char **words)
{
	struct values values = {0};
	struct options options;

	options_init(&options, specs, sizeof(specs) / sizeof(specs[0]), &values);
	assert_int_equal(options_parse(&options, count, words), 0);
	return values.rdma;
}

/* Goal: without flags the engine gets its own defaults. */
static void test_defaults(void **state)
{
	char *words[] = {"program"};
	struct rdma rdma = parse(1, words);
	struct slu_engine_options defaults, options;

	(void)state;
	slu_engine_options_init(&defaults, sizeof(defaults));
	slu_engine_options_init(&options, sizeof(options));
	memset(&options.rdma, 0x55, sizeof(options.rdma));
	options.rdma.queue_pairs = defaults.rdma.queue_pairs;
	options.rdma.cm = defaults.rdma.cm;
	assert_int_equal(rdma_check(&rdma), 0);
	rdma_apply(&rdma, &options.rdma);
	assert_int_equal(options.rdma.off, defaults.rdma.off);
	assert_ptr_equal(options.rdma.device, defaults.rdma.device);
	assert_int_equal(options.rdma.gid_index, defaults.rdma.gid_index);
	assert_int_equal(options.rdma.mtu, defaults.rdma.mtu);
	assert_int_equal(options.rdma.timeout, defaults.rdma.timeout);
	assert_int_equal(options.rdma.retries, defaults.rdma.retries);
	assert_int_equal(options.rdma.traffic_class, defaults.rdma.traffic_class);
}

/* Goal: each flag reaches the field that it is of. */
static void test_flags(void **state)
{
	char *words[] = {"program",
			 "--no-rdma",
			 "--rdma-device=mlx5_0:2",
			 "--rdma-gid=3",
			 "--rdma-mtu=2048",
			 "--rdma-timeout=18",
			 "--rdma-retries=0",
			 "--rdma-traffic-class=104"};
	struct rdma rdma = parse(sizeof(words) / sizeof(words[0]), words);
	struct slu_rdma_options options = {.queue_pairs = 5, .cm = true};

	(void)state;
	assert_int_equal(rdma_check(&rdma), 0);
	rdma_apply(&rdma, &options);
	assert_true(options.off);
	assert_string_equal(options.device, "mlx5_0:2");
	assert_int_equal(options.gid_index, 3);
	assert_int_equal(options.mtu, 2048);
	assert_int_equal(options.timeout, 18);
	assert_int_equal(options.retries, 0);
	assert_int_equal(options.traffic_class, 104);
	assert_int_equal(options.queue_pairs, 5); /* of the initiator alone */
	assert_true(options.cm);
}

/* Goal: each MTU that there is arrives as its number. */
static void test_mtus(void **state)
{
	static const uint32_t bytes[] = {0, 256, 512, 1024, 2048, 4096};

	(void)state;
	for (int i = 0; rdma_mtus[i]; i++) {
		struct rdma rdma = {.mtu = i};
		struct slu_rdma_options options = {.mtu = 1};

		rdma_apply(&rdma, &options);
		assert_int_equal(options.mtu, bytes[i]);
	}
}

/* Goal: devices are NAME or NAME:PORT, and a timeout has an end. */
static void test_check(void **state)
{
	static const char *const good[] = {"mlx5_0", "mlx5_0:1", "rxe0:255", "a"};
	static const char *const bad[] = {"",         ":1",       "mlx5_0:",    "mlx5_0:0",
					  "mlx5_0:x", "mlx5_0/1", "mlx5_0:256", "mlx5_0:1:1",
					  "a/b",      "a:-1",     "a: 1",       "a:0001"};
	struct rdma rdma = {.on = true, .timeout = -1};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		rdma.device = good[i];
		assert_int_equal(rdma_check(&rdma), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		rdma.device = bad[i];
		assert_int_equal(rdma_check(&rdma), -EINVAL);
	}
	rdma.device = NULL;
	rdma.timeout = 0;
	assert_int_equal(rdma_check(&rdma), -EINVAL);
	rdma.timeout = 1;
	assert_int_equal(rdma_check(&rdma), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_flags),
		cmocka_unit_test(test_mtus),
		cmocka_unit_test(test_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
