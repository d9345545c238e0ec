/* SPDX-License-Identifier: Apache-2.0 */
#include "env/eal.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>

#include "base/log.h"
#include "base/thread.h"

/* Of EAL's own, touched only where it is used; rings and pools are not in it (memory/heap.h). */
#define MEMORY_MIB "64"

/* What EAL, the control thread and a poller open before the first client. */
#define DESCRIPTORS_MIN 24

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool tried; /* to start one of ours, which may have begun and then failed */
static bool started;
static bool hosted;

static ssize_t log_from_eal(void *cookie, const char *text, size_t length)
{
	size_t line = length;

	(void)cookie;
	while (line > 0 && text[line - 1] == '\n')
		line--;
	if (line > 0)
		log_debug("%.*s", (int)line, text);
	return (ssize_t)length;
}

static void redirect_log(void)
{
	FILE *stream = fopencookie(NULL, "w", (cookie_io_functions_t){.write = log_from_eal});

	if (!stream)
		return;
	setvbuf(stream, NULL, _IOLBF, BUFSIZ);
	rte_openlog_stream(stream);
}

/* It has a heap for each node from the moment on that its memory can be used: lcores and all that
 * it can be asked besides are known before, also where it then failed. */
static bool eal_is_up(void)
{
	char name[32];

	snprintf(name, sizeof(name), "socket_%d", rte_socket_id_by_idx(0));
	return rte_malloc_heap_get_socket(name) >= 0;
}

static int first_cpu(const cpu_set_t *allowed)
{
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, allowed))
			return cpu;
	return 0;
}

/* Nothing is put there, but EAL makes the folders all the same. */
static void remove_runtime_folders(void)
{
	const char *folder = rte_eal_get_runtime_dir();
	char parent[256];
	char *slash;

	snprintf(parent, sizeof(parent), "%s", folder);
	slash = strrchr(parent, '/');
	if (!slash || rmdir(folder) < 0)
		return;
	*slash = '\0';
	rmdir(parent);
}

static int start(const cpu_set_t *allowed)
{
	char lcores[32];
	char *args[] = {
		"sluice",      "--no-pci", "--no-telemetry", "--iova-mode=va",      "--no-huge",
		"--no-shconf", "-m",       MEMORY_MIB,       "--log-level=warning", "--lcores",
		lcores};

	/* EAL counts to 128 CPUs, the machine may have more: lcore 0 on a CPU that we may use. */
	snprintf(lcores, sizeof(lcores), "0@%d", first_cpu(allowed));
	redirect_log();
	tried = true;
	if (rte_eal_init(sizeof(args) / sizeof(args[0]), args) < 0)
		return fail(-EIO, "DPDK's EAL did not start: %s (a debug log says more)",
			    rte_strerror(rte_errno));
	remove_runtime_folders();
	return 0;
}

/* EAL panics and libevent exits the process when they run out of descriptors: look before. */
static int check_descriptors(void)
{
	int fds[DESCRIPTORS_MIN];
	int open = 0;

	while (open < DESCRIPTORS_MIN && (fds[open] = eventfd(0, EFD_CLOEXEC)) >= 0)
		open++;
	for (int i = 0; i < open; i++)
		close(fds[i]);
	return open < DESCRIPTORS_MIN
		       ? fail(-EMFILE,
			      "an engine needs %d file descriptors, %d are left: raise the "
			      "limit with ulimit -n",
			      DESCRIPTORS_MIN, open)
		       : 0;
}

static int start_here(void)
{
	char name[16] = "";
	cpu_set_t allowed;
	int rc;

	if (pthread_getaffinity_np(pthread_self(), sizeof(allowed), &allowed) != 0)
		return fail(-EIO, "cannot read this thread's CPU affinity");
	pthread_getname_np(pthread_self(), name, sizeof(name));
	rc = start(&allowed);
	pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	pthread_setname_np(pthread_self(), name);
	return rc;
}

static void *read_cpus(void *arg)
{
	pthread_getaffinity_np(pthread_self(), sizeof(cpu_set_t), arg);
	return NULL;
}

/*
 * Whoever opens the engine is likely to be pinned, by EAL, to a core that polls. What is left for
 * threads like ours EAL tells nobody, but it puts threads there.
 */
static int join_host(void)
{
	cpu_set_t cpus;
	pthread_t thread;
	int rc;

	CPU_ZERO(&cpus);
	rc = rte_ctrl_thread_create(&thread, "slu-cpus", NULL, read_cpus, &cpus);
	if (rc < 0)
		return fail(rc, "cannot start a thread of EAL's: %s", strerror(-rc));
	pthread_join(thread, NULL);
	thread_keep_to(&cpus);
	hosted = true;
	log_info("the EAL of this process is used: our threads keep to %d CPUs that it leaves",
		 CPU_COUNT(&cpus));
	return 0;
}

static int start_or_join(void)
{
	if (tried)
		return start_here();
	if (eal_is_up())
		return join_host();
	if (rte_lcore_count() > 0)
		return fail(-EIO,
			    "this process has called rte_eal_init() itself, and it has failed "
			    "or is not over: it has to succeed before an engine is opened");
	return start_here();
}

int eal_start(void)
{
	int rc = check_descriptors();

	pthread_mutex_lock(&lock);
	if (rc == 0 && !started) {
		rc = start_or_join();
		started = rc == 0;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

bool eal_is_hosted(void)
{
	return hosted;
}

uint64_t eal_tsc_hz(void)
{
	return rte_get_tsc_hz();
}
