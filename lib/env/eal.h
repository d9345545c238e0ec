/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The only code that starts DPDK's EAL. It is started once per process and stays: EAL cannot be
 * started twice, not even after it has failed, so nothing that others can take from it, such as
 * hugepages, may decide whether it starts.
 *
 * A process that has an EAL of its own already is a host: its EAL is used as it is, whatever its
 * memory, and left alone, its log included.
 */
#ifndef ENV_EAL_H
#define ENV_EAL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Start EAL if this process has not: no files, no hugepages, no PCI scan, no telemetry socket. The
 * calling thread keeps its affinity and its name. With a host's, threads of ours keep to the CPUs
 * that it leaves (thread_keep_to()). Any thread.
 *
 * @return 0; -ENOMEM; -EMFILE; -EIO EAL refused, its words are in slu_last_error()
 */
int eal_start(void);

/** Was it there before us? EAL is started. */
bool eal_is_hosted(void);

/** Rate of the time stamp counter, as EAL found it. */
uint64_t eal_tsc_hz(void);

#endif
