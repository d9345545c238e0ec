/* SPDX-License-Identifier: Apache-2.0 */
#include "control/boot_id.h"

#include <stdio.h>
#include <string.h>

void boot_id_read(char id[BOOT_ID_BYTES + 1])
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	memset(id, 0, BOOT_ID_BYTES + 1);
	if (!file)
		return;
	if (fread(id, 1, BOOT_ID_BYTES, file) != BOOT_ID_BYTES)
		id[0] = '\0';
	fclose(file);
}
