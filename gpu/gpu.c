/* SPDX-License-Identifier: Apache-2.0 */
#include "gpu/gpu.h"

#include <stdio.h>

#ifdef SLU_GPU_CUDA
#include <dlfcn.h>

/* From the CUDA driver API: CUresult is an int, 0 is CUDA_SUCCESS. */
typedef int (*cu_init_fn)(unsigned flags);
typedef int (*cu_device_get_count_fn)(int *count);
typedef int (*cu_get_error_name_fn)(int error, const char **name);

static const char *error_name(void *driver, int error)
{
	cu_get_error_name_fn cu_get_error_name;
	const char *name = NULL;

	cu_get_error_name = (cu_get_error_name_fn)dlsym(driver, "cuGetErrorName");
	if (!cu_get_error_name || cu_get_error_name(error, &name) != 0 || !name)
		return "unknown error";
	return name;
}

static int count_devices(void *driver, char *why, size_t why_size)
{
	cu_init_fn cu_init = (cu_init_fn)dlsym(driver, "cuInit");
	cu_device_get_count_fn cu_device_get_count =
		(cu_device_get_count_fn)dlsym(driver, "cuDeviceGetCount");
	int count = 0;
	int error;

	if (!cu_init || !cu_device_get_count) {
		snprintf(why, why_size, "libcuda.so.1 is not a CUDA driver library");
		return 0;
	}
	error = cu_init(0);
	if (error == 0)
		error = cu_device_get_count(&count);
	if (error != 0) {
		snprintf(why, why_size, "CUDA driver error %d (%s)", error,
			 error_name(driver, error));
		return 0;
	}
	if (count <= 0)
		snprintf(why, why_size, "no CUDA device");
	return count > 0 ? count : 0;
}

int gpu_count(char *why, size_t why_size)
{
	/* Never closed: an initialised driver keeps threads and state of its own. */
	void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);

	if (!driver) {
		snprintf(why, why_size, "no CUDA driver (libcuda.so.1 cannot be loaded)");
		return 0;
	}
	return count_devices(driver, why, why_size);
}

#else

int gpu_count(char *why, size_t why_size)
{
	snprintf(why, why_size, "CUDA was left out of the build (-Dgpu=false)");
	return 0;
}

#endif
