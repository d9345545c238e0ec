/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The kernel's identity: two processes with the same one are on one host, in whatever containers.
 */
#ifndef CONTROL_BOOT_ID_H
#define CONTROL_BOOT_ID_H

#define BOOT_ID_BYTES 36

/** @p id  empty where the kernel does not tell */
void boot_id_read(char id[BOOT_ID_BYTES + 1]);

#endif
