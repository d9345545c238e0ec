/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for CUDA's driver library: it answers what the environment of the test says. */
#include <stdlib.h>

int cuInit(unsigned flags);
int cuDeviceGetCount(int *count);
int cuGetErrorName(int error, const char **name);

static int number(const char *variable)
{
	const char *text = getenv(variable);

	return text ? atoi(text) : 0;
}

int cuInit(unsigned flags)
{
	return flags ? 1 : number("FAKE_CUDA_INIT");
}

int cuDeviceGetCount(int *count)
{
	*count = number("FAKE_CUDA_COUNT");
	return number("FAKE_CUDA_COUNT_ERROR");
}

int cuGetErrorName(int error, const char **name)
{
	if (error != 100)
		return 1;
	*name = "CUDA_ERROR_NO_DEVICE";
	return 0;
}
