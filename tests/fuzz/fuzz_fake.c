/* SPDX-License-Identifier: Apache-2.0 */
/* Behaviours of the fake transport: whatever is accepted is within its documented bounds. */
#include "tests/fuzz/fuzz.h"
#include "transport/fake/fake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	struct fake_behaviour behaviour;

	if (fake_parse(text, &behaviour) == 0 &&
	    (behaviour.capacity < 1 || behaviour.capacity > FAKE_CAPACITY_MAX ||
	     !(behaviour.loss >= 0.0 && behaviour.loss <= 1.0) ||
	     behaviour.delay_min_ns > behaviour.delay_max_ns))
		abort();
	free(text);
	return 0;
}
