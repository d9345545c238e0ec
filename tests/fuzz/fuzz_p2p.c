/* SPDX-License-Identifier: Apache-2.0 */
/* Names of remotes: whatever is accepted is a terminated name and an address within its bounds. */
#include "directory/p2p.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct p2p_name *name)
{
	const struct endpoint *endpoint = &name->endpoint;

	if (p2p_check_segment(name->segment) < 0)
		abort();
	if (endpoint->is_unix ? endpoint->path_length > sizeof(endpoint->path)
			      : endpoint->tcp.port == 0 || strlen(endpoint->tcp.host) > HOST_MAX)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	struct p2p_name name;

	if (p2p_parse(text, &name) == 0)
		check(&name);
	free(text);
	return 0;
}
