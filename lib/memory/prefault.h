/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_PREFAULT_H
#define MEMORY_PREFAULT_H

#include <stdint.h>

#include <sluice/memory.h>

/**
 * Touch every page of a fresh mapping, with several threads when it is large.
 *
 * @param progress  called by this thread every quarter of a second once a second has passed; or
 * NULL
 * @return          0; -ENOMEM the pages are not to be had (no SIGBUS)
 */
int prefault(void *addr, uint64_t length_bytes, slu_progress_fn progress, void *progress_arg);

#endif
