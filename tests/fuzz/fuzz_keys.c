/* SPDX-License-Identifier: Apache-2.0 */
/* Key files: what is accepted has identities and keys within their bounds, each found by its name.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/net_internal.h"
#include "tests/fuzz/fuzz.h"

static void check(const struct psk_table *table)
{
	for (uint32_t i = 0; i < table->count; i++) {
		const struct psk *psk = &table->keys[i];

		if (!tls_identity_valid(psk->identity) || psk->length < SLU_PSK_BYTES_MIN ||
		    psk->length > SLU_PSK_BYTES_MAX || psk_find(table, psk->identity) != psk)
			abort();
	}
	if (table->count == 0 || table->first >= table->count)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int fd = memfd_create("keys", MFD_CLOEXEC);
	struct psk_table *table;
	char path[32];

	if (fd < 0 || fchmod(fd, 0600) < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (psk_table_read(path, &table) == 0) {
		check(table);
		psk_table_free(table);
	}
	close(fd);
	return 0;
}
