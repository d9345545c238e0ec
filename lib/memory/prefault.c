/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/prefault.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define CHUNK_BYTES (UINT64_C(64) << 20)
#define THREADS_MAX 16
#define QUIET_NS    NS_PER_SECOND
#define PROGRESS_NS (NS_PER_SECOND / 4)

struct prefault {
	char *addr;
	uint64_t length;
	_Atomic uint64_t next; /* first byte not yet taken by a thread */
	_Atomic uint64_t done;
	_Atomic int error;
	slu_progress_fn progress;
	void *progress_arg;
	uint64_t progress_at;
};

/* MADV_POPULATE_WRITE fails where a plain touch would die of SIGBUS; kernels before 5.14 lack it.
 */
static int populate(char *addr, uint64_t length)
{
	while (madvise(addr, length, MADV_POPULATE_WRITE) < 0) {
		if (errno == EINTR || errno == EAGAIN)
			continue;
		if (errno != EINVAL)
			return -ENOMEM;
		for (uint64_t i = 0; i < length; i += 4096)
			*(volatile char *)(addr + i) = 0;
		break;
	}
	return 0;
}

static int take_chunk(struct prefault *job)
{
	uint64_t start = atomic_fetch_add(&job->next, CHUNK_BYTES);
	uint64_t length;

	if (start >= job->length || atomic_load(&job->error))
		return 0;
	length = job->length - start < CHUNK_BYTES ? job->length - start : CHUNK_BYTES;
	if (populate(job->addr + start, length) < 0)
		atomic_store(&job->error, -ENOMEM);
	atomic_fetch_add(&job->done, length);
	return 1;
}

static void *prefault_thread(void *arg)
{
	while (take_chunk(arg))
		;
	return NULL;
}

static void report(struct prefault *job)
{
	uint64_t now = clock_monotonic_ns(NULL);

	if (!job->progress || now < job->progress_at)
		return;
	job->progress_at = now + PROGRESS_NS;
	job->progress(job->progress_arg, atomic_load(&job->done), job->length);
}

static unsigned thread_count(uint64_t length)
{
	uint64_t chunks = (length + CHUNK_BYTES - 1) / CHUNK_BYTES;
	uint64_t cpus = 1;
	cpu_set_t allowed;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
		cpus = (uint64_t)CPU_COUNT(&allowed);
	if (cpus > THREADS_MAX)
		cpus = THREADS_MAX;
	return (unsigned)(chunks < cpus ? chunks : cpus);
}

int prefault(void *addr, uint64_t length_bytes, slu_progress_fn progress, void *progress_arg)
{
	struct prefault job = {.addr = addr,
			       .length = length_bytes,
			       .progress = progress,
			       .progress_arg = progress_arg,
			       .progress_at = clock_monotonic_ns(NULL) + QUIET_NS};
	unsigned helpers = thread_count(length_bytes) - 1;
	pthread_t threads[THREADS_MAX];
	unsigned started = 0;

	/* A thread that cannot be had is done without: this one works too. */
	while (started < helpers &&
	       pthread_create(&threads[started], NULL, prefault_thread, &job) == 0)
		started++;
	while (take_chunk(&job))
		report(&job);
	for (unsigned i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (atomic_load(&job.error))
		return fail(-ENOMEM,
			    "not enough memory on the node: %lu of %lu MiB could be touched",
			    atomic_load(&job.done) >> 20, length_bytes >> 20);
	return 0;
}
