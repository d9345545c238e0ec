/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * The only code that starts DPDK's EAL. It is started once per process, in memory mode, and stays:
 * EAL cannot be started twice.
 */
#ifndef ENV_EAL_H
#define ENV_EAL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * Start EAL if this process has not: no files, no PCI scan, no telemetry socket; on hugepages when
 * a few are free, else on ordinary pages. The calling thread keeps its affinity and its name.
 *
 * @return 0; -ENOMEM; -EIO EAL refused, its words are in slu_last_error()
 */
int eal_start(void);

/** Rate of the time stamp counter, as EAL found it. */
uint64_t eal_tsc_hz(void);

/** Do rings and pools live on hugepages? */
bool eal_on_hugepages(void);

#endif
