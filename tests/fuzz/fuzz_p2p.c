/* SPDX-License-Identifier: Apache-2.0 */
/* Names of remotes: whatever is accepted is a terminated name and an address within its bounds. */
#include "directory/p2p.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	struct p2p_name name;

	if (p2p_parse(text, &name) == 0 &&
	    (p2p_check_segment(name.segment) != 0 || strlen(name.segment) > SLU_NAME_MAX ||
	     name.address_length > sizeof(name.address)))
		abort();
	free(text);
	return 0;
}
