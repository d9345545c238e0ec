/* SPDX-License-Identifier: Apache-2.0 */
#include "base/barrier.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

bool barrier_is_asymmetric;
bool barrier_reaches_us;
bool barrier_reaches_others;

static int membarrier(int command)
{
	return (int)syscall(SYS_membarrier, command, 0, 0);
}

void barrier_init(void)
{
	barrier_is_asymmetric = membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0;
	barrier_reaches_us = membarrier(MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0;
	barrier_reaches_others = membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) == 0;
}

void barrier_heavy(void)
{
	if (barrier_is_asymmetric)
		membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
	else
		barrier_fence();
}

int barrier_heavy_shared(void)
{
	barrier_fence();
	if (barrier_reaches_others && membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED) < 0)
		return -errno;
	return 0;
}
