/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * Is there a GPU? CUDA's driver library is opened at run time; nothing of it is needed to build.
 */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include <stddef.h>

/**
 * Count the CUDA devices that this process can use. Any thread; may take a second the first time.
 *
 * @param why  out: when the answer is 0, one line that says why (no driver library, no device,
 *             driver error and its name, left out of the build)
 * @return     devices, 0 or more
 */
int gpu_count(char *why, size_t why_size);

#endif
