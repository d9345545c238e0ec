/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Facts about this machine that a reader needs to judge a figure.
 */
#ifndef INITIATOR_MACHINE_H
#define INITIATOR_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#define MACHINE_TEXT 128

struct machine {
	char cpu[MACHINE_TEXT];      /* model name */
	char kernel[MACHINE_TEXT];   /* release */
	char hostname[MACHINE_TEXT];
	char governor[MACHINE_TEXT]; /* of CPU 0; "unknown" where the system does not tell */
	char thp[MACHINE_TEXT];      /* transparent hugepages: always, madvise, never, unknown */
	uint32_t cpus_online;
	uint32_t cpus_usable;        /* by this process */
	uint32_t nodes;
	uint64_t memory_bytes;
	uint64_t hugepages_total;    /* of 2 MiB */
	uint64_t hugepages_free;
	int numa_balancing;          /* 1, 0; -1 unknown */
	bool virtual_machine;
};

/** Read what can be read; what cannot says so. */
void machine_read(struct machine *machine);

#endif
