/* SPDX-License-Identifier: Apache-2.0 */
/* CPU lists: whatever is accepted fits its room, is in bounds and has no repeats. */
#include "numa/placement.h"
#include "tests/fuzz/fuzz.h"

#define ROOM 128

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	int *cores = malloc(ROOM * sizeof(*cores)); /* so that an overrun is noticed */
	int count = placement_parse_cores(text, cores, ROOM);

	for (int i = 0; i < count; i++) {
		if (count > ROOM || cores[i] < 0 || cores[i] > PLACEMENT_CPU_MAX)
			abort();
		for (int j = 0; j < i; j++)
			if (cores[i] == cores[j])
				abort();
	}
	free(cores);
	free(text);
	return 0;
}
