/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "initiator/pattern.h"

#define HUGE_PAGE (2 * MIB)
#define SEED      1

void die(const char *format, ...)
{
	va_list args;

	fputs("perf: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void choose_cores(int cores[2])
{
	cpu_set_t usable;
	unsigned found = 0;

	if (sched_getaffinity(0, sizeof(usable), &usable) != 0)
		die("sched_getaffinity: %s", strerror(errno));
	for (int core = 0; core < CPU_SETSIZE && found < 2; core++)
		if (CPU_ISSET(core, &usable))
			cores[found++] = core;
	if (found < 2)
		die("two CPUs are needed, %u may be used", found);
}

static unsigned parse_count(const char *option, const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value == 0 || value > 1000)
		die("--%s %s: a number from 1 to 1000 is wanted", option, text);
	return (unsigned)value;
}

int bench_options(int argc, char **argv, struct bench *bench)
{
	static const struct option options[] = {
		{"cores", required_argument, NULL, 'c'},
		{"rounds", required_argument, NULL, 'r'},
		{"slice-ms", required_argument, NULL, 's'},
		{"only", required_argument, NULL, 'o'},
		{NULL, 0, NULL, 0},
	};
	int option;

	*bench = (struct bench){.rounds = 5, .slice_ns = 20 * NS_PER_SECOND / 1000};
	choose_cores(bench->cores);
	while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		if (option == 'c' &&
		    sscanf(optarg, "%d,%d", &bench->cores[0], &bench->cores[1]) != 2)
			die("--cores %s: two CPUs such as 0,1 are wanted", optarg);
		else if (option == 'r')
			bench->rounds = parse_count("rounds", optarg);
		else if (option == 's')
			bench->slice_ns = parse_count("slice-ms", optarg) * (NS_PER_SECOND / 1000);
		else if (option == 'o')
			bench->only = optarg;
		else if (option == '?')
			exit(2);
	}
	return optind;
}

bool bench_wants(const struct bench *bench, const char *name)
{
	char pattern[256];

	if (!bench->only)
		return true;
	snprintf(pattern, sizeof(pattern), "*%s*", bench->only);
	return fnmatch(pattern, name, 0) == 0;
}

pthread_t core_thread_start(const struct bench *bench, int core, void *(*run)(void *arg), void *arg)
{
	pthread_attr_t attributes;
	pthread_t thread;
	cpu_set_t set;
	int error;

	CPU_ZERO(&set);
	for (int i = 0; i < 2; i++)
		if (core == -1 || core == bench->cores[i])
			CPU_SET(bench->cores[i], &set);
	pthread_attr_init(&attributes);
	pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
	error = pthread_create(&thread, &attributes, run, arg);
	pthread_attr_destroy(&attributes);
	if (error != 0)
		die("a thread on core %d: %s", core, strerror(error));
	return thread;
}

void core_thread_join(pthread_t thread)
{
	pthread_join(thread, NULL);
}

void core_thread_run(const struct bench *bench, int core, void *(*run)(void *arg), void *arg)
{
	core_thread_join(core_thread_start(bench, core, run, arg));
}

pid_t twin_start(int *sync)
{
	int sockets[2];
	pid_t twin;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
		die("socketpair: %s", strerror(errno));
	twin = fork();
	if (twin < 0)
		die("fork: %s", strerror(errno));
	if (twin == 0)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	*sync = sockets[twin == 0];
	close(sockets[twin != 0]);
	return twin;
}

void twin_join(pid_t twin)
{
	int status;

	if (waitpid(twin, &status, 0) != twin || status != 0)
		die("the second process failed");
}

double tick_ns(void)
{
	static double ns;
	uint64_t start, start_ns, end_ns;

	if (ns > 0)
		return ns;
	start = ticks();
	start_ns = clock_kernel_ns();
	do
		end_ns = clock_kernel_ns();
	while (end_ns - start_ns < NS_PER_SECOND / 50);
	ns = (double)(end_ns - start_ns) / (double)(ticks() - start);
	return ns;
}

static int compare_doubles(const void *left, const void *right)
{
	double a = *(const double *)left;
	double b = *(const double *)right;

	return (a > b) - (a < b);
}

double median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), compare_doubles);
	return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

double percentile(double *values, size_t count, double fraction)
{
	size_t index = (size_t)((double)count * fraction);

	qsort(values, count, sizeof(*values), compare_doubles);
	return values[index < count ? index : count - 1];
}

static uint64_t mapped_length(uint64_t length)
{
	return (length + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
}

void *memory_map(uint64_t length, bool huge)
{
	int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE | (huge ? MAP_HUGETLB : 0);
	void *memory = mmap(NULL, mapped_length(length), PROT_READ | PROT_WRITE, flags, -1, 0);

	if (memory == MAP_FAILED)
		die("%llu MiB on %s pages: %s", (unsigned long long)(length / MIB),
		    huge ? "2 MiB" : "ordinary", strerror(errno));
	return memory;
}

void memory_fill(void *memory, uint64_t length, uint64_t which)
{
	pattern_fill(&(struct pattern){.seed = SEED, .generation = which}, 0, memory, length);
}

void memory_unmap(void *memory, uint64_t length)
{
	munmap(memory, mapped_length(length));
}
