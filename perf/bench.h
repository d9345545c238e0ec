/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file
 * What every benchmark program shares: options, cores, threads that stay where they are put, time,
 * and the way out when something is wrong.
 *
 * A benchmark has nobody to hand an error to: die() ends the process, with exit status 1.
 */
#ifndef PERF_BENCH_H
#define PERF_BENCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)

struct bench {
	int cores[2];      /* the two that everything runs on */
	unsigned rounds;   /* of each row */
	uint64_t slice_ns; /* one uninterrupted stretch of one side of a comparison */
	const char *only;  /* glob: rows whose names contain a match; NULL = all */
};

/** Say why on stderr and exit with status 1. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/**
 * Read "--cores A,B --rounds N --slice-ms N --only TEXT"; what follows them is left to the caller.
 *
 * Without --cores, the first two CPUs that this process may use. Dies on a bad option.
 *
 * @return index of the first argument that is not an option
 */
int bench_options(int argc, char **argv, struct bench *bench);

/** Is row @p name asked for? */
bool bench_wants(const struct bench *bench, const char *name);

/** Start a thread pinned to @p core, or with @p core -1 one that runs on either of the two. */
pthread_t core_thread_start(const struct bench *bench, int core, void *(*run)(void *arg),
			    void *arg);

/** Wait for its end. */
void core_thread_join(pthread_t thread);

/** Run @p run on @p core and wait for its end. */
void core_thread_run(const struct bench *bench, int core, void *(*run)(void *arg), void *arg);

/**
 * Go on as two processes; the second one ends when the first does.
 *
 * @param sync  a socket to the other one
 * @return its pid; 0 in the second
 */
pid_t twin_start(int *sync);

/** First: wait until the second has ended well. */
void twin_join(pid_t twin);

/** Nanoseconds per tick of the time stamp counter; measured at the first call, 20 ms. */
double tick_ns(void);

/** Time stamp after everything before has finished and before anything later starts. */
static inline uint64_t ticks(void)
{
	uint64_t now;

	__builtin_ia32_lfence();
	now = __builtin_ia32_rdtsc();
	__builtin_ia32_lfence();
	return now;
}

/** Median of @p count values, which are sorted in place. */
double median(double *values, size_t count);

/** The value below which @p fraction (0..1) of the sorted values lie. */
double percentile(double *values, size_t count, double fraction);

/** Touched memory, to be filled: on 2 MiB pages or on ordinary ones. Dies when there is none. */
void *memory_map(uint64_t length, bool huge);

/**
 * Fill @p memory with what no processor, hypervisor or wire can shorten: zeros, or pages that are
 * alike, would flatter whoever moves them. No two pages are alike, nor those of two @p which.
 */
void memory_fill(void *memory, uint64_t length, uint64_t which);

void memory_unmap(void *memory, uint64_t length);

#endif
