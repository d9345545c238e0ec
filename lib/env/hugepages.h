/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ENV_HUGEPAGES_H
#define ENV_HUGEPAGES_H

#include <stdint.h>

/** 2 MiB pages that are reserved and free now, over all nodes; 0 when the kernel has none. */
uint64_t hugepages_free(void);

#endif
