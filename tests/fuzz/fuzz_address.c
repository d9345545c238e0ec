/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses: what is accepted is within its bounds, and is the same when written and read again. */
#include <stdio.h>

#include "net/address.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), written[ADDRESS_TEXT_MAX];
	struct host_port at, again;

	if (address_parse(text, &at) == 0) {
		const struct endpoint endpoint = {.tcp = at};

		if (at.host[0] == '\0' || strlen(at.host) > HOST_MAX)
			abort();
		endpoint_format(&endpoint, written);
		if (address_parse(written + strlen("tcp:"), &again) < 0 || again.port != at.port ||
		    strcmp(again.host, at.host) != 0)
			abort();
	}
	free(text);
	return 0;
}
