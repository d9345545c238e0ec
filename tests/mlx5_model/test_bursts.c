/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/tap.h"

#include <stdlib.h>
#include <sys/random.h>

#include "bursts.h"

#define REQUESTS 60000u

static void test_bursts(void **state)
{
	/* Goal: what comes of random bursts is what memcpy makes. SEED in the environment repeats.
	 */
	const char *wanted = getenv("SEED");
	struct bursts_summary summary;
	uint64_t seed = 0;

	(void)state;
	if (wanted)
		seed = strtoull(wanted, NULL, 0);
	else
		assert_int_equal(getrandom(&seed, sizeof(seed), 0), sizeof(seed));
	tap_comment("SEED=0x%llx", (unsigned long long)seed);
	bursts_run(REQUESTS, seed, &summary);
	tap_comment("%llu work requests in %llu bursts, %llu inline, %llu received, %llu failures",
		    (unsigned long long)summary.requests, (unsigned long long)summary.bursts,
		    (unsigned long long)summary.inlined, (unsigned long long)summary.received,
		    (unsigned long long)summary.failures);
	assert_true(summary.requests >= REQUESTS && summary.failures > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bursts)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
